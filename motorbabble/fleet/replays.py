"""Replays: what several robots lived, as one memory to learn from.

Decisions: one Replay per robot, so that no window crosses robots any more than it crosses episodes; each has its share of the one capacity
and of the span that counts as recent. A sample draws a robot for each window, in proportion to what is remembered of it. `turn` says whose newest
look is studied at present.
"""

from dataclasses import replace

import numpy as np

from motorbabble.errors import FrameError
from motorbabble.experience import Window
from motorbabble.learning.replay import Replay, ReplayConfig


class Replays(Replay):
    """A Replay, as the learner sees it; frames go in by `hear`."""

    def __init__(self, config: ReplayConfig, robots: int):
        super().__init__(config)
        share = replace(config, capacity=max(2, config.capacity // robots), recent_span=max(1, config.recent_span // robots))
        self.of = [Replay(share) for _ in range(robots)]
        self.turn = 0

    def __len__(self) -> int:
        return sum(map(len, self.of))

    def hear(self, robot: int, image: np.ndarray | None, led: np.ndarray | None) -> None:
        """One look of one robot; None: it must not be learned from, or is lost."""
        if image is None:
            self.of[robot].skip()
        else:
            self.of[robot].add(image, led)
        self.moments += 1

    def background(self) -> np.ndarray:
        seen = [(len(one), one.background()) for one in self.of if len(one)]
        if not seen:
            raise FrameError("nothing was seen yet, so there is no mean frame; add a frame first")
        return np.average([mean for _, mean in seen], 0, [count for count, _ in seen])

    def newest(self, length: int) -> Window | None:
        return self.of[self.turn].newest(length)

    def longest_run(self) -> int:
        return max(one.longest_run() for one in self.of)

    def sample(self, count: int, length: int, rng: np.random.Generator, newest: int | None = None) -> list[Window]:
        able = [one for one in self.of if one.longest_run() >= length]
        if not able or not count:
            return []
        sizes = np.array([len(one) for one in able], float)
        shares = rng.multinomial(count, sizes / sizes.sum())
        recent = newest and max(1, newest // len(self.of))
        return [window for one, share in zip(able, shares.tolist(), strict=True) if share for window in one.sample(share, length, rng, recent)]
