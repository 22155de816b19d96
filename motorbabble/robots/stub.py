"""StubRobot: a stand-in for a robot with two wheels, where there is none. It moves nothing, and its camera sees noise and a red square.

For trying the main loop without hardware. Nothing in its picture depends on what it does, so there is little to learn: the
square can be, the noise cannot, and no quality gate that must be passed would ever open; ours is bounded and does.
"""

import threading
import time
from dataclasses import asdict, dataclass

import numpy as np

from motorbabble.errors import ConfigurationError, RobotError
from motorbabble.experience import Action, ActionSpace, Observation
from motorbabble.robots.interface import RobotInterface

SPEEDS = (-0.15, 0.0, 0.15)
DURATION = 0.1  # seconds that an action says it lasts; nothing turns, so none pass


@dataclass(frozen=True)
class StubConfig:
    image_size: int = 64  # pixels, both sides

    def __post_init__(self):
        if self.image_size < 8:
            raise ConfigurationError(f"image_size is {self.image_size}; give at least 8 pixels, or the square cannot be seen")


class StubRobot(RobotInterface):
    """Nine actions, every pair of SPEEDS for the two motors. Once stopped it stays stopped, with RobotError for every further action."""

    robot_type = "stub"

    def __init__(self, config: StubConfig = StubConfig(), seed: int = 0):
        self.config, self.seed = config, seed
        self._sequence = 0
        self._stopped = threading.Event()

    @property
    def action_space(self) -> ActionSpace:
        pairs = [(left, right) for left in SPEEDS for right in SPEEDS]
        actions = [{"motor_left": left, "motor_right": right, "duration": DURATION} for left, right in pairs]
        return ActionSpace.discrete(actions, rest=len(pairs) // 2, units={"duration": "s"}, labels=[f"left {a:g} right {b:g}" for a, b in pairs])

    def get_observation(self) -> Observation:
        """The noise of this moment, the same however often one looks."""
        size = self.config.image_size
        frame = np.random.default_rng([self.seed, self._sequence]).integers(0, 256, (size, size, 3), np.uint8)
        square = slice(size * 50 // 224, size * 150 // 224)
        frame[square, square] = frame[square, square] // 4 + np.array([190, 20, 20], np.uint8)
        return Observation(frame, captured_ns=time.time_ns(), sequence=self._sequence)

    def execute_action(self, action: Action) -> Action:
        plain = self.action_space.check(action)
        if self._stopped.is_set():
            raise RobotError(f"action {plain} came after the robot was stopped; make a new robot to go on")
        self._sequence += 1
        return plain

    def stop(self) -> None:
        self._stopped.set()

    def cleanup(self) -> None:
        self.stop()

    def state_dict(self) -> dict:
        return {"config": asdict(self.config), "seed": self.seed, "sequence": self._sequence}

    def load_state_dict(self, state: dict) -> None:
        if (state["config"], state["seed"]) != (asdict(self.config), self.seed):
            raise ConfigurationError(
                f"the saved stub lived with {state['config']} and seed {state['seed']}, this one with {asdict(self.config)} and {self.seed}; "
                "make the robot with the saved settings"
            )
        self._sequence = state["sequence"]
