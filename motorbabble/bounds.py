"""Bounds: what ends the life of a robot that nobody watches all the time: minutes, the battery, wheels that turn and change nothing.

They are looked at after every action, when the robot is at rest; the action is then written down all the same, so that what a bound ends is
saved to its last step. A bound is no failure: the robot is stopped, then the run, as by whoever sets its flag, and one sentence says why.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event as Flag

import numpy as np

from motorbabble.errors import ConfigurationError
from motorbabble.experience import Event, Step, has_moved
from motorbabble.robots.interface import RobotInterface


@dataclass(frozen=True)
class BoundsConfig:
    minutes: float | None = None  # from the first event on, the robot's waiting included; None: no limit
    battery: float | None = None  # floor, in the unit of Observation.state["battery"] (a JetBot's: 0 to 1), where there is one; None: not looked at
    stall: int | None = None  # actions in a row, rest not counted, that changed nothing it sees; None: not counted

    def __post_init__(self):
        minutes, battery, stall = self.minutes, self.battery, self.stall
        if minutes is not None and not 0 < minutes < math.inf:  # NaN is neither
            raise ConfigurationError(f"minutes is {minutes}; give a positive number, or None for no limit")
        if battery is not None and not math.isfinite(battery):
            raise ConfigurationError(f"battery is {battery}; give the lowest reading at which the robot may act, or None for any")
        if stall is not None and not (isinstance(stall, int) and stall > 0):
            raise ConfigurationError(f"stall is {stall}; give a whole number of actions, 1 or more, or None for no limit")


CAREFUL = BoundsConfig(minutes=30.0, battery=0.2, stall=20)  # for what really moves


class Bounds:
    """Tell it every event of a life. Where a bound is reached it stops the robot, sets `stop`, and answers why, in a sentence; else ""."""

    def __init__(self, config: BoundsConfig, robot: RobotInterface, stop: Flag, clock: Callable[[], float] = time.monotonic):
        self.config, self.robot, self.stop, self.clock = config, robot, stop, clock
        self._began: float | None = None
        self._before: Step | None = None
        self._unmoved = 0  # actions in a row

    def __call__(self, event: Event) -> str:
        if self._began is None:
            self._began = self.clock()
        why = (self._late() or self._empty(event) or self._stalled(event)) if isinstance(event, Step) else ""
        if why:
            self.robot.stop()
            self.stop.set()
        return why and f"The robot was stopped: {why}."

    def _late(self) -> str:
        assert self._began is not None
        minutes = self.config.minutes
        if minutes is None or self.clock() - self._began < 60 * minutes:
            return ""
        return f"its {minutes:g} minutes are used up; start it again for as long again, or give it more"

    def _empty(self, step: Step) -> str:
        """A robot that does not know leaves its battery out; several readings are as good as their lowest."""
        reading = np.asarray(step.observation.state.get("battery", ()), float)
        if self.config.battery is None or not reading.size:
            return ""
        lowest = reading.min()
        if not np.isfinite(reading).all():
            return f"its battery reads {lowest}, which says nothing; look at its sensor, or start it without a floor for the battery"
        low = f"its battery reads {lowest:.3g}, less than {self.config.battery:g}; charge it, then start it again"
        return low if lowest < self.config.battery else ""

    def _stalled(self, step: Step) -> str:
        """What the action before led to shows in this step's frame. Resting neither counts nor breaks the row."""
        before, self._before = self._before, step
        if self.config.stall is None or before is None:
            return ""
        if before.observation.episode != step.observation.episode:
            self._unmoved = 0
        elif dict(before.executed) != dict(self.robot.action_space.rest):
            self._unmoved = 0 if has_moved(before.observation.image, step.observation.image) else self._unmoved + 1
        if self._unmoved < self.config.stall:
            return ""
        return f"{self._unmoved} actions in a row changed nothing it sees; look whether its wheels are free and its camera sees, then start it again"
