"""Recovery cuts what is torn and nothing else, says so in the metadata, and does it in an order that survives a power cut."""

import threading
from pathlib import Path

import numpy as np
import pytest
from disks import TraceDisk
from durability import NAME, SPACE, Stepped, event_of, recorded, same, short_shards

from motorbabble.disk import Disk
from motorbabble.errors import RecordingError, SessionDamaged
from motorbabble.experience import Ending, Step
from motorbabble.recording import reader as reading
from motorbabble.recording.format import META, SessionMeta, events_file, frames_file
from motorbabble.recording.reader import OutOfReach, RecordingReader, Shard, meta_of
from motorbabble.recording.recovery import recover
from motorbabble.recording.writer import RecordingWriter


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "session.lock"}


def shards(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in contents(folder).items() if "shard" in name}


def cut_short(root: Path, moments: int = 6, each: int = 4) -> Path:
    """A session as a kill leaves it."""
    with short_shards(each):
        recorded(root, *(event_of(number) for number in range(moments)))
    folder = root / NAME
    meta = SessionMeta.from_bytes((folder / META).read_bytes())
    (folder / META).write_bytes(SessionMeta(NAME, "counting", SPACE, meta.created_ns, about={"recipe": "x"}).to_bytes())
    return folder


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def test_what_was_never_closed_is_recovered_without_a_cut(folder):
    session = cut_short(folder)
    before = shards(session)
    found = recover(session, Disk())
    assert (found.moments, found.shards, found.episodes, found.cut) == (6, 2, 1, False) and shards(session) == before
    meta, remade = meta_of(session)
    assert found.meta == meta and not remade and dict(meta.about) == {"recipe": "x"}
    assert (meta.state, meta.moments, meta.ended_ns) == ("recovered", 6, meta.created_ns)
    assert recover(session, Disk()) == found


def test_a_closed_session_whose_end_is_lost_is_recovered(folder):
    recorded(folder, *(event_of(number) for number in range(5)))
    session = folder / NAME
    ended = meta_of(session)[0].ended_ns
    lines = session / events_file(0)
    lines.write_bytes(b"".join(lines.read_bytes().splitlines(keepends=True)[:-1]))
    found = recover(session, Disk())
    assert (found.moments, found.cut) == (4, True), "the last moment's bytes in the pack have no line"
    assert (found.meta.state, found.meta.moments, found.meta.ended_ns) == ("recovered", 4, ended)


@pytest.mark.parametrize(("torn", "where"), [(b'{"moment":6,"ki', events_file(1)), (b"\x89PNG torn", frames_file(1))])
def test_both_files_are_cut_behind_the_last_whole_moment(folder, torn, where):
    session = cut_short(folder)
    before = shards(session)
    append(session / where, torn)
    found = recover(session, Disk())
    assert found.cut and found.moments == 6 and shards(session) == before


def test_a_line_whose_bytes_are_torn_goes_with_them(folder):
    session = cut_short(folder)
    before = shards(session)
    place = RecordingReader(session).moment(5).frame
    pack = session / frames_file(1)
    pack.write_bytes(pack.read_bytes()[: place.at + 5])
    found = recover(session, Disk())
    assert (found.moments, found.shards, found.cut) == (5, 2, True)
    assert pack.read_bytes() == before[pack.name][: place.at] and before[events_file(1)].startswith((session / events_file(1)).read_bytes())
    assert RecordingReader(session).readable() == [0, 1, 2, 3, 4] and RecordingReader(session).damaged() == []


def test_shards_without_a_whole_moment_at_the_end_go(folder):
    session = cut_short(folder)
    before = shards(session)
    (session / frames_file(2)).write_bytes(b"never spoken of")
    (session / events_file(3)).write_bytes(b'{"header":1,"torn')
    (session / frames_file(3)).write_bytes(b"")
    found = recover(session, Disk())
    assert (found.moments, found.shards, found.cut) == (6, 2, True) and shards(session) == before


def test_empty_files_go_but_are_no_cut(folder):
    session = cut_short(folder)
    before = shards(session)
    (session / frames_file(2)).write_bytes(b"")
    found = recover(session, Disk())
    assert (found.shards, found.cut) == (2, False) and shards(session) == before


def test_a_session_of_which_nothing_is_left_begins_again(folder):
    session = cut_short(folder, moments=3)
    (session / frames_file(0)).write_bytes(b"")
    found = recover(session, Disk())
    assert (found.moments, found.shards, found.episodes, found.cut) == (0, 0, 0, True) and shards(session) == {}
    assert found.meta.moments == 0 and len(RecordingReader(session)) == 0


def test_episodes_are_counted_on_behind_the_newest(folder):
    session = cut_short(folder, moments=14)
    assert recover(session, Disk()).episodes == event_of(13).observation.episode + 1 == 3
    with RecordingWriter.reopen(session) as writer:
        writer.record(event_of(0))
    assert [moment.episode for moment in map(RecordingReader(session).moment, (13, 14))] == [2, 3]


def test_lost_metadata_is_written_before_what_it_was_made_from_goes(folder):
    session = cut_short(folder, moments=3)
    created = RecordingReader(session).meta.created_ns
    (session / META).unlink()
    (session / frames_file(0)).write_bytes(b"")  # so that the only shard, with the only header, has to go
    disk = TraceDisk()
    found = recover(session, disk)
    renamed = [at for at, op in enumerate(disk.ops) if op.what == "rename" and op.data.name == META]
    removed = [at for at, op in enumerate(disk.ops) if op.what == "remove"]
    assert len(renamed) == 2 and renamed[0] < min(removed) and max(removed) < renamed[1]
    assert found.meta == meta_of(session)[0] and found.meta.created_ns == created and found.meta.state == "recovered"


def test_lost_metadata_of_a_whole_session_is_made_anew(folder):
    session = cut_short(folder)
    (session / META).write_bytes(b"spoiled")
    before = shards(session)
    found = recover(session, Disk())
    assert (found.moments, found.cut) == (6, False) and shards(session) == before
    assert meta_of(session) == (found.meta, False) and found.meta.robot_type == "counting"


def test_the_metadata_speak_last(folder):
    """Else a power cut might leave a count of moments that are cut, or cut files whose names come back."""
    session = cut_short(folder)
    append(session / events_file(1), b"torn")
    (session / frames_file(2)).write_bytes(b"")
    disk = TraceDisk()
    recover(session, disk)
    what = [op.what for op in disk.ops]
    assert what == ["remove", "truncate", "sync", "sync_folder", "create", "write", "sync", "rename", "sync_folder"]


def test_what_cannot_be_read_now_is_not_cut_away(folder, monkeypatch):
    session = cut_short(folder)
    before = contents(session)
    real = Shard.__init__

    def unreachable(self, place, number):
        real(self, place, number)
        if number == 1:
            self.lines, self.trouble = {}, OutOfReach("the disk does not answer")

    monkeypatch.setattr(Shard, "__init__", unreachable)
    with pytest.raises(RecordingError, match="does not answer"):
        recover(session, Disk())
    assert contents(session) == before


# What readers and writers say that recovery relies on


def test_only_an_ending_ends_its_episode(folder):
    reader = recorded(folder, event_of(0), event_of(1), Ending(event_of(2).observation), event_of(6))
    assert [reader.observation(number).ends for number in range(4)] == [False, False, True, False]
    assert [event.observation.ends for event in reader.events()] == [False, False, True, False]
    assert [type(event) for event in reader.events()] == [Step, Step, Ending, Step]


@pytest.mark.parametrize("length", [1, 2, 4])
def test_a_window_is_frames_and_what_led_from_each_to_the_next(folder, length):
    reader = recorded(folder, *(event_of(number) for number in range(5)))
    window = reader.window(1, length)
    assert window.images.shape == (length, 8, 8, 3) and window.actions.shape == (length - 1, 1) and window.actions.dtype == np.float32
    assert all(np.array_equal(window.images[place], event_of(1 + place).observation.image) for place in range(length))
    assert window.actions.ravel().tolist() == [1.0 if (1 + place) % 2 else -1.0 for place in range(length - 1)], "two is 1, one is -1"


def test_a_moment_is_read_without_its_neighbours_lines(folder, monkeypatch):
    session = cut_short(folder, moments=12)
    reader, looked = RecordingReader(session), []
    real = reading.is_whole
    monkeypatch.setattr(reading, "is_whole", lambda line: looked.append(line) or real(line))
    for number in (1, 0, 3, 6, 4, 7):
        assert reader.moment(number).moment == number and same(reader.event(number), event_of(number))
    assert len(looked) == 12, "its own line, for the moment and for the event"


@pytest.mark.parametrize("number", [-1, 2, 10**9])
def test_a_moment_that_never_was_is_not_the_first_nor_the_last(folder, number):
    reader = recorded(folder, event_of(0), event_of(1))
    with pytest.raises(RecordingError, match=rf"life has no moment {number}; it holds 2, counted from 0"):
        reader.moment(number)
    assert same(reader.event(0), event_of(0)) and same(reader.event(1), event_of(1))


def test_the_first_moments_of_a_lost_shard_are_lost_and_not_unknown(folder):
    session = cut_short(folder, moments=6, each=3)
    (session / events_file(0)).write_bytes(b"")
    (session / frames_file(0)).write_bytes(b"")
    reader = RecordingReader(session)
    assert (len(reader), reader.readable(), reader.damaged()) == (6, [3, 4, 5], [0, 1, 2])
    for number in (0, 2):
        with pytest.raises(RecordingError, match=rf"moment {number} of life is lost or damaged"):
            reader.moment(number)
    assert same(reader.event(3), event_of(3))


def test_an_error_without_a_file_names_the_session(folder):
    told: list[int] = []
    stopped = threading.Event()

    def tidy():
        raise ValueError("odd")

    writer = Stepped.create(folder, "counting", SPACE, name=NAME, tidy=tidy, on_failure=lambda: told.append(1) or stopped.set())
    writer.record(event_of(0))
    writer._turn()
    assert stopped.wait(2.0) and told == [1]
    with pytest.raises(RecordingError, match=rf"could not be written to {folder / NAME}: ValueError\('odd'\); free the disk"):
        writer.record(event_of(1))
    with pytest.raises(RecordingError):
        writer.close()
    assert told == [1] and len(RecordingReader(folder / NAME)) == 1


def test_an_empty_session_has_no_moment_but_has_lost_none(folder):
    reader = recorded(folder)
    for number in (0, -1):
        with pytest.raises(RecordingError, match=rf"has no moment {number}; it holds 0") as caught:
            reader.moment(number)
        assert not isinstance(caught.value, SessionDamaged)
