"""Worlds drawn from a number: a few bodies that obey, one that does not, before a background.

In a world with one dot, "shift the whole picture" predicts everything. Here each action displaces each controlled
body by an amount of its own, a distractor drifts as it likes, bodies hide each other, and edges wrap or stop, so
that only a model which finds the bodies predicts well. Two numbers make a life: `seed` draws the world (bodies,
textures, background, what the actions do, the edges), `course` what happens in it (positions, the distractor's way).
"""

import threading
import time
from dataclasses import asdict, dataclass, replace

import numpy as np

from motorbabble.errors import ConfigurationError, FrameError, RobotError
from motorbabble.experience import Action, ActionSpace, Observation, check_frame
from motorbabble.robots.interface import RobotInterface

_SHAPES = ("disc", "ellipse", "rectangle", "triangle", "star", "blob")
_TEXTURES = ("plain", "striped", "checkered", "mottled")
_DRAWN_FOR = 112  # pixels: every length below is for a picture of this size, and grows with it


@dataclass(frozen=True)
class BodiesConfig:
    seed: int = 0  # draws the world
    course: int | None = None  # draws what happens in it; another number is another life in the same world
    image_size: int = 112  # pixels, both sides
    episode_steps: int = 30  # actions, after which all positions are drawn anew
    idle: int = 0  # so many more actions that do nothing, as buttons that are not connected
    turn_probability: float = 0.1  # per step, that the distractor takes a new heading

    def __post_init__(self):
        for name in ("seed", "course", "image_size", "episode_steps", "idle"):
            value = getattr(self, name)
            if (value is not None or name != "course") and (isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0):
                raise ConfigurationError(f"{name} is {value!r}; give a whole number, 0 or more")
        if self.image_size < 32:
            raise ConfigurationError(f"image_size is {self.image_size}, too small to tell the bodies apart; give 32 or more")
        if self.episode_steps < 1:
            raise ConfigurationError(f"episode_steps is {self.episode_steps}; give at least 1")
        if not 0 <= self.turn_probability <= 1:
            raise ConfigurationError(f"turn_probability is {self.turn_probability}; give a number from 0 to 1")


@dataclass(frozen=True)
class Body:
    """What one thing looks like: `colors` (h, w, 3) uint8 where `mask` (h, w, 1) is true."""

    name: str
    mask: np.ndarray
    colors: np.ndarray

    @property
    def extent(self) -> np.ndarray:
        """(2,) width and height in pixels."""
        return np.array([self.mask.shape[1], self.mask.shape[0]])


class BodiesRobot(RobotInterface):
    """The controlled bodies of one such world, moved by 2 to 6 actions {"action": i} (and `idle` more that do nothing).

    After every `episode_steps` actions a new episode begins: the next look shows fresh positions and carries
    episode + 1, so the outcome of an episode's last action is never seen. Once stopped it stays stopped, with
    RobotError for every further action; only a new robot moves again. Looking still works.
    Observation.state["objects"]: (n, 2) float32, x and y of the controlled bodies' centres in pixels.
    """

    robot_type = "bodies"

    def __init__(self, seed: int | None = None, course: int | None = None, config: BodiesConfig | None = None, **overrides):
        given = {name: value for name, value in (("seed", seed), ("course", course)) if value is not None} | overrides
        for name in given:
            if name not in BodiesConfig.__dataclass_fields__:
                raise ConfigurationError(f"a world of bodies has no setting {name!r}; choose among {list(BodiesConfig.__dataclass_fields__)}")
        self.config = replace(config or BodiesConfig(), **given)
        self._draw_world(np.random.default_rng([0, self.config.seed]))
        # The leading number keeps the three kinds of generator apart whatever seed and course are.
        course = self.config.course
        self._generator = np.random.default_rng([1, self.config.seed] if course is None else [2, self.config.seed, course])
        self._sequence = self._episode = 0
        self._stopped = threading.Event()
        self._begin_episode()

    def _draw_world(self, rng: np.random.Generator) -> None:
        size, scale = self.config.image_size, self.config.image_size / _DRAWN_FOR
        self.wraps = bool(rng.random() < 0.5)
        background = str(rng.choice(["plain", "striped", "mottled", "mottled"]))
        ground = rng.integers(30, 226, 3).astype(float)
        other = np.clip(ground + rng.choice([-1, 1], 3) * rng.uniform(15, 45, 3), 0, 255)
        self.background = _textured(rng, background, size, size, ground, other, scale * 2.5)
        self._background_name = background

        taken = [ground, other]  # colours that a further body should differ from
        count = int(rng.integers(1, 4))
        self.bodies = [_draw_body(rng, scale * rng.uniform(12, 26), scale, taken) for _ in range(count)]
        self.distractor = _draw_body(rng, scale * rng.uniform(8, 14), scale, taken)
        self._distractor_on_top = bool(rng.random() < 0.5)

        self.displacements = _draw_displacements(rng, int(rng.integers(2, 7)), count, self.wraps, scale)  # (actions, bodies, 2) pixels
        lengths = np.linalg.norm(self.displacements, axis=-1).sum(axis=1)
        moves = iter(range(1, len(lengths) + 1))
        labels = ["rest" if length == 0 else f"move {next(moves)}" for length in lengths]
        labels += [f"idle {i + 1}" for i in range(self.config.idle)]
        self.displacements = np.concatenate([self.displacements, np.zeros((self.config.idle, count, 2), int)])
        actions = [{"action": index} for index in range(len(labels))]
        self._action_space = ActionSpace.discrete(actions, rest=int(lengths.argmin()), ordered=False, labels=labels)
        self._extents = np.array([body.extent for body in self.bodies])

    def _begin_episode(self) -> None:
        size, rng = self.config.image_size, self._generator
        # Corners, upper left, in whole pixels. Where edges wrap, a body may lie across them.
        self._corners = rng.integers(0, size if self.wraps else size - self._extents + 1, (len(self.bodies), 2))
        self._drifter = rng.uniform(0, size if self.wraps else size - self.distractor.extent, 2)  # a corner too, not rounded
        self._speed = self.config.image_size / _DRAWN_FOR * rng.uniform(1, 4)
        self._heading = rng.uniform(0, 2 * np.pi)
        self._steps = 0

    @property
    def action_space(self) -> ActionSpace:
        return self._action_space

    def describe(self) -> str:
        """One sentence: what this world holds."""
        bodies = [f"a {body.name} {max(body.extent)} px across" for body in self.bodies]
        listed = bodies[0] if len(bodies) == 1 else ", ".join(bodies[:-1]) + " and " + bodies[-1]
        edges = "wrap around" if self.wraps else "stop what moves"
        count = len(self.displacements)
        return (
            f"{listed[0].upper()}{listed[1:]} obey {count} actions before a {self._background_name} background, "
            f"a {self.distractor.name} drifts {'above' if self._distractor_on_top else 'beneath'}, and the edges {edges}."
        )

    def get_observation(self) -> Observation:
        centres = self._corners + (self._extents - 1) / 2
        if self.wraps:
            centres %= self.config.image_size
        return Observation(
            self._picture(),
            captured_ns=time.time_ns(),
            sequence=self._sequence,
            episode=self._episode,
            state={"objects": centres.astype(np.float32)},
        )

    def _picture(self) -> np.ndarray:
        frame = self.background.copy()
        things = list(zip(self.bodies, self._corners, strict=True))
        drifter = (self.distractor, np.rint(self._drifter).astype(int))
        for body, corner in [*things, drifter] if self._distractor_on_top else [drifter, *things]:
            _paste(frame, body, int(corner[0]), int(corner[1]))
        return frame

    def execute_action(self, action: Action) -> Action:
        plain = self._action_space.check(action)
        if self._stopped.is_set():
            raise RobotError(f"action {plain} came after the robot was stopped; make a new robot to go on")
        size = self.config.image_size
        moved = self._corners + self.displacements[self._action_space.index(plain)]
        self._corners = moved % size if self.wraps else np.clip(moved, 0, size - self._extents)
        self._drift()
        self._sequence += 1
        self._steps += 1
        if self._steps == self.config.episode_steps:
            self._episode += 1
            self._begin_episode()
        return plain

    def _drift(self) -> None:
        size = self.config.image_size
        if self._generator.random() < self.config.turn_probability:
            self._heading = self._generator.uniform(0, 2 * np.pi)
        velocity = self._speed * np.array([np.cos(self._heading), np.sin(self._heading)])
        self._drifter = self._drifter + velocity
        if self.wraps:
            self._drifter %= size
            return
        room = size - self.distractor.extent
        outside = (self._drifter < 0) | (self._drifter > room)
        self._drifter = np.where(self._drifter < 0, -self._drifter, np.where(self._drifter > room, 2 * room - self._drifter, self._drifter))
        velocity = np.where(outside, -velocity, velocity)
        self._heading = float(np.arctan2(velocity[1], velocity[0])) if outside.any() else self._heading

    def stop(self) -> None:
        self._stopped.set()

    def cleanup(self) -> None:
        self.stop()

    def state_dict(self) -> dict:
        """All that the future depends on, in plain values: a robot that loads it lives on bit for bit."""
        return {
            "config": asdict(self.config),
            "corners": self._corners.tolist(),
            "distractor": [*self._drifter.tolist(), float(self._speed), float(self._heading)],
            "counts": [self._sequence, self._episode, self._steps],
            "generator": self._generator.bit_generator.state,
        }

    def load_state_dict(self, state: dict) -> None:
        if state["config"] != asdict(self.config):
            raise ConfigurationError(f"the saved world is {state['config']}, this one {asdict(self.config)}; make the robot with the saved settings")
        self._corners = np.array(state["corners"], np.int64)
        self._drifter = np.array(state["distractor"][:2])
        self._speed, self._heading = state["distractor"][2:]
        self._sequence, self._episode, self._steps = state["counts"]
        self._generator.bit_generator.state = state["generator"]

    def locate(self, image: np.ndarray) -> np.ndarray:
        """(n, 2) float64 x, y of each controlled body in an (S, S, 3) uint8 picture, real or predicted; NaN where it is not seen.

        Template matching: at every position, how much better does the body explain what lies under its outline
        than the bare background does? 1 is a perfect match; below one half the body counts as not to be seen.
        """
        size = self.config.image_size
        if check_frame(image).shape[:2] != (size, size):
            raise FrameError(f"the picture is {image.shape[1]} wide and {image.shape[0]} high, this world {size}; resize it first")
        seen = _transformed(image)
        found = np.full((len(self.bodies), 2), np.nan)
        for index, (template, contrast) in enumerate(self._templates()):
            explained = 1 - _misfit(seen, template) / contrast
            if not self.wraps:  # where it would cross an edge
                width, height = self._extents[index]
                explained[size - height + 1 :] = explained[:, size - width + 1 :] = -np.inf
            y, x = np.unravel_index(int(explained.argmax()), explained.shape)
            if explained[y, x] >= 0.5:
                found[index] = np.array([x, y]) + (self._extents[index] - 1) / 2
        return found % size if self.wraps else found

    def _templates(self) -> list[tuple[tuple[np.ndarray, float], np.ndarray]]:
        """Per body: what `_misfit` needs of it, and how badly it fits the bare background at each position. Made when first asked for."""
        if not hasattr(self, "_matching"):
            bare, self._matching = _transformed(self.background), []
            for body in self.bodies:
                sprite = np.zeros((4, self.config.image_size, self.config.image_size))
                height, width = body.mask.shape[:2]
                sprite[0, :height, :width] = body.mask[..., 0]
                sprite[1:, :height, :width] = -2 * (body.mask * body.colors.astype(float)).transpose(2, 0, 1)
                # sum (I - T)^2 under the mask = (I^2 * mask) - 2 (I * T) + sum T^2: two correlations and a constant
                template = np.conj(np.fft.rfft2(sprite)), float(np.square(body.mask * body.colors.astype(float)).sum())
                self._matching.append((template, np.maximum(_misfit(bare, template), 1.0)))
        return self._matching

    def distance(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """(n,) pixels between positions a and b (n, 2); the short way around where edges wrap."""
        gap = np.abs(np.asarray(a, float) - np.asarray(b, float))
        if self.wraps:
            gap %= self.config.image_size
            gap = np.minimum(gap, self.config.image_size - gap)
        return np.hypot(gap[..., 0], gap[..., 1])


def _transformed(image: np.ndarray) -> np.ndarray:
    """(4, S, S // 2 + 1): the Fourier transforms of the picture's brightness squared and of its three colours."""
    colors = image.astype(float).transpose(2, 0, 1)
    return np.fft.rfft2(np.concatenate([np.square(colors).sum(axis=0, keepdims=True), colors]))


def _misfit(seen: np.ndarray, template: tuple[np.ndarray, float]) -> np.ndarray:
    """(S, S): the sum of squared differences under the outline, with the body's corner at each pixel, around the edges."""
    spectrum, constant = template
    size = seen.shape[1]
    return np.maximum(np.fft.irfft2((seen * spectrum).sum(axis=0), s=(size, size)) + constant, 0)


def _paste(frame: np.ndarray, body: Body, x: int, y: int) -> None:
    height, width = body.mask.shape[:2]
    size = frame.shape[0]
    if x + width <= size and y + height <= size:
        np.copyto(frame[y : y + height, x : x + width], body.colors, where=body.mask)
    else:  # across an edge: only in worlds that wrap
        under = np.ix_(np.arange(y, y + height) % size, np.arange(x, x + width) % size)
        frame[under] = np.where(body.mask, body.colors, frame[under])


def _draw_displacements(rng: np.random.Generator, actions: int, bodies: int, wraps: bool, scale: float) -> np.ndarray:
    """(actions, bodies, 2) whole pixels. Where edges stop, every action has its opposite, so that nothing is stuck in a corner for good."""
    drawn = actions - 1 if wraps else actions // 2
    rest = np.zeros((1 if wraps or actions % 2 else 0, bodies, 2), int)
    while True:
        length, angle = scale * rng.uniform(6, 20, (drawn, bodies)), rng.uniform(0, 2 * np.pi, (drawn, bodies))
        moves = np.rint(np.stack([length * np.cos(angle), length * np.sin(angle)], axis=-1)).astype(int)
        if not wraps:
            moves = np.stack([moves, -moves], axis=1).reshape(-1, bodies, 2)
        found = np.concatenate([rest, moves])
        apart = np.linalg.norm(found[:, None] - found[None], axis=-1).max(axis=-1) + 1e9 * np.eye(len(found))
        if apart.min() >= 4 * scale:  # or two actions would look nearly alike
            return found


def _draw_body(rng: np.random.Generator, span: float, scale: float, taken: list[np.ndarray]) -> Body:
    shape, texture = str(rng.choice(_SHAPES)), str(rng.choice(_TEXTURES))
    mask = _outline(rng, shape, span)
    # The most different of a few candidates: enough to stand out, not so many that every world uses the same corners of the colour cube.
    candidates = rng.uniform(0, 255, (12, 3))
    color = candidates[np.argmax([min(np.linalg.norm(candidate - other) for other in taken) for candidate in candidates])]
    second = color + (rng.uniform(0.5, 0.8) * (255 - color) if color.mean() < 128 else -rng.uniform(0.5, 0.8) * color)
    taken.append(color)
    colors = _textured(rng, texture, mask.shape[0], mask.shape[1], color, second, scale)
    return Body(f"{texture} {shape}", mask[..., None], colors)


def _outline(rng: np.random.Generator, shape: str, span: float) -> np.ndarray:
    """(h, w) bool, cut to the shape, whose longer side is `span` pixels. Every shape is a radius for each direction."""
    turn, aspect, points = rng.uniform(0, 2 * np.pi), rng.uniform(0.45, 0.75), int(rng.integers(5, 8))
    waves, phases = rng.uniform(0.1, 0.22, 3), rng.uniform(0, 2 * np.pi, 3)

    def radius(angle):
        angle = angle - turn
        if shape == "ellipse":
            return aspect / np.hypot(aspect * np.cos(angle), np.sin(angle))
        if shape == "rectangle":
            return 1 / np.maximum(np.abs(np.cos(angle)), np.abs(np.sin(angle)) / aspect)
        if shape == "triangle":
            return 1 / np.cos(angle % (2 * np.pi / 3) - np.pi / 3)
        if shape == "star":
            return 1 - 0.55 * np.abs(angle * points / np.pi % 2 - 1)
        if shape == "blob":
            return 1 + sum(wave * np.cos(k * angle + phase) for k, wave, phase in zip((2, 3, 4), waves, phases, strict=True))
        return np.ones_like(angle)

    around = np.linspace(-np.pi, np.pi, 721)
    edge = radius(around) * np.stack([np.cos(around), np.sin(around)])
    low, high = edge.min(axis=1), edge.max(axis=1)
    unit = (high - low).max() / span  # of the shape, per pixel
    width, height = np.maximum(np.rint((high - low) / unit).astype(int), 3)
    x = (low[0] + high[0]) / 2 + unit * (np.arange(width) - (width - 1) / 2)
    y = (low[1] + high[1]) / 2 + unit * (np.arange(height) - (height - 1) / 2)
    x, y = np.meshgrid(x, y)
    return np.hypot(x, y) <= radius(np.arctan2(y, x))


def _textured(rng: np.random.Generator, texture: str, height: int, width: int, first: np.ndarray, second: np.ndarray, scale: float) -> np.ndarray:
    """(height, width, 3) uint8 of two colours; `scale` stretches the pattern."""
    y, x = np.mgrid[:height, :width]
    angle, period = rng.uniform(0, np.pi), scale * rng.uniform(5, 9)
    if texture == "striped":
        share = ((x * np.cos(angle) + y * np.sin(angle)) % period < period / 2).astype(float)
    elif texture == "checkered":
        cell = max(2, round(period / 2))
        share = ((x // cell + y // cell) % 2).astype(float)
    elif texture == "mottled":
        frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
        smooth = np.fft.ifft2(np.fft.fft2(rng.normal(size=(height, width))) * np.exp(-np.square(frequency * period * 0.9))).real
        share = (smooth - smooth.min()) / np.ptp(smooth)
    else:
        share = np.zeros((height, width))
    return np.rint(first + share[..., None] * (second - first)).clip(0, 255).astype(np.uint8)
