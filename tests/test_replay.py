"""A recording wears the face of a robot: the same loop lives through it again, and nothing is ever misaligned."""

import dataclasses
import itertools

import numpy as np
import pytest
from counting import Counting, read
from recordings import recorded

from motorbabble.errors import ActionError, EndOfSession, RecordingError
from motorbabble.experience import ActionSpace, Ending, Observation, Step
from motorbabble.life import History, live
from motorbabble.recording.format import Continues
from motorbabble.recording.reader import RecordingReader
from motorbabble.recording.recorder import Recorder
from motorbabble.recording.writer import RecordingWriter
from motorbabble.robots import replay
from motorbabble.robots.recording_robot import RecordingRobot
from motorbabble.robots.replay import ReplayRobot, create_recorded_action_selector
from motorbabble.robots.toroidal_dot import ToroidalDotRobot
from motorbabble.runner import RobotRunner
from motorbabble.selectors import RandomSelector, create_constant_action_selector, create_sequence_action_selector

ONE, TWO = {"add": 1}, {"add": 2}


def replayed(robot: ReplayRobot, **settings) -> list:
    return list(live(robot, create_recorded_action_selector(robot), **settings))


class Remembering:
    """Stands where a learner would, and checks every transition it is told of."""

    def __init__(self, space: ActionSpace):
        self.space, self.last, self.transitions, self.episode = space, None, 0, None

    def remember(self, observation: Observation, led) -> None:
        count, said = read(observation.image)
        if led is not None:
            assert self.last is not None and observation.episode == self.episode
            action = int(self.space.decode(led)["add"])
            assert count == self.last + action and said == action, "the frame does not follow from the one before and the action between them"
            self.transitions += 1
        self.last, self.episode = count, observation.episode

    def study(self):
        return iter(())

    world_model = type("Mind", (), {"history": 3})()


def test_a_replay_is_the_life_again(tmp_path):
    robot = ToroidalDotRobot(seed=1, image_size=48)
    recorder = Recorder(tmp_path, robot.robot_type, robot.action_space)
    lived = []
    for event in live(robot, RandomSelector(3), steps=25):
        recorder(event)
        lived.append(event)
    recorder.close(robot.get_observation())
    again = replayed(ReplayRobot(recorder.writer.folder))
    steps = [event for event in again if isinstance(event, Step)]
    assert len(steps) == len(lived) == 25 and isinstance(again[-1], Ending)
    for one, other in zip(lived, steps, strict=True):
        assert one.observation.image.tobytes() == other.observation.image.tobytes()
        assert np.array_equal(one.observation.state["objects"], other.observation.state["objects"])
        assert (one.requested, one.executed, one.choice.why) == (other.requested, other.executed, other.choice.why)


def test_the_learner_is_told_every_transition_the_last_one_too(tmp_path):
    folder = recorded(tmp_path, steps=20)
    robot = ReplayRobot(folder)
    learner = Remembering(robot.action_space)
    replayed(robot, learner=learner)
    assert learner.transitions == 20


def test_episodes_and_sessions_are_never_joined(tmp_path):
    folders = [recorded(tmp_path, Counting(episode_steps=7), steps=30, seed=seed) for seed in range(3)]
    robot = ReplayRobot(*folders)
    learner = Remembering(robot.action_space)
    events = replayed(robot, learner=learner)
    assert learner.transitions == 3 * (30 - 4), "of 30 transitions, 4 led into a new episode"
    episodes = [event.observation.episode for event in events]
    assert episodes == sorted(episodes) and len(set(episodes)) == 15


@pytest.mark.parametrize("wanted", [ONE, TWO])
def test_a_filter_drops_whole_transitions(tmp_path, wanted):
    folder = recorded(tmp_path, steps=60)
    kept = sum(RecordingReader(folder).moment(i).executed == wanted for i in range(60))
    robot = ReplayRobot(folder, action_filter=lambda action: dict(action) == wanted)
    learner = Remembering(robot.action_space)
    events = replayed(robot, learner=learner)
    assert learner.transitions == kept == sum(isinstance(event, Step) for event in events)
    assert all(event.executed == wanted for event in events if isinstance(event, Step))


def test_a_filter_that_only_skipped_actions_would_be_noticed(tmp_path, monkeypatch):
    folder = recorded(tmp_path, steps=60)
    whole = ReplayRobot._stops_of

    def joined(self, *arguments):  # the frames stay neighbours although what lay between them is gone
        return (replay.Stop(stop.reader, stop.moment, stop.acts, True) for stop in whole(self, *arguments) if stop.acts)

    monkeypatch.setattr(ReplayRobot, "_stops_of", joined)
    robot = ReplayRobot(folder, action_filter=lambda action: dict(action) == ONE)
    with pytest.raises(AssertionError, match="does not follow"):
        replayed(robot, learner=Remembering(robot.action_space))


def test_after_a_kill_the_last_action_has_no_outcome(tmp_path):
    robot = ReplayRobot(recorded(tmp_path, steps=10, close=False), recorded(tmp_path, steps=10))
    learner = Remembering(robot.action_space)
    assert sum(isinstance(event, Step) for event in replayed(robot, learner=learner)) == 20
    assert learner.transitions == 9 + 10


def test_damage_is_stepped_over_and_counted(tmp_path):
    folder = recorded(tmp_path, steps=30)
    place = RecordingReader(folder).moment(12).frame
    pack = folder / "frames_shard_000.pack"
    data = bytearray(pack.read_bytes())
    data[place.at + 20] ^= 1
    pack.write_bytes(data)
    robot = ReplayRobot(folder)
    learner = Remembering(robot.action_space)
    replayed(robot, learner=learner)
    assert robot.skipped == 1 and learner.transitions == 28


def test_another_action_than_the_recorded_one_is_refused(tmp_path):
    folder = recorded(tmp_path, steps=5)
    robot = ReplayRobot(folder)
    robot.get_observation()
    done = RecordingReader(folder).moment(0).executed
    other = next(action for action in robot.action_space.candidates() if action != done)
    with pytest.raises(ActionError, match="create_recorded_action_selector"):
        robot.execute_action(other)
    assert robot.execute_action(done) == done, "a refused action changes nothing"


def test_sessions_of_different_robots_are_refused_with_both_action_spaces(tmp_path):
    one, other = recorded(tmp_path / "a", steps=3), recorded(tmp_path / "b", ToroidalDotRobot(image_size=32, seed=0), steps=3)
    with pytest.raises(RecordingError) as refusal:
        ReplayRobot(one, other)
    assert "add" in str(refusal.value) and "'action': 0" in str(refusal.value)


def test_a_loop_begins_again_and_an_end_is_an_end(tmp_path):
    folder = recorded(tmp_path, steps=4)
    robot = ReplayRobot(folder, loop=True)
    learner = Remembering(robot.action_space)
    steps = [event for event in replayed(robot, learner=learner, steps=11) if isinstance(event, Step)]
    assert len(steps) == 11 and learner.transitions == 10  # the last step's outcome is not looked at any more
    once = ReplayRobot(folder)
    replayed(once)
    with pytest.raises(EndOfSession):
        once.get_observation()


def test_nothing_to_replay_ends_at_once_even_in_a_loop(tmp_path):
    folder = recorded(tmp_path, steps=4)
    assert replayed(ReplayRobot(folder, loop=True, action_filter=lambda action: False)) == []
    with pytest.raises(RecordingError, match="at least one"):
        ReplayRobot()


def test_a_world_that_stood_still_between_two_sessions_is_not_cut(tmp_path):
    robot = Counting()
    first = recorded(tmp_path, robot, steps=5)
    second = recorded(tmp_path, robot, steps=5, seed=1, continues=Continues(first.name, 5, unbroken=True))
    whole = ReplayRobot(first, second)
    learner = Remembering(whole.action_space)
    replayed(whole, learner=learner)
    assert learner.transitions == 10, "the frame that ends one session is the first of the next"
    third = recorded(tmp_path, robot, steps=5, seed=2, continues=Continues(second.name, 10, unbroken=False))
    cut = ReplayRobot(second, third)
    learner = Remembering(cut.action_space)
    replayed(cut, learner=learner)
    assert learner.transitions == 10 and len({stop.reader.name for stop in cut._round()}) == 2


def test_it_goes_on_from_any_moment(tmp_path):
    folder = recorded(tmp_path, Counting(episode_steps=6), steps=20)
    whole = [event for event in replayed(ReplayRobot(folder)) if isinstance(event, Step)]
    late = ReplayRobot(folder, first=9)
    rest = [event for event in replayed(late, first=9) if isinstance(event, Step)]
    assert [event.index for event in rest] == list(range(9, 20))
    for one, other in zip(whole[9:], rest, strict=True):
        assert np.array_equal(one.observation.image, other.observation.image) and one.observation.episode == other.observation.episode


def test_left_counts_what_is_still_to_come(tmp_path):
    robot = ReplayRobot(recorded(tmp_path, steps=6))
    assert robot.left() == 7
    for left in range(6, 0, -1):
        robot.get_observation()
        assert robot.left() == left
        assert robot.recorded
        robot.execute_action(robot.recorded.action)


def test_an_interrupted_replay_goes_on_and_a_finished_one_begins_again(tmp_path):
    folder = recorded(tmp_path, steps=12)
    robot = ReplayRobot(folder)
    replayed(robot, steps=5)
    other = ReplayRobot(folder)
    assert other.load_state_dict(robot.state_dict())
    history = History(other.action_space, 3)
    assert len([event for event in replayed(other, history=history) if isinstance(event, Step)]) == 7
    assert not ReplayRobot(folder).load_state_dict(other.state_dict()), "it was at its end"
    assert not ReplayRobot(recorded(tmp_path, steps=3)).load_state_dict(robot.state_dict()), "it was of another session"


def test_recorded_actions_can_be_played_on_another_robot(tmp_path):
    folder = recorded(tmp_path, steps=10)
    reader = RecordingReader(folder)
    events = [event for event in live(Counting(), create_recorded_action_selector(reader)) if isinstance(event, Step)]
    assert [event.executed for event in events] == [reader.moment(i).executed for i in range(10)]
    twos = [event for event in live(Counting(), create_recorded_action_selector(reader, lambda action: action["add"] == 2))]
    assert 0 < len(twos) < 10 and all(event.executed == TWO for event in twos)
    with pytest.raises(RecordingError, match="ReplayRobot"):
        create_recorded_action_selector(ReplayRobot(folder), lambda action: True)


# RecordingRobot


def test_whatever_drives_it_a_recording_robot_writes_it_down(tmp_path):
    with RecordingRobot(Counting(), tmp_path) as robot:
        RobotRunner(robot, create_sequence_action_selector([ONE, TWO])).run(9)
        folder = robot.session
    reader = RecordingReader(folder)
    assert folder.parent == tmp_path / "counting" and reader.meta.state == "closed"
    assert len(reader) == 10 and not reader.moment(9).is_step, "the last frame is there too"
    for number in range(9):
        count, _ = read(reader.image(number))
        after, said = read(reader.image(number + 1))
        assert after - count == said == reader.moment(number).executed["add"]


def test_a_recording_robot_without_a_last_frame_still_closes(tmp_path):
    class Lost(Counting):
        def get_observation(self):
            if self.steps >= 3:
                raise OSError("the link is gone")
            return super().get_observation()

    with RecordingRobot(Lost(), tmp_path) as robot:
        RobotRunner(robot, create_constant_action_selector(ONE)).run(3)
    reader = RecordingReader(robot.session)
    assert len(reader) == 3 and reader.meta.state == "closed"


def test_a_recording_robot_is_still_itself(tmp_path):
    dot = ToroidalDotRobot(seed=0)
    with RecordingRobot(dot, tmp_path) as robot:
        assert robot.robot_type == "toroidal_dot" and robot.locate(robot.get_observation().image).shape == (1, 2)
        assert robot.session.name in robot.describe() and robot.state_dict() == dot.state_dict()


def test_an_action_that_was_refused_is_not_recorded(tmp_path):
    with RecordingRobot(Counting(), tmp_path) as robot:
        with pytest.raises(ActionError):
            robot.execute_action({"add": 7})
        robot.execute_action(ONE)
    reader = RecordingReader(robot.session)
    assert [reader.moment(i).is_step for i in range(len(reader))] == [True, False]


def test_a_disk_that_fails_stops_the_robot_first(tmp_path):
    robot = RecordingRobot(Counting(), tmp_path)
    robot.execute_action(ONE)
    writer: RecordingWriter = robot.recorder.writer

    def full(file, data):
        raise OSError(28, "No space left on device")

    writer._disk.write = full
    with pytest.raises(RecordingError, match="No space left"):
        robot.execute_action(ONE)
    assert robot.robot._stopped.is_set()
    with pytest.raises(RecordingError):
        robot.cleanup()


def test_frames_keep_rising(tmp_path):
    robot = ReplayRobot(recorded(tmp_path, steps=20))
    seen = [event.observation for event in replayed(robot)]
    assert all(a.sequence <= b.sequence for a, b in itertools.pairwise(seen))


def test_the_last_frame_of_an_episode_is_recorded_whoever_drives(tmp_path):
    class Ends(Counting):
        """Every fourth action ends the episode, with a frame from which nothing can be done."""

        over = False

        def get_observation(self):
            seen = super().get_observation()
            if self.steps and self.steps % 4 == 0 and not self.over:
                self.over = True
                return dataclasses.replace(seen, ends=True)
            if self.over:
                self.over, self.episode, self.steps = False, self.episode + 1, 0
                seen = super().get_observation()
            return seen

    with RecordingRobot(Ends(), tmp_path) as robot:
        events = list(live(robot, RandomSelector(0), steps=10))
    reader = RecordingReader(robot.session)
    kinds = [isinstance(event, Step) for event in events]
    assert kinds.count(False) == 2
    assert [reader.moment(i).is_step for i in range(len(kinds))] == kinds


def test_a_robot_that_is_slow_to_see_is_asked_again_when_it_is_recorded(tmp_path):
    class Slow(Counting):
        asked = 0

        def get_observation(self):
            self.asked += 1
            return None if self.asked % 2 else super().get_observation()

    with RecordingRobot(Slow(), tmp_path) as robot:
        assert len([event for event in live(robot, RandomSelector(0), steps=5)]) == 5
    assert len(RecordingReader(robot.session)) == 6


def test_another_filter_begins_anew(tmp_path):
    folder = recorded(tmp_path, steps=40)
    robot = ReplayRobot(folder)
    replayed(robot, steps=7)
    assert not ReplayRobot(folder, action_filter=lambda action: dict(action) == TWO).load_state_dict(robot.state_dict())
