"""Replay: what was lived and can still be remembered, as windows.

Decisions: one flat memory of uint8 frames, each with the action that led to it and the length of the
unbroken run it ends, so that no window ever crosses an episode, a gap or something held out; a sample is
the newest window, some recent ones and the rest drawn evenly, because one stream with replay learns where
the newest frame alone overfits and forgets; half of them end in a change, because a robot that pushes against a wall
for an hour would otherwise unlearn that anything moves.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from motorbabble.errors import ConfigurationError, FrameError
from motorbabble.experience import Window, has_moved


@dataclass(frozen=True)
class ReplayConfig:
    capacity: int = 5000  # frames kept; 150 KB each at 224 x 224
    recent_share: float = 0.25  # of a sample, drawn from the newest `recent_span` frames
    recent_span: int = 200
    device_mb: float | None = None  # of frames kept in the memory of the device that learns; None: 4096 on CUDA, on a CPU 0, which is none
    moved_share: float = 0.5  # of a sample, drawn from windows in whose last step something changed, where there are any

    def __post_init__(self):
        if self.capacity < 2 or self.recent_span < 1 or not (0 <= self.recent_share <= 1 and 0 <= self.moved_share <= 1):
            raise ConfigurationError(f"{self} cannot work; keep capacity >= 2, recent_span >= 1, recent_share and moved_share in 0..1")
        if self.device_mb is not None and not self.device_mb >= 0:
            raise ConfigurationError(f"device_mb is {self.device_mb}; give megabytes, 0 for none, or None for as many as suit the device")


class Remembered(Window):
    """A window out of a replay: `frames` are the replay's own arrays, copied into `images` only when somebody looks at those."""

    frames: tuple[np.ndarray, ...] = ()

    @classmethod
    def of(cls, frames: Sequence[np.ndarray], actions: np.ndarray) -> "Remembered":
        window = cls.__new__(cls)
        vars(window).update(frames=tuple(frames), actions=actions, states={})
        return window

    @cached_property
    def images(self) -> np.ndarray:  # type: ignore[override]
        return np.stack(self.frames)

    def __len__(self) -> int:
        return len(self.actions) + 1


class Replay:
    def __init__(self, config: ReplayConfig = ReplayConfig()):
        self.config = config
        self._frames: list[np.ndarray] = []
        self._led: list[np.ndarray | None] = []
        self._runs: list[int] = []
        self._changed: list[bool] = []  # whether it differs from the frame before
        self._moments: list[int] = []  # which look of this life each frame was
        self.moments = 0  # looks so far, those that were not to be learned from included
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
        self._changed.append(run > 1 and has_moved(self._frames[-1], image))
        self._frames.append(image)
        self._led.append(led)
        self._runs.append(run)
        self._moments.append(self.moments)
        self.moments += 1
        self._sum = image.astype(np.float64) if self._sum is None else self._sum + image
        self._seen += 1
        if len(self) > self.config.capacity:
            self._forget_oldest()

    def skip(self) -> None:
        """A look that must not be learned from: the next frame starts a new run."""
        self._broken = True
        self.moments += 1

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

    def longest_run(self) -> int:
        """Frames in the longest unbroken run that is remembered."""
        return max(self._runs, default=0)

    def sample(self, count: int, length: int, rng: np.random.Generator, newest: int | None = None) -> list[Window]:
        """`count` windows of `length` frames, drawn with replacement; fewer than asked (none) when no run is that long.

        With `newest` all but the last of them are drawn from so many newest frames, and the last from all there are.
        """
        ends = np.flatnonzero(np.asarray(self._runs) >= length)
        if not len(ends):
            return []
        recent = ends[ends >= len(self) - (newest or self.config.recent_span)]
        changed = np.asarray(self._changed)
        moved, recent_moved = ends[changed[ends]], recent[changed[recent]]
        late, lively = rng.random(count) < self.config.recent_share, rng.random(count) < self.config.moved_share
        if newest:
            late = np.arange(count) < count - 1
        fallback = {True: (recent, ends), False: (ends,)}  # where nothing recent, or nothing at all, has moved
        wanted = [
            ((recent_moved if now else moved, moved, *fallback[now]) if changes else fallback[now])
            for now, changes in zip(late.tolist(), lively, strict=True)
        ]
        drawn = [next(pool for pool in pools if len(pool)) for pools in wanted]
        return [self._window(int(pool[rng.integers(len(pool))]), length) for pool in drawn]

    # For checkpoints: what is remembered as references to moments; whoever records the life knows where their frames are.

    def references(self, before: int) -> dict[str, np.ndarray]:
        """What was remembered before look number `before`: moments, runs, led (NaN: nothing did), the frames' sum and count.

        At most the newest look may be left out: one that was not lived to its end.
        """
        count = sum(moment < before for moment in self._moments)
        size = next((len(led) for led in self._led if led is not None), 0)
        led = np.array([np.full(size, np.nan) if led is None else led for led in self._led[:count]], np.float32).reshape(count, size)
        late = [frame.astype(np.float64) for frame in self._frames[count:]]
        total = np.zeros((0, 0, 3)) if self._sum is None else self._sum - sum(late) if late else self._sum
        return {
            "moments": np.array(self._moments[:count], np.int64),
            "runs": np.array(self._runs[:count], np.int64),
            "led": led,
            "sum": total,
            "seen": np.array([self._seen - len(late)], np.int64),
        }

    def frames(self, before: int) -> list[np.ndarray]:
        """The frames `references` speaks of."""
        return [frame for frame, moment in zip(self._frames, self._moments, strict=True) if moment < before]

    def load(self, references: Mapping[str, np.ndarray], moments: int, frame: Callable[[int], np.ndarray | None]) -> int:
        """Remember again after `moments` looks, `frame(i)` giving the i-th frame or None where it is lost; answers how many are."""
        self._frames, self._led, self._runs, self._changed, self._moments = [], [], [], [], []
        lost, before = 0, -1
        for i, (moment, run, led) in enumerate(zip(references["moments"], references["runs"], references["led"], strict=True)):
            image = frame(i)
            if image is None:
                lost += 1
                continue
            follows = before == i - 1 and bool(self._runs)
            earlier = self._frames[-1] if follows else None
            self._frames.append(image)
            self._led.append(None if np.isnan(led).any() or not led.size else led.astype(np.float32))
            self._runs.append(min(int(run), self._runs[-1] + 1) if follows else 1 if lost else int(run))
            self._changed.append(earlier is not None and self._runs[-1] > 1 and has_moved(earlier, image))
            self._moments.append(int(moment))
            before = i
        self._sum = references["sum"].copy() if references["sum"].size else None
        self._seen, self.moments = int(references["seen"][0]), moments
        self._broken = not self._moments or self._moments[-1] != moments - 1  # the newest look was left out, or is lost
        while len(self) > self.config.capacity:  # which may be smaller by now
            self._forget_oldest()
        return lost

    def _window(self, end: int, length: int) -> Window:
        first = end - length + 1
        led = [action for action in self._led[first + 1 : end + 1] if action is not None]
        return Remembered.of(self._frames[first : end + 1], np.stack(led) if led else np.zeros((0, 0), np.float32))

    def _forget_oldest(self) -> None:
        del self._frames[0], self._led[0], self._runs[0], self._changed[0], self._moments[0]
        for i, run in enumerate(self._runs):  # the run that lost its head is shorter now
            if run == 1:
                break
            self._runs[i] = run - 1 if i else 1
