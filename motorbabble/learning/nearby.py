"""NearbyFrames: remembered frames in the memory of the device that learns, so that a batch is put together where it is needed.

Decisions: a cache beside the replay, never the memory itself: a frame is copied over once, when it is first drawn, and the one that was not
drawn for longest gives way; so nothing about saving, resuming or forgetting has to know of it. Frames stay uint8, a quarter
of what they are as floats. Picking and shifting are one indexing; the same numbers come out, to the bit, as
from stacking on the host. Whatever does not fit is stacked there instead.
"""

import weakref
from collections import OrderedDict
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from motorbabble.experience import Window
from motorbabble.learning.replay import Remembered


class Slots:
    """Which frame lies where, of those that were copied to somewhere else: the one drawn longest ago gives way."""

    def __init__(self):
        self._of: OrderedDict[int, tuple[int, weakref.ref]] = OrderedDict()  # by a frame's id, the one drawn longest ago first

    def __len__(self) -> int:
        return len(self._of)

    def __getitem__(self, frame: np.ndarray) -> int:
        return self._of[id(frame)][0]

    def fetch(self, frames: Iterable[np.ndarray], most: int) -> dict[int, np.ndarray]:
        """Frames that do not lie there yet, by the slot of each, which is below `most`; there are no more frames than that."""
        new = []
        for frame in {id(frame): frame for frame in frames}.values():
            if id(frame) in self._of and self._of[id(frame)][1]() is frame:
                self._of.move_to_end(id(frame))
            else:
                new.append(frame)
        placed = {}
        for frame in new:  # whose id may have been that of one that was forgotten since
            slot = self._of.pop(id(frame), (len(self._of), None))[0]
            if slot >= most:
                slot = self._of.popitem(last=False)[1][0]
            self._of[id(frame)] = (slot, weakref.ref(frame))
            placed[slot] = frame
        return placed


class NearbyFrames:
    """At most `most` frames and `megabytes` of them on `device`; all of one shape, as in a replay."""

    def __init__(self, device: torch.device, megabytes: float, most: int):
        self.device, self.megabytes, self.most = device, megabytes, most
        self.frames: Tensor | None = None  # (slots, H, W, 3) uint8, taken when the first frame's size is known
        self._slots = Slots()

    def gather(self, windows: Sequence[Window], moves: np.ndarray) -> Tensor | None:
        """Windows of equal length, each moved by its `moves` (B, 2) pixels down and right, around the edges: (B, T, H, W, 3) uint8.

        None where they are no windows of a replay, or do not fit.
        """
        drawn = [window.frames for window in windows if isinstance(window, Remembered) and window.frames]
        if len(drawn) < len(windows) or not drawn:
            return None
        wanted = [frame for frames in drawn for frame in frames]
        store = self._store(drawn[0][0])
        if store is None or len(set(map(id, wanted))) > len(store):
            return None
        if new := self._slots.fetch(wanted, len(store)):
            store[torch.tensor(list(new), device=self.device)] = torch.from_numpy(np.stack(list(new.values()))).to(self.device)
        slots = torch.tensor([[self._slots[frame] for frame in frames] for frames in drawn], device=self.device)
        rows, columns = _places(moves, store.shape[1], store.shape[2], self.device)
        return store[slots[:, :, None, None], rows[:, None, :, None], columns[:, None, None, :]]

    def _store(self, frame: np.ndarray) -> Tensor | None:
        if self.frames is None and (most := min(self.most, int(self.megabytes * 1e6 / frame.nbytes))):
            try:
                self.frames = torch.empty((most, *frame.shape), dtype=torch.uint8, device=self.device)
            except torch.OutOfMemoryError:
                self.most = 0  # the device is full of other things; asking before every update would not help
        return self.frames


def shifted_means(mean: np.ndarray, moves: np.ndarray, device: torch.device) -> Tensor:
    """A mean frame (H, W, 3), moved as each of the windows is: (B, H, W, 3) float32."""
    rows, columns = _places(moves, mean.shape[0], mean.shape[1], device)
    return torch.from_numpy(np.asarray(mean, np.float32)).to(device)[rows[:, :, None], columns[:, None, :]]


def _places(moves: np.ndarray, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Which row and which column comes to stand where: (B, H) and (B, W)."""
    down, right = torch.from_numpy(np.asarray(moves, np.int64)).to(device).T[..., None]
    return (torch.arange(height, device=device) - down) % height, (torch.arange(width, device=device) - right) % width
