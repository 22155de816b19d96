"""Redrawn: something that takes long to draw and that many pages look at. It is drawn once for all of them, at most once a second, and only
where there is something new; meanwhile everybody gets the drawing that there is.
"""

import time
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

import numpy as np

EVERY = 1.0  # seconds
POINTS = 600  # of a line; a longer one is drawn through the means of its parts


class Redrawn:
    def __init__(self, every: float = EVERY):
        self._every, self._lock = every, Lock()
        self._of: Any = None
        self._at = -np.inf
        self._html = ""
        self._number = 0

    def __call__(self, of: Any, draw: Callable[[], str], at_once: bool = False) -> tuple[int, str]:
        """The number of the newest drawing, which rises with each, and that drawing. `of`: what it would show; equal: nothing new."""
        with self._lock:
            if of != self._of and (at_once or time.monotonic() - self._at >= self._every):
                self._html, self._of, self._number = draw(), of, self._number + 1
                self._at = time.monotonic()
            return self._number, self._html


def thinned(line: Sequence[tuple[float, float]], points: int = POINTS) -> tuple[list[float], list[float]]:
    """The xs and ys of a line of at most `points` points: means of equal parts; NaN is left out of a mean."""
    xy = np.asarray(line, float).reshape(-1, 2)
    size = max(1, -(-len(xy) // points))
    parts = [part if len(held := part[np.isfinite(part[:, 1])]) == 0 else held for part in np.split(xy, range(size, len(xy), size)) if len(part)]
    means = [part.mean(0) for part in parts]
    return [float(x) for x, _ in means], [float(y) for _, y in means]
