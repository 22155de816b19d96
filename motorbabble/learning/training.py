"""Training: offline learning from recorded sessions, until a skill, a number of updates or a plateau.

Decisions: the exam is held-out windows that were never learned from, scored by the averaged weights over copy-last on transitions
that moved (and over the mean frame on all); the best averaged weights are kept; everything between two updates is a few plain
values and the learner, so that a training goes on to the bit; all processes decide alike, from averages they share.
"""

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from threading import Event as Flag
from typing import Any

import numpy as np
import torch
from torch import Tensor

from motorbabble.errors import CheckpointMismatch, ConfigurationError, Diverged
from motorbabble.experience import Window, has_moved
from motorbabble.learning.checkpoint import Identity, Loaded, Saved, differences
from motorbabble.learning.gate import stale
from motorbabble.learning.learner import Learner
from motorbabble.learning.state import (
    counters_of,
    generators_of,
    load_generators,
    load_learned,
    optimizer_of,
    weights_of,
)
from motorbabble.learning.windows import SessionWindows
from motorbabble.world_models.base import WorldModel, over_processes, this_process


@dataclass(frozen=True)
class TrainingConfig:
    updates: int = 2000  # at most
    until_skill: float | None = None  # stop when validation skill reaches this; 1 is perfect, 0 copy-last
    validate_every: int = 100  # updates
    validation_windows: int = 64  # of those held out, spread evenly
    patience: int = 10  # validations without a gain before it counts as a plateau
    least_gain: float = 0.002  # of skill
    until_error: float | None = None  # stop when the mean squared error of validation, pixels in [0, 1], falls to this

    def __post_init__(self):
        if min(self.updates, self.validate_every, self.validation_windows, self.patience) < 1 or not self.least_gain >= 0:
            raise ConfigurationError(f"{self} cannot work; give at least 1 of everything that is counted")
        if self.until_skill is not None and not self.until_skill < 1:
            raise ConfigurationError(f"until_skill is {self.until_skill}, but 1 would be perfect; give less than 1")
        if self.until_error is not None and not self.until_error > 0:
            raise ConfigurationError(f"until_error is {self.until_error}, but an error of 0 is never reached; give more than 0")


@dataclass(frozen=True)
class Score:
    """Mean squared errors on held-out transitions, pixels in [0, 1]: of the model and of the floors; NaN where nothing moved."""

    model_moved: float
    copy_moved: float  # keeping the last frame
    mean_moved: float  # showing the mean frame
    model_all: float
    mean_all: float

    @property
    def over_copy(self) -> float | None:
        """1 - error / copy-last's on transitions that moved; None where nothing did."""
        return 1 - self.model_moved / self.copy_moved if self.copy_moved > 0 else None

    @property
    def over_mean(self) -> float:
        return 1 - self.model_all / max(self.mean_all, 1e-12)

    @property
    def skill(self) -> float:
        """What decides: over copy-last, or over the mean frame in a world where nothing moves."""
        return self.over_mean if self.over_copy is None else self.over_copy


@dataclass(frozen=True)
class Trained:
    """An event of a Training: one update."""

    update: int  # how many there were, this one included
    losses: Mapping[str, float]
    seconds: float  # of updates so far
    windows: int  # learned from so far


@dataclass(frozen=True)
class Validated:
    """An event of a Training: the averaged weights were put to the test."""

    update: int
    score: Score
    best: bool  # none before was better


class Training:
    """Iterate it for its Trained and Validated events. Stop iterating at any event, or set `stop`: it can go on from there.

    `exam` scores a model on the validation windows, given the mean frame too; `scored` unless given.
    All it is: the learner, `state_dict()` and `best_weights` (of the average, as they were at the best validation).
    """

    def __init__(
        self,
        learner: Learner,
        windows: SessionWindows,
        validation: Sequence[Window],
        background: np.ndarray,
        config: TrainingConfig = TrainingConfig(),
        stop: Flag | None = None,
        held_out: Sequence[str] = (),
        exam: "Callable[[WorldModel, Sequence[Window], np.ndarray], Score] | None" = None,
    ):
        if not validation:
            raise ConfigurationError("no held-out window can be read, so nothing could say how well it learns; give sessions that are whole")
        self.learner, self.windows, self.validation = learner, windows, list(validation)
        self.background, self.config, self.stop = background, config, stop or Flag()
        self.held_out = sorted(held_out)  # names of the sessions that are never learned from
        self.exam = exam
        self.least_error = math.inf  # of all validations in this process
        self.position = 0  # of the next window in the shuffled order
        self.history: list[tuple[int, float]] = []  # updates and skill of every validation
        self.best_weights: dict[str, Tensor] = {}

    def __iter__(self) -> Generator["Trained | Validated", None, None]:
        size = self.learner.config.batch_size
        with closing(self.windows.batches(self.position, size, *this_process())) as batches:
            while not self._is_asked_to_stop():
                if self._is_due():
                    yield self.validate()
                elif self.outcome != "learning":
                    return
                else:
                    losses = self.learner.update(next(batches), background=self.background)
                    if not math.isfinite(losses["total"]):
                        raise Diverged(f"the loss is not finite at update {self.learner.updates}; lower the learning rate, or check the sessions")
                    self.position += size
                    yield Trained(self.learner.updates, losses, self.learner.seconds, self.learner.samples)

    @property
    def outcome(self) -> str:
        """learning, or why it ended: threshold, plateau, updates."""
        skills = [skill for _, skill in self.history]
        if self.config.until_skill is not None and skills and max(skills) >= self.config.until_skill:
            return "threshold"
        if self.config.until_error is not None and self.least_error <= self.config.until_error:
            return "threshold"
        if stale(skills, self.config.least_gain) >= self.config.patience:
            return "plateau"
        return "updates" if self.learner.updates >= self.config.updates else "learning"

    @property
    def best(self) -> tuple[int, float] | None:
        """Updates and skill of the best validation."""
        return max(self.history, key=lambda validation: validation[1], default=None)

    def validate(self) -> Validated:
        """Put the averaged weights to the test, as it is done now and then; the best ones are kept."""
        model = self.learner.world_model
        model.eval()
        score = (self.exam or scored)(model, self.validation, self.background)
        self.least_error = min(self.least_error, score.model_all)
        if not math.isfinite(score.skill):
            raise Diverged(f"predictions are not finite after update {self.learner.updates}; lower the learning rate, or check the sessions")
        is_best = self.best is None or score.skill > self.best[1]
        if is_best:
            self.best_weights = {name: value.detach().to("cpu", copy=True) for name, value in model.state_dict().items()}
        self.history.append((self.learner.updates, score.skill))
        return Validated(self.learner.updates, score, is_best)

    def keep_best(self) -> None:
        """The averaged weights become what they were when they were best."""
        if self.best_weights:
            self.learner.world_model.load_state_dict(self.best_weights)

    def state_dict(self) -> dict[str, Any]:
        return {
            "position": self.position,
            "history": [list(validation) for validation in self.history],
            "sources": self.windows.sources,
            "held_out": self.held_out,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> bool:
        """Go on where it was. False where the sessions are others by now: their order begins anew, and the best is still to be found."""
        if state["sources"] != self.windows.sources:
            return False
        self.position, self.history = state["position"], [(int(update), float(skill)) for update, skill in state["history"]]
        return True

    # Parts

    def _is_asked_to_stop(self) -> bool:
        asked = torch.tensor(float(self.stop.is_set()), device=self.learner.trained.device)
        return bool(over_processes(asked) > 0)

    def _is_due(self) -> bool:
        since = self.learner.updates - (self.history[-1][0] if self.history else 0)
        return since >= self.config.validate_every or (since > 0 and self.learner.updates >= self.config.updates)


def scored(model: WorldModel, windows: Sequence[Window], background: np.ndarray) -> Score:
    """How well `model` predicts the last frame of each window from the ones before; pooled over the windows of all processes."""
    rank, processes = this_process()
    mean = background / 255
    sums = np.zeros(7)
    for window in windows[rank::processes]:
        seen = Window(window.images[:-1], window.actions[:-1])
        truth, last = window.images[-1], window.images[-2]
        images = model.imagine(seen, window.actions[-1:][None]).images
        assert images is not None
        shown = images[0, 0].movedim(0, -1).clamp(0, 1).double().cpu().numpy()
        mine, copied, empty = (np.square(guess - truth / 255.0).mean() for guess in (shown, last / 255.0, mean))
        moved = float(has_moved(last, truth))
        sums += np.array([mine * moved, copied * moved, empty * moved, moved, mine, empty, 1.0])
    values = over_processes(torch.tensor(sums, dtype=torch.float32, device=model.device)).tolist()
    moved, count = values[3], values[6]
    return Score(*(value / moved if moved else math.nan for value in values[:3]), *(value / count for value in values[4:6]))


# Checkpoints of a training

NO_MATTER = {  # settings that change nothing of what is learned
    *("fresh", "devices", "device", "threads", "memory_mb", "sessions", "checkpoints", "out"),
    *("track.log_interval", "track.visualization_interval", "track.wandb", "track.rerun"),
}


def saved_of(training: Training, identity: Identity, about: Mapping[str, Any]) -> Saved:
    """Everything a training is. `about`: its settings, plain values."""
    return saved_learner(training.learner, identity, training.state_dict(), training.background, training.best_weights, about)


def saved_learner(
    learner: Learner,
    identity: Identity,
    training: Mapping[str, Any],
    background: np.ndarray,
    best: Mapping[str, Tensor],
    about: Mapping[str, Any],
) -> Saved:
    """What somebody taught a learner, as a training is saved. `training`: its state_dict; `background`: the mean frame (H, W, 3), 0 to 255."""
    tensors = {**weights_of(learner), "optimizer": optimizer_of(learner), "best": best}
    state = {
        "training": dict(training),
        "counters": counters_of(learner),
        "generators": generators_of(learner),
        "about": dict(about),
        **({"levels": learner.levels.state_dict()} if len(learner.levels) > 1 else {}),
    }
    return Saved(identity, {**tensors, "memory": {"background": torch.from_numpy(background)}}, state)


def resume(training: Training, loaded: Loaded, about: Mapping[str, Any]) -> list[str]:
    """Bring a training to where it was; answers sentences a person should hear. CheckpointMismatch where it was no training."""
    learner, state = training.learner, loaded.state
    if "training" not in state:
        raise CheckpointMismatch("the checkpoint is a robot's life, not a training; choose another --name")
    load_learned(learner, loaded)
    load_generators(learner, state["generators"])
    said = [f"It goes on where it was: {learner.updates} updates.", *loaded.notes]
    if training.load_state_dict(state["training"]):
        training.best_weights = dict(loaded.tensors["best"])
        training.background = loaded.tensors["memory"]["background"].numpy()
    else:
        said.append("The sessions are others than before: their order begins anew, and the best so far counts no more.")
    then, now = ({name: value for name, value in settings.items() if name not in NO_MATTER} for settings in (state["about"], about))
    if "lesson" in then:
        return [*said, f"It was a lesson before: {then['lesson']}."]
    changed = differences(then, now)
    return said + ([f"Other settings than before: {'; '.join(changed)}."] if changed else [])
