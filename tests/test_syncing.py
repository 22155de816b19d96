"""What was recorded is made last by a thread of its own: soon, in the right order, and without keeping anybody waiting."""

import threading
import time

import pytest
from disks import WatchedDisk
from durability import NAME, SPACE, Stepped, event_of, short_shards

from motorbabble.errors import RecordingError
from motorbabble.recording import writer as writing
from motorbabble.recording.reader import RecordingReader
from motorbabble.recording.writer import SYNC_SECONDS, RecordingWriter


class Synced(WatchedDisk):
    """Knows what was done, and when."""

    def __init__(self):
        super().__init__()
        self.done: list[tuple[str, str]] = []

    def met(self, op):
        self.done.append((op.what, op.path.name))

    def syncs(self) -> int:
        return sum(what == "sync" for what, _ in self.done)


def within(seconds: float, holds) -> bool:
    until = time.monotonic() + seconds
    while not holds() and time.monotonic() < until:
        time.sleep(0.002)
    return holds()


def begun(folder, disk: WatchedDisk, kind=RecordingWriter, **settings) -> RecordingWriter:
    return kind.create(folder, "counting", SPACE, name=NAME, disk=disk, **settings)


def test_every_moment_is_synced_soon(folder):
    disk = Synced()
    with begun(folder, disk, sync_seconds=0.02) as writer:
        for number in range(4):
            before = disk.syncs()
            writer.record(event_of(number))
            assert within(2.0, lambda before=before: disk.syncs() >= before + 2), "its bytes and its line"
        time.sleep(0.03)
        before = disk.syncs()
        time.sleep(0.1)
        assert disk.syncs() == before, "what is synced need not be again"


def test_between_two_passes_the_thread_sleeps(folder):
    disk = Synced()
    with begun(folder, disk, sync_seconds=0.2) as writer:
        assert within(2.0, lambda: not writer._dirty)
        began, before = time.monotonic(), disk.syncs()
        while time.monotonic() < began + 0.5:
            writer.record(event_of(0))
            time.sleep(0.002)
        assert 1 <= (disk.syncs() - before) // 2 <= 4, "one pass in 0.2 s, over two files"
    assert SYNC_SECONDS <= 0.5, "docs/session-format.md promises as much"


def test_packs_then_lines_then_the_folder_and_full_files_are_closed(folder):
    disk = Synced()
    with short_shards(2), begun(folder, disk, Stepped) as writer:
        for number in range(5):
            writer.record(event_of(number))
        disk.done.clear()
        writer._sync()
        pack, lines = "frames_shard_{:03d}.pack".format, "events_shard_{:03d}.jsonl".format
        synced = [("sync", name(shard)) for name in (pack, lines) for shard in range(3)]
        closed = [("close", name(shard)) for shard in range(2) for name in (pack, lines)]
        assert disk.done == [*synced, ("sync_folder", NAME), *closed]
        disk.done.clear()
        writer._sync()
        assert disk.done == [], "nothing came since"
    assert ("close", lines(2)) in disk.done and ("close", pack(2)) in disk.done


def test_closing_waits_for_no_pass(folder):
    disk, began = Synced(), time.monotonic()
    writer = begun(folder, disk, sync_seconds=3600)
    writer.record(event_of(0))
    writer.close()
    assert time.monotonic() - began < 5 and not writer._thread.is_alive()
    assert len(RecordingReader(folder / NAME)) == 1
    last_line = max(at for at, (what, name) in enumerate(disk.done) if what == "write" and name.startswith("events"))
    assert ("sync", "events_shard_000.jsonl") in disk.done[last_line:] and ("sync", "frames_shard_000.pack") in disk.done[last_line:]


def test_a_forgotten_writer_keeps_no_process_alive(folder):
    with begun(folder, Synced(), sync_seconds=3600) as writer:
        assert writer._thread.daemon and writer._thread in threading.enumerate()


def test_an_error_of_the_disk_names_its_file_and_what_to_do(folder, monkeypatch):
    disk = Synced()
    writer = begun(folder, disk, Stepped)
    pack = folder / NAME / "frames_shard_000.pack"

    def full(file, data):
        raise OSError(28, "No space left on device", str(pack))

    monkeypatch.setattr(disk, "write", full)
    with pytest.raises(RecordingError) as caught:
        writer.record(event_of(0))
    assert str(caught.value) == (
        f"the session could not be written to {pack}: No space left on device; free the disk or choose another folder, then go on"
    )
    assert writer.failure is caught.value
    with pytest.raises(RecordingError) as again:
        writer.close()
    assert again.value is caught.value


def test_many_bytes_wake_the_thread_at_once(folder, monkeypatch):
    monkeypatch.setattr(writing, "TIDY_BYTES", 3000)
    tidied = threading.Event()
    with begun(folder, Synced(), sync_seconds=3600, tidy=tidied.set) as writer:
        assert tidied.wait(2.0), "at the beginning"
        tidied.clear()
        for number in range(60):
            writer.record(event_of(number))
        assert tidied.wait(2.0), "and after so many bytes"
