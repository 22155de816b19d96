"""The contract of a mind: reconstruct what it sees, imagine what actions would do, say what it got wrong.

Life, selectors, the card and the explorers speak to this contract only. tests/exams.py holds its rules
as an exam that every world model passes. Losses are a pure function of weights and batch: whatever is random in
them grows from a number of the sample's own, so that a sample is masked alike in whichever process it is learned from.
A model may see smaller frames than its robot gives: whatever enters such a mind is resized at its door, and nowhere else.
"""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from motorbabble.errors import ActionError, ConfigurationError, FrameError
from motorbabble.experience import Window
from motorbabble.models.precision import computing

Method = TypeVar("Method", bound=Callable[..., Any])


@dataclass(frozen=True)
class Batch:
    """Windows stacked as tensors: images (B, T, 3, H, W) float in [0, 1], actions (B, T-1, C), background (B, 3, H, W).

    `background` is the mean frame of the stream so far, where each window's camera would see it: it tells which patches hold something.
    `seeds` (B,) int64 and `draw` are all the chance there is: one number for each sample, and one for the update, alike in all processes.
    """

    images: Tensor
    actions: Tensor
    background: Tensor
    seeds: np.ndarray | None = None  # 0, 1, 2, ... unless given
    draw: int = 0

    @classmethod
    def of(
        cls,
        windows: Sequence[Window],
        backgrounds: np.ndarray | None = None,
        device: torch.device | str = "cpu",
        seeds: np.ndarray | None = None,
        draw: int = 0,
    ) -> "Batch":
        """Windows of equal length; `backgrounds` (B, H, W, 3), 0 to 255, or the mean of these frames where there are none."""
        frames = torch.from_numpy(np.stack([window.images for window in windows])).to(device)
        given = None if backgrounds is None else torch.from_numpy(np.asarray(backgrounds, np.float32)).to(device)
        return cls.made(frames, np.stack([window.actions for window in windows]), given, seeds, draw)

    @classmethod
    def made(cls, frames: Tensor, actions: np.ndarray, backgrounds: Tensor | None, seeds: np.ndarray | None, draw: int) -> "Batch":
        """Of frames (B, T, H, W, 3) uint8 and mean frames (B, H, W, 3), 0 to 255, that lie on the device."""
        images = frames.permute(0, 1, 4, 2, 3).contiguous().float() / 255
        led = torch.from_numpy(actions.astype(np.float32)).to(frames.device)
        if backgrounds is None:
            return cls(images, led, images.mean((0, 1)).expand(len(images), -1, -1, -1), seeds, draw)
        return cls(images, led, backgrounds.movedim(-1, 1) / 255, seeds, draw)

    def chance(self, purpose: str, count: int) -> Tensor:
        """(B, count) numbers evenly from [0, 1), each row by its sample's seed alone; another purpose, other numbers."""
        seeds = np.arange(len(self.images)) if self.seeds is None else self.seeds
        return torch.from_numpy(_even(seeds, purpose, count)).to(self.images.device)

    def chance_of_all(self, purpose: str) -> float:
        """One number from [0, 1) for the whole update."""
        return float(_even(np.array([self.draw]), purpose, 1)[0, 0])


def _even(seeds: np.ndarray, purpose: str, count: int) -> np.ndarray:
    """(B, count) float32: SplitMix64 (Steele et al. 2014), which is a function of seed and place and so needs no state and no order."""

    def mixed(x: np.ndarray) -> np.ndarray:
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB
        return x ^ (x >> 31)

    starts = mixed(mixed(seeds.astype(np.uint64)) + zlib.crc32(purpose.encode()))
    places = np.arange(1, count + 1, dtype=np.uint64) * 0x9E3779B97F4A7C15
    return (mixed(starts[:, None] + places) >> 40).astype(np.float32) / 2**24


class Helpers:
    """Of a process that has some (learning/spread.py): it learns together with them inside `with helpers.joined():`, and alone elsewhere."""

    def __init__(self):
        self.has_some = False
        self._are_joined: ContextVar[bool] = ContextVar("joined", default=False)

    @property
    def are_apart(self) -> bool:
        return self.has_some and not self._are_joined.get()

    @contextmanager
    def joined(self) -> Iterator[None]:
        token = self._are_joined.set(True)
        try:
            yield
        finally:
            self._are_joined.reset(token)


helpers = Helpers()


def this_process() -> tuple[int, int]:
    """The number of this process, from 0, and how many learn together: (0, 1) unless torch.distributed was told otherwise."""
    together = dist.is_available() and dist.is_initialized() and not helpers.are_apart
    return (dist.get_rank(), dist.get_world_size()) if together else (0, 1)


def over_processes(value: Tensor) -> Tensor:
    """The mean of `value` over all processes that learn together, without gradient: what each knows of a batch they share evenly."""
    processes = this_process()[1]
    if processes == 1:
        return value.detach()
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / processes


@dataclass(frozen=True)
class Imagination:
    """What would happen. images (N, H, 3, h, w) float in [0, 1]; uncertainty (N, H), in nats, larger is less sure.

    N plans of H actions each. `images` is None when only uncertainty was asked for. `expected_error` (N, H), mean squared, is how wrong the
    pictures are expected to be: it includes what nobody could know, which uncertainty leaves out. None for models that do not say.
    """

    images: Tensor | None
    uncertainty: Tensor
    expected_error: Tensor | None = None


class WorldModel(nn.Module, ABC):
    """A model of what one robot's actions do to what it sees."""

    image_shape: tuple[int, int]  # height, width of the frames it learns from and gives
    has_door: bool = False  # whether it takes frames of any size, and resizes them; else only those of image_shape
    action_size: int  # C of ActionSpace.size
    history: int  # how many newest frames it looks at
    can_grow: bool = False  # whether it can have levels above 0
    uses_all_weights: bool = True  # in every update; several processes that learn together must know, or they wait for gradients that never come
    precision: torch.dtype = torch.float32  # that products of matrices are computed in; whoever trains it says which. Weights are float32 either way
    compiled: bool = False  # whether its large functions are; whoever trains it says so
    teaching: frozenset[str] = frozenset()  # fields of its `config` that say how it is taught, not what it computes; a checkpoint may change them

    @abstractmethod
    def reconstruct(self, images: np.ndarray) -> Tensor:
        """What it sees in frames (N, H, W, 3) uint8: (N, 3, H, W) in [0, 1]. Frames are encoded whole."""

    @abstractmethod
    def imagine(self, window: Window, plans: np.ndarray, *, pictures: bool = True, level: int = 0) -> Imagination:
        """What N plans of H encoded actions, (N, H, C), would lead to from the window's end, in one batch.

        At a level above 0 only the frame after every `spans[level]` actions is imagined; H is a multiple of that. A model
        without levels need not know of `level`, and is never asked for one.
        """

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """{"total": scalar to minimise, "<part>": scalar, ...}; chance comes from the batch, never from torch's own generators.

        Whatever it is divided by goes through `over_processes`, so that the mean of all processes' losses is that of their whole batch.
        A part "reconstruction_skill" (1 - error / error of the mean frame) lets the gate open early; "fresh_error" and
        "fresh_copy_error" (MSE of the last transition of the first window, and copy-last's) draw the learning curve;
        "remembered_error" and "remembered_copy_error" (those of the last window) let a learner be surprised.
        """

    @property
    def spans(self) -> tuple[int, ...]:
        """How many actions ahead each level predicts in one pass: (1, 2, 4, ...); a model without levels has level 0 only."""
        return (1,)

    def grow(self, seed: int) -> None:
        """One more level, above those that there are. What is random in it grows from `seed`, never from torch's own generators."""
        raise ConfigurationError(f"a {type(self).__name__} has no levels to grow; set most_levels to 1")

    def retire(self) -> None:
        """Remove the highest level; only what has grown is ever removed."""
        raise ConfigurationError(f"a {type(self).__name__} has no levels to retire; set most_levels to 1")

    def level_losses(self, level: int, batch: Batch) -> dict[str, Tensor]:
        """As `losses`, of a level above 0, for windows that end `spans[level]` actions after what the level sees."""
        raise ConfigurationError(f"a {type(self).__name__} has no level {level}; set most_levels to 1")

    def level_of(self, weight: str) -> int:
        """The level that a weight of this name belongs to; what all levels share is level 0's."""
        return 0

    def file_of(self, weight: str) -> str:
        """The checkpoint file, without its ending, that a weight of this name goes into."""
        return "world_model"

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def computing(self) -> AbstractContextManager:
        """Whatever it computes, its losses included, belongs inside."""
        return computing(self.precision, self.device)

    def at_the_door(self, images: np.ndarray) -> np.ndarray:
        """Frames (..., H, W, 3) uint8 as the mind gets them, (..., h, w, 3) uint8: the same array where the size fits."""
        if images.shape[-3:] == (*self.image_shape, 3) and images.dtype == np.uint8:
            return images
        if self.has_door and images.ndim >= 3 and images.shape[-1] == 3 and images.size and images.dtype == np.uint8:
            return resized(images, self.image_shape)
        raise FrameError(
            f"this model sees frames of shape {(*self.image_shape, 3)} uint8, not {tuple(images.shape[-3:])} {images.dtype}; "
            "resize the frame, or make a model for this size, or one with image_size, which resizes by itself"
        )

    def check_window(self, window: Window) -> Window:
        """The window as it comes through the door."""
        images = self.at_the_door(window.images)
        if window.actions.shape[1] != self.action_size and len(window) > 1:
            raise ActionError(
                f"the window's actions are {window.actions.shape[1]} numbers each, this model knows {self.action_size}; encode them with its space"
            )
        if not np.isfinite(window.actions).all():
            raise ActionError("the window's actions hold NaN or infinity; encode every action with action_space.encode")
        return window if images is window.images else Window(images, window.actions, window.states)

    def check_plans(self, plans: np.ndarray, span: int = 1) -> np.ndarray:
        """The plans as float32; `span`: how many actions are predicted at once."""
        plans = np.asarray(plans, np.float32)
        if plans.ndim != 3 or plans.shape[2] != self.action_size or 0 in plans.shape:
            raise ActionError(f"plans have shape (plans, actions, {self.action_size}), not {plans.shape}; stack action_space.encode(action)")
        if plans.shape[1] % span:
            raise ActionError(f"this level predicts {span} actions at once, a plan of {plans.shape[1]} is no multiple; lengthen it, or take level 0")
        if not np.isfinite(plans).all():
            raise ActionError("a plan holds NaN or infinity; encode every action with action_space.encode")
        return plans


def looking(method: Method) -> Method:
    """What a model does without learning, in its own precision and without gradient."""

    @wraps(method)
    def inside(self: WorldModel, *arguments: Any, **named: Any) -> Any:
        with torch.no_grad(), self.computing():
            return method(self, *arguments, **named)

    return inside  # type: ignore[return-value]


def resized(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Frames (..., H, W, 3) uint8 as (..., h, w, 3) uint8: each new pixel is the mean of the area that it covers.

    In whole numbers, so that it gives the same bits everywhere.
    """
    height, width = images.shape[-3:-1]
    rows = _gathered(images.astype(np.int64), -3, size[0])
    summed = _gathered(rows, -2, size[1])  # of weights that add up to H W
    return ((summed + height * width // 2) // (height * width)).astype(np.uint8)


def _gathered(images: np.ndarray, axis: int, count: int) -> np.ndarray:
    """`count` sums along an axis of n values. New place i covers [i n, (i + 1) n) where old place j covers [j count, (j + 1) count)."""
    n = images.shape[axis]
    start = np.arange(count) * n
    total = None
    for k in range(-(-n // count) + 1):  # no place touches more old ones than this
        old = start // count + k
        overlap = np.minimum(start + n, (old + 1) * count) - np.maximum(start, old * count)
        weight = np.maximum(overlap, 0).reshape(-1, *[1] * (-axis - 1))
        part = images.take(np.minimum(old, n - 1), axis) * weight
        total = part if total is None else total + part
    assert total is not None
    return total
