"""MotorbabbleRobot: one of our robots with the face of a LeRobot robot, so that LeRobot's tools can drive and record it.

What it is comes from a recipe and its flags, as after `babble run`. LeRobot asks for the features before it connects, and only the robot knows the
size of its pictures, so it is made then. An action blocks until it is over; its end, and the stop, are the robot's own.
"""

import shlex
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from lerobot.robots import Robot, RobotConfig
from lerobot.utils.errors import DeviceAlreadyConnectedError, DeviceNotConnectedError

from motorbabble import Action, Observation, RobotInterface
from motorbabble.commands.flags import parse
from motorbabble.errors import ConfigurationError, MotorbabbleError
from motorbabble.life import look


@RobotConfig.register_subclass("motorbabble")
@dataclass(kw_only=True)
class MotorbabbleRobotConfig(RobotConfig):
    recipe: str = "toroidal_dot_latent"  # whose robot it is; babble recipes lists them
    flags: str = ""  # its settings, as after babble run: "--robot.ip 192.168.1.7"
    camera: str = "front"  # what the picture is called in LeRobot


class MotorbabbleRobot(Robot):
    """`robot` instead of a recipe: one that was made already. The action that LeRobot records becomes the one that was executed."""

    config_class = MotorbabbleRobotConfig
    name = "motorbabble"

    def __init__(self, config: MotorbabbleRobotConfig, robot: RobotInterface | None = None):
        super().__init__(config)
        self.config, self.cameras = config, {}  # LeRobot's recorder counts the cameras that it would open itself
        self._robot, self._connected, self._ended = robot, False, False
        self._first: Observation | None = None

    @property
    def observation_features(self) -> dict[str, Any]:
        return {key: np.shape(value) if np.ndim(value) else float for key, value in self._flat(self._known()).items()}

    @property
    def action_features(self) -> dict[str, Any]:
        return {channel.name: float for channel in self._made().action_space.channels}

    @property
    def is_connected(self) -> bool:
        return self._connected

    @property
    def is_calibrated(self) -> bool:
        return True  # nothing to calibrate

    def connect(self, calibrate: bool = True) -> None:
        if self._connected:
            raise DeviceAlreadyConnectedError(f"{self} is connected")
        self._known()
        self._connected = True

    def calibrate(self) -> None:
        pass

    def configure(self) -> None:
        pass

    def get_observation(self) -> dict[str, Any]:
        self._must_be_connected()
        return self._flat(self._looked())

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        """Returns when it is over. `action` becomes what was executed, too: LeRobot's recorder keeps that mapping, and not what is returned."""
        self._must_be_connected()
        if self._ended:
            self._looked()  # begins the next episode; LeRobot's robots have none
        robot = self._made()
        try:
            executed = dict(robot.execute_action(self._nearest(action)))
        except BaseException:
            robot.stop()
            raise
        if isinstance(action, MutableMapping):
            action.update(executed)
        return executed

    def disconnect(self) -> None:
        self._must_be_connected()
        self._connected, robot = False, self._made()
        robot.stop()
        robot.cleanup()
        self._robot = self._first = None

    def _made(self) -> RobotInterface:
        if self._robot is None:
            from motorbabble.recipes import RECIPES, robot_from  # and torch, which LeRobot need not wait for to list its robots

            if self.config.recipe not in RECIPES:
                raise ConfigurationError(f"there is no recipe {self.config.recipe!r}; choose one of {', '.join(RECIPES)}")
            recipe = parse(RECIPES[self.config.recipe], shlex.split(self.config.flags), "--robot.flags")
            self._robot = robot_from(recipe.robot, recipe.seed)
        return self._robot

    def _known(self) -> Observation:
        return self._first or self._looked()

    def _looked(self) -> Observation:
        robot = self._made()
        try:
            seen = look(robot)
        except MotorbabbleError:
            robot.stop()
            raise
        self._first, self._ended = self._first or seen, seen.ends
        return seen

    def _flat(self, seen: Observation) -> dict[str, Any]:
        """LeRobot's observations have one level: a picture, and single numbers."""
        flat: dict[str, Any] = {self.config.camera: seen.image.copy()}
        for name, value in seen.state.items():
            numbers = np.asarray(value, float).ravel()
            keys = [name] if np.ndim(value) == 0 else [f"{name}.{i}" for i in range(len(numbers))]
            flat |= dict(zip((key.replace("/", ".") for key in keys), map(float, numbers), strict=True))
        return flat

    def _nearest(self, action: dict[str, Any]) -> Action:
        """An action as this robot can do it; LeRobot's come as float32, perhaps in a tensor."""
        space = self._made().action_space
        plain = {name: float(value) for name, value in action.items()}
        names_only = space.actions is not None and not space.ordered
        return space.nearest({name: float(round(value)) for name, value in plain.items()} if names_only else plain)

    def _must_be_connected(self) -> None:
        if not self._connected:
            raise DeviceNotConnectedError(f"{self} is not connected; call connect() first")
