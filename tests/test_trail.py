"""A trail knows where each moment of a life is recorded, whatever happened to the sessions since."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from counting import Counting
from durability import event_of, same

from motorbabble.disk import Disk
from motorbabble.errors import RecordingError
from motorbabble.experience import Ending, Step
from motorbabble.recording import trail as trails
from motorbabble.recording.format import Continues, frames_file
from motorbabble.recording.reader import RecordingReader
from motorbabble.recording.trail import Segment, Trail
from motorbabble.recording.writer import RecordingWriter

SPACE = Counting().action_space


class Quick(Disk):
    """Syncs nothing: nobody pulls the plug here."""

    def sync(self, file: int) -> None:
        pass


def session(root: Path, name: str, steps: int, *, begin: int = 0, after: Continues | None = None, life: str = "mine", ended: bool = False, **about):
    """A session that holds steps `begin` on of the life, and an ending where told."""
    with RecordingWriter.create(root, "counting", SPACE, name=name, continues=after, about={"life": life, **about}, disk=Quick()) as writer:
        for number in range(begin, begin + steps):
            writer.record(event_of(number))
        if ended:
            writer.record(Ending(event_of(begin + steps).observation))
    return writer.folder


def walked(root: Path | None, *parts: tuple[str | None, int, int], known=()) -> Trail:
    """A trail of stretches: session or None, first moment in it, how many."""
    trail = Trail(root, known)
    for name, local, count in parts:
        for moment in range(local, local + count):
            trail.add(name, moment)
    return trail


def spoil(folder: Path, moment: int) -> None:
    """One byte of its frame."""
    at, pack = RecordingReader(folder).moment(moment).frame.at + 3, folder / frames_file(0)
    good = pack.read_bytes()
    pack.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])


# Where a moment is


def test_a_moment_is_found_where_it_was_put():
    trail = walked(None, ("a", 5, 3), (None, 0, 2), ("b", 0, 2), ("b", 7, 1))
    expected = [("a", 5), ("a", 6), ("a", 7), None, None, ("b", 0), ("b", 1), ("b", 7)]
    assert trail.moments == 8
    assert [trail.place(moment) for moment in range(8)] == expected
    assert trail.place(8) is None and trail.place(-1) is None
    assert trail.segments == [Segment("a", 0, 5, 3), Segment("b", 5, 0, 2), Segment("b", 7, 7, 1)]


def test_what_follows_without_a_gap_is_one_segment():
    assert walked(None, ("a", 0, 100)).segments == [Segment("a", 0, 0, 100)]
    assert len(walked(None, ("a", 0, 2), (None, 0, 1), ("a", 2, 2)).segments) == 2, "the life lived one in between"
    assert len(walked(None, ("a", 0, 2), ("b", 2, 2)).segments) == 2


def test_an_empty_trail_knows_nothing(tmp_path):
    trail = Trail(tmp_path)
    assert (trail.moments, trail.segments, trail.place(0), trail.sessions(), trail.tail("mine")) == (0, [], None, [], ([], 0))
    assert trail.newest_session("mine") is None and list(trail.newest_steps(10, 0)) == []


def test_a_trail_survives_json():
    trail = walked(None, ("a", 5, 3), (None, 0, 2))
    trail.add("elsewhere", 4, own=False)
    again = Trail(None)
    again.load(json.loads(json.dumps(trail.to_json())))
    assert (again.moments, again.segments) == (trail.moments, trail.segments)
    assert [segment.own for segment in again.segments] == [True, False]


def test_sessions_are_named_once_and_oldest_first():
    trail = walked(None, ("b", 0, 2), ("a", 0, 2), ("b", 5, 1))
    assert trail.sessions() == ["b", "a"]
    assert trail.sessions(since=1) == ["b", "a"] and trail.sessions(since=2) == ["a", "b"]
    assert trail.sessions(since=4) == ["b"] and trail.sessions(since=5) == []


# What was lived


def test_an_event_is_read_from_its_session(tmp_path):
    session(tmp_path, "a", 4, ended=True)
    trail = walked(tmp_path, (None, 0, 3), ("a", 1, 4))
    assert all(same(trail.event(3 + number), event_of(1 + number)) for number in range(3))
    assert isinstance(trail.event(6), Ending)


def test_what_is_recorded_nowhere_is_said(tmp_path):
    trail = walked(tmp_path, (None, 0, 1), ("gone", 0, 1))
    for moment in (0, 1, 2):
        with pytest.raises(RecordingError, match=f"moment {moment} is recorded nowhere"):
            trail.event(moment)


def test_sessions_that_lie_elsewhere_are_known(tmp_path):
    reader = RecordingReader(session(tmp_path / "there", "a", 2))
    assert same(walked(None, ("a", 0, 2), known=[reader]).event(1), event_of(1))
    with pytest.raises(RecordingError):
        walked(None, ("a", 0, 2)).event(1)


def test_a_session_is_opened_once(tmp_path, monkeypatch):
    session(tmp_path, "a", 3)
    trail = walked(tmp_path, ("a", 0, 3))
    trail.event(0)
    monkeypatch.setattr(trails, "RecordingReader", None)
    assert same(trail.event(2), event_of(2))


def test_the_newest_steps_come_backwards_and_are_numbered(tmp_path):
    session(tmp_path, "a", 3, ended=True)
    session(tmp_path, "b", 3, begin=3)
    trail = walked(tmp_path, ("a", 0, 4), ("b", 0, 3))
    found = list(trail.newest_steps(100, 46))
    assert [moment for moment, _ in found] == [6, 5, 4, 2, 1, 0], "an ending is no step"
    assert [step.index for _, step in found] == [45, 44, 43, 42, 41, 40]
    for (_, step), number in zip(found, (5, 4, 3, 2, 1, 0), strict=True):
        assert isinstance(step, Step) and same(replace(step, index=number), event_of(number))
    assert [moment for moment, _ in trail.newest_steps(2, 6)] == [6, 5]
    assert [moment for moment, _ in trail.newest_steps(4, 6)] == [6, 5, 4], "four moments back, of which one is no step"
    assert list(trail.newest_steps(0, 6)) == []


def test_a_damaged_step_keeps_its_number(tmp_path):
    folder = session(tmp_path, "a", 3)
    spoil(folder, 1)
    found = list(walked(tmp_path, ("a", 0, 3)).newest_steps(100, 13))
    assert [(moment, step.index) for moment, step in found] == [(2, 12), (0, 10)]


def test_steps_end_where_nothing_was_recorded(tmp_path):
    session(tmp_path, "a", 3)
    trail = walked(tmp_path, ("a", 0, 1), (None, 0, 1), ("a", 1, 2))
    assert [moment for moment, _ in trail.newest_steps(100, 9)] == [3, 2]


# What came behind it


def named(tail: tuple[list[RecordingReader], int]) -> tuple[list[str], int]:
    return [reader.name for reader in tail[0]], tail[1]


def test_the_tail_is_the_rest_of_the_session_and_all_that_continue_it(tmp_path):
    session(tmp_path, "a", 5)
    session(tmp_path, "c", 2, begin=7, after=Continues("b", 7, True))
    session(tmp_path, "b", 2, begin=5, after=Continues("a", 5, True))
    session(tmp_path, "x", 2, life="another", after=Continues("a", 5, True))
    assert named(walked(tmp_path, ("a", 0, 3)).tail("mine")) == (["a", "b", "c"], 3)
    assert named(walked(tmp_path, ("a", 0, 5)).tail("mine")) == (["b", "c"], 0)
    assert named(walked(tmp_path, ("a", 0, 5), ("b", 0, 1)).tail("mine")) == (["b", "c"], 1)
    assert named(walked(tmp_path, ("c", 0, 2)).tail("mine")) == ([], 0)
    assert named(Trail(tmp_path).tail("another")) == ([], 0), "it continues something, so it is not the first"
    assert named(Trail(tmp_path).tail("mine")) == (["a", "b", "c"], 0)


def test_an_empty_session_is_passed_over(tmp_path):
    session(tmp_path, "a", 2)
    session(tmp_path, "b", 0, after=Continues("a", 2, True))
    session(tmp_path, "c", 2, begin=2, after=Continues("b", 2, True))
    assert named(walked(tmp_path, ("a", 0, 2)).tail("mine")) == (["c"], 0)


def test_what_was_replayed_has_no_tail_of_this_life(tmp_path):
    session(tmp_path, "a", 5)
    session(tmp_path, "other", 5, life="another")
    trail = walked(tmp_path, ("a", 0, 3))
    trail.add("other", 0, own=False)
    assert named(trail.tail("mine")) == (["a"], 3)


def test_a_tail_needs_a_folder(tmp_path):
    assert Trail(None).tail("mine") == ([], 0) and Trail(tmp_path / "none").tail("mine") == ([], 0)
    assert Trail(None).newest_session("mine") is None and Trail(tmp_path / "none").newest_session("mine") is None


def test_sessions_that_are_lost_or_circular_end_the_tail(tmp_path):
    session(tmp_path, "a", 3, after=Continues("b", 0, True))
    session(tmp_path, "b", 3, after=Continues("a", 0, True))
    assert named(walked(tmp_path, ("a", 0, 3)).tail("mine")) == (["b", "a"], 0)
    shutil.rmtree(tmp_path / "b")
    assert named(walked(tmp_path, ("a", 0, 3)).tail("mine")) == ([], 0)


def test_the_newest_session_is_the_one_nobody_continues(tmp_path):
    session(tmp_path, "z", 1)
    session(tmp_path, "b", 1, after=Continues("z", 1, True))
    session(tmp_path, "y", 1, life="another")
    assert Trail(tmp_path).newest_session("mine") == "b" and Trail(tmp_path).newest_session("another") == "y"
    session(tmp_path, "a", 1)
    assert Trail(tmp_path).newest_session("mine") == "a", "of two ends the younger"


def test_what_is_no_session_is_passed_over(tmp_path):
    session(tmp_path, "a", 1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    session(tmp_path / "elsewhere", "linked", 1)
    (tmp_path / "b").symlink_to(tmp_path / "elsewhere" / "linked")
    shutil.copytree(tmp_path / "a", tmp_path / ".trash-a")
    assert Trail(tmp_path).newest_session("mine") == "a"


def test_whether_a_moment_came_right_after(tmp_path):
    a, b = RecordingReader(session(tmp_path, "a", 4)), RecordingReader(session(tmp_path, "b", 2, moment=3))
    trail = walked(tmp_path, ("a", 0, 3))
    assert trail.is_followed_by(a, 3) and not trail.is_followed_by(a, 2) and not trail.is_followed_by(a, 4)
    assert trail.is_followed_by(b, 0) and not trail.is_followed_by(b, 1)
    assert not walked(tmp_path, ("a", 0, 2)).is_followed_by(b, 0), "it began one moment later"
    assert not walked(tmp_path, ("a", 0, 3), (None, 0, 1)).is_followed_by(a, 3), "something unrecorded lies between"
    assert not Trail(tmp_path).is_followed_by(a, 0), "its session does not say where it began"
    replayed = Trail(tmp_path)
    replayed.add("a", 2, own=False)
    assert not replayed.is_followed_by(a, 3)


def test_a_damaged_moment_follows_nothing(tmp_path):
    folder = session(tmp_path, "a", 4)
    spoil(folder, 3)
    assert not walked(tmp_path, ("a", 0, 3)).is_followed_by(RecordingReader(folder), 3)


def test_whether_the_end_of_a_session_was_reached(tmp_path):
    session(tmp_path, "a", 3, ended=True)
    session(tmp_path, "b", 3)
    assert walked(tmp_path, ("a", 0, 3)).reaches_end_of("a"), "from its ending nothing was done"
    assert walked(tmp_path, ("a", 0, 4)).reaches_end_of("a")
    assert not walked(tmp_path, ("a", 0, 2)).reaches_end_of("a")
    assert walked(tmp_path, ("b", 0, 3)).reaches_end_of("b") and not walked(tmp_path, ("b", 0, 2)).reaches_end_of("b")
    assert not walked(tmp_path, ("a", 0, 3)).reaches_end_of("b") and not walked(tmp_path, ("a", 0, 4)).reaches_end_of("gone")
    assert not walked(tmp_path, ("b", 0, 4)).reaches_end_of("b"), "it holds less than was lived"
    assert not walked(tmp_path, ("b", 0, 3), (None, 0, 1)).reaches_end_of("b")
    assert not Trail(tmp_path).reaches_end_of("b")
