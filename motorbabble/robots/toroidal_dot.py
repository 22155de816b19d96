"""A white dot on a torus, seen from above: the smallest world in which an action has a visible effect.

The picture is (image_size, image_size, 3), black with one white disc. "stay" leaves it, "move" shifts it to the
right by `move_pixels`, and what leaves on the right comes back on the left. Two faces: ToroidalDotEnvironment is
a Gymnasium environment (`gym.make("motorbabble:ToroidalDot-v0")`), ToroidalDotRobot is a robot living in it.
"""

import threading
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import gymnasium
import numpy as np

from motorbabble.errors import ActionError, ConfigurationError, FrameError, RobotError
from motorbabble.experience import Action, ActionSpace, Observation, check_frame
from motorbabble.robots.interface import RobotInterface

ENVIRONMENT_ID = "ToroidalDot-v0"


@dataclass(frozen=True)
class ToroidalDotConfig:
    image_size: int = 224  # pixels, both sides
    dot_radius: int = 5  # pixels; 5 makes a disc of 81 pixels
    move_pixels: int = 27  # to the right per "move"; shares no divisor with 224, so that the dot visits every column
    action_delay: float = 0.0  # seconds the robot lets pass after each action; the environment ignores it

    def __post_init__(self):
        for name in ("image_size", "dot_radius", "move_pixels"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer):
                raise ConfigurationError(f"{name} is {value!r}, but pixels are counted; give a whole number")
        if self.dot_radius < 0 or self.image_size < 2 * self.dot_radius + 1:
            raise ConfigurationError(
                f"a dot of radius {self.dot_radius} does not fit a picture of {self.image_size} pixels; give image_size >= 2 * dot_radius + 1"
            )
        if not 0 <= self.action_delay < float("inf"):
            raise ConfigurationError(f"action_delay is {self.action_delay}; give a finite number of seconds, 0 or more")


def _configured(config: ToroidalDotConfig | None, overrides: dict[str, Any]) -> ToroidalDotConfig:
    known = ToroidalDotConfig.__dataclass_fields__
    for name in overrides:
        if name not in known:
            raise ConfigurationError(f"the toroidal dot has no setting {name!r}; choose among {list(known)}")
    return replace(config or ToroidalDotConfig(), **overrides)


class ToroidalDotEnvironment(gymnasium.Env):
    """The world itself. Actions: 0 stays, 1 moves. Reward is always 0.0 and nothing ever terminates: wanting is the learner's affair.

    info["position"]: (2,) float32, x and y of the dot's centre in pixels.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - Gymnasium's own convention

    def __init__(self, config: ToroidalDotConfig | None = None, render_mode: str | None = None, **overrides):
        if render_mode not in (None, "rgb_array"):
            raise ConfigurationError(f"render_mode is {render_mode!r}; choose 'rgb_array' or None")
        self.config = _configured(config, overrides)
        self.render_mode = render_mode
        size, radius = self.config.image_size, self.config.dot_radius
        self.action_space = gymnasium.spaces.Discrete(2)
        self.observation_space = gymnasium.spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.x, self.y = 0, radius
        self._begun = False  # no step before the first reset: nothing would be random
        self._reach = np.arange(-radius, radius + 1)
        disc = np.square(self._reach)[:, None] + np.square(self._reach)[None] <= radius**2
        self._dot = np.repeat(disc[:, :, None] * np.uint8(255), 3, axis=2)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self._begun = True
        size, radius = self.config.image_size, self.config.dot_radius
        self.x = int(self.np_random.integers(size))
        self.y = int(self.np_random.integers(radius, size - radius))  # the dot is wholly visible: only x wraps
        return self.picture(), self._info()

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        if not self._begun:
            raise gymnasium.error.ResetNeeded("step() came before the first reset(); call reset() to draw where the dot starts")
        if not self.action_space.contains(action):
            raise ActionError(f"action {action!r} is unknown; give 0 to stay or 1 to move")
        if int(action) == 1:
            self.x = (self.x + self.config.move_pixels) % self.config.image_size
        return self.picture(), 0.0, False, False, self._info()

    def render(self) -> np.ndarray | None:
        return self.picture() if self.render_mode == "rgb_array" else None

    def picture(self) -> np.ndarray:
        """A new (S, S, 3) uint8 array showing the present."""
        size, radius = self.config.image_size, self.config.dot_radius
        frame = np.zeros((size, size, 3), np.uint8)
        frame[self.y - radius : self.y + radius + 1, (self.x + self._reach) % size] = self._dot
        return frame

    def place(self, x: int, y: int) -> None:
        """Put the dot's centre somewhere, in whole pixels; x wraps, y must leave the dot wholly visible."""
        size, radius = self.config.image_size, self.config.dot_radius
        if not radius <= y < size - radius:
            raise ConfigurationError(f"a dot at y = {y} would be cut off; give y from {radius} to {size - radius - 1}")
        self.x, self.y = int(x) % size, int(y)

    def _info(self) -> dict:
        return {"position": np.array([self.x, self.y], np.float32)}


class ToroidalDotRobot(RobotInterface):
    """A robot whose only joint is the dot. Actions: {"action": 0} stays, {"action": 1} moves.

    Settings come as a config or by name: ToroidalDotRobot(image_size=64, seed=3). Once stopped it stays stopped,
    with RobotError for every further action; only a new robot moves again. Looking still works.
    Observation.state["objects"]: (1, 2) float32, x and y of the dot's centre in pixels.
    """

    robot_type = "toroidal_dot"

    def __init__(self, config: ToroidalDotConfig | None = None, seed: int | None = None, **overrides):
        self.config = _configured(config, overrides)
        self.environment = ToroidalDotEnvironment(self.config)
        self.environment.reset(seed=seed)
        self._action_space = ActionSpace.discrete([{"action": 0}, {"action": 1}], labels=("stay", "move"))
        self._sequence = 0  # actions done so far
        self._stopped = threading.Event()

    @property
    def action_space(self) -> ActionSpace:
        return self._action_space

    def get_observation(self) -> Observation:
        position = np.array([[self.environment.x, self.environment.y]], np.float32)
        return Observation(self.environment.picture(), captured_ns=time.time_ns(), sequence=self._sequence, state={"objects": position})

    def execute_action(self, action: Action) -> Action:
        plain = self._action_space.check(action)
        if self._stopped.is_set():
            raise RobotError(f"action {plain} came after the robot was stopped; make a new robot to go on")
        self.environment.step(int(plain["action"]))
        self._sequence += 1
        self._stopped.wait(self.config.action_delay)  # a stop from another thread ends the wait
        return plain

    def stop(self) -> None:
        self._stopped.set()

    def cleanup(self) -> None:
        self.stop()
        self.environment.close()

    def place(self, x: int, y: int) -> None:
        """Put the dot's centre at whole pixels x (wraps) and y, for tests and benchmarks."""
        self.environment.place(x, y)

    def state_dict(self) -> dict:
        """All that the future depends on, in plain values: a robot that loads it lives on bit for bit."""
        return {
            "config": asdict(self.config),
            "position": [self.environment.x, self.environment.y],
            "sequence": self._sequence,
            "generator": self.environment.np_random.bit_generator.state,
        }

    def load_state_dict(self, state: dict) -> None:
        mine, theirs = ({**config, "action_delay": 0.0} for config in (asdict(self.config), state["config"]))
        if mine != theirs:
            raise ConfigurationError(f"the saved dot lived with {theirs}, this one with {mine}; make the robot with the saved settings")
        self.environment.place(*state["position"])
        self._sequence = state["sequence"]
        self.environment.np_random.bit_generator.state = state["generator"]

    def locate(self, image: np.ndarray) -> np.ndarray:
        """(1, 2) float64 x, y of the dot in an (S, S, 3) uint8 picture, real or predicted; NaN where there is none.

        A blurred prediction may show a bright dot and a ghost of where it was; their common centre would be
        neither. So we look for the window with most light first, and take the centre of the light inside it.
        """
        size, radius = self.config.image_size, self.config.dot_radius
        if check_frame(image).shape[:2] != (size, size):
            raise FrameError(f"the picture is {image.shape[1]} wide and {image.shape[0]} high, this world {size}; resize it first")
        light = np.clip(image.mean(axis=2) - 64, 0, None)
        margin = min(radius + 2, (size - 1) // 2)
        reach = np.arange(-margin, margin + 1)
        columns = light[:, (np.arange(-margin, size + margin)) % size]  # around the left and right edge
        padded = np.pad(columns, ((margin + 1, margin), (1, 0)))
        summed = padded.cumsum(axis=0).cumsum(axis=1)
        side = len(reach)
        windows = summed[side:, side:] - summed[:-side, side:] - summed[side:, :-side] + summed[:-side, :-side]
        y, x = np.unravel_index(int(windows.argmax()), windows.shape)
        if windows[y, x] < 0.25 * (255 - 64) * (self.environment._dot[..., 0] > 0).sum():  # less than a quarter of a dot's light
            return np.full((1, 2), np.nan)
        rows = (y + reach)[(y + reach >= 0) & (y + reach < size)]
        window = light[rows][:, (x + reach) % size]
        mass = window.sum()
        return np.array([[(x + (window.sum(axis=0) @ reach) / mass) % size, (window.sum(axis=1) @ rows) / mass]])

    def distance(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """(n,) pixels between positions a and b (n, 2), the short way around in x."""
        gap = np.abs(np.asarray(a, float) - np.asarray(b, float))
        across = gap[..., 0] % self.config.image_size
        return np.hypot(np.minimum(across, self.config.image_size - across), gap[..., 1])


def register() -> None:
    """Make `gym.make("motorbabble:ToroidalDot-v0")` work; done once, when this file is imported."""
    if ENVIRONMENT_ID not in gymnasium.registry:  # Gymnasium warns about a second registration
        gymnasium.register(ENVIRONMENT_ID, entry_point=f"{__name__}:ToroidalDotEnvironment")


register()
