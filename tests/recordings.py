"""Short recorded lives for tests."""

import tempfile
from functools import cache
from pathlib import Path

from counting import Counting

from motorbabble.experience import ActionSpace
from motorbabble.life import live
from motorbabble.recording.recorder import Recorder
from motorbabble.robots.interface import RobotInterface
from motorbabble.robots.replay import ReplayRobot
from motorbabble.selectors import RandomSelector


class OnlyOnward(Counting):
    """One action: whatever a robot exam picks is what was recorded."""

    robot_type = "onward"

    @property
    def action_space(self) -> ActionSpace:
        return ActionSpace.discrete([{"add": 1}], labels=("one",))


def recorded(root: Path, robot: RobotInterface | None = None, steps: int = 30, seed: int = 0, close: bool = True, **settings) -> Path:
    """A session of a life with random actions; with `close` False it ends as after a kill."""
    robot = robot or Counting()
    recorder = Recorder(root, robot.robot_type, robot.action_space, **settings)
    for event in live(robot, RandomSelector(seed), steps=steps):
        recorder(event)
    last = robot.get_observation()
    recorder.close(last if close else None)
    return recorder.writer.folder


@cache
def _onward() -> Path:
    return recorded(Path(tempfile.mkdtemp()), OnlyOnward(), steps=80)


def onward() -> ReplayRobot:
    """A replay that a robot exam can sit: whatever it picks is what was recorded."""
    return ReplayRobot(_onward())
