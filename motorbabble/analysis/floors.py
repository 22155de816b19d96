"""Four predictors that know nothing of bodies; a model that does not beat them has not learned.

Copy-last keeps the last frame; mean frame and black always show the same picture; the shift floor knows one image shift
per action. It is estimated by phase correlation (Kuglin and Hines 1975): the cross-power spectrum of (frame, next),
each frequency scaled to length 1, is summed over an action's moved transitions, and its inverse transform peaks
at the circular shift. Where that shift predicts the lived transitions worse than no shift, no shift is kept: a floor should be
as high as its idea allows. It solves the plain dot in a few steps; several bodies, a background or a distractor defeat it.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from motorbabble.analysis.scores import Predict, candidates_of, has_moved, nearest, stretches
from motorbabble.errors import ConfigurationError
from motorbabble.experience import ActionSpace, Step, Window


def floors_of(lived: Sequence[Step], space: ActionSpace) -> dict[str, Predict]:
    """{"copy_last", "mean_frame", "black", "shift"}: all made from the stream the model learned from, none from the test."""
    if not lived:
        raise ConfigurationError("the floors need the lived stream, but it holds 0 steps; give the steps the model learned from")
    mean = mean_frame(lived)
    return {"copy_last": copy_last, "mean_frame": Always(mean), "black": Always(np.zeros_like(mean)), "shift": Shift.of(lived, space)}


def mean_frame(lived: Sequence[Step]) -> np.ndarray:
    """(H, W, 3) float in [0, 1]."""
    total = np.zeros(lived[0].observation.image.shape, np.float64)
    for step in lived:
        total += step.observation.image
    return (total / (255 * len(lived))).astype(np.float32)


def copy_last(window: Window, plans: np.ndarray) -> np.ndarray:
    last = window.images[-1].astype(np.float32) / 255
    return np.broadcast_to(last, (*plans.shape[:2], *last.shape))


class Always:
    """The same picture, whatever is seen or done."""

    def __init__(self, image: np.ndarray):
        self.image = image

    def __call__(self, window: Window, plans: np.ndarray) -> np.ndarray:
        return np.broadcast_to(self.image, (*plans.shape[:2], *self.image.shape))


class Shift:
    """Rolls the whole last frame by a fixed (dx, dy) px per action, around the edges; plans add up.

    An action of a box counts as its nearest candidate.
    """

    def __init__(self, candidates: np.ndarray, shifts: Sequence[tuple[int, int]]):
        self.candidates = candidates  # (A, C) encoded
        self.shifts = list(shifts)  # (dx, dy) px, right and down

    @classmethod
    def of(cls, lived: Sequence[Step], space: ActionSpace) -> "Shift":
        candidates = candidates_of(space)
        height, width = lived[0].observation.image.shape[:2]
        phase = np.zeros((len(candidates), height, width // 2 + 1), np.complex128)
        plain = np.zeros_like(phase)
        for run in stretches(lived):
            for step, after in pairwise(run):
                if has_moved(step.observation.image, after.observation.image):
                    cross = np.conj(_spectrum(step.observation.image)) * _spectrum(after.observation.image)
                    action = nearest(candidates, space.encode(step.executed))
                    plain[action] += cross
                    phase[action] += cross / (np.abs(cross) + 1e-6)
        return cls(candidates, [_peak(p, q, (height, width)) for p, q in zip(phase, plain, strict=True)])

    def __call__(self, window: Window, plans: np.ndarray) -> np.ndarray:
        last = window.images[-1].astype(np.float32) / 255
        steps = np.array([[self.shifts[nearest(self.candidates, action)] for action in plan] for plan in plans])  # (N, H, 2)
        return np.stack([[np.roll(last, (dy, dx), (0, 1)) for dx, dy in plan] for plan in steps.cumsum(1)])


def _spectrum(image: np.ndarray) -> np.ndarray:
    grey = image.mean(2) / 255
    return np.fft.rfft2(grey - grey.mean())


def _peak(phase: np.ndarray, plain: np.ndarray, shape: tuple[int, int]) -> tuple[int, int]:
    """(dx, dy) px, the shorter way round. The plain correlation is highest where a shift's squared error is lowest."""
    correlation = np.fft.irfft2(plain, shape)
    dy, dx = np.unravel_index(int(np.argmax(np.fft.irfft2(phase, shape))), shape)
    if correlation[dy, dx] <= correlation[0, 0]:
        return 0, 0
    height, width = shape
    return int((dx + width // 2) % width - width // 2), int((dy + height // 2) % height - height // 2)
