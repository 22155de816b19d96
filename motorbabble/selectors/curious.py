"""Selectors that ask the model what it does not know yet."""

from typing import Any

import numpy as np

from motorbabble.errors import ConfigurationError
from motorbabble.experience import Choice, Situation


class UncertaintySelector:
    """The action whose outcome the model is least sure of: the largest ensemble entropy, all actions in one batch.

    A share of random actions (`epsilon`) keeps the data from being only what curiosity asked for; the first
    `babble` steps are random, since an ensemble that has seen nothing disagrees about nothing in particular.
    """

    def __init__(self, seed: int = 0, epsilon: float = 0.1, babble: int = 8):
        if not 0 <= epsilon <= 1 or babble < 0:
            raise ConfigurationError(f"epsilon {epsilon} and babble {babble} cannot work; keep epsilon in 0..1 and babble at least 0")
        self.rng = np.random.default_rng(seed)
        self.epsilon, self.babble = epsilon, babble

    def __call__(self, situation: Situation) -> Choice:
        space, model = situation.action_space, situation.world_model
        if model is None:
            raise ConfigurationError("the uncertainty selector needs a world model, and there is none; use selector random, or give a model")
        candidates = space.candidates(rng=self.rng)
        if situation.step < self.babble:
            return Choice(candidates[self.rng.integers(len(candidates))], why="babbling: nothing is known yet")
        model.eval()
        plans = np.stack([space.encode(action) for action in candidates])[:, None]
        entropy = model.imagine(situation.window, plans, pictures=False).uncertainty[:, 0].cpu().numpy()
        scores = {space.label(action): float(value) for action, value in zip(candidates, entropy, strict=True)}
        if self.rng.random() < self.epsilon:
            return Choice(candidates[self.rng.integers(len(candidates))], scores, f"a random action, as {self.epsilon:.0%} are")
        best = int(np.argmax(entropy))
        gap = float(entropy[best] - np.mean(np.delete(entropy, best))) if len(candidates) > 1 else 0.0
        return Choice(candidates[best], scores, f"least sure of its outcome, by {gap:.2f} nats over the mean of the others")

    def state_dict(self) -> dict[str, Any]:
        return dict(self.rng.bit_generator.state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rng.bit_generator.state = state
