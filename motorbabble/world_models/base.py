"""The contract of a mind: reconstruct what it sees, imagine what actions would do, say what it got wrong.

Life, selectors, the card and the explorers speak to this contract only. tests/exams.py holds its rules
as an exam that every world model passes. Losses are a pure function of weights and batch: whatever is random in
them grows from a number of the sample's own, so that a sample is masked alike in whichever process it is learned from.
"""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from motorbabble.errors import ActionError, FrameError
from motorbabble.experience import Window


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
        images = torch.from_numpy(np.stack([window.images for window in windows])).to(device)
        actions = torch.from_numpy(np.stack([window.actions for window in windows]).astype(np.float32)).to(device)
        images = images.permute(0, 1, 4, 2, 3).contiguous().float() / 255
        if backgrounds is None:
            return cls(images, actions, images.mean((0, 1)).expand(len(images), -1, -1, -1), seeds, draw)
        return cls(images, actions, torch.from_numpy(np.asarray(backgrounds, np.float32)).to(device).movedim(-1, 1) / 255, seeds, draw)

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


def this_process() -> tuple[int, int]:
    """The number of this process, from 0, and how many learn together: (0, 1) unless torch.distributed was told otherwise."""
    together = dist.is_available() and dist.is_initialized()
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

    N plans of H actions each. `images` is None when only uncertainty was asked for.
    """

    images: Tensor | None
    uncertainty: Tensor


class WorldModel(nn.Module, ABC):
    """A model of what one robot's actions do to what it sees."""

    image_shape: tuple[int, int]  # height, width of the frames it takes and gives
    action_size: int  # C of ActionSpace.size
    history: int  # how many newest frames it looks at
    teaching: frozenset[str] = frozenset()  # fields of its `config` that say how it is taught, not what it computes; a checkpoint may change them

    @abstractmethod
    def reconstruct(self, images: np.ndarray) -> Tensor:
        """What it sees in frames (N, H, W, 3) uint8: (N, 3, H, W) in [0, 1]. Frames are encoded whole."""

    @abstractmethod
    def imagine(self, window: Window, plans: np.ndarray, *, pictures: bool = True) -> Imagination:
        """What N plans of H encoded actions, (N, H, C), would lead to from the window's end, in one batch."""

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """{"total": scalar to minimise, "<part>": scalar, ...}; chance comes from the batch, never from torch's own generators.

        Whatever it is divided by goes through `over_processes`, so that the mean of all processes' losses is that of their whole batch.
        A part "reconstruction_skill" (1 - error / error of the mean frame) lets the gate open early; "fresh_error" and
        "fresh_copy_error" (MSE of the last transition of the first window, and copy-last's) draw the learning curve.
        """

    def file_of(self, weight: str) -> str:
        """The checkpoint file, without its ending, that a weight of this name goes into."""
        return "world_model"

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def check_images(self, images: np.ndarray) -> np.ndarray:
        if images.shape[-3:] != (*self.image_shape, 3) or images.dtype != np.uint8:
            raise FrameError(
                f"this model sees frames of shape {(*self.image_shape, 3)} uint8, not {tuple(images.shape[-3:])} {images.dtype}; "
                "resize the frame, or make a model for this size"
            )
        return images

    def check_window(self, window: Window) -> Window:
        self.check_images(window.images)
        if window.actions.shape[1] != self.action_size and len(window) > 1:
            raise ActionError(
                f"the window's actions are {window.actions.shape[1]} numbers each, this model knows {self.action_size}; encode them with its space"
            )
        if not np.isfinite(window.actions).all():
            raise ActionError("the window's actions hold NaN or infinity; encode every action with action_space.encode")
        return window

    def check_plans(self, plans: np.ndarray) -> np.ndarray:
        plans = np.asarray(plans, np.float32)
        if plans.ndim != 3 or plans.shape[2] != self.action_size or 0 in plans.shape:
            raise ActionError(f"plans have shape (plans, actions, {self.action_size}), not {plans.shape}; stack action_space.encode(action)")
        if not np.isfinite(plans).all():
            raise ActionError("a plan holds NaN or infinity; encode every action with action_space.encode")
        return plans
