"""A white dot that can go four ways, in three worlds made to ask one question each.

Plain: a torus both ways, where the shortest plan to any place is known (can it reach a goal?). With `rooms`: two rooms
joined by one door, where nothing wraps and the second room turns every move by a right angle, so that what was learned in
the first one is wrong there and a random walk seldom gets to find out (does curiosity pay?). With `television`: one
more action, "watch", fills a patch below the torus with noise that nobody can predict (is curiosity fooled?).
"""

import threading
import time
from dataclasses import asdict, dataclass, replace

import numpy as np

from motorbabble.errors import ConfigurationError, FrameError, RobotError
from motorbabble.experience import Action, ActionSpace, Observation, check_frame
from motorbabble.robots.interface import RobotInterface

LABELS = ("stay", "right", "left", "down", "up")
MOVES = np.array([(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)])  # x to the right, y down
WALL = (110, 110, 120)
FLOORS = ((12, 16, 40), (70, 34, 10))  # of the first room, of the second; no mean frame fits both


@dataclass(frozen=True)
class Dot2dConfig:
    image_size: int = 64  # pixels, both sides
    dot_radius: int = 3  # pixels
    move_pixels: int = 5  # per move; shares no divisor with 64, so that every place can be reached
    rooms: bool = False  # two rooms with a door between them, and edges that stop
    television: bool = False  # one more action, "watch", shows noise on a patch, in a strip below
    action_delay: float = 0.0  # seconds the robot lets pass after each action

    def __post_init__(self):
        if min(self.image_size, self.dot_radius, self.move_pixels) < 1 or self.image_size < 8 * self.dot_radius + 8:
            raise ConfigurationError(
                f"a dot of radius {self.dot_radius} that moves {self.move_pixels} pixels has no room in a picture of {self.image_size}; "
                "give positive numbers, and image_size at least 8 times the radius and 8"
            )
        if not 0 <= self.action_delay < float("inf"):
            raise ConfigurationError(f"action_delay is {self.action_delay}; give a finite number of seconds, 0 or more")


class Dot2dRobot(RobotInterface):
    """Actions {"action": 0} stays, 1 to 4 move right, left, down, up; with a television, 5 watches.

    Settings come as a config or by name: Dot2dRobot(rooms=True, seed=3). Once stopped it stays stopped, with RobotError for
    every further action. Observation.state["objects"]: (1, 2) float32, x and y of the dot's centre in pixels.
    """

    robot_type = "dot_2d"

    def __init__(self, config: Dot2dConfig | None = None, seed: int | None = None, **overrides):
        for name in overrides:
            if name not in Dot2dConfig.__dataclass_fields__:
                raise ConfigurationError(f"the dot has no setting {name!r}; choose among {list(Dot2dConfig.__dataclass_fields__)}")
        self.config = replace(config or Dot2dConfig(), **overrides)
        size, radius = self.config.image_size, self.config.dot_radius
        labels = (*LABELS, "watch") if self.config.television else LABELS
        self._action_space = ActionSpace.discrete([{"action": i} for i in range(len(labels))], ordered=False, labels=labels)
        self._generator = np.random.default_rng(seed)
        reach = np.arange(-radius, radius + 1)
        self._disc = np.argwhere(np.square(reach)[:, None] + np.square(reach)[None] <= radius**2) - radius  # (n, 2) y, x
        self.wall = (size // 2 - 2, size // 2 + 2)  # columns it covers
        self.door = (size // 2 - 2 * radius - 1, size // 2 + 2 * radius + 2)  # rows it leaves free: any row of a 5-pixel lattice fits through
        self._ground = self._drawn_ground()
        self._noise: np.ndarray | None = None  # what the television shows
        self._sequence = 0
        self._stopped = threading.Event()
        edge = radius if self.config.rooms else 0
        x, y = self._generator.integers(edge, size - edge, 2)
        self.x, self.y = int(x) % (self.wall[0] - 2 * radius) + radius if self.config.rooms else int(x), int(y)

    @property
    def action_space(self) -> ActionSpace:
        return self._action_space

    @property
    def room(self) -> int:
        """0 where moves go as they are called, 1 behind the door."""
        return int(self.config.rooms and self.x >= self.config.image_size // 2)

    def get_observation(self) -> Observation:
        position = np.array([[self.x, self.y]], np.float32)
        return Observation(self.picture(), captured_ns=time.time_ns(), sequence=self._sequence, state={"objects": position})

    def picture(self) -> np.ndarray:
        """A new (S, S, 3) uint8 array showing the present; with a television a quarter higher."""
        size = self.config.image_size
        frame = self._ground.copy()
        frame[(self.y + self._disc[:, 0]) % size, (self.x + self._disc[:, 1]) % size] = 255
        if self._noise is not None:
            frame[size:, : len(self._noise)] = self._noise
        return frame

    def execute_action(self, action: Action) -> Action:
        plain = self._action_space.check(action)
        if self._stopped.is_set():
            raise RobotError(f"action {plain} came after the robot was stopped; make a new robot to go on")
        index = int(plain["action"])
        watches = index == len(MOVES)
        self._move(MOVES[0 if watches else index])
        side = self.config.image_size // 4
        self._noise = self._generator.integers(0, 256, (side, side, 3), np.uint8) if watches else None
        self._sequence += 1
        self._stopped.wait(self.config.action_delay)
        return plain

    def _move(self, way: np.ndarray) -> None:
        dx, dy = (way if self.room == 0 else (-way[1], way[0])) * np.array(self.config.move_pixels)
        x, y, size = self.x + int(dx), self.y + int(dy), self.config.image_size
        if not self.config.rooms:
            self.x, self.y = x % size, y % size
        elif self._free(x, y):  # what is in the way lets nothing through, not even halfway
            self.x, self.y = x, y

    def _free(self, x: int, y: int) -> bool:
        size, radius = self.config.image_size, self.config.dot_radius
        inside = radius <= x < size - radius and radius <= y < size - radius
        beside = x + radius < self.wall[0] or x - radius >= self.wall[1]
        return inside and (beside or (self.door[0] <= y - radius and y + radius < self.door[1]))

    def _drawn_ground(self) -> np.ndarray:
        size = self.config.image_size
        ground = np.zeros((size + self.config.television * (size // 4), size, 3), np.uint8)
        if self.config.rooms:
            ground[:size, : size // 2], ground[:size, size // 2 :] = FLOORS
            ground[: self.door[0], slice(*self.wall)] = ground[self.door[1] : size, slice(*self.wall)] = WALL
        return ground

    def stop(self) -> None:
        self._stopped.set()

    def cleanup(self) -> None:
        self.stop()

    def place(self, x: int, y: int) -> None:
        """Put the dot's centre at whole pixels, for tests and benchmarks; ConfigurationError inside a wall."""
        if self.config.rooms and not self._free(x, y):
            raise ConfigurationError(f"the dot has no room at x = {x}, y = {y}; give a place inside one of the rooms")
        self.x, self.y = int(x) % self.config.image_size, int(y) % self.config.image_size

    def state_dict(self) -> dict:
        """All that the future depends on, in plain values: a robot that loads it lives on bit for bit."""
        return {
            "config": asdict(self.config),
            "position": [self.x, self.y],
            "sequence": self._sequence,
            "noise": None if self._noise is None else self._noise.tolist(),
            "generator": self._generator.bit_generator.state,
        }

    def load_state_dict(self, state: dict) -> None:
        mine, theirs = ({**config, "action_delay": 0.0} for config in (asdict(self.config), state["config"]))
        if mine != theirs:
            raise ConfigurationError(f"the saved dot lived with {theirs}, this one with {mine}; make the robot with the saved settings")
        self.x, self.y = state["position"]
        self._sequence = state["sequence"]
        self._noise = None if state["noise"] is None else np.array(state["noise"], np.uint8)
        self._generator.bit_generator.state = state["generator"]

    def locate(self, image: np.ndarray) -> np.ndarray:
        """(1, 2) float x, y of the dot in a uint8 picture like its own; NaN where less than a quarter of it is to be seen.

        The brightest disc by how much it differs from the bare ground.
        """
        size = self.config.image_size
        if check_frame(image).shape != self._ground.shape:
            raise FrameError(
                f"the picture is {image.shape[1]} wide and {image.shape[0]} high, this world's {self._ground.shape[:2]}; resize it first"
            )
        light = np.clip(image[:size].astype(float) - self._ground[:size], 0, None).mean(2) / 255
        light[light < 0.25] = 0
        window = np.sum([np.roll(light, (-dy, -dx), (0, 1)) for dy, dx in self._disc], axis=0)
        y, x = np.unravel_index(int(np.argmax(window)), window.shape)
        if window[y, x] < 0.25 * len(self._disc):
            return np.full((1, 2), np.nan)
        mass = light[(y + self._disc[:, 0]) % size, (x + self._disc[:, 1]) % size]
        dy, dx = mass @ self._disc / mass.sum()
        return np.array([[(x + dx) % size, (y + dy) % size]])

    def distance(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """(n,) pixels between positions a and b (n, 2); the short way around where edges wrap."""
        gap = np.abs(np.asarray(a, float) - np.asarray(b, float))
        if not self.config.rooms:
            gap %= self.config.image_size
            gap = np.minimum(gap, self.config.image_size - gap)
        return np.hypot(gap[..., 0], gap[..., 1])
