"""As much of LeRobot as an adapter meets, written from its documentation (0.4 to 0.6), for where LeRobot cannot be installed: its base classes, its
errors, how it finds a robot for a config, and what its recorder does with one. `put_in_place` makes `import lerobot` find it.
"""

import abc
import importlib
import sys
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import numpy as np


class DeviceNotConnectedError(ConnectionError):
    pass


class DeviceAlreadyConnectedError(ConnectionError):
    pass


@dataclass(kw_only=True)
class RobotConfig:
    id: str | None = None
    calibration_dir: Path | None = None

    @classmethod
    def register_subclass(cls, name):
        def registered(config):
            kinds[name] = config
            return config

        return registered


kinds: dict = {}  # robot types, by the name on LeRobot's command line


class Robot(abc.ABC):
    """Abstract wherever LeRobot's is: a robot that leaves something out cannot be made."""

    config_class: type
    name: str

    def __init__(self, config):
        self.robot_type, self.id = self.name, config.id
        self.calibration_dir, self.calibration = config.calibration_dir, {}

    def __str__(self):
        return f"{self.id} {type(self).__name__}"

    @property
    @abc.abstractmethod
    def observation_features(self): ...

    @property
    @abc.abstractmethod
    def action_features(self): ...

    @property
    @abc.abstractmethod
    def is_connected(self): ...

    @abc.abstractmethod
    def connect(self, calibrate=True): ...

    @property
    @abc.abstractmethod
    def is_calibrated(self): ...

    @abc.abstractmethod
    def calibrate(self): ...

    @abc.abstractmethod
    def configure(self): ...

    @abc.abstractmethod
    def get_observation(self): ...

    @abc.abstractmethod
    def send_action(self, action): ...

    @abc.abstractmethod
    def disconnect(self): ...


def make_robot_from_config(config):
    """The class is called like its config, without "Config", in the package that the config came from."""
    package = importlib.import_module(type(config).__module__.rpartition(".")[0])
    return getattr(package, type(config).__name__.removesuffix("Config"))(config)


def record(robot, teleop, frames):
    """LeRobot's recorder: features before connecting, then look, act, and keep what was seen beside what was asked for, in float32."""
    observed, acted = robot.observation_features, robot.action_features
    pictures = {key: shape for key, shape in observed.items() if isinstance(shape, tuple)}
    numbers = [key for key, kind in observed.items() if kind is float]
    assert len(robot.cameras) == 0 and all(kind is float for kind in acted.values()) and len(pictures) + len(numbers) == len(observed)
    rows = []
    robot.connect()
    for _ in range(frames):
        seen, action = robot.get_observation(), {key: np.float32(value) for key, value in teleop().items()}
        assert seen.keys() == observed.keys() and action.keys() == acted.keys()
        assert all(seen[key].shape == shape and seen[key].dtype == np.uint8 for key, shape in pictures.items())
        robot.send_action(action)  # whose answer LeRobot throws away
        state, done = [seen[key] for key in numbers], [float(action[key]) for key in acted]
        rows.append({**{key: seen[key] for key in pictures}, "state": state, "action": done})
    robot.disconnect()
    return rows


def put_in_place(monkeypatch):
    parts = {
        "lerobot": {},
        "lerobot.robots": {"Robot": Robot, "RobotConfig": RobotConfig, "make_robot_from_config": make_robot_from_config},
        "lerobot.utils": {},
        "lerobot.utils.errors": {
            "DeviceNotConnectedError": DeviceNotConnectedError,
            "DeviceAlreadyConnectedError": DeviceAlreadyConnectedError,
        },
    }
    for name, members in parts.items():
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
