"""learning_progress: the action that is being learned fastest, here.

Progress is the error of an older self minus the error of the present one, over their sum, on what has just happened: the older
self is a slow average of the weights (gamma-progress, Kim et al. 2020). Without the sum, the wavering of a large error that never
falls counts for more than all of a small one that does, and a noisy television wins (LAB_NOTES.md, 2026-11-25). It is kept per
region, a cluster of places and an action (Oudeyer et al. 2007), because what is learned at one place says little about another. Noise
brings no progress and neither does what is known; a region that was hardly tried counts as the best one known, so that everything is tried.

Places are clustered by a thumbnail of the frame and not by latents: latents change while they are learned, and clusters must not.
"""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from motorbabble.errors import ConfigurationError
from motorbabble.experience import Action, ActionSpace, Situation, Window
from motorbabble.selectors.curious import CuriousSelector
from motorbabble.world_models.base import WorldModel

THUMBNAIL = 8  # pixels, both sides
LEAST_ERROR = 1e-4  # mean squared; what changes among smaller errors is no progress


class LearningProgressSelector(CuriousSelector):
    """The candidate in whose region errors fall fastest."""

    def __init__(
        self, seed: int = 0, epsilon: float = 0.1, babble: int = 8, temperature: float = 0.5, places: int = 12, slow: float = 0.97, tries: int = 2
    ):
        super().__init__(seed, epsilon, babble, temperature)
        if places < 1 or not 0 < slow < 1 or tries < 1:
            raise ConfigurationError(f"{places} places, slow {slow} and {tries} tries cannot work; give positive numbers, and slow below 1")
        self.places, self.slow, self.tries = places, slow, tries
        self.centers = np.zeros((0, THUMBNAIL * THUMBNAIL * 3))  # (places so far, numbers of a thumbnail)
        self.visits: list[int] = []
        self.progress: dict[str, float] = {}  # region -> running mean of (error before - error now) / (their sum)
        self.tried: dict[str, int] = {}
        self._older: WorldModel | None = None
        self._older_weights: dict[str, Tensor] = {}  # what was loaded, until there is a model to put it into
        self._window: Window | None = None  # from which the newest action was taken
        self._episode = 0

    def __call__(self, situation: Situation):
        if situation.world_model is not None:
            situation.world_model.eval()
            self._learn(situation, situation.world_model)
        return super().__call__(situation)

    def scores(self, situation: Situation, model: WorldModel, candidates: list[Action]) -> np.ndarray:
        place = self._place(situation.window.images[-1])
        space = situation.action_space
        regions = [region(place, space, space.encode(action)) for action in candidates]
        best = max(self.progress.values(), default=0.0)
        return np.array([self.progress[name] if self.tried.get(name, 0) >= self.tries else best for name in regions])

    def reason(self, best: float, others: float) -> str:
        return f"its error falls fastest here: a progress of {best:.2f}, of the others {others:.2f}"

    # Parts

    def _learn(self, situation: Situation, model: WorldModel) -> None:
        """How much better the present model foresees what has just happened than the older one, for the region where it happened."""
        older, now = self._older_of(model), situation.window
        if self._window is not None and len(now) > 1 and situation.episode == self._episode:
            plan, seen = now.actions[None, -1:], self._window
            before, after = (_error(mind, seen, plan, now.images[-1]) for mind in (older, model))
            name = region(self._place(seen.images[-1]), situation.action_space, now.actions[-1])
            count = self.tried[name] = self.tried.get(name, 0) + 1
            share = max(1 / count, 0.2)
            gained = (before - after) / (before + after + LEAST_ERROR)
            self.progress[name] = (1 - share) * self.progress.get(name, 0.0) + share * gained
        self._window, self._episode = replace(now, states={}), situation.episode
        with torch.no_grad():
            for mine, theirs in zip(older.parameters(), model.parameters(), strict=True):
                mine.lerp_(theirs, 1 - self.slow)

    def _older_of(self, model: WorldModel) -> WorldModel:
        """The older self; a level that was created or retired since is taken over as it is now."""
        if self._older is None or self._older.spans != model.spans:
            kept = self._older_weights if self._older is None else self._older.state_dict()
            self._older = copy.deepcopy(model)
            self._older.load_state_dict({**self._older.state_dict(), **{name: kept[name] for name in kept if name in self._older.state_dict()}})
            self._older_weights = {}
        return self._older

    def _place(self, image: np.ndarray) -> int:
        """The nearest cluster's number; k-means one frame at a time (MacQueen 1967), the first clusters being the first frames that differ."""
        seen = thumbnail(image)
        gaps = np.square(self.centers - seen).mean(1)
        if len(self.centers) < self.places and (not len(gaps) or gaps.min() > 1e-5):
            self.centers = np.concatenate([self.centers, seen[None]])
            self.visits.append(1)
            return len(self.centers) - 1
        nearest = int(np.argmin(gaps))
        self.visits[nearest] += 1
        self.centers[nearest] += (seen - self.centers[nearest]) / self.visits[nearest]
        return nearest

    def state_dict(self) -> dict[str, Any]:
        return {
            "rng": super().state_dict(),
            "visits": list(self.visits),
            "progress": dict(self.progress),
            "tried": dict(self.tried),
            "episode": self._episode,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state["rng"])
        self.visits, self.progress, self.tried = list(state["visits"]), dict(state["progress"]), dict(state["tried"])
        self._episode = state["episode"]

    def tensors(self) -> dict[str, Tensor]:
        """What is too large for plain values."""
        weights = self._older_weights if self._older is None else self._older.state_dict()
        older = {f"older/{name}": tensor for name, tensor in weights.items()}
        seen = {} if self._window is None else {"images": torch.from_numpy(self._window.images), "actions": torch.from_numpy(self._window.actions)}
        return {"centers": torch.from_numpy(self.centers), **older, **seen}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        self.centers = tensors["centers"].numpy().copy()
        self._older, self._older_weights = None, {name.removeprefix("older/"): tensors[name] for name in tensors if name.startswith("older/")}
        self._window = Window(tensors["images"].numpy(), tensors["actions"].numpy()) if "images" in tensors else None


def region(place: int, space: ActionSpace, action: np.ndarray) -> str:
    """The name of a place and an encoded action; in a box of ranges, a third of each channel counts as one action."""
    return f"{place} {space.label(space.decode(action)) if space.actions is not None else np.rint(1.5 * action).astype(int).tolist()}"


def thumbnail(image: np.ndarray) -> np.ndarray:
    """(192,) float64, 0 to 1: the frame (H, W, 3) averaged over 8 x 8 fields."""
    rows, columns = (np.linspace(0, size, THUMBNAIL + 1).astype(int) for size in image.shape[:2])
    sums = np.add.reduceat(np.add.reduceat(image.astype(np.float32), rows[:-1], 0), columns[:-1], 1)
    return (sums / (255 * np.outer(np.diff(rows).clip(1), np.diff(columns).clip(1))[..., None])).ravel()


def _error(model: WorldModel, window: Window, plan: np.ndarray, real: np.ndarray) -> float:
    images = model.imagine(window, plan).images
    assert images is not None
    real = model.at_the_door(real)
    return float((images[0, 0] - torch.from_numpy(real).to(images).movedim(-1, 0) / 255).square().mean())
