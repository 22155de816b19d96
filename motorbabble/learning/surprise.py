"""Surprise: whether the newest moments are predicted worse than remembered ones, as in a world that has just become another one.

Decisions: both are measured against copy-last, so that a slow world and a fast one compare; the newest before anything was learned
from it; over running sums, so that one odd moment means little. It compares, so noise that nobody can predict surprises nobody for long:
once remembered, it is as bad there. What a surprised learner does otherwise is in learner.py; a calm one does nothing otherwise.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from motorbabble.errors import ConfigurationError

MEMORY = 0.95  # of the running sums: about the newest 20 moments


@dataclass(frozen=True)
class SurpriseConfig:
    ratio: float = 1.25  # times the error of what is remembered: from here on it is surprised; math.inf: never
    span: int = 50  # newest frames: a surprised learner draws all windows but one from them
    ema_decay: float = 0.9  # of the averaged weights while surprised, where that is less: what acts follows sooner

    def __post_init__(self):
        if not self.ratio > 1 or self.span < 1 or not 0 <= self.ema_decay < 1:
            raise ConfigurationError(f"{self} cannot work; keep ratio above 1 (math.inf: never surprised), span >= 1 and ema_decay in 0..1")


class Surprise:
    """`meet` every fresh moment; `felt` says whether the newest ones are a surprise."""

    def __init__(self, config: SurpriseConfig = SurpriseConfig()):
        self.config = config
        self.fresh = self.fresh_copy = self.remembered = self.remembered_copy = 0.0

    @property
    def felt(self) -> bool:
        """Whether it is surprised at present. Where nothing moved, or there is nothing to compare with, there is no surprise."""
        if not (self.fresh_copy > 0 and self.remembered_copy > 0):
            return False
        return self.fresh / self.fresh_copy > self.config.ratio * self.remembered / self.remembered_copy

    def meet(self, losses: Mapping[str, float]) -> None:
        """The losses of an update whose first window was fresh and whose last was drawn from all that is remembered."""
        sums = vars(self).keys() - {"config"}
        news = {name: losses.get(f"{name}_error", math.nan) for name in sums}
        if all(map(math.isfinite, news.values())):
            for name, value in news.items():
                setattr(self, name, MEMORY * getattr(self, name) + value)

    def state_dict(self) -> dict[str, float]:
        return {name: value for name, value in vars(self).items() if name != "config"}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        for name in self.state_dict():
            setattr(self, name, float(state[name]))
