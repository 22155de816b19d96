"""What lies in a folder of sessions is told from names, sizes and locks, without following or opening what is not ours."""

import os
import re
import shutil
import time
from pathlib import Path

import pytest
from disks import TraceDisk
from filelock import FileLock
from quota_machine import Quick, begin, closed, crash

from motorbabble.disk import Disk
from motorbabble.errors import QuotaExceeded, RecordingError
from motorbabble.recording import contents, quota
from motorbabble.recording.contents import Contents, created_ns_of, is_held, look_into, read_small, scan, taken
from motorbabble.recording.format import LOCK, META, PIN
from motorbabble.recording.quota import TRASH, Pruned, enforce, prune
from motorbabble.recording.reader import RecordingReader
from motorbabble.recording.shelf import Shelf, find_session, find_sessions, shelves

NAMES = {"events_shard_000.jsonl", "frames_shard_000.pack", META, LOCK}


def aged(folder: Path, seconds: float = 60.0) -> None:
    when = time.time() - seconds
    os.utime(folder, (when, when))


def blocks(*paths: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in paths)


class Refuses(Quick):
    """Removes nothing and renames nothing."""

    def remove(self, path: Path) -> None:
        raise OSError(30, "read-only")

    def rename(self, old: Path, new: Path) -> None:
        self.remove(old)


# One folder


def test_a_session_is_its_files_and_nothing_is_foreign(tmp_path):
    closed(tmp_path, "a")
    inside = look_into(tmp_path / "a")
    assert inside.is_session and inside.foreign == "" and inside.pins == () and set(inside.names) == NAMES
    assert inside.bytes == blocks(tmp_path / "a", *(tmp_path / "a").iterdir())
    assert look_into(str(tmp_path / "a")) == inside == look_into(tmp_path / "a", os.stat(tmp_path).st_dev)


def test_whatever_is_foreign_is_named_and_not_counted(tmp_path):
    closed(tmp_path, "a")
    folder = tmp_path / "a"
    ours = look_into(folder).bytes
    for make in ("file", "folder", "link", "pipe"):
        path = folder / {"file": "notes.txt", "folder": "events_shard_001.jsonl", "link": "frames_shard_001.pack", "pipe": PIN + "me"}[make]
        {"file": lambda p: p.write_bytes(b"x" * 10**5), "folder": os.mkdir, "link": lambda p: p.symlink_to(folder / META), "pipe": os.mkfifo}[make](
            path
        )
        inside = look_into(folder)
        assert inside.foreign == f"holding {path.name!r}, which is not ours", make
        assert inside.bytes == ours and set(inside.names) == NAMES and inside.pins == ()
        path.rmdir() if make == "folder" else path.unlink()
    assert look_into(folder).foreign == ""


def test_pins_are_told_by_their_owners(tmp_path):
    closed(tmp_path, "a")
    for name in ("zoe", "me", "you.new", "you"):
        (tmp_path / "a" / (PIN + name)).touch()
    inside = look_into(tmp_path / "a")
    assert inside.pins == ("me", "you", "zoe") and len(inside.names) == len(NAMES) + 4


@pytest.mark.parametrize("name", [META, "events_shard_000.jsonl", "events_shard_1234.jsonl"])
def test_metadata_or_lines_make_a_session(name):
    assert Contents(0, (LOCK, name), (), "").is_session
    assert not Contents(0, (LOCK, "frames_shard_000.pack", PIN + "me"), (), "").is_session


def test_what_is_gone_or_a_link_is_never_touched(tmp_path):
    closed(tmp_path / "there", "a")
    (tmp_path / "link").symlink_to(tmp_path / "there" / "a")
    assert look_into(tmp_path / "link") == Contents(0, (), (), "a link")
    gone = look_into(tmp_path / "gone")
    assert gone.foreign == "unreadable: No such file or directory" and not gone.is_session and gone.bytes == 0
    assert look_into(tmp_path / "there" / "a", os.stat(tmp_path).st_dev + 1).foreign == "on another disk"


def test_a_file_is_read_but_no_link_and_no_pipe(tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    os.mkfifo(tmp_path / "pipe")
    assert read_small(tmp_path / "a") == b"content"
    before = len(os.listdir("/proc/self/fd"))
    for path in (tmp_path / "link", tmp_path / "gone", tmp_path):
        with pytest.raises(OSError):
            read_small(path)
    assert read_small(tmp_path / "pipe") == b"", "and nobody waits for it"
    assert len(os.listdir("/proc/self/fd")) == before


def test_no_more_than_metadata_may_have_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "MOST_META", 5)
    (tmp_path / "a").write_bytes(b"content")
    assert read_small(tmp_path / "a") == b"conte"


def test_the_age_is_the_metadatas_own(tmp_path):
    closed(tmp_path, "a")
    begin(tmp_path, "b", about={"created_ns": 5, "nested": {"created_ns": 6}}).close()
    for name in ("a", "b"):
        assert created_ns_of(tmp_path / name) == RecordingReader(tmp_path / name).meta.created_ns
    assert created_ns_of(str(tmp_path / "a")) == created_ns_of(tmp_path / "a")
    assert created_ns_of(tmp_path / "gone") is None
    (tmp_path / "a" / META).write_bytes(b'{\n "about": {\n  "created_ns": 5\n }\n}\n')
    assert created_ns_of(tmp_path / "a") is None


# All of them


def test_what_is_no_session_is_left_out(tmp_path):
    closed(tmp_path, "b", "a")
    closed(tmp_path / "elsewhere", "c")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "c")
    (tmp_path / "notes.txt").touch()
    (tmp_path / "empty").mkdir()
    for name in (".new-0123456789ab", "with space"):
        shutil.copytree(tmp_path / "a", tmp_path / name)
    found = scan(tmp_path)
    assert sorted(found) == ["a", "b"] and found["a"] == look_into(tmp_path / "a")


def test_only_what_is_closed_and_at_rest_is_known_for_later(tmp_path):
    closed(tmp_path, "old", "young", "changed")
    live = begin(tmp_path, "live")
    for name in ("old", "live", "changed"):
        aged(tmp_path / name)
    aged(tmp_path / "young", 1.0)  # a stamp may be two seconds coarse
    known: dict = {}
    first = scan(tmp_path, known)
    assert sorted(known) == ["changed", "old"] and sorted(first) == ["changed", "live", "old", "young"]
    assert known["old"].created_ns == created_ns_of(tmp_path / "old") and known["old"].inside == first["old"]
    Shelf(tmp_path, Quick()).pin("changed")
    aged(tmp_path / "changed")
    second = scan(tmp_path, known)
    assert second["changed"].pins == ("person",) and known["changed"].inside == second["changed"]
    shutil.rmtree(tmp_path / "old")
    assert "old" not in scan(tmp_path, known) and sorted(known) == ["changed"]
    live.close()
    aged(tmp_path / "live")
    assert "live" in scan(tmp_path, known) and "live" in known


def test_ages_that_are_known_are_those_that_are_read(tmp_path):
    closed(tmp_path, "a")
    aged(tmp_path / "a", 3.0)
    known: dict = {}
    scan(tmp_path, known)
    assert list(known) == ["a"], "three seconds of rest are enough"


# Locks


def test_a_session_is_held_only_while_somebody_holds_it(tmp_path):
    live = begin(tmp_path, "a")
    assert is_held(tmp_path / "a") and taken(tmp_path / "a") is None
    live.close()
    assert not is_held(tmp_path / "a")
    lock = taken(tmp_path / "a")
    assert isinstance(lock, FileLock) and is_held(tmp_path / "a")
    lock.release()
    assert not is_held(tmp_path / "a")


def test_asking_makes_no_lock(tmp_path):
    assert not is_held(tmp_path) and not is_held(tmp_path / "gone")
    assert list(tmp_path.iterdir()) == []


def test_a_lock_held_for_an_instant_is_no_writer(tmp_path, monkeypatch):
    """Another process may just be asking, as `is_held` does."""
    closed(tmp_path, "a")
    real, asked = contents.locked, []

    def busy_once(folder):
        asked.append(folder)
        if len(asked) == 1:
            raise RecordingError("busy")
        return real(folder)

    monkeypatch.setattr(contents, "locked", busy_once)
    assert not is_held(tmp_path / "a") and len(asked) == 2


@pytest.mark.parametrize(("error", "held"), [(PermissionError(13, "another user's"), True), (OSError(30, "read-only disk"), False)])
def test_a_lock_that_cannot_be_asked(tmp_path, monkeypatch, error, held):
    closed(tmp_path, "a")

    def refuse(folder):
        raise error

    monkeypatch.setattr(contents, "locked", refuse)
    assert is_held(tmp_path / "a") is held


# The shelf


def test_names_are_of_folders_that_are_not_hidden(tmp_path):
    closed(tmp_path, "b", "a")
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".trash-x").mkdir()
    assert Shelf(tmp_path).names() == ["a", "b"] and Shelf(tmp_path / "nowhere").names() == []


def test_a_link_is_shown_but_nothing_of_it_is_counted_pinned_or_removed(tmp_path):
    closed(tmp_path / "there", "a")
    shelf = closed(tmp_path / "here", "own")
    (tmp_path / "here" / "link").symlink_to(tmp_path / "there" / "a")
    (tmp_path / "here" / "dead").symlink_to(tmp_path / "nowhere")
    (tmp_path / "here" / "picture").symlink_to(tmp_path)
    assert [(entry.name, entry.is_link) for entry in shelf.list()] == [("link", True), ("own", False)]
    assert shelf.usage() == shelf.find("own").bytes and shelf.find("link").is_link and shelf.why_kept("link") == "a link"
    with pytest.raises(RecordingError, match=r"link is a link to another place"):
        shelf.pin("link")
    assert [removed.name for removed in shelf.prune(1).removed] == ["own"]
    assert (tmp_path / "there" / "a" / META).exists()


def test_a_session_without_metadata_comes_first_and_has_no_age(tmp_path):
    shelf = closed(tmp_path, "a", "b")
    for path in (tmp_path / "b").iterdir():
        path.write_bytes(b"spoiled")
    assert [(entry.name, entry.created_ns == 0, entry.state) for entry in shelf.list()] == [("b", True, "unreadable"), ("a", False, "closed")]
    assert shelf.why_kept("b") == "without readable metadata" and shelf.why_kept("a") == ""
    with pytest.raises(RecordingError, match=re.escape("'../a' is no session name")):
        shelf.why_kept("../a")


def test_a_live_or_cut_session_is_kept_for_a_reason(tmp_path):
    live = begin(tmp_path, "live")
    crash(begin(tmp_path, "cut"))
    shelf = Shelf(tmp_path, Quick())
    assert shelf.why_kept("live") == "live" and shelf.why_kept("cut") == ""
    (tmp_path / "cut" / LOCK).unlink()
    assert shelf.why_kept("cut") == "live, but without its lock"
    live.close()


def test_the_shelf_works_with_the_disk_it_was_given(tmp_path):
    closed(tmp_path, "a")
    shelf = Shelf(tmp_path, Refuses())
    assert shelf.prune(1).kept == {"a": "not removable: read-only"}
    with pytest.raises(QuotaExceeded, match=r"not removable: read-only"):
        shelf.enforce(1)
    assert shelf.prune(1, dry_run=True).removed[0].name == "a" and shelf.names() == ["a"]
    assert isinstance(Shelf(tmp_path).disk, Disk) and Shelf(tmp_path).prune().removed == () and Shelf(tmp_path).enforce().removed == ()
    assert shelves(tmp_path.parent, shelf.disk)[0].disk is shelf.disk
    assert [removed.name for removed in Shelf(tmp_path).enforce(1).removed] == ["a"]


def test_a_pin_and_its_end_last(tmp_path):
    closed(tmp_path, "a")
    disk, pin = TraceDisk(), tmp_path / "a" / (PIN + "person")
    shelf = Shelf(tmp_path, disk)
    shelf.pin("a", why="kept")
    assert [op.what for op in disk.ops] == ["create", "write", "sync", "rename", "sync_folder"] and disk.ops[3].data == pin
    assert disk.ops[4].path == tmp_path / "a" and pin.read_text() == "kept"
    disk.ops.clear()
    shelf.unpin("a")
    assert [(op.what, op.path) for op in disk.ops] == [("remove", pin), ("sync_folder", tmp_path / "a")]


def test_pinning_needs_a_folder_of_sessions(tmp_path):
    with pytest.raises(RecordingError, match=r"there are no sessions in .*nowhere; choose another folder"):
        Shelf(tmp_path / "nowhere").pin("a")
    shelf = closed(tmp_path, "a")
    for owner in ("", "a/b", "x.new", 7):
        with pytest.raises(RecordingError, match=r"cannot own a pin"):
            shelf.pin("a", owner)  # type: ignore[arg-type]


def test_all_sessions_are_found_oldest_first_and_once(tmp_path):
    closed(tmp_path / "dot", "z")
    closed(tmp_path / "body", "y")
    closed(tmp_path / "dot", "x")
    for path in closed(tmp_path / "dot", "spoiled").find("spoiled").folder.iterdir():
        path.write_bytes(b"spoiled")
    z, y, x = tmp_path / "dot" / "z", tmp_path / "body" / "y", tmp_path / "dot" / "x"
    assert find_sessions(["all"], tmp_path) == [z, y, x]
    assert find_sessions(["dot/all"], tmp_path) == [z, x]
    assert find_sessions(["x", "body/y", "all", str(x)], tmp_path) == [x, y, z]
    assert find_session("dot/latest", tmp_path) == x
    for text in ("bird/all", "spoilt/all"):
        with pytest.raises(RecordingError, match=r"there is no session in .*/(bird|spoilt); record one"):
            find_sessions([text], tmp_path)
    with pytest.raises(RecordingError, match=r"there is no session in"):
        find_sessions(["all"], tmp_path / "nowhere")


def test_each_session_that_stays_has_its_reason(tmp_path):
    assert prune(tmp_path / "nowhere", 1) == Pruned((), 0, {})
    closed(tmp_path, "a", "b", "c", "d", "gone")
    live = begin(tmp_path, "live")
    Shelf(tmp_path, Quick()).pin("a")
    (tmp_path / "b" / "notes.txt").touch()
    (tmp_path / "c" / META).write_bytes(b"spoiled")
    (tmp_path / (TRASH + "d")).mkdir()
    (tmp_path / (TRASH + "d") / "notes.txt").touch()
    reasons = {
        "a": "pinned by person",
        "b": "holding 'notes.txt', which is not ours",
        "c": "without readable metadata",
        "d": "behind an unfinished removal of the same name",
        "live": "live",
    }
    would = prune(tmp_path, 1, dry_run=True)
    assert {removed.name for removed in would.removed} == {"d", "gone"}
    done = prune(tmp_path, 1, disk=Quick())
    assert done.kept == reasons and [removed.name for removed in done.removed] == ["gone"]
    assert done.used == Shelf(tmp_path).usage() > 0
    with pytest.raises(QuotaExceeded) as caught:
        enforce(tmp_path, 1, Quick())
    told = [f"{name} is {reasons[name]}" for name in prune(tmp_path, 1, disk=Quick()).kept]
    assert f"({told[0]}; {told[1]}; {told[2]}; 2 more); unpin" in str(caught.value)
    live.close()


def test_one_enforcer_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(quota, "PATIENCE_SECONDS", 0.05)
    with quota.only_enforcer(tmp_path), pytest.raises(RecordingError, match=rf"another process has been tidying {tmp_path} for 0 s"):
        Shelf(tmp_path).prune(1)
    assert Shelf(tmp_path).prune(1) == Pruned((), 0, {})


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1 kB"), (999_499, "999 kB"), (999_600, "1 MB"), (1.5e9, "1.5 GB"), (2e12, "2e+03 GB")],
)
def test_sizes_in_words(size, words):
    assert quota.in_words(size) == words
