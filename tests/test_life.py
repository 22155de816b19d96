"""The only loop: what it yields, in which order, and that the robot stops first whatever happens."""

import itertools
import threading
import time
from threading import Event as Flag

import numpy as np
import pytest
from counting import Counting, read
from test_learning import assert_whole

from motorbabble.errors import ActionError, ConfigurationError, Diverged, EndOfSession, FrameError, RobotError
from motorbabble.experience import Choice, Ending, Observation, Step, Study
from motorbabble.life import live
from motorbabble.robots.interface import RobotInterface
from motorbabble.selectors import RandomSelector, create_constant_action_selector

ADD = create_constant_action_selector({"add": 1})


class Watched(Counting):
    """Counts its stops; `sees` and `does` replace looking and acting."""

    def __init__(self, sees=None, does=None, **settings):
        super().__init__(**settings)
        self.stops, self.sees, self.does = 0, sees, does

    def get_observation(self):
        return super().get_observation() if self.sees is None else self.sees()

    def execute_action(self, action):
        return super().execute_action(action) if self.does is None else self.does(action)

    def stop(self):
        self.stops += 1
        super().stop()


class Scripted:
    """A learner without a model: remembers what it is given, and yields the outcomes it is told."""

    world_model = None

    def __init__(self, outcomes=("passed",)):
        self.outcomes, self.remembered = outcomes, []

    def remember(self, observation: Observation, led) -> None:
        self.remembered.append((observation, led))

    def study(self):
        for n, outcome in enumerate(self.outcomes, 1):
            yield Study(n, {"total": 1.0}, outcome, 0.0)


def test_each_step_holds_what_was_seen_before_it():
    steps = list(live(Counting(), RandomSelector(0), steps=30))
    counts = [read(step.observation.image)[0] for step in steps]
    for step, before, after in zip(steps, counts, counts[1:], strict=False):
        assert after == before + step.executed["add"]
    assert [step.index for step in steps] == list(range(30))
    assert all(step.started_ns <= step.ended_ns for step in steps)


def test_the_selector_sees_the_newest_frames_and_the_actions_between_them():
    windows = []

    def select(situation):
        windows.append(situation.window)
        return situation.action_space.candidates()[situation.step % 2]

    list(live(Counting(), select, steps=12))
    assert [len(window) for window in windows[:4]] == [1, 2, 3, 3]
    for i, window in enumerate(windows):
        assert_whole(window)
        if i:
            assert read(window.images[-1])[0] > read(windows[i - 1].images[-1])[0]


def test_history_ends_with_the_episode():
    lengths = []
    list(live(Counting(episode_steps=4), lambda situation: lengths.append(len(situation.window)) or {"add": 1}, steps=8))
    assert lengths == [1, 2, 3, 3, 1, 2, 3, 3]


def test_a_life_goes_on_after_an_episode_that_ended():
    frames = iter([(0, False), (0, True), (1, False), (1, True), (2, False)])

    def sees():
        episode, ends = next(frames)
        return Observation(np.zeros((8, 8, 3), np.uint8), episode=episode, ends=ends)

    learner = Scripted()
    events = list(live(Watched(sees=sees), ADD, learner, steps=3))
    assert [type(event) for event in events if not isinstance(event, Study)] == [Step, Ending, Step, Ending, Step]
    assert len(learner.remembered) == 5, "and the last frame is learned from"


def test_the_learner_remembers_each_frame_with_the_action_that_led_to_it():
    learner = Scripted()
    robot = Counting(episode_steps=5)
    list(live(robot, RandomSelector(0), learner, steps=12))
    assert len(learner.remembered) == 12
    for i, (observation, led) in enumerate(learner.remembered):
        count, last = read(observation.image)
        assert (led is None) == (i % 5 == 0)
        if led is not None:
            assert np.array_equal(led, robot.action_space.encode({"add": last}))
            assert count == read(learner.remembered[i - 1][0].image)[0] + last


def test_studies_come_before_the_step_they_made_possible():
    events = list(live(Counting(), ADD, Scripted(("learning", "passed")), steps=2))
    assert [type(event) for event in events] == [Study, Study, Step] * 2


def test_the_flag_ends_life_between_steps_and_between_updates():
    stop, seen = Flag(), []
    for event in live(Counting(), ADD, Scripted(("learning",) * 5), stop, steps=100):
        seen.append(event)
        if len(seen) == 8:  # the second update after the first step
            stop.set()
    assert len(seen) == 8


def test_what_was_really_done_is_what_counts():
    robot = Watched(does=lambda action: Counting.execute_action(robot, {"add": 2}))
    steps = list(live(robot, ADD, steps=3))
    assert all(step.requested == {"add": 1} and step.executed == {"add": 2} for step in steps)


@pytest.mark.parametrize("answer", [Choice({"add": 2}, {"two": 1.0}, "because"), {"add": 2}, ({"add": 2}, [])], ids=["choice", "action", "tuple"])
def test_a_selector_may_answer_in_three_forms(answer):
    (step,) = live(Counting(), lambda situation: answer, steps=1)
    assert step.executed == {"add": 2}
    assert isinstance(step.choice, Choice)


@pytest.mark.parametrize(("answer", "says"), [({"add": 7}, "unknown"), (None, "no action"), ("add", "no action"), ({"jump": 1}, "channels")])
def test_an_answer_that_is_no_action_stops_the_robot(answer, says):
    robot = Watched()
    with pytest.raises(ActionError, match=says):
        list(live(robot, lambda situation: answer, steps=1))
    assert robot.stops == 1 and robot.count == 0


def raising(error):
    def do(*_):
        raise error

    return do


@pytest.mark.parametrize(
    ("robot", "error", "says"),
    [
        (lambda: Watched(sees=lambda: None), RobotError, "no frame 5 times in a row"),
        (lambda: Watched(sees=raising(RobotError("the camera is gone"))), RobotError, "camera is gone"),
        (lambda: Watched(does=raising(RobotError("the motor is stuck"))), RobotError, "motor is stuck"),
        (lambda: Watched(does=lambda action: None), RobotError, "return the action"),
        (lambda: Watched(does=lambda action: {"jump": 1}), RobotError, "none of"),
        (lambda: Watched(does=lambda action: {"add": float("nan")}), RobotError, "none of"),
        (lambda: Watched(sees=lambda: np.zeros((8, 8), np.uint8)), FrameError, "shape"),
        (lambda: Watched(sees=lambda: np.zeros((8, 8, 3))), FrameError, "float64, not uint8"),
        (lambda: Watched(sees=lambda: np.full((8, 8, 3), np.nan)), FrameError, "NaN"),
        (lambda: Watched(sees=lambda: [[0]]), FrameError, "numpy array"),
        (lambda: Watched(does=raising(KeyboardInterrupt("by hand"))), KeyboardInterrupt, "by hand"),
    ],
)
def test_a_robot_that_breaks_its_contract_is_stopped_and_the_error_says_why(robot, error, says):
    robot = robot()
    with pytest.raises(error, match=says) as caught:
        list(live(robot, ADD, steps=3))
    assert robot.stops == 1
    assert "\n" not in str(caught.value)


def test_a_loop_that_did_not_stop_its_robot_would_be_noticed():
    """The broken variant: the same faults through a loop that only looks and acts."""
    robot = Watched(does=raising(RobotError("the motor is stuck")))
    with pytest.raises(RobotError):
        while True:
            robot.get_observation()
            robot.execute_action({"add": 1})
    assert robot.stops == 0


def test_what_a_motor_clipped_counts_as_the_nearest_action():
    steps = list(live(Watched(does=lambda action: {"add": 1.9}), ADD, steps=2))
    assert [step.executed for step in steps] == [{"add": 2}] * 2


@pytest.mark.parametrize("steps", [0, -1])
def test_no_steps_are_no_life(steps):
    with pytest.raises(ConfigurationError, match=f"steps is {steps}"):
        live(Counting(), ADD, steps=steps)  # refused at once, not when the first event is asked for


def test_a_frame_that_changes_its_size_is_refused():
    frames = iter([np.zeros((8, 8, 3), np.uint8), np.zeros((8, 16, 3), np.uint8)])
    robot = Watched(sees=lambda: next(frames))
    with pytest.raises(FrameError, match="keep one size"):
        list(live(robot, ADD, steps=5))
    assert robot.stops == 1


def test_what_else_is_sensed_is_in_the_window():
    windows = []
    list(live(Counting(), lambda situation: windows.append(situation.window) or {"add": 1}, steps=3))
    assert windows[-1].states["count"][:, 0].tolist() == [read(image)[0] for image in windows[-1].images]
    assert windows[-1].last(2).states["count"].shape == (2, 1)


def test_a_robot_that_is_slow_to_see_is_asked_again():
    robot = Watched()
    answers = iter([None, None])
    robot.sees = lambda: next(answers, Counting.get_observation(robot))
    assert len(list(live(robot, ADD, steps=2))) == 2


def test_a_diverged_learner_never_acts():
    robot, events = Watched(), []
    with pytest.raises(Diverged, match="update 1"):
        for event in live(robot, ADD, Scripted(("diverged",)), steps=3):
            events.append(event)
            assert robot.stops == 1, "the robot stops before anyone hears of it"
    assert robot.count == 0 and [event.gate for event in events] == ["diverged"]


def test_the_end_of_a_recording_is_no_error():
    frames = iter([np.zeros((8, 8, 3), np.uint8)] * 3)

    def see():
        for frame in frames:
            return frame
        raise EndOfSession("no more frames")

    robot = Watched(sees=see)
    assert len(list(live(robot, ADD, steps=10))) == 3
    assert robot.stops == 0


def test_plain_arrays_are_welcome_and_are_copied():
    frame = np.zeros((8, 8, 3), np.uint8)
    (step,) = live(Watched(sees=lambda: frame), ADD, steps=1)
    frame[:] = 9
    assert step.observation.image.max() == 0


def test_abandoning_life_leaves_the_robot_usable():
    robot = Watched()
    life = live(robot, ADD)
    next(life)
    life.close()
    assert robot.stops == 0
    with robot:
        pass
    assert robot.stops >= 1, "`with` stands outside the loop and stops it in the end"


def test_a_selector_that_learns_hears_of_every_step():
    class Listening:
        def __init__(self):
            self.heard = []

        def __call__(self, situation):
            return {"add": 1}

        def observe(self, event):
            self.heard.append(event.index)

    select = Listening()
    list(live(Counting(), select, steps=4))
    assert select.heard == [0, 1, 2, 3]


def test_robots_are_abstract():
    with pytest.raises(TypeError):
        RobotInterface()


def test_a_pause_follows_each_action_and_stop_ends_it():
    moments = [step.started_ns for step in live(Counting(), ADD, steps=4, action_delay=0.05)]
    assert all(later - earlier >= 0.05e9 for earlier, later in itertools.pairwise(moments))
    stop, began = Flag(), time.monotonic()
    for _ in live(Counting(), ADD, stop=stop, action_delay=60.0):
        threading.Timer(0.05, stop.set).start()
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_a_pause_that_cannot_be_waited_is_refused(seconds):
    with pytest.raises(ConfigurationError, match="action_delay is"):
        live(Counting(), ADD, action_delay=seconds)


def test_a_stop_while_it_chooses_comes_before_the_action():
    robot, stop = Counting(), Flag()

    def select(situation):
        stop.set()
        return {"add": 1}

    assert list(live(robot, select, stop=stop)) == [] and robot.count == 0


def test_the_selector_knows_the_episode():
    episodes = []
    list(live(Counting(episode_steps=2), lambda situation: episodes.append(situation.episode) or {"add": 1}, steps=6))
    assert episodes == [0, 0, 1, 1, 2, 2]
