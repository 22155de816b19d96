"""What is seen, done and learned: the nouns every other floor speaks in. numpy only.

A frame is (H, W, 3) uint8 RGB from camera to screen. An action is a mapping of channel names to
numbers; only its ActionSpace knows ranges, units and how it becomes a vector. Time is int64
nanoseconds. All values here are frozen; whoever wants a change makes a new one.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from motorbabble.errors import ActionError, ConfigurationError, FrameError

if TYPE_CHECKING:  # the floor above; named for readers and the type checker only
    from motorbabble.world_models.base import WorldModel

Action = Mapping[str, float]  # {"motor_left": 0.0, "motor_right": 0.12, "duration": 0.2}

LISTED = 64  # actions of a list that are all imagined at every step; of a longer list as many are drawn

MOVED = 12  # of 255: camera noise and JPEG stay below, a moved thing is above

# Distinct for most kinds of colour vision; every picture also names the action in words.
_COLORS = ((214, 69, 65), (46, 160, 67), (56, 116, 203), (230, 159, 0), (148, 103, 189), (0, 158, 155))


@dataclass(frozen=True)
class Observation:
    """One look at the world. `image`: (H, W, 3) uint8 RGB, the primary view."""

    image: np.ndarray
    encoded: bytes | None = None  # the robot's own JPEG, recorded verbatim
    captured_ns: int = 0
    sequence: int = 0
    episode: int = 0  # rises at every reset; live() then clears the history
    ends: bool = False  # the last of its episode: nothing can be done from here; live() learns from it and looks again
    state: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self):
        check_frame(self.image)


def check_frame(image: Any) -> np.ndarray:
    """The image itself when it is (H, W, 3) uint8; FrameError, in one sentence, when it is not."""
    if not isinstance(image, np.ndarray):
        raise FrameError(f"a frame must be a numpy array, not {type(image).__name__}; return (H, W, 3) uint8 RGB")
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise FrameError(f"the frame holds {int((~np.isfinite(image)).sum())} values that are NaN or infinite; return (H, W, 3) uint8 RGB")
    if image.dtype != np.uint8:
        raise FrameError(f"the frame is {image.dtype}, not uint8; scale it to 0..255 and convert with .astype(np.uint8)")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise FrameError(f"the frame has shape {image.shape}, not (height, width, 3); return RGB with the colour last")
    return image


def has_moved(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether any value of a frame (H, W, 3) uint8 changed by more than MOVED."""
    return bool(np.abs(before.astype(np.int16) - after).max() > MOVED)


@dataclass(frozen=True)
class Channel:
    """One number of an action: its name, its range and its unit."""

    name: str
    low: float
    high: float
    unit: str = ""

    def __post_init__(self):
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise ConfigurationError(f"channel {self.name!r} runs from {self.low} to {self.high}; give two finite numbers, low first")

    def scaled(self, value: float) -> float:
        """`value`, from [low, high], on [-1, 1]; 0 for a channel that cannot vary."""
        return 0.0 if self.high == self.low else 2.0 * (value - self.low) / (self.high - self.low) - 1.0

    def unscaled(self, value: float) -> float:
        return self.low + (value + 1.0) * 0.5 * (self.high - self.low)


@dataclass(frozen=True)
class ActionSpace:
    """What a robot can do: either a list of actions (`discrete`) or every value of some ranges (`box`).

    `ordered` discrete actions are encoded by their channels' values, scaled to [-1, 1]; unordered ones
    (their numbers are only names) as one-hot. A mismatch between two spaces shows in `fingerprint`.
    """

    channels: tuple[Channel, ...]
    actions: tuple[Action, ...] | None
    rest: Action
    ordered: bool = True
    labels: tuple[str, ...] = ()

    @classmethod
    def discrete(
        cls,
        actions: Sequence[Action],
        rest: int = 0,
        *,
        ordered: bool = True,
        labels: Sequence[str] = (),
        ranges: Mapping[str, tuple[float, float]] | None = None,
        units: Mapping[str, str] | None = None,
    ) -> "ActionSpace":
        """A list of actions; `rest` is the index of the one that does least. Ranges default to those the actions span."""
        if not actions:
            raise ConfigurationError("an action space needs at least one action, got none; list what the robot can do")
        names = tuple(actions[0])
        for action in actions:
            if tuple(sorted(action)) != tuple(sorted(names)):
                raise ConfigurationError(f"action {dict(action)} has other channels than {list(names)}; give every action the same keys")
        if not 0 <= rest < len(actions):
            raise ConfigurationError(f"rest is {rest}, but there are {len(actions)} actions; give the index of the one that does least")
        if labels and len(labels) != len(actions):
            raise ConfigurationError(f"{len(labels)} labels for {len(actions)} actions; give one each, or none")
        frozen = tuple({name: float(action[name]) for name in names} for action in actions)
        for action in frozen:
            if not all(math.isfinite(value) for value in action.values()):
                raise ConfigurationError(f"action {action} holds NaN or infinity; give every action finite numbers")
        if len({tuple(action.values()) for action in frozen}) != len(frozen):
            raise ConfigurationError(f"the actions {[dict(a) for a in actions]} hold the same one twice; list each once")
        for name, (low, high) in (ranges or {}).items():
            if name not in names or any(not low <= action[name] <= high for action in frozen):
                raise ConfigurationError(
                    f"range {name!r} from {low} to {high} does not hold what the actions do; give ranges of {list(names)} that do"
                )
        spans = {name: (min(a[name] for a in frozen), max(a[name] for a in frozen)) for name in names} | dict(ranges or {})
        channels = tuple(Channel(name, float(low), float(high), (units or {}).get(name, "")) for name, (low, high) in spans.items())
        return cls(channels, frozen, frozen[rest], ordered, tuple(labels))

    @classmethod
    def box(cls, channels: Sequence[Channel], rest: Action) -> "ActionSpace":
        """Every combination of values inside the channels' ranges; `rest` is the one that does least."""
        space = cls(tuple(channels), None, {name: float(value) for name, value in rest.items()})
        space.check(rest)
        return space

    @property
    def is_long(self) -> bool:
        """Whether it lists more actions than can be imagined at every step."""
        return self.actions is not None and len(self.actions) > LISTED

    @property
    def size(self) -> int:
        """C, the length of an encoded action."""
        return len(self.actions) if self.actions is not None and not self.ordered else len(self.channels)

    def check(self, action: Action) -> Action:
        """The action as plain floats; ActionError, naming what there is, when this space does not hold it."""
        if not isinstance(action, Mapping) or set(action) != {channel.name for channel in self.channels}:
            raise ActionError(f"action {action!r} does not have the channels {[c.name for c in self.channels]}; choose one of {self}")
        if not all(isinstance(value, int | float | np.number) for value in action.values()):
            raise ActionError(f"action {action!r} holds something that is no number; choose one of {self}")
        plain = {channel.name: float(action[channel.name]) for channel in self.channels}
        if self.actions is not None:
            if plain not in self.actions:
                raise ActionError(f"action {plain} is unknown; choose one of {self}")
        else:
            for channel in self.channels:
                if not channel.low <= plain[channel.name] <= channel.high:
                    raise ActionError(f"action {plain} has {channel.name} outside {channel.low} to {channel.high}; choose one of {self}")
        return plain

    def nearest(self, action: Action) -> Action:
        """What a robot says it did, as this space can say it: clipped to the ranges, and in an ordered list the nearest action."""
        if self.actions is not None and not self.ordered:
            return self.check(action)
        names = {channel.name for channel in self.channels}
        if not isinstance(action, Mapping) or set(action) != names or not all(math.isfinite(float(value)) for value in action.values()):
            return self.check(action)  # which refuses it, in a sentence
        clipped = {c.name: min(max(float(action[c.name]), c.low), c.high) for c in self.channels}
        if self.actions is None:
            return clipped
        return min(self.actions, key=lambda a: sum((c.scaled(a[c.name]) - c.scaled(clipped[c.name])) ** 2 for c in self.channels))

    def index(self, action: Action) -> int:
        """Where a discrete action stands in the list."""
        if self.actions is None:
            raise ActionError(f"a box of ranges has no list, so action {dict(action)} has no index; use encode")
        return self.actions.index(self.check(action))

    def encode(self, action: Action) -> np.ndarray:
        """(C,) float32 in [-1, 1]; an unordered discrete action becomes one-hot."""
        plain = self.check(action)
        if self.actions is not None and not self.ordered:
            vector = np.zeros(len(self.actions), np.float32)
            vector[self.actions.index(plain)] = 1
            return vector
        return np.array([channel.scaled(plain[channel.name]) for channel in self.channels], np.float32)

    def decode(self, vector: np.ndarray) -> Action:
        """The action nearest to an encoded one."""
        vector = np.asarray(vector, np.float32)
        if vector.shape != (self.size,):
            raise ActionError(f"an encoded action of this space has shape ({self.size},), not {vector.shape}; make it with encode")
        if self.actions is not None and not self.ordered:
            return self.actions[int(np.argmax(vector))]  # of one-hot vectors, the nearest
        if self.actions is not None:
            return self.actions[int(np.argmin([np.square(self.encode(action) - vector).sum() for action in self.actions]))]
        return {c.name: c.unscaled(float(np.clip(v, -1, 1))) for c, v in zip(self.channels, vector, strict=True)}

    def candidates(self, n: int | None = None, rng: np.random.Generator | None = None) -> list[Action]:
        """Every action of a list of up to LISTED; of a longer one or of a box, rest and n - 1 drawn by `rng` (n: LISTED, or 8 of a box)."""
        if self.actions is not None and not self.is_long:
            return list(self.actions)
        rng = rng or np.random.default_rng(0)
        if self.actions is not None:
            others = [i for i, action in enumerate(self.actions) if action != self.rest]
            return [self.rest, *(self.actions[others[i]] for i in rng.choice(len(others), min((n or LISTED) - 1, len(others)), replace=False))]
        drawn = [{c.name: float(rng.uniform(c.low, c.high)) for c in self.channels} for _ in range((n or 8) - 1)]
        return [dict(self.rest), *drawn]

    def label(self, action: Action) -> str:
        """The action in a word or two, for people."""
        plain = self.check(action)
        if self.labels and self.actions is not None:
            return self.labels[self.actions.index(plain)]
        varying = [c for c in self.channels if c.low != c.high] or list(self.channels)
        return " ".join(f"{c.name}={plain[c.name]:g}{c.unit}" for c in varying)

    def color(self, action: Action) -> tuple[int, int, int]:
        """An RGB colour for pictures; never the only sign, since some eyes cannot tell them apart."""
        if self.actions is not None:
            return _COLORS[self.index(action) % len(_COLORS)]
        share = float(np.mean((self.encode(action) + 1) / 2))
        first, second = np.array(_COLORS[0]), np.array(_COLORS[1])
        red, green, blue = (first + share * (second - first)).round().astype(int)
        return int(red), int(green), int(blue)

    def to_json(self) -> dict:
        return {
            "channels": [[c.name, float(c.low), float(c.high), c.unit] for c in self.channels],
            "actions": None if self.actions is None else [dict(action) for action in self.actions],
            "rest": dict(self.rest),
            "ordered": self.ordered,
            "labels": list(self.labels),
        }

    @classmethod
    def from_json(cls, data: Mapping) -> "ActionSpace":
        actions = None if data["actions"] is None else tuple(dict(action) for action in data["actions"])
        channels = tuple(Channel(name, low, high, unit) for name, low, high, unit in data["channels"])
        return cls(channels, actions, dict(data["rest"]), data["ordered"], tuple(data["labels"]))

    @property
    def fingerprint(self) -> str:
        """Twelve hex digits: equal for equal spaces, whatever they are called for people."""
        essence = {key: value for key, value in self.to_json().items() if key != "labels"}
        return hashlib.sha256(json.dumps(essence, sort_keys=True).encode()).hexdigest()[:12]

    def __str__(self) -> str:
        if self.actions is not None:
            shown = [str({k: float(f"{v:g}") for k, v in action.items()}) for action in self.actions[:LISTED]]
            more = [f"and {len(self.actions) - LISTED} more"] if self.is_long else []
            return "[" + ", ".join(shown + more) + "]"
        return "[" + ", ".join(f"{c.name}: {c.low:g} to {c.high:g}{c.unit}" for c in self.channels) + "]"


@dataclass(frozen=True)
class Window:
    """A stretch of experience: images (T, H, W, 3) uint8 and the actions (T-1, C) between them, encoded.

    actions[i] led from images[i] to images[i + 1]; states hold what else was sensed, (T, ...) each.
    A window never crosses a session, an episode or a gap.
    """

    images: np.ndarray
    actions: np.ndarray
    states: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self):
        if self.images.ndim != 4 or self.images.shape[-1] != 3 or self.images.dtype != np.uint8 or len(self.images) == 0:
            raise FrameError(f"a window's images are (T, H, W, 3) uint8 with T >= 1, not {self.images.shape} {self.images.dtype}; stack the frames")
        if self.actions.ndim != 2 or len(self.actions) != len(self.images) - 1:
            raise ActionError(
                f"{len(self.images)} images need actions of shape ({len(self.images) - 1}, C), not {self.actions.shape}; "
                "give one action between each two"
            )

    def __len__(self) -> int:
        return len(self.images)

    def last(self, frames: int) -> "Window":
        """The newest `frames` images and the actions between them."""
        keep = min(frames, len(self))
        return Window(self.images[-keep:], self.actions[len(self.actions) - keep + 1 :], {name: value[-keep:] for name, value in self.states.items()})


@dataclass(frozen=True)
class Choice:
    """What a selector decided: the action, the score it gave each candidate, and why, in a sentence."""

    action: Action
    scores: Mapping[str, float] = field(default_factory=dict)  # label -> score
    why: str = ""


@dataclass(frozen=True)
class Situation:
    """All a selector may look at."""

    window: Window
    action_space: ActionSpace
    world_model: "WorldModel | None" = None
    step: int = 0
    episode: int = 0  # of the window's frames


Selector = Callable[[Situation], "Choice | Action | tuple[Action, Any]"]


def as_choice(chosen: Any, space: ActionSpace) -> Choice:
    """Selectors may answer a Choice, a plain action, or (action, metadata); the action must be one of the robot's."""
    if isinstance(chosen, tuple) and len(chosen) == 2:
        chosen = chosen[0]
    if not isinstance(chosen, Choice):
        if not isinstance(chosen, Mapping):
            raise ActionError(f"the selector chose {chosen!r}, which is no action; return one of {space}")
        chosen = Choice(chosen, why="as the selector said")
    return Choice(space.check(chosen.action), chosen.scores, chosen.why)


@dataclass(frozen=True)
class Step:
    """An event of `live`: the robot looked, chose and acted."""

    index: int
    observation: Observation
    requested: Action
    executed: Action
    choice: Choice
    started_ns: int  # wall clock
    ended_ns: int
    monotonic_ns: int = 0  # the start again, on a clock that never jumps


@dataclass(frozen=True)
class Study:
    """An event of `live`: one gradient step, and what the quality gate said after it.

    `gate` is "learning" (the robot still waits), "passed", "budget", "stalled", "diverged", or "beside": no robot waited for it.
    """

    update: int
    losses: Mapping[str, float]
    gate: str
    seconds: float  # of learning so far: gradient steps only
    samples: int = 0  # windows learned from so far
    notes: tuple[str, ...] = ()  # sentences a person should hear: a level of prediction was created, or went


@dataclass(frozen=True)
class Ending:
    """An event of `live`: the robot looked, and nothing could be done from there, since the episode was over."""

    observation: Observation


Event = Step | Study | Ending
