"""integrations/lerobot, both ways, against a stand-in for LeRobot; and against LeRobot itself where there is one."""

import json
import os
import subprocess
import sys
import threading
import time
import tomllib
from types import SimpleNamespace

import lerobot_stand_in as lerobot
import numpy as np
import pytest
from exams import robot_exam
from test_conformance_lerobot import PYTHON
from test_documents import ROOT, blocks

import motorbabble
from motorbabble import ActionSpace, Channel, Observation, RobotInterface
from motorbabble.errors import ConfigurationError, RobotError
from motorbabble.experience import Step
from motorbabble.robots.dot_2d import Dot2dRobot

ADAPTER = ROOT / "integrations" / "lerobot"
TURNS = ActionSpace.discrete([{"linear_velocity": 0.0, "angular_velocity": turn} for turn in (0.0, -0.3, 0.3)], labels=("stay", "right", "left"))


@pytest.fixture
def adapter(monkeypatch):
    """The package, imported beside the stand-in; forgotten afterwards."""
    lerobot.put_in_place(monkeypatch)
    monkeypatch.syspath_prepend(str(ADAPTER))
    import lerobot_robot_motorbabble

    yield lerobot_robot_motorbabble
    for name in [name for name in sys.modules if name.startswith("lerobot_robot_motorbabble")]:
        del sys.modules[name]


class Rover:
    """Behaves like a LeRobot robot with wheels: it turns at what it was told last, and nobody stops it."""

    name = "Rover Mini+"
    action_features = {"linear_velocity": float, "angular_velocity": float}  # noqa: RUF012
    observation_features = {"front": (32, 48, 3), "battery": float}  # noqa: RUF012
    config = SimpleNamespace()

    def __init__(self):
        self.is_connected, self.place, self.told, self.fault, self.shows = False, 8, [], None, "all"

    def connect(self, calibrate=True):
        self.is_connected = True

    def get_observation(self):
        assert self.is_connected
        if self.fault == "look":
            raise TimeoutError("no frame for 200 ms")
        image = np.zeros((32, 48, 3), np.uint8)
        if self.shows != "black":
            image[8:24, (8 if self.shows == "frozen" else self.place) % 40 : (8 if self.shows == "frozen" else self.place) % 40 + 8] = (200, 90, 30)
        return {"front": image, "battery": 0.7}

    def send_action(self, action):
        assert self.is_connected and action.keys() == self.action_features.keys()
        if self.fault == "act" and action["angular_velocity"]:
            raise ConnectionError("bus is gone")
        self.told.append(action["angular_velocity"])
        self.place += int(np.sign(action["angular_velocity"])) * 4
        return {key: np.float32(np.clip(value, -0.2, 0.2)) for key, value in action.items()}

    def disconnect(self):
        self.is_connected = False


class Arm(Rover):
    name = "arm"
    action_features = {"pan.pos": float}  # noqa: RUF012
    observation_features = {"front": (32, 48, 3), "wrist": (32, 48, 3), "pan.pos": float}  # noqa: RUF012
    config = SimpleNamespace(max_relative_target=5.0)

    def get_observation(self):
        seen = super().get_observation()
        return {"front": seen["front"], "wrist": 255 - seen["front"], "pan.pos": float(self.place)}

    def send_action(self, action):
        self.told.append(action["pan.pos"])
        self.place = int(action["pan.pos"])
        return dict(action)


POSES = ActionSpace.discrete([{"pan.pos": pose} for pose in (8, 12, 20)])


def test_a_lerobot_robot_keeps_the_rules_of_ours(adapter):
    robot_exam(lambda: adapter.FromLeRobot(Rover(), TURNS, duration=0.001))
    robot_exam(lambda: adapter.FromLeRobot(Arm(), POSES, "wrist", duration=0.001, holds=True))


def test_a_lerobot_robot_learns_here(adapter):
    robot = adapter.FromLeRobot(Rover(), TURNS, duration=0.001)
    with robot:
        steps = [event for event in motorbabble.learn(robot, steps=6, image_size=(32, 32), patch_size=16, max_updates=1) if isinstance(event, Step)]
    assert len(steps) == 6 and steps[0].observation.state["battery"] == np.float32(0.7) and robot.robot_type == "rover_mini"
    assert not robot.robot.is_connected


def test_wheels_are_told_to_rest_after_every_action_and_on_every_error(adapter):
    rover = Rover()
    with adapter.FromLeRobot(rover, TURNS, duration=0.001) as robot:
        executed = robot.execute_action(TURNS.actions[2])
        assert rover.told == [0.3, 0.0] and executed == TURNS.actions[2], "what was sent, 0.2, is nearest to 0.3"
        rover.fault = "act"
        with pytest.raises(RobotError, match="bus is gone"):
            robot.execute_action(TURNS.actions[1])
        assert rover.told[-1] == 0.0 and len(rover.told) == 3
        rover.fault = "look"
        with pytest.raises(RobotError, match="no frame for 200 ms"):
            robot.get_observation()
    assert not rover.is_connected and set(rover.told[3:]) == {0.0}


def test_a_stop_from_elsewhere_ends_an_action(adapter):
    rover = Rover()
    robot = adapter.FromLeRobot(rover, TURNS, duration=5)
    stops = threading.Timer(0.1, robot.stop)
    stops.start()
    began = time.monotonic()
    with pytest.raises(RobotError, match="stopped"):
        robot.execute_action(TURNS.actions[1])
    stops.join()
    assert time.monotonic() - began < 2 and rover.told[-1] == 0.0
    rover.fault, rover.send_action = "look", None
    robot.stop()
    robot.cleanup()


def test_an_arm_stays_where_it_is(adapter):
    arm = Arm()
    with adapter.FromLeRobot(arm, POSES, "front", duration=0.001, holds=True) as robot:
        robot.execute_action(POSES.actions[2])
        assert arm.told == [20]
    assert set(arm.told) == {20}, "and not back to rest, which may be far away"


def test_a_lerobot_robot_that_cannot_be_used_is_refused(adapter):
    with pytest.raises(ConfigurationError, match="give every action all of them"):
        adapter.FromLeRobot(Rover(), POSES)
    with pytest.raises(ConfigurationError, match="give camera, one of them"):
        adapter.FromLeRobot(Arm(), POSES, holds=True)
    arm = Arm()
    arm.config = SimpleNamespace(max_relative_target=None)
    with pytest.raises(ConfigurationError, match="max_relative_target"):
        adapter.FromLeRobot(arm, POSES, "front", holds=True)
    assert not arm.is_connected


@pytest.mark.parametrize(("shows", "says"), [("black", "one colour"), ("frozen", "the same picture after 5 movements")])
def test_pictures_that_drivers_invent_are_refused(adapter, shows, says):
    rover = Rover()
    with adapter.FromLeRobot(rover, TURNS, duration=0.001) as robot:
        robot.get_observation()
        rover.shows = shows
        with pytest.raises(RobotError, match=says):
            for _ in range(9):
                robot.execute_action(TURNS.actions[2])
                robot.get_observation()
        rover.shows = "all"
    with adapter.FromLeRobot(Rover(), TURNS, duration=0.001) as robot:
        for _ in range(9):
            robot.execute_action(TURNS.rest)
            robot.get_observation()  # nothing moved, so nothing need change


class Slider(RobotInterface):
    """A light on a rail, pushed by -1 to 1; an episode is three pushes."""

    robot_type = "slider"

    def __init__(self):
        self.place, self.pushes, self.episode, self.stopped = 16.0, 0, 0, False

    @property
    def action_space(self):
        return ActionSpace.box([Channel("push", -1, 1)], rest={"push": 0})

    def get_observation(self):
        if self.pushes > 3:
            self.place, self.pushes, self.episode = 16.0, 0, self.episode + 1
        ends = self.pushes == 3
        if ends:
            self.pushes += 1
        frame = np.zeros((16, 32, 3), np.uint8)
        frame[:, int(self.place) % 32] = 255
        return Observation(frame, episode=self.episode, ends=ends, state={"place": np.array(self.place), "speed": np.zeros((1, 2))})

    def execute_action(self, action):
        action = self.action_space.check(action)
        if self.stopped:
            raise RobotError("the slider was stopped; make a new one")
        if self.pushes > 2:
            raise RobotError("the episode is over; look again")
        self.place, self.pushes = self.place + action["push"], self.pushes + 1
        return action

    def stop(self):
        self.stopped = True

    def cleanup(self):
        self.stop()


def test_ours_is_recorded_by_lerobot_with_what_was_executed(adapter):
    asked = iter([{"push": value} for value in (0.5, 7.0, -9.0, 1.0, 0.25, 0.0)])
    slider = Slider()
    rows = lerobot.record(adapter.MotorbabbleRobot(adapter.MotorbabbleRobotConfig(camera="top"), slider), lambda: next(asked), 6)
    assert [row["action"] for row in rows] == [[0.5], [1.0], [-1.0], [1.0], [0.25], [0.0]], "clipped, as it was done"
    assert rows[0]["top"].shape == (16, 32, 3) and rows[1]["state"] == [16.5, 0.0, 0.0]
    assert slider.episode == 1 and slider.stopped


def test_lerobot_finds_ours_by_its_name(adapter):
    project = tomllib.loads((ADAPTER / "pyproject.toml").read_text())
    assert project["project"]["name"].startswith("lerobot_robot_"), "LeRobot looks for no others"
    assert project["project"]["name"] == adapter.__name__ and project["tool"]["setuptools"]["packages"] == [adapter.__name__]
    config = lerobot.kinds["motorbabble"](recipe="dot_2d_latent", flags="--robot.image-size 48 --seed 3", id="mine")
    robot = lerobot.make_robot_from_config(config)
    assert robot.observation_features == {"front": (48, 48, 3), "objects.0": float, "objects.1": float}
    assert robot.action_features == {"action": float} and robot.is_calibrated and not robot.is_connected


def test_ours_says_when_it_is_not_connected(adapter):
    robot = adapter.MotorbabbleRobot(adapter.MotorbabbleRobotConfig(recipe="dot_2d_latent"))
    for call in (robot.get_observation, lambda: robot.send_action({"action": 1.0}), robot.disconnect):
        with pytest.raises(lerobot.DeviceNotConnectedError):
            call()
    for _ in range(2):  # after which it is another one
        robot.connect()
        with pytest.raises(lerobot.DeviceAlreadyConnectedError):
            robot.connect()
        before = robot.get_observation()["objects.0"]
        assert robot.send_action({"action": np.float32(0.9)}) == {"action": 1.0}
        assert (robot.get_observation()["objects.0"] - before) % 64 == 5
        robot.disconnect()


def test_mistakes_in_lerobots_flags_are_told(adapter):
    robot = adapter.MotorbabbleRobot(adapter.MotorbabbleRobotConfig(recipe="toaster"))
    with pytest.raises(ConfigurationError, match="no recipe 'toaster'"):
        robot.connect()
    robot = adapter.MotorbabbleRobot(adapter.MotorbabbleRobotConfig(), Slider())
    robot.connect()
    with pytest.raises(motorbabble.errors.ActionError):
        robot.send_action({"pull": 1.0})
    assert robot._robot.stopped, "whatever goes wrong, it stops"


def test_ours_in_lerobots_clothes_in_ours_is_still_a_robot(adapter):
    def twice():
        inner = adapter.MotorbabbleRobot(adapter.MotorbabbleRobotConfig(), Dot2dRobot(seed=1))
        return adapter.FromLeRobot(inner, Dot2dRobot(seed=1).action_space, duration=0.0)

    robot_exam(twice)


def test_without_lerobot_a_robot_like_its_own_still_learns(monkeypatch):
    monkeypatch.syspath_prepend(str(ADAPTER))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    try:
        import lerobot_robot_motorbabble

        assert lerobot_robot_motorbabble.__all__ == ["FromLeRobot"]
    finally:
        for name in [name for name in sys.modules if name.startswith("lerobot_robot_motorbabble")]:
            del sys.modules[name]


def test_the_readmes_example_runs(adapter):
    (code,) = (block for block in blocks((ADAPTER / "README.md").read_text()) if "rover" in block)
    assert "steps=200" in code
    rover = Rover()
    exec(code.replace("steps=200", "steps=3, max_updates=1").replace("duration=0.3", "duration=0.001"), {"rover": rover})
    assert len(rover.told) >= 6 and not rover.is_connected


@pytest.mark.skipif(
    PYTHON is None,
    reason="LeRobot itself was not asked to drive our robots: install it into an environment of its own, as integrations/lerobot/README.md says, "
    "and set MOTORBABBLE_LEROBOT_PYTHON to that environment's python",
)
def test_lerobot_itself_drives_one_of_ours(tmp_path):
    surroundings = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ADAPTER)]), "HF_LEROBOT_CALIBRATION": str(tmp_path)}
    script = ROOT / "tests" / "lerobot_robot.py"
    done = subprocess.run([str(PYTHON), str(script)], env=os.environ | surroundings, capture_output=True, text=True, timeout=300)
    if "ModuleNotFoundError" in done.stderr:
        pytest.skip(f"LeRobot's environment lacks what motorbabble needs ({done.stderr.splitlines()[-1]}): see integrations/lerobot/README.md")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "features": {"front": [48, 48, 3], "objects.0": "float", "objects.1": "float"},
        "refused": True,
        "sent": {"action": 1.0},
        "moved": 5.0,
        "connected": False,
    }
