"""Replay: what was lived and can still be remembered, as windows.

Decisions: one flat memory of uint8 frames, each with the action that led to it and the length of the
unbroken run it ends, so that no window ever crosses an episode, a gap or something held out; a sample is
the newest window, some recent ones and the rest drawn evenly, because one stream with replay learns where
the newest frame alone overfits and forgets.
"""

from dataclasses import dataclass

import numpy as np

from motorbabble.errors import ConfigurationError, FrameError
from motorbabble.experience import Window


@dataclass(frozen=True)
class ReplayConfig:
    capacity: int = 5000  # frames kept; 150 KB each at 224 x 224
    recent_share: float = 0.25  # of a sample, drawn from the newest `recent_span` frames
    recent_span: int = 200

    def __post_init__(self):
        if self.capacity < 2 or self.recent_span < 1 or not 0 <= self.recent_share <= 1:
            raise ConfigurationError(f"{self} cannot work; keep capacity >= 2, recent_span >= 1 and recent_share in 0..1")


class Replay:
    def __init__(self, config: ReplayConfig = ReplayConfig()):
        self.config = config
        self._frames: list[np.ndarray] = []
        self._led: list[np.ndarray | None] = []
        self._runs: list[int] = []
        self._sum: np.ndarray | None = None
        self._seen = 0
        self._broken = True  # the next frame starts a new run

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, image: np.ndarray, led: np.ndarray | None) -> None:
        """A frame and the encoded action that led to it from the frame added before; None starts a new episode."""
        if self._frames and image.shape != self._frames[-1].shape:
            raise FrameError(f"the frame is {image.shape}, those before it were {self._frames[-1].shape}; a robot's frames keep one size")
        run = 1 if led is None or self._broken else self._runs[-1] + 1
        self._broken = False
        self._frames.append(image)
        self._led.append(led)
        self._runs.append(run)
        self._sum = image.astype(np.float64) if self._sum is None else self._sum + image
        self._seen += 1
        if len(self) > self.config.capacity:
            self._forget_oldest()

    def skip(self) -> None:
        """Something happened here that must not be learned from: the next frame starts a new run."""
        self._broken = True

    def background(self) -> np.ndarray:
        """The mean frame of everything added so far: (H, W, 3) float, 0 to 255."""
        if self._sum is None:
            raise FrameError("nothing was seen yet, so there is no mean frame; add a frame first")
        return self._sum / self._seen

    def newest(self, length: int) -> Window | None:
        """The window of up to `length` frames that ends now, or None when nothing was added since the last skip."""
        if self._broken or not self._frames:
            return None
        return self._window(len(self) - 1, min(length, self._runs[-1]))

    def sample(self, count: int, length: int, rng: np.random.Generator) -> list[Window]:
        """`count` windows of `length` frames, drawn with replacement; fewer than asked (none) when no run is that long."""
        ends = np.flatnonzero(np.asarray(self._runs) >= length)
        if not len(ends):
            return []
        recent = ends[ends >= len(self) - self.config.recent_span]
        from_recent = rng.random(count) < self.config.recent_share
        drawn = [recent if late and len(recent) else ends for late in from_recent]
        return [self._window(int(pool[rng.integers(len(pool))]), length) for pool in drawn]

    def _window(self, end: int, length: int) -> Window:
        first = end - length + 1
        led = [action for action in self._led[first + 1 : end + 1] if action is not None]
        return Window(np.stack(self._frames[first : end + 1]), np.stack(led) if led else np.zeros((0, 0), np.float32))

    def _forget_oldest(self) -> None:
        del self._frames[0], self._led[0], self._runs[0]
        for i, run in enumerate(self._runs):  # the run that lost its head is shorter now
            if run == 1:
                break
            self._runs[i] = run - 1 if i else 1
