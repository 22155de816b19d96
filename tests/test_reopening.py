"""Sessions that are reopened, recovered, read while they grow, and written by one at a time."""

import json
import os
import shutil
from pathlib import Path

import pytest
from disks import TraceDisk
from durability import NAME, SPACE, Stepped, event_of, recorded, same, short_shards
from kills import killed

from motorbabble.errors import RecordingError, SessionDamaged
from motorbabble.experience import Ending
from motorbabble.recording import reader as reading
from motorbabble.recording import writer as writing
from motorbabble.recording.format import META, events_file, frames_file
from motorbabble.recording.reader import RecordingReader
from motorbabble.recording.recovery import recover
from motorbabble.recording.writer import RecordingWriter, locked


def lines_of(folder: Path, shard: int = 0) -> list[dict]:
    return [json.loads(line) for line in (folder / NAME / events_file(shard)).read_bytes().splitlines()]


def test_reopening_goes_on_where_it_was(folder):
    first = recorded(folder, *(event_of(number) for number in range(3)), Ending(event_of(3).observation))
    assert first.meta.state == "closed"
    with RecordingWriter.reopen(folder / NAME) as writer:
        meta = RecordingReader(folder / NAME).meta
        assert (meta.state, meta.moments, meta.ended_ns) == ("live", None, None)
        assert [writer.record(event_of(number)) for number in (4, 5)] == [4, 5]
    reader = RecordingReader(folder / NAME)
    assert (reader.meta.state, reader.meta.moments, len(reader), reader.damaged()) == ("closed", 6, 6, [])
    assert [moment.episode for moment in map(reader.moment, range(6))] == [0, 0, 0, 0, 1, 1], "never a window across the interruption"
    assert reader.stretches == [range(4), range(4, 6)]
    assert same(reader.event(5), event_of(5), episode=False)
    assert lines_of(folder, 1)[0]["first_moment"] == 4


def test_a_session_cut_short_is_recovered(folder):
    with Stepped.create(folder, "counting", SPACE, name=NAME) as writer:
        for number in range(4):
            writer.record(event_of(number))
        copy = shutil.copytree(folder / NAME, folder / "copy")
    for path in (copy / events_file(0), copy / frames_file(0)):
        with path.open("ab") as file:
            file.write(b'{"moment":4,"torn')
    sizes = {name: (folder / NAME / name).stat().st_size for name in (events_file(0), frames_file(0))}
    assert len(RecordingReader(copy)) == 4 and RecordingReader(copy).damaged() == []
    with locked(copy):
        found = recover(copy, writing.Disk())
        again = recover(copy, writing.Disk())
    assert (found.moments, found.shards, found.episodes, found.cut) == (4, 1, 1, True) and again == found._replace(cut=False)
    assert {name: (copy / name).stat().st_size for name in sizes} == sizes
    meta = RecordingReader(copy).meta
    assert (meta.state, meta.moments, meta.ended_ns) == ("recovered", 4, meta.created_ns)


def test_a_closed_session_is_left_as_it_is(folder):
    recorded(folder, event_of(0), event_of(1))
    before = {path.name: path.read_bytes() for path in (folder / NAME).iterdir()}
    with locked(folder / NAME):
        found = recover(folder / NAME, TraceDisk())
    assert not found.cut and found.meta.state == "closed"
    assert {path.name: path.read_bytes() for path in (folder / NAME).iterdir()} == before


def test_damage_with_whole_moments_behind_it_is_kept(folder):
    with short_shards(4):
        recorded(folder, *(event_of(number) for number in range(10)))
    lines = folder / NAME / events_file(0)
    lines.write_bytes(lines.read_bytes().replace(b'"moment":2,', b'"moment":3,'))
    before = {path.name: path.read_bytes() for path in (folder / NAME).iterdir()}
    RecordingWriter.reopen(folder / NAME).close()
    reader = RecordingReader(folder / NAME)
    assert reader.damaged() == [2] and reader.readable() == [0, 1, *range(3, 10)]
    assert reader.stretches == [range(2), range(3, 6), range(6, 10)], "damage ends a stretch, and so does an episode"
    assert all((folder / NAME / name).read_bytes() == content for name, content in before.items() if name != META)
    with pytest.raises(SessionDamaged, match="moment 2 of life is lost or damaged"):
        reader.window(1, 3)


def test_what_a_closed_session_lost_at_its_end_is_named(folder):
    recorded(folder, *(event_of(number) for number in range(5)))
    lines = folder / NAME / events_file(0)
    lines.write_bytes(b"".join(lines.read_bytes().splitlines(keepends=True)[:-2]))
    reader = RecordingReader(folder / NAME)
    assert len(reader) == 3 and reader.damaged() == [3, 4]
    with pytest.raises(SessionDamaged, match="moment 4 of life is lost or damaged"):
        reader.event(4)


def test_a_session_without_any_moment_can_be_opened(folder):
    reader = recorded(folder)
    assert len(reader) == 0 and reader.stretches == [] and reader.readable() == reader.damaged() == [] and list(reader.events()) == []
    with RecordingWriter.reopen(folder / NAME) as writer:
        assert writer.record(event_of(0)) == 0
    assert sorted(path.name for path in (folder / NAME).glob("*shard*")) == [events_file(0), frames_file(0)]


@pytest.mark.parametrize("opens", [RecordingReader, RecordingWriter.reopen])
def test_what_is_no_session_is_refused_and_left_alone(folder, opens):
    with pytest.raises(RecordingError, match="no session at"):
        opens(folder / "none")
    (folder / "empty").mkdir()
    with pytest.raises(SessionDamaged, match="holds nothing that can be read"):
        opens(folder / "empty")
    assert [path.name for path in folder.iterdir()] == ["empty"]


def test_one_writer_at_a_time(folder):
    with RecordingWriter.create(folder, "counting", SPACE, name=NAME) as writer:
        for elsewhere in (RecordingWriter.reopen, lambda path: locked(path)):
            with pytest.raises(RecordingError, match="being recorded by another process"):
                elsewhere(folder / NAME)
        writer.record(event_of(0))

        def other_process(say):
            with pytest.raises(RecordingError, match="being recorded by another process"):
                RecordingWriter.reopen(folder / NAME)
            say(1)

        assert killed(other_process).acknowledged == [1]
    RecordingWriter.reopen(folder / NAME).close()


def test_a_closed_writer_takes_nothing_more(folder):
    with RecordingWriter.create(folder, "counting", SPACE, name=NAME) as writer:
        writer.record(event_of(0))
    writer.close()
    with pytest.raises(RecordingError, match=f"session {NAME} is closed"):
        writer.record(event_of(1))
    assert len(RecordingReader(folder / NAME)) == 1 and writer.failure is None


def test_a_kept_session_leaves_no_file_open(folder):
    before = len(os.listdir("/proc/self/fd"))
    with short_shards(3):
        for number in range(3):
            reader = recorded(folder, *(event_of(number) for number in range(10)), name=f"{NAME}{number}")
            list(reader.events())
            with pytest.raises(RecordingError):
                RecordingWriter.create(folder, "counting", SPACE, name=f"{NAME}{number}")
    assert len(os.listdir("/proc/self/fd")) == before


def test_reading_beside_a_live_writer(folder):
    """Whatever a reader sees while moments arrive is whole, grows, and never holds more than it said."""
    reading_now = True

    def grows() -> int:
        before, looks = 0, 0
        while reading_now and looks < 60:
            reader = RecordingReader(folder / NAME)
            assert len(reader) >= before and reader.damaged() == []
            before, looks = len(reader), looks + 1
            assert all(same(event, event_of(number)) for number, event in enumerate(reader.events()))
        return looks

    from concurrent.futures import ThreadPoolExecutor

    with short_shards(20), RecordingWriter.create(folder, "counting", SPACE, name=NAME) as writer, ThreadPoolExecutor(1) as pool:
        looking = pool.submit(grows)
        for number in range(300):
            writer.record(event_of(number))
        reading_now = False
        assert looking.result() > 0


def test_a_reader_keeps_to_the_moments_it_counted(folder, monkeypatch):
    monkeypatch.setattr(reading, "SHARDS_KEPT", 1)
    with short_shards(2), Stepped.create(folder, "counting", SPACE, name=NAME) as writer:
        for number in range(5):
            writer.record(event_of(number))
        reader = RecordingReader(folder / NAME)
        reader.moment(0)  # so that the last shard is read again, with what has come since
        writer.record(event_of(5))
        assert reader.readable() == list(range(5)) and len(list(reader.events())) == len(reader) == 5


def test_tidying_happens_at_every_new_shard(folder):
    tidied: list[int] = []
    with short_shards(4), Stepped.create(folder, "counting", SPACE, name=NAME, tidy=lambda: tidied.append(writer.moments)) as writer:
        for number in range(10):
            writer.record(event_of(number))
            writer._turn()
    assert tidied == [1, 5, 9]


def test_tidying_happens_after_many_bytes(folder, monkeypatch):
    monkeypatch.setattr(writing, "TIDY_BYTES", 5000)
    tidied: list[int] = []
    with Stepped.create(folder, "counting", SPACE, name=NAME, tidy=lambda: tidied.append(writer.moments)) as writer:
        writer._turn()
        for number in range(40):
            writer.record(event_of(number))
            if writer._wake.is_set():
                writer._wake.clear()
                writer._turn()
    size = sum(path.stat().st_size for path in (folder / NAME).glob("*shard*"))
    assert size // 7000 <= len(tidied) - 1 <= size // 5000, "the first moment beyond 5,000 bytes is the one that counts"
