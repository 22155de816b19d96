"""FromLeRobot: a LeRobot robot as one of ours. It is asked for nothing but LeRobot's own methods, so LeRobot need not be importable here.

LeRobot robots have no stop, no duration and no list of actions; these come from here: an ActionSpace over the robot's own keys, seconds per action,
and what stops it. Wheels (`holds=False`) get the rest action after every action. An arm that is told positions (`holds=True`) stays where it
is; it must limit its own steps, or a random goal would swing it through the room.
"""

import re
import threading
import time
from contextlib import suppress
from typing import Any

import numpy as np

from motorbabble import Action, ActionSpace, Observation, RobotInterface
from motorbabble.errors import ConfigurationError, RobotError
from motorbabble.experience import check_frame

FROZEN = 5  # equal pictures in a row, each after a movement, that no real camera gives
BUSY = 0.5  # seconds that a stop waits for a call that is under way


class FromLeRobot(RobotInterface):
    """robot: connected, or else it will be. camera: the key of the picture, where there are several. duration: seconds of an action."""

    def __init__(self, robot: Any, action_space: ActionSpace, camera: str = "", duration: float = 0.2, holds: bool = False):
        self.robot, self.duration, self.holds = robot, duration, holds
        self.robot_type = re.sub(r"[^a-z0-9]+", "_", str(robot.name).lower()).strip("_")
        self._actions = action_space
        keys, wanted = {channel.name for channel in action_space.channels}, set(robot.action_features)
        if keys != wanted:
            raise ConfigurationError(
                f"the actions have the channels {sorted(keys)}, {robot.name} has {sorted(wanted)}; give every action all of them"
            )
        if holds and getattr(robot.config, "max_relative_target", None) is None:
            raise ConfigurationError(
                f"{robot.name} is told positions and limits no step; set max_relative_target in its config before it tries actions"
            )
        pictures = [key for key, shape in robot.observation_features.items() if isinstance(shape, tuple) and len(shape) == 3]
        self.camera = camera or (pictures[0] if len(pictures) == 1 else "")
        if self.camera not in pictures:
            raise ConfigurationError(f"the camera is {self.camera!r}, {robot.name} has {pictures}; give camera, one of them")
        self._stopped, self._lock = threading.Event(), threading.Lock()
        self._sequence, self._equal, self._moved, self._last = 0, 0, False, np.zeros((1, 1, 3), np.uint8)
        if not robot.is_connected:
            robot.connect()

    @property
    def action_space(self) -> ActionSpace:
        return self._actions

    def get_observation(self) -> Observation:
        seen, now = self._called("get_observation"), time.time_ns()
        image = check_frame(np.array(seen[self.camera]))
        self._must_be_alive(image)
        others = {key: np.array(value, np.float32) for key, value in seen.items() if np.ndim(value) == 0}
        return Observation(image, captured_ns=now, sequence=self._sequence, state=others)

    def execute_action(self, action: Action) -> Action:
        plain = self._actions.check(action)
        self._must_not_be_stopped(plain)
        try:
            sent = self._called("send_action", dict(plain))
            self._stopped.wait(self.duration)
        finally:
            if not self.holds:
                self._called("send_action", dict(self._actions.rest))
        self._must_not_be_stopped(plain)
        self._sequence += 1
        self._moved = plain != self._actions.rest
        return self._actions.nearest({name: float(sent[name]) for name in plain})

    def stop(self) -> None:
        self._stopped.set()
        with suppress(Exception):  # whatever a driver raises
            still = self._actions.rest if not self.holds else self._where_it_is()
            self._called("send_action", dict(still))

    def cleanup(self) -> None:
        self.stop()
        with suppress(Exception):
            if self.robot.is_connected:
                self.robot.disconnect()

    def _where_it_is(self) -> Action:
        seen = self._called("get_observation")
        return {channel.name: float(seen[channel.name]) for channel in self._actions.channels}

    def _called(self, method: str, *words: Any) -> Any:
        """One call at a time: drivers of a serial bus know no threads."""
        if not self._lock.acquire(timeout=BUSY):
            raise RobotError(f"{self.robot_type} has not come back from its last call for {BUSY:g} s; look at its cable, then start again")
        try:
            return getattr(self.robot, method)(*words)
        except Exception as error:
            raise RobotError(f"{method} of {self.robot_type} failed: {error}; look at the robot, then start again") from error
        finally:
            self._lock.release()

    def _must_be_alive(self, image: np.ndarray) -> None:
        """LeRobot's drivers hand out the last picture, or a black one, when there is none."""
        if not (image != image[0, 0]).any():
            raise RobotError(f"camera {self.camera!r} shows one colour and nothing else; look at its cable and its lens cap")
        same = self._moved and np.array_equal(image, self._last)
        self._equal = self._equal + 1 if same else self._equal if not self._moved else 0
        self._last, self._moved = image.copy(), False
        if self._equal >= FROZEN:
            raise RobotError(f"camera {self.camera!r} shows the same picture after {self._equal} movements; look at its cable, then start again")

    def _must_not_be_stopped(self, action: Action) -> None:
        if self._stopped.is_set():
            raise RobotError(f"the robot was stopped, so {dict(action)} is not done; make a new robot to go on")
