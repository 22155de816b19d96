"""The recorder writes down what `live` yields, with what the learner said last, and keeps its folder within the quota."""

import errno

import numpy as np
import pytest
from counting import Counting
from disks import FaultDisk
from durability import Stoppable, event_of, same

from motorbabble.errors import ConfigurationError, FrameError, QuotaExceeded, RecordingError
from motorbabble.experience import Ending, Observation, Study
from motorbabble.life import live
from motorbabble.recording import writer as writing
from motorbabble.recording.format import PIN, Continues
from motorbabble.recording.reader import RecordingReader
from motorbabble.recording.recorder import Recorder
from motorbabble.recording.shelf import Shelf
from motorbabble.selectors import RandomSelector

SPACE = Counting().action_space


def begun(root, name: str, **settings) -> Recorder:
    return Recorder(root, "counting", SPACE, name=name, **settings)


def filled(root, *names: str, moments: int = 30) -> int:
    """Closed sessions, oldest first; answers the bytes of the last."""
    for name in names:
        with begun(root, name) as recorder:
            for number in range(moments):
                recorder(event_of(number))
    return Shelf(root).find(names[-1]).bytes


def test_each_step_knows_what_the_learner_said_before_it(folder):
    with begun(folder, "a") as recorder:
        recorder(event_of(0))
        recorder(Study(7, {}, "learning", 0.0))
        recorder(Study(8, {}, "passed", 0.0))
        recorder(event_of(1))
        recorder(event_of(2))
        recorder(Study(9, {}, "budget", 0.0))
        recorder(Ending(event_of(3).observation))
        assert recorder.session == "a"
    reader = RecordingReader(folder / "a")
    assert [(reader.moment(n).gate, reader.moment(n).updates) for n in range(3)] == [("", 0), ("passed", 8), ("passed", 8)]
    assert len(reader) == 4 and isinstance(reader.event(3), Ending) and reader.meta.state == "closed"


def test_a_whole_life_is_written_and_its_newest_frame(folder):
    robot, lived = Counting(episode_steps=5), []
    recorder = Recorder(folder, robot.robot_type, robot.action_space)
    for event in live(robot, RandomSelector(0), steps=12):
        recorder(event)
        lived.append(event)
    last = robot.get_observation()
    recorder.close(last)
    recorder.close(last)
    reader = RecordingReader(folder / recorder.session)
    assert all(same(reader.event(number), event) for number, event in enumerate(lived))
    assert len(reader) == len(lived) + 1 and same(reader.event(len(lived)), Ending(last))
    assert (reader.robot_type, reader.action_space) == ("counting", robot.action_space)


def test_metadata_say_what_they_were_told(folder):
    before = Continues("first", 30, True)
    begun(folder, "second", continues=before, about={"recipe": "x"}).close()
    meta = RecordingReader(folder / "second").meta
    assert (meta.session, meta.continues, dict(meta.about), meta.robot_type) == ("second", before, {"recipe": "x"}, "counting")


def test_the_robot_is_stopped_before_the_error_travels(folder):
    robot, disk = Stoppable(), FaultDisk(0, "ENOSPC")
    recorder = begun(folder, "a", stop=robot.stop, disk=disk)
    recorder(event_of(0))
    disk.n, disk.for_good = disk.count + 1, True
    with pytest.raises(RecordingError, match=r"No space left") as caught:
        recorder(event_of(1))
    assert robot.stops == 1 and isinstance(caught.value.__cause__, OSError) and caught.value.__cause__.errno == errno.ENOSPC
    with pytest.raises(RecordingError, match=r"No space left"):
        recorder.close(event_of(2).observation)
    assert robot.stops == 1 and len(RecordingReader(folder / "a")) == 1


@pytest.fixture
def stepped(monkeypatch):
    """Syncs and tidies when told."""
    monkeypatch.setattr(writing.RecordingWriter, "_keep_synced", lambda self, seconds: None)


def test_old_sessions_make_room_before_the_first_step(folder, stepped):
    one = filled(folder, "a", "b", "c")
    recorder = begun(folder, "d", quota=2.5 * one)
    assert Shelf(folder).names() == ["b", "c", "d"]
    recorder.close()


def test_old_sessions_make_room_while_it_is_recorded(folder, stepped):
    one = filled(folder, "a", "b")
    recorder = begun(folder, "c", quota=2.5 * one)
    for number in range(30):
        recorder(event_of(number))
    assert Shelf(folder).names() == ["a", "b", "c"]
    recorder.writer._turn()
    recorder.close()  # which waits for the tidying
    assert Shelf(folder).names() == ["b", "c"] and recorder.writer.failure is None


def test_a_quota_that_cannot_be_kept_is_said_before_anything_is_written(folder):
    one = filled(folder, "a")
    (folder / "a" / f"{PIN}me").touch()
    with pytest.raises(QuotaExceeded, match=r"a is pinned by me"):
        begun(folder, "b", quota=one / 2)
    with pytest.raises(ConfigurationError):
        begun(folder, "b", quota=0)
    assert Shelf(folder).names() == ["a"]


def test_without_a_quota_ten_gigabytes_are_kept(folder):
    filled(folder, "a", "b", moments=2)
    begun(folder, "c").close()
    assert Shelf(folder).names() == ["a", "b", "c"]


def test_a_frame_larger_than_is_read_back_is_refused_and_recording_goes_on(folder, monkeypatch):
    monkeypatch.setattr(writing, "MOST_PIXELS", 64)
    with begun(folder, "a") as recorder:
        recorder(event_of(0))  # 8 x 8
        with pytest.raises(FrameError, match=r"\(8, 9, 3\), more than the 64 pixels"):
            recorder(Ending(Observation(np.zeros((8, 9, 3), np.uint8))))
        recorder(event_of(1))
    reader = RecordingReader(folder / "a")
    assert len(reader) == 2 and reader.damaged() == [] and same(reader.event(1), event_of(1))
