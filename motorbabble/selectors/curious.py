"""Selectors that ask the model what it does not know yet.

`uncertainty` goes where the ensemble disagrees, `prediction_error` where the picture is expected to be wrong. The second one is there
for contrast: noise that nobody can predict holds it for ever. All candidates are imagined in one batch; every choice carries the
score of each and says why.
"""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from motorbabble.errors import ConfigurationError
from motorbabble.experience import Action, Choice, Situation
from motorbabble.world_models.base import Imagination, WorldModel

MOST_PLANS = 64  # imagined at once; longer lists of plans are drawn from


class CuriousSelector(ABC):
    """The candidate with the highest score.

    A share of random actions (`epsilon`) keeps the data from being only what curiosity asked for; the first `babble` steps are random,
    since a model that has seen nothing knows nothing in particular. `temperature` 0 takes the best; above it, candidates are drawn
    with a chance of exp(z / temperature), z their scores in standard deviations, as Boltzmann exploration does.
    """

    def __init__(self, seed: int = 0, epsilon: float = 0.1, babble: int = 8, temperature: float = 0.0):
        if not 0 <= epsilon <= 1 or babble < 0 or not 0 <= temperature < float("inf"):
            raise ConfigurationError(
                f"epsilon {epsilon}, babble {babble} and temperature {temperature} cannot work; keep epsilon in 0..1 and the others at least 0"
            )
        self.rng = np.random.default_rng(seed)
        self.epsilon, self.babble, self.temperature = epsilon, babble, temperature

    @abstractmethod
    def scores(self, situation: Situation, model: WorldModel, candidates: list[Action]) -> np.ndarray:
        """(A,) one score per candidate, larger is more interesting."""

    @abstractmethod
    def reason(self, best: float, others: float) -> str:
        """Why the best one was chosen, given its score and the mean of the others'."""

    def __call__(self, situation: Situation) -> Choice:
        space, model = situation.action_space, situation.world_model
        if model is None:
            raise ConfigurationError(f"{type(self).__name__} needs a world model, and there is none; use selector random, or give a model")
        candidates = space.candidates(rng=self.rng)
        if situation.step < self.babble:
            return Choice(candidates[self.rng.integers(len(candidates))], why="babbling: nothing is known yet")
        model.eval()
        scores = self.scores(situation, model, candidates)
        told = {space.label(action): float(value) for action, value in zip(candidates, scores, strict=True)}
        if self.rng.random() < self.epsilon:
            return Choice(candidates[self.rng.integers(len(candidates))], told, f"a random action, as {self.epsilon:.0%} are")
        taken = self._taken(scores)
        others = np.delete(scores, taken)
        return Choice(candidates[taken], told, self.reason(float(scores[taken]), float(others.mean()) if len(others) else float(scores[taken])))

    def _taken(self, scores: np.ndarray) -> int:
        if not self.temperature or np.ptp(scores) == 0:
            return int(np.argmax(scores))
        z = (scores - scores.max()) / scores.std() / self.temperature
        return int(self.rng.choice(len(scores), p=np.exp(z) / np.exp(z).sum()))

    def state_dict(self) -> dict[str, Any]:
        return dict(self.rng.bit_generator.state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rng.bit_generator.state = state


class UncertaintySelector(CuriousSelector):
    """The action whose outcome the model is least sure of: the largest ensemble entropy.

    With `plan_length` above 1 an action is judged by plans of so many actions that begin with it, all of them where there are at
    most MOST_PLANS, else drawn ones; the best of them counts, by its mean entropy. They run through the highest level of prediction
    whose span divides their length, so that a plan costs one pass per span.
    """

    def __init__(self, seed: int = 0, epsilon: float = 0.1, babble: int = 8, temperature: float = 0.0, plan_length: int = 1):
        super().__init__(seed, epsilon, babble, temperature)
        if plan_length < 1:
            raise ConfigurationError(f"plan_length is {plan_length}; a plan needs at least 1 action")
        self.plan_length = plan_length

    def scores(self, situation: Situation, model: WorldModel, candidates: list[Action]) -> np.ndarray:
        encoded = np.stack([situation.action_space.encode(action) for action in candidates])
        plans = plans_of(len(candidates), self.plan_length, self.rng)
        level = max(k for k, span in enumerate(model.spans) if self.plan_length % span == 0) if self.plan_length > 1 else 0
        entropy = _imagined(model, situation, encoded[plans], level).uncertainty.mean(1).cpu().numpy()
        return np.array([entropy[plans[:, 0] == i].max() for i in range(len(candidates))])

    def reason(self, best: float, others: float) -> str:
        ahead = "its outcome" if self.plan_length == 1 else f"what follows in {self.plan_length} steps"
        return f"least sure of {ahead}, by {best - others:.2f} nats over the mean of the others"


class PredictionErrorSelector(CuriousSelector):
    """The action whose picture is expected to be most wrong, whether or not that can ever be learned: the contrast case."""

    def scores(self, situation: Situation, model: WorldModel, candidates: list[Action]) -> np.ndarray:
        encoded = np.stack([situation.action_space.encode(action) for action in candidates])
        expected = _imagined(model, situation, encoded[:, None], 0).expected_error
        if expected is None:
            raise ConfigurationError(f"{type(model).__name__} does not say how wrong it expects to be; use selector uncertainty")
        return expected[:, 0].cpu().numpy()

    def reason(self, best: float, others: float) -> str:
        return f"its picture is expected to be most wrong, {best:.2g} mean squared against {others:.2g} of the others"


def plans_of(actions: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """(N, length) indices: every plan where there are at most MOST_PLANS, else as many for each first action, whose later actions often repeat.

    Repeated actions lead somewhere; drawn one by one they mostly come back.
    """
    if actions**length <= MOST_PLANS:
        return np.stack(np.meshgrid(*[np.arange(actions)] * length, indexing="ij"), -1).reshape(-1, length)
    plans = np.repeat(np.arange(actions), max(1, MOST_PLANS // actions))[:, None].repeat(length, 1)
    for i in range(1, length):
        changes = rng.random(len(plans)) < 0.3
        plans[:, i] = np.where(changes, rng.integers(actions, size=len(plans)), plans[:, i - 1])
    return plans


def _imagined(model: WorldModel, situation: Situation, plans: np.ndarray, level: int) -> Imagination:
    return model.imagine(situation.window, plans, pictures=False, level=level) if level else model.imagine(situation.window, plans, pictures=False)
