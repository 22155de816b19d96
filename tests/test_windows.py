"""Windows from disk: true stretches of life, in an order that repeats, never from what is held out, never damaged."""

import threading
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from counting import Counting, read
from test_learning import assert_whole

from motorbabble.errors import ConfigurationError, RecordingError
from motorbabble.experience import ActionSpace
from motorbabble.learning import windows as windows_file
from motorbabble.learning.windows import Part, SessionWindows, hold_out
from motorbabble.life import live
from motorbabble.recording.format import frames_file
from motorbabble.recording.reader import RecordingReader
from motorbabble.recording.recorder import Recorder
from motorbabble.selectors import RandomSelector


def recorded(folder: Path, steps: int = 30, first: int = 0, robot: Counting | None = None, **settings) -> RecordingReader:
    """A counting robot's life on disk; it counts from `first`, so that frames of different sessions differ."""
    robot = robot or Counting(**settings)
    robot.count = first
    with Recorder(folder, robot.robot_type, robot.action_space) as recorder:
        for event in live(robot, RandomSelector(first), steps=steps):
            recorder(event)
    return RecordingReader(folder / recorder.session)


def counts(windows) -> list[int]:
    return [read(image)[0] for window in windows for image in window.images]


def drawn(windows: SessionWindows, size: int, batches: int, position: int = 0, rank: int = 0, processes: int = 1) -> list[list[int]]:
    """What stands in the frames of each of the next batches."""
    with closing(windows.batches(position, size, rank, processes)) as coming:
        return [counts(batch) for batch in islice(coming, batches)]


def damage(reader: RecordingReader, moment: int) -> None:
    path = reader.folder / frames_file(0)
    data = bytearray(path.read_bytes())
    data[reader.moment(moment).frame.at + 20] ^= 1
    path.write_bytes(data)


def test_windows_are_true_stretches_of_life(tmp_path):
    reader = recorded(tmp_path, 40, episode_steps=7)
    windows = SessionWindows([Part.whole(reader)], 3)
    for position in range(len(windows)):
        assert_whole(windows.at(position))
    assert sorted(windows.place(p)[1] for p in range(len(windows))) == [
        m for m in range(40) if all(m + 2 in s for s in reader.stretches if m in s) and m + 2 < len(reader)
    ]


def test_a_window_across_stretches_would_be_noticed(tmp_path):
    reader = recorded(tmp_path, 40, episode_steps=7)
    windows = SessionWindows([Part(reader, (range(len(reader)),))], 3)
    with pytest.raises(AssertionError):
        for position in range(len(windows)):
            assert_whole(windows.at(position))


def test_every_epoch_shows_every_window_once_in_an_order_of_its_own(tmp_path):
    parts = [Part.whole(recorded(tmp_path, 12, first)) for first in (0, 1000)]
    windows, same, other = (SessionWindows(parts, 3, seed) for seed in (5, 5, 6))
    epochs = [[windows.place(epoch * len(windows) + i) for i in range(len(windows))] for epoch in range(3)]
    assert all(len(set(epoch)) == len(windows) == 20 and set(epoch) == set(epochs[0]) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[2] == [same.place(2 * len(same) + i) for i in range(len(same))], "the third epoch, asked for first"
    assert epochs[0] != [other.place(i) for i in range(len(other))]


def test_batches_go_on_from_any_position_and_across_epochs(tmp_path):
    windows = SessionWindows([Part.whole(recorded(tmp_path, 12))], 3)
    whole = drawn(windows, 4, 8)
    assert whole[3:] == drawn(windows, 4, 5, position=12)
    assert whole[2] == counts([windows.at(p) for p in range(8, 12)])


def test_processes_share_a_batch(tmp_path):
    windows = SessionWindows([Part.whole(recorded(tmp_path, 12))], 3)
    first, second = (drawn(windows, 4, 5, rank=rank, processes=2) for rank in range(2))
    assert [a + b for a, b in zip(first, second, strict=True)] == drawn(windows, 4, 5)
    with pytest.raises(ConfigurationError, match="multiple of 3"):
        drawn(windows, 4, 1, processes=3)


def test_memory_is_bounded_and_spares_reading(tmp_path, monkeypatch):
    reader, asked = recorded(tmp_path, 40), []
    honest = reader.image
    monkeypatch.setattr(reader, "image", lambda number: asked.append(number) or honest(number))
    frame = 32 * 32 * 3
    roomy, tight = (SessionWindows([Part.whole(reader)], 3, memory_mb=frames * frame / 2**20) for frames in (40, 5))
    for windows, read_once in ((roomy, True), (tight, False)):
        asked.clear()
        for position in range(3 * len(windows)):
            assert_whole(windows.at(position))
            assert sum(image.nbytes for image in windows._frames.values()) == windows._bytes <= windows._most_bytes
        assert (len(asked) == 40) == read_once


def test_a_damaged_frame_is_left_out_and_counted(tmp_path):
    reader = recorded(tmp_path, 30)
    lost = read(reader.image(7))[0]
    damage(reader, 7)
    windows = SessionWindows([Part.whole(reader)], 3)
    batches = drawn(windows, 4, 14)
    assert all(len(batch) == 12 for batch in batches)
    assert lost not in {count for batch in batches for count in batch}
    assert windows.damaged == {(reader.name, 7)}
    assert lost not in counts(windows.spread(100)) and len(windows.spread(100)) == len(windows) - 3
    assert len({count for batch in batches for count in batch}) == 29


def test_when_nothing_can_be_read_it_says_so(tmp_path):
    reader = recorded(tmp_path, 6)
    for moment in range(len(reader)):
        damage(reader, moment)
    windows = SessionWindows([Part.whole(reader)], 2)
    with pytest.raises(RecordingError, match="none of 5 windows can be read, 6 frames are damaged"):
        drawn(windows, 2, 1)
    with pytest.raises(RecordingError, match="none of 6 frames"):
        windows.background()


def test_the_thread_that_reads_ahead_ends(tmp_path):
    windows = SessionWindows([Part.whole(recorded(tmp_path, 12))], 3)
    before = threading.active_count()
    drawn(windows, 4, 2)
    assert threading.active_count() == before


def test_it_reads_ahead_but_not_far(tmp_path, monkeypatch):
    windows, asked = SessionWindows([Part.whole(recorded(tmp_path, 30))], 3), []
    honest = windows.at
    monkeypatch.setattr(windows, "at", lambda position: asked.append(position) or honest(position))
    drawn(windows, 4, 2)
    assert 8 <= len(asked) <= (2 + windows_file.READ_AHEAD) * 4
    assert asked == list(range(len(asked)))


def test_the_background_is_the_mean_frame(tmp_path):
    readers = [recorded(tmp_path, 10, first) for first in (0, 1000)]
    windows = SessionWindows([Part.whole(reader) for reader in readers], 3)
    images = [reader.image(number) for reader in readers for number in reader.readable()]
    assert np.allclose(windows.background(), np.mean(images, 0))
    assert windows.background(2).shape == (32, 32, 3)


class OtherActions(Counting):
    @property
    def action_space(self) -> ActionSpace:
        return ActionSpace.discrete([{"add": 1}, {"add": 2}], ranges={"add": (0, 4)})


class OtherRobot(Counting):
    robot_type = "recounting"


@pytest.mark.parametrize(
    ("robot", "words"),
    [
        (OtherActions(), r"'add': 2.*add 1 to 2, .*'add': 2.*add 0 to 4;"),
        (OtherRobot(), "by counting, .* by recounting"),
        (Counting(size=64), "32 x 32, .* 64 x 64"),
    ],
)
def test_sessions_that_do_not_fit_together_are_refused(tmp_path, robot, words):
    parts = [Part.whole(recorded(tmp_path, 6)), Part.whole(recorded(tmp_path, 6, 100, robot))]
    with pytest.raises(ConfigurationError, match=words):
        SessionWindows(parts, 3)


def moments(parts) -> dict[str, set[int]]:
    return {part.reader.name: {moment for stretch in part.stretches for moment in stretch} for part in parts}


@pytest.mark.parametrize(("sessions", "held"), [(2, [1]), (4, [3]), (5, [4]), (11, [4, 9])])
def test_whole_sessions_are_held_out(tmp_path, sessions, held):
    readers = [recorded(tmp_path, 6, first) for first in range(0, 100 * sessions, 100)]
    learned, kept, said = hold_out(list(reversed(readers)), 3)
    assert [part.reader.name for part in kept] == [readers[i].name for i in held]
    assert sorted([*moments(learned), *moments(kept)]) == sorted(reader.name for reader in readers)
    assert f"{len(held)} held out" in said and kept[0].reader.name in said


@pytest.mark.parametrize(
    ("steps", "episode", "kept"), [(50, None, range(40, 50)), (50, 10, range(40, 50)), (50, 4, range(40, 50)), (7, None, range(4, 7))]
)
def test_a_single_session_keeps_its_last_fifth(tmp_path, steps, episode, kept):
    reader = recorded(tmp_path, steps, episode_steps=episode)
    [learned], [held], said = hold_out([reader], 3)
    assert not moments([learned])[reader.name] & moments([held])[reader.name]
    assert sorted(moments([held])[reader.name]) == list(kept)
    assert sorted(moments([learned, held][:1])[reader.name]) == list(range(kept.start))
    assert f"last {len(kept)} of {steps} moments" in said


def test_what_cannot_be_divided_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="too short to keep a fifth"):
        hold_out([recorded(tmp_path, 5)], 3)
    with pytest.raises(ConfigurationError, match="none of 2 sessions holds 3 frames"):
        hold_out([recorded(tmp_path, 2, first) for first in (0, 10)], 3)
    with pytest.raises(ConfigurationError, match="windows of 0 frames"):
        SessionWindows([Part.whole(recorded(tmp_path, 5, 50))], 0)


def test_a_session_too_short_for_a_window_does_not_count(tmp_path):
    long = [recorded(tmp_path, 9, first) for first in (0, 100)]
    short = recorded(tmp_path, 2, 200)
    learned, kept, _ = hold_out([*long, short], 3)
    assert short.name not in moments([*learned, *kept])
