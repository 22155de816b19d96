"""How the learning rate runs, and which parameters decay.

Online: linear warm-up, then constant, since a life has no known end. Offline: warm-up, then cosine down to
max(base * min_ratio, 1e-6) (Loshchilov & Hutter 2017).
"""

import math
from dataclasses import dataclass
from typing import Literal

from torch import nn

from motorbabble.errors import ConfigurationError


@dataclass(frozen=True)
class ScheduleConfig:
    kind: Literal["constant", "cosine"] = "constant"
    learning_rate: float = 1e-4
    warmup_steps: int = 600
    total_steps: int = 100_000  # of a cosine
    lr_min_ratio: float = 0.01

    def __post_init__(self):
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)) or self.warmup_steps < 0:
            raise ConfigurationError(f"learning rate {self.learning_rate} with {self.warmup_steps} warm-up steps cannot work; both must be positive")
        if self.kind == "cosine" and self.total_steps <= self.warmup_steps:
            raise ConfigurationError(f"a cosine of {self.total_steps} steps ends inside its warm-up of {self.warmup_steps}; give more steps")

    def at(self, update: int) -> float:
        """The learning rate of update number `update`, counted from 0; the first one already moves."""
        if update < self.warmup_steps:
            return self.learning_rate * (update + 1) / self.warmup_steps
        if self.kind == "constant":
            return self.learning_rate
        lowest = max(self.learning_rate * self.lr_min_ratio, 1e-6)
        done = min(1.0, (update - self.warmup_steps) / (self.total_steps - self.warmup_steps))
        return lowest + (self.learning_rate - lowest) * 0.5 * (1 + math.cos(math.pi * done))


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Parameters for AdamW in two groups: matrices of linear layers decay; biases, norms, embeddings, tokens and positions do not."""
    matrices = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    decayed = [p for p in model.parameters() if p.requires_grad and id(p) in matrices]
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in matrices]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
