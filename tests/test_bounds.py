"""What ends a robot's life early: each bound stops the robot, then saves and closes, and says one sentence; and one that does not is noticed."""

import math
import re
from dataclasses import replace
from pathlib import Path
from threading import Event as Flag

import numpy as np
import pytest
from jetbot_faults import Server

from motorbabble.agents import learn
from motorbabble.bounds import CAREFUL, Bounds, BoundsConfig
from motorbabble.commands import living
from motorbabble.errors import ConfigurationError, RobotError
from motorbabble.experience import ActionSpace, Choice, Ending, Observation, Step, Study
from motorbabble.learning.checkpoint import Checkpoints
from motorbabble.memory import MemoryConfig
from motorbabble.recipes import RECIPES, LatentChoice, LearningRecipe
from motorbabble.recording.reader import RecordingReader
from motorbabble.robots.interface import RobotInterface
from motorbabble.robots.stub import StubConfig
from motorbabble.runner import RobotRunner

REST, FORWARD = {"motor_left": 0.0, "motor_right": 0.0, "duration": 0.1}, {"motor_left": 0.15, "motor_right": 0.15, "duration": 0.1}


class Rover(RobotInterface):
    """Sees one of two pictures, the other one after every action that is not rest, until it is stuck; its battery holds for some actions."""

    def __init__(self, stuck_after=math.inf, charge=1.0, each=0.0):
        self.turned, self.acted, self.stuck_after = 0, 0, stuck_after
        self.charge, self.each, self.log = charge, each, []

    robot_type = "rover"
    action_space = ActionSpace.discrete([REST, FORWARD])  # type: ignore[assignment]

    def get_observation(self):
        frame = np.full((16, 16, 3), 40 + 100 * (self.turned % 2), np.uint8)
        return Observation(frame, sequence=self.acted, state={"battery": np.array([self.charge - self.each * self.acted])})

    def execute_action(self, action):
        if self.log:
            raise RobotError(f"action {action} came after the robot was stopped; make a new robot to go on")
        plain = self.action_space.check(action)
        self.acted += 1
        self.turned += plain != REST and self.acted <= self.stuck_after
        return plain

    def stop(self):
        self.log.append("stopped")

    def cleanup(self):
        self.stop()


def forward(situation):
    return FORWARD


def moment(number, shade=0, executed=FORWARD, episode=0, **state):
    seen = Observation(np.full((8, 8, 3), shade, np.uint8), episode=episode, state={name: np.array(value) for name, value in state.items()})
    return Step(number, seen, executed, executed, Choice(executed), 0, 0, 0)


def told(config, events, robot=None, clock=lambda: 0.0):
    """The number of the event that a bound was reached with, and the sentence; None where none was."""
    robot = robot or Rover()
    stop = Flag()
    bounds = Bounds(config, robot, stop, clock)
    for number, event in enumerate(events):
        if why := bounds(event):
            assert stop.is_set() and robot.log == ["stopped"]
            return number, why
        assert not stop.is_set() and not robot.log
    return None


@pytest.mark.parametrize(
    "wrong",
    [{"minutes": 0.0}, {"minutes": -1.0}, {"minutes": math.nan}, {"minutes": math.inf}, {"battery": math.nan}, {"battery": math.inf}]
    + [{"stall": 0}, {"stall": -3}, {"stall": 1.5}, {"stall": math.nan}],
    ids=str,
)
def test_a_bound_that_cannot_be_kept_is_refused(wrong):
    (name, value), *_ = wrong.items()
    with pytest.raises(ConfigurationError, match=rf"{name} is {value}; give"):
        BoundsConfig(**wrong)
    BoundsConfig(minutes=0.1, battery=-1.0, stall=1)


def test_unless_asked_nothing_is_bounded():
    assert told(BoundsConfig(), [moment(i, battery=[math.nan]) for i in range(100)], clock=iter(range(0, 10**6, 10**4)).__next__) is None
    for name, recipe in RECIPES.items():
        assert recipe.bounds == (CAREFUL if name.startswith("jetbot") else BoundsConfig(stall=20 if name.startswith("webcam") else None)), name


def test_time_begins_with_the_first_event_and_ends_with_a_step():
    now = [1000.0]
    study = Study(1, {}, "learning", 0.0)

    def events():
        for seconds, event in [(0, study), (59, moment(0)), (61, study), (61, Ending(moment(1).observation)), (61, moment(1))]:
            now[0] = 1000.0 + seconds
            yield event

    number, why = told(BoundsConfig(minutes=1.0), events(), clock=lambda: now[0])
    assert number == 4 and why == "The robot was stopped: its 1 minutes are used up; start it again for as long again, or give it more."


def test_the_battery_may_fall_to_its_floor_and_no_further():
    config = BoundsConfig(battery=0.2)
    number, why = told(config, [moment(i, battery=[charge]) for i, charge in enumerate((0.9, 0.2, 0.199, 0.1))])
    assert number == 2 and "its battery reads 0.199, less than 0.2; charge it" in why
    assert told(config, [moment(0, battery=[0.9, 0.1])])[0] == 0, "the lowest of several counts"
    assert told(config, [moment(0, battery=0.1)])[0] == 0, "and a single number is one"
    assert told(config, [moment(0), moment(1, voltage=[0.1]), moment(2, battery=[])]) is None, "who does not know is not asked"
    for nonsense in (math.nan, math.inf, -math.inf):
        number, why = told(config, [moment(0, battery=[0.9, nonsense])])
        assert number == 0 and "which says nothing" in why, "a broken sensor is no full battery"


def test_a_stall_is_a_row_of_actions_that_changed_nothing():
    config = BoundsConfig(stall=3)
    number, why = told(config, [moment(i) for i in range(9)])
    assert number == 3 and "3 actions in a row changed nothing it sees" in why, "known with the frame after the third"
    assert told(config, [moment(i, executed=REST) for i in range(20)]) is None, "who rests sees nothing new"
    assert told(config, [moment(i, shade=12 * (i % 2)) for i in range(9)])[0] == 3, "noise is no movement"
    assert told(config, [moment(i, shade=13 * (i % 2)) for i in range(9)]) is None
    rests = [moment(i, executed=REST if i % 2 else FORWARD) for i in range(9)]
    assert told(config, rests)[0] == 5, "resting in between does not break the row"
    someone = [moment(i, shade=100 * (i // 2 % 2), executed=REST if i % 2 else FORWARD) for i in range(9)]
    assert told(config, someone)[0] == 5, "nor does what changes while it rests"
    moved = [moment(0), moment(1), moment(2, 50), moment(3, 50), moment(4, 50), moment(5, 50)]
    assert told(config, moved)[0] == 5, "one movement begins the row anew"
    assert told(config, [moment(i, episode=i // 3) for i in range(9)]) is None, "and so does an episode"


def lived(folder, robot, bounds, steps=12, bound=Bounds, monkeypatch=None):
    """A kept life under bounds. Everything that must be so when one has ended it."""
    if monkeypatch:
        monkeypatch.setattr("motorbabble.agents.Bounds", bound)
    memory = MemoryConfig(folder / "checkpoints", folder / "sessions")
    run = learn(robot, "latent", forward, steps, memory=memory, bounds=bounds, patch_size=8, batch_size=2)
    saved = []
    save = Checkpoints.save

    def watch(checkpoints, updates, what):
        saved.append((what.state["run"]["steps_done"], "stopped" in robot.log))
        save(checkpoints, updates, what)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "save", watch)
        done = [event for event in run if isinstance(event, Step)]
    assert len(done) < steps and run.stop.is_set(), "it ended early, by the flag"
    assert saved[-1] == (run.steps_done, True), "saved at its last step, and stopped before"
    with pytest.raises(RobotError, match="stopped"):
        robot.execute_action(FORWARD)
    (why,) = [note for note in run.notes if note.startswith("The robot was stopped")]
    assert why.count(". ") == 0 and why.endswith(".") and ";" in why
    (meta,) = (folder / "sessions").glob("*/session_meta.json")
    reader = RecordingReader(meta.parent)
    assert reader.meta.state == "closed" and len(reader) == len(done) + 1
    return len(done), why


@pytest.mark.parametrize(
    ("robot", "bounds", "steps", "says"),
    [
        (lambda: Rover(stuck_after=3), BoundsConfig(stall=4), 8, "4 actions in a row"),
        (lambda: Rover(charge=0.5, each=0.1), BoundsConfig(battery=0.25), 4, "reads 0.2"),
        (lambda: Rover(charge=0.5), BoundsConfig(minutes=1e-9), 1, "minutes"),
    ],
    ids=["stall", "battery", "minutes"],
)
def test_a_bound_stops_saves_closes_and_says_why_and_the_next_life_goes_on(robot, bounds, steps, says, folder):
    number, why = lived(folder, robot(), bounds)
    assert number == steps and says in why
    again = learn(Rover(), "latent", forward, 20, memory=MemoryConfig(folder / "checkpoints", folder / "sessions"), patch_size=8, batch_size=2)
    assert again.steps_done == steps, "nothing of it is lost, nor lived again"
    again.close()


class NeverHeard(Bounds):
    def __call__(self, event):
        return ""


class OnlySaid(Bounds):
    def __call__(self, event):
        self.robot = type("Elsewhere", (), {"stop": lambda self: None, "action_space": self.robot.action_space})()
        self.stop = Flag()
        return super().__call__(event)


@pytest.mark.parametrize("broken", [NeverHeard, OnlySaid])
def test_bounds_that_end_nothing_are_noticed(broken, folder, monkeypatch):
    with pytest.raises(AssertionError):
        lived(folder, Rover(stuck_after=0), BoundsConfig(stall=2), steps=6, bound=broken, monkeypatch=monkeypatch)


def test_who_acts_without_learning_is_bounded_too():
    robot, said = Rover(charge=0.5, each=0.1), []
    numbers = RobotRunner(robot, forward, bounds=BoundsConfig(battery=0.25), say=said.append).run(20)
    assert numbers["steps"] == 4 and robot.log[0] == "stopped" and len(said) == 1 and "battery" in said[0]


def test_a_bound_holds_in_the_exam_as_well(tmp_path, monkeypatch, capsys):
    robot = Rover(charge=0.5, each=0.1)
    monkeypatch.setattr(living, "robot_from", lambda config, seed: robot)
    recipe = LearningRecipe(StubConfig(16), LatentChoice(patch_size=8), steps=2, exam_steps=9, bounds=BoundsConfig(battery=0.25), out=tmp_path)
    with pytest.raises(SystemExit) as ended:
        living._learn("rover", replace(recipe, selector="random"), keeps=False)
    said = capsys.readouterr().out
    assert ended.value.code == 0 and robot.acted == 4
    assert "its battery reads 0.2, less than 0.25" in " ".join(said.split()) and "at rest" in said


def test_a_jetbot_whose_battery_falls_comes_to_rest(tmp_path, here):
    small = ("--model.image-size", "32", "32", "--model.patch-size", "8", "--steps", "500")
    with Server(tmp_path, "--battery", "0.5", "--drain", "6") as server:
        done = here("run", "jetbot_latent", "--robot.port", str(server.port), *small)
        assert not server.is_moving()
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert len(re.findall(r"The robot was stopped: its battery reads 0(\.\d+)?, less than 0\.2; charge it", said)) == 1
    assert "The robot is at rest after" in said
    (session,) = (tmp_path / "saved" / "sessions" / "jetbot").glob("session_*")
    reader = RecordingReader(Path(session))
    assert reader.meta.state == "closed" and len(reader) > 1
    assert reader.observation(0).state["battery"].shape == (1,)
