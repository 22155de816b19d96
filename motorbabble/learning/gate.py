"""QualityGate: whether the robot sees well enough to act, or has waited long enough.

An absolute loss threshold is passed by a black picture and may never be reached by a noisy camera, so
this gate is relative (reconstruction skill over the mean frame), bounded in updates and seconds, and always
says how it ended. `nan > threshold` is False, so what is not finite never passes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from motorbabble.errors import ConfigurationError


@dataclass(frozen=True)
class GateConfig:
    reconstruction_skill: float = 0.9  # 1 - error / error of the mean frame
    max_updates: int = 2  # per robot step
    max_seconds: float = 30.0  # per robot step; math.inf for runs that must repeat exactly
    patience: int = 200  # updates in one wait without any progress before it counts as stalled

    def __post_init__(self):
        if self.max_updates < 1 or not self.max_seconds > 0 or self.patience < 1:
            raise ConfigurationError(
                f"a gate of {self.max_updates} updates, {self.max_seconds} s and patience {self.patience} never opens; give each a positive value"
            )


class QualityGate:
    """One wait. `judge` is asked after every update and answers learning, passed, budget, stalled or diverged."""

    def __init__(self, config: GateConfig, at_least: int = 1):
        self.config, self.at_least = config, at_least
        self.updates, self.best, self.best_at = 0, -math.inf, 0

    def judge(self, loss: float, skill: float, seconds: float) -> str:
        """loss and skill of this update, seconds since the wait began."""
        self.updates += 1
        if not (math.isfinite(loss) and math.isfinite(skill)):
            return "diverged"
        if skill > self.best + 1e-3:
            self.best, self.best_at = skill, self.updates
        if self.updates < self.at_least:
            return "learning"
        if skill >= self.config.reconstruction_skill:
            return "passed"
        if self.updates >= max(self.config.max_updates, self.at_least) or seconds >= self.config.max_seconds:
            return "budget"
        return "stalled" if self.updates - self.best_at >= self.config.patience else "learning"


def stale(skills: Sequence[float], gain: float) -> int:
    """How many of the newest skills gained nothing worth naming over the best before them."""
    best, at = -math.inf, -1
    for i, skill in enumerate(skills):
        if skill > best + gain:
            best, at = skill, i
    return len(skills) - 1 - at
