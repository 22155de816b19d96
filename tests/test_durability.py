"""What a session survives: kills, failing disks, power cuts, rot, Ctrl+C. Every experiment is also run on something broken, and must notice.

Small here, whole in `make soak` and in benchmarks/memory.py. tests/durability.py holds the experiments.
"""

import os
import signal
import time
from itertools import pairwise
from pathlib import Path

import pytest
from counting import Counting
from crashes import Model
from disks import KillDisk, TraceDisk
from durability import (
    NAME,
    SPACE,
    Stepped,
    assert_clean,
    assert_notices,
    event_of,
    kill_each_operation,
    kill_recordings,
    power_cuts,
    rot,
)
from kills import killed

from motorbabble.disk import Disk
from motorbabble.errors import SessionDamaged
from motorbabble.experience import Step
from motorbabble.life import live
from motorbabble.recording import reader as reading
from motorbabble.recording import recovery
from motorbabble.recording.format import META
from motorbabble.recording.reader import RecordingReader, Shard
from motorbabble.recording.writer import RecordingWriter
from motorbabble.selectors import RandomSelector

# Kills


class BuffersTen(Stepped):
    """Broken: acknowledges what it has not written."""

    def __init__(self, *args, **settings):
        super().__init__(*args, **settings)
        self.held = []

    def record(self, event, **said):
        self.held.append(event)
        number = self.moments + len(self.held) - 1
        if len(self.held) == 10:
            self.flush()
        return number

    def flush(self):
        held, self.held = self.held, []
        for event in held:
            super().record(event)


class LineFirst(KillDisk):
    """Broken: the line is there before the bytes it speaks of."""

    held: tuple[int, bytes] | None = None

    def write(self, file, data):
        if self.names[file].suffix == ".pack":
            self.held = (file, bytes(data))
            return len(data)
        taken = super().write(file, data)
        if self.held is not None:
            super().write(*self.held)
            self.held = None
        return taken


def cut_one_too_many(shard: Shard) -> tuple[int | None, int, int]:
    whole = sorted(number for number in shard.lines if shard.verified(number) is not None)
    return (whole[-2], shard.ends[whole[-2]], shard.verified(whole[-2]) or 0) if len(whole) > 1 else (None, 0, 0)


def test_a_kill_at_a_random_instant_loses_nothing(folder):
    assert_clean(kill_recordings(20, seed=0, root=folder))


def test_a_buffer_is_noticed(folder):
    assert_notices("lost", kill_recordings, 20, seed=0, root=folder, writer=BuffersTen)


@pytest.mark.parametrize("torn", [False, True])
def test_a_kill_at_any_operation_loses_nothing(folder, torn):
    found = kill_each_operation(folder, torn=torn)
    assert_clean(found)
    assert found.trials > 40


def test_a_line_before_its_bytes_is_noticed(folder):
    assert_notices("unreadable", kill_each_operation, folder, disk=LineFirst)


def test_a_recovery_that_cuts_too_much_is_noticed(folder, monkeypatch):
    monkeypatch.setattr(Shard, "verified_end", cut_one_too_many)
    assert_notices("lost", kill_each_operation, folder)


def test_a_recovery_that_overlooks_a_lonely_pack_is_noticed(folder, monkeypatch):
    monkeypatch.setattr(recovery, "packs_in", lambda folder: [])
    assert_notices("unreadable", kill_each_operation, folder)


@pytest.mark.soak
def test_two_hundred_kills(folder):
    assert_clean(kill_recordings(200, seed=1, root=folder))


# Power cuts


class NeverSyncs(Stepped):
    def _sync(self):
        pass


class NamesUnsynced(TraceDisk):
    """Broken: names of files may be lost however often their bytes are synced."""

    def sync_folder(self, path):
        pass


class NotBuiltYet(TraceDisk):
    """Broken: the session is renamed into place before its names last."""

    def sync_folder(self, path):
        if not path.name.startswith(".new-"):
            super().sync_folder(path)


class PacksUnsynced(TraceDisk):
    def sync(self, file):
        if self.names[file].suffix != ".pack":
            super().sync(file)


class RootUnsynced(TraceDisk):
    """Broken: the folder the sessions lie in may be lost with all of them."""

    def sync_folder(self, path):
        if path.name not in ("disk", "sessions"):
            super().sync_folder(path)


def test_a_power_cut_loses_nothing_that_was_synced():
    found = power_cuts(800, seed=0)
    assert_clean(found)
    assert found.trials == 800


@pytest.mark.parametrize(
    "broken, blamed",
    [
        ({"writer": NeverSyncs}, "lost"),
        ({"disk": NamesUnsynced}, "unreadable"),
        ({"disk": NotBuiltYet}, "unreadable"),
        ({"disk": PacksUnsynced}, "lost"),
        ({"disk": RootUnsynced}, "unreadable"),
    ],
    ids=lambda value: next(iter(value.values())).__name__ if isinstance(value, dict) else value,
)
def test_a_missing_sync_is_noticed(broken, blamed):
    assert_notices(blamed, power_cuts, 300, seed=0, **broken)


def test_a_recovery_that_cuts_too_much_is_noticed_after_a_power_cut(monkeypatch):
    monkeypatch.setattr(Shard, "verified_end", cut_one_too_many)
    assert_notices("lost", power_cuts, 60, seed=0)


@pytest.mark.soak
def test_five_thousand_power_cuts():
    found = power_cuts(10_000, seed=0)
    assert_clean(found)
    assert found.trials >= 5000


def oldest_at_risk(base: Path, sync_seconds: float, seconds: float = 1.7) -> float:
    """By the real clock, with the real thread: age in seconds of the oldest moment that a power cut at any time would lose."""
    begin, trace, oldest = Model(base), TraceDisk(), 0.0
    recording = RecordingWriter.create(base / "sessions", "counting", SPACE, name=NAME, disk=trace, sync_seconds=sync_seconds)
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        trace.note("recorded", recording.record(event_of(recording.moments)))
        time.sleep(0.02)
    until = len(trace.ops)
    recording.close()
    recorded: list[float] = []
    for op, now in list(zip(trace.ops, trace.times, strict=True))[:until]:
        if op.what == "recorded":
            recorded.append(now)
            kept = len(begin.least(f"sessions/{NAME}/events_shard_000.jsonl").splitlines()) - 1
            oldest = max(oldest, now - recorded[kept]) if kept < len(recorded) else oldest
        else:
            begin.apply(op)
    return oldest


def test_no_moment_older_than_a_second_is_at_risk(folder):
    assert 0.0 < oldest_at_risk(folder, 0.5) < 1.0


def test_a_writer_that_syncs_too_seldom_is_noticed(folder):
    assert oldest_at_risk(folder, 60.0) > 1.0


# Rot


def test_rot_is_named_and_never_returned(folder):
    assert_clean(rot(folder, flips=60, truncations=60, seed=0))


def unchecked_bytes(shard: Shard, place) -> bytes:
    return (shard.folder / f"frames_shard_{shard.number:03d}.pack").read_bytes()[place.at : place.at + place.bytes]


def stop_at_the_first(shard: Shard) -> dict[int, bytes]:
    whole = {number: line for number, (line, _) in shard._verified_lines.items()}
    numbers = sorted(whole)
    until = next((a for a, b in pairwise(numbers) if b != a + 1), None)
    return {number: whole[number] for number in numbers if until is None or number <= until}


@pytest.mark.parametrize(
    "where, name, broken, blamed",
    [
        (reading, "is_whole", lambda line: line.endswith(b"}"), "wrong"),
        (Shard, "read", unchecked_bytes, "wrong"),
        (RecordingReader, "damaged", lambda reader: [0], "unnamed"),
        (RecordingReader, "_damage", lambda reader, number: SessionDamaged("somewhere"), "unnamed"),
    ],
)
def test_a_reader_that_checks_too_little_is_noticed(folder, monkeypatch, where, name, broken, blamed):
    monkeypatch.setattr(where, name, broken)
    assert_notices(blamed, rot, folder, flips=100, truncations=60, seed=1)


def test_a_reader_that_gives_up_at_the_first_damage_is_noticed(folder, monkeypatch):
    monkeypatch.setattr(Shard, "line", lambda shard, moment, first: stop_at_the_first(shard).get(moment))
    monkeypatch.setattr(Shard, "lines", property(stop_at_the_first))
    assert_notices("lost", rot, folder, flips=100, truncations=0, seed=1)


@pytest.mark.soak
def test_five_hundred_flips_and_five_hundred_truncations(folder):
    assert_clean(rot(folder, flips=500, truncations=500, seed=2))


def test_metadata_that_rots_is_made_anew_from_a_header(folder):
    with Stepped.create(folder, "counting", SPACE, name=NAME, about={"recipe": "counting"}) as recording:
        recording.record(event_of(0))
    (folder / NAME / META).write_bytes(b"\x00" * 40)
    reader = RecordingReader(folder / NAME)
    assert reader.remade and reader.meta.about == {"recipe": "counting"} and reader.action_space == SPACE
    RecordingWriter.reopen(folder / NAME).close()
    again = RecordingReader(folder / NAME)
    assert not again.remade and again.meta.state == "closed" and again.meta.about == {"recipe": "counting"}


def test_the_counting_robot_lives_through_a_kill(folder):
    """The same life goes on in the same session: numbers follow each other, and no window crosses the cut."""

    def work(say):
        recording = RecordingWriter.create(folder, "counting", SPACE, name=NAME)
        for event in live(Counting(), RandomSelector(1), steps=30):
            assert isinstance(event, Step)
            say(recording.record(event))
        os.kill(os.getpid(), signal.SIGKILL)

    assert killed(work).acknowledged == list(range(30))
    with RecordingWriter.reopen(folder / NAME, disk=Disk()) as recording:
        assert recording.meta.state == "recovered"
        for event in live(Counting(), RandomSelector(1), steps=10):
            assert isinstance(event, Step)
            recording.record(event)
    assert RecordingReader(folder / NAME).stretches == [range(30), range(30, 40)]
