"""The shelf and its quota: what is listed is so, what is pinned stays, and nothing goes that anybody could miss."""

import os
import shutil

import pytest
from quota_machine import Dying, Killed, Quick, begin, closed, crash

from motorbabble.errors import QuotaExceeded, RecordingError
from motorbabble.recording.quota import enforce
from motorbabble.recording.shelf import Shelf, find_session, shelves
from motorbabble.recording.writer import RecordingWriter

# What is listed


def test_a_state_is_what_the_lock_says(tmp_path):
    closed(tmp_path, "a_closed")
    crash(begin(tmp_path, "b_cut"))
    crash(begin(tmp_path, "c_again"))
    RecordingWriter.reopen(tmp_path / "c_again", disk=Quick()).close()
    crash(begin(tmp_path, "d_twice"))
    crash(RecordingWriter.reopen(tmp_path / "d_twice", disk=Quick()))
    live = begin(tmp_path, "e_live")
    states = {entry.name: entry.state for entry in Shelf(tmp_path).list()}
    live.close()
    assert states == {"a_closed": "closed", "b_cut": "cut short", "c_again": "closed", "d_twice": "cut short", "e_live": "live"}


def test_listing_changes_nothing_and_hides_nothing(tmp_path):
    closed(tmp_path, "good", "lost", "spoiled", "piped")
    (tmp_path / "lost" / "session_meta.json").unlink()
    for path in (tmp_path / "spoiled").iterdir():
        path.write_bytes(b"\0" * 100)
    (tmp_path / "piped" / "session_meta.json").unlink()
    os.mkfifo(tmp_path / "piped" / "session_meta.json")
    for name in ("photos", ".trash-old", ".new-0123456789ab", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("cat")
    before = sorted(tmp_path.rglob("*"))
    entries = {entry.name: entry for entry in Shelf(tmp_path).list()}
    assert sorted(tmp_path.rglob("*")) == before
    assert sorted(entries) == ["good", "lost", "piped", "spoiled"]
    assert entries["lost"].state == "cut short", "its metadata is made anew from the shard, which only knows the beginning"
    assert [entries[name].state for name in ("spoiled", "piped")] == ["unreadable"] * 2
    assert "cannot be read" in entries["spoiled"].why and entries["good"].why == ""
    assert Shelf(tmp_path / "nowhere").list() == () and Shelf(tmp_path / "nowhere").usage() == 0


def test_sizes_are_the_blocks_the_disk_uses(tmp_path):
    shelf = closed(tmp_path, "a", "b")
    (tmp_path / "a" / "notes.txt").write_bytes(b"x" * 10**6)  # not ours, not counted
    with open(tmp_path / "b" / "frames_shard_000.pack", "ab") as pack:
        pack.truncate(10**9)  # a hole takes no blocks
    ours = [path for path in (*tmp_path.rglob("*"),) if path.name != "notes.txt"]
    assert shelf.usage() == sum(path.stat().st_blocks * 512 for path in ours) < 10**6
    assert sum(entry.bytes for entry in shelf.list()) == shelf.usage()


def test_sessions_are_found_by_name_path_and_latest(tmp_path):
    closed(tmp_path / "dot", "morning", "noon")
    closed(tmp_path / "body", "noon", "night")
    closed(tmp_path / "body", "nothing", steps=0)
    assert [shelf.root.name for shelf in shelves(tmp_path)] == ["body", "dot"]
    assert find_session("morning", tmp_path) == tmp_path / "dot" / "morning"
    assert find_session("dot/noon", tmp_path) == tmp_path / "dot" / "noon"
    assert find_session("latest", tmp_path) == tmp_path / "body" / "night", "an empty one is of no use to anybody"
    assert find_session("dot/latest", tmp_path) == tmp_path / "dot" / "noon"
    assert find_session(str(tmp_path / "dot" / "noon"), tmp_path / "elsewhere") == tmp_path / "dot" / "noon"
    assert Shelf(tmp_path / "dot").find("noon").meta.moments == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("noon", "2 sessions named 'noon'; say which: body/noon, dot/noon"),
        ("mornin", "did you mean morning?"),
        ("dot/night", "did you mean body/night?"),
        ("zzz", "babble sessions list"),
        ("../outside", "no session"),
        ("..", "no session"),
        ("", "no session"),
        ("a\0b", "no session"),
        ("x" * 300, "no session"),
        ("☃", "no session"),
        ("bird/latest", "no session"),
    ],
)
def test_what_is_not_there_is_said_in_a_sentence(tmp_path, text, says):
    closed(tmp_path / "dot", "morning", "noon")
    closed(tmp_path / "body", "noon", "night")
    with pytest.raises(RecordingError, match=r"\S") as error:
        find_session(text, tmp_path)
    assert says in str(error.value) and "\n" not in str(error.value)
    if "/" not in text and text != "noon":
        with pytest.raises(RecordingError):
            Shelf(tmp_path / "dot").find(text)


def test_latest_of_nothing(tmp_path):
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(RecordingError, match="babble run"):
            find_session("latest", place)


# Pins


def test_pins_have_owners_and_reasons(tmp_path):
    shelf = closed(tmp_path, "a")
    shelf.pin("a")
    shelf.pin("a", "checkpoint-dot.v2", "saved/checkpoints/dot")
    shelf.pin("a", "checkpoint-dot.v2", "moved/checkpoints/dot")
    assert shelf.find("a").pins == {"person": "", "checkpoint-dot.v2": "moved/checkpoints/dot"}
    assert shelf.why_kept("a") == "pinned by checkpoint-dot.v2, person"
    shelf.unpin("a")
    with pytest.raises(RecordingError, match=r"not pinned by person \(its pins: checkpoint-dot.v2\)"):
        shelf.unpin("a")
    shelf.unpin("a", "checkpoint-dot.v2")
    assert shelf.find("a").pins == {} and shelf.why_kept("a") == ""


@pytest.mark.parametrize(("name", "owner"), [("a", "../b"), ("a", ""), ("a", "x.new"), ("a", "x" * 201), ("../a", "person"), ("b", "person")])
def test_a_pin_leads_nowhere_else(tmp_path, name, owner):
    shelf = closed(tmp_path / "dot", "a")
    before = {path for path in tmp_path.rglob("*") if path.name != ".quota.lock"}
    with pytest.raises(RecordingError):
        shelf.pin(name, owner)
    assert {path for path in tmp_path.rglob("*") if path.name != ".quota.lock"} == before


@pytest.mark.parametrize("after", [False, True])
def test_a_pin_being_written_over_is_never_lost(tmp_path, after):
    for operation in range(1, 20):
        shutil.rmtree(tmp_path)
        closed(tmp_path, "a").pin("a", "checkpoint-dot", "old")
        try:
            Shelf(tmp_path, Dying(operation, after)).pin("a", "checkpoint-dot", "new")
        except Killed:
            assert "checkpoint-dot" in Shelf(tmp_path).find("a").pins
            with pytest.raises(QuotaExceeded):
                enforce(tmp_path, 1, Quick())
        else:
            break
        Shelf(tmp_path, Quick()).pin("a", "checkpoint-dot", "new")
        assert Shelf(tmp_path).find("a").pins == {"checkpoint-dot": "new"}
        Shelf(tmp_path, Quick()).unpin("a", "checkpoint-dot")
        assert Shelf(tmp_path).find("a").pins == {} and enforce(tmp_path, 1, Quick()).removed[0].name == "a"
    assert operation == 5, "create, write, rename, sync the folder: each was interrupted"
