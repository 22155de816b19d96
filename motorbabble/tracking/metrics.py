"""What is measured of a life, and by which name: the mission's. docs/tracking.md says what each one means.

A value that is not measured in every update (a level's error, a gradient norm) stands in the next entry as it last was; no entry repeats it.
"""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from motorbabble.experience import ActionSpace, Event, Step, Study

Values = Mapping[str, float | int | str]

NAMES = {  # a study's losses -> the mission's metric names; any other name stays as it is
    "total": "predictor_training_loss",
    "reconstruction": "reconstruction_loss",
    "masked": "autoencoder_training_loss",
    "patch": "predictor_patch_loss",
    "latent": "predictor_latent_loss",
    "action": "predictor_action_loss",
    "explained_variance": "predictor_explained_variance",
    "skill": "predictor_skill",
    "fresh_error": "prediction_errors/level_0",
    "fresh_copy_error": "copy_errors/level_0",
    "grad_norm": "predictor_grad_norm",
    "learning_rate": "predictor_lr",
}
MOST_COUNTED = 32  # actions; a robot with more of them has only their sum counted


@dataclass(frozen=True)
class Entry:
    """What a tracker is told at once. `values` hold `step` and `training_step` too."""

    values: Values
    frame: np.ndarray | None = None  # what the robot saw last, (H, W, 3) uint8
    action: str = ""  # what it did then, and why
    pictures: Mapping[str, np.ndarray] = field(default_factory=dict)  # (H, W, 3) uint8 each

    @property
    def step(self) -> int:
        return int(self.values["step"])

    @property
    def update(self) -> int:
        return int(self.values["training_step"])


def metrics_of(study: Study) -> dict[str, float | int | str]:
    """A study under the mission's metric names, plus the gate's word and the seconds of learning so far."""
    named = {NAMES.get(name, name): value for name, value in study.losses.items()}
    return {"training_step": study.update, "seconds": round(study.seconds, 3), "windows": study.samples, "gate": study.gate, **named}


class Meter:
    """Hears every event, and knows what there is to tell. `space`: whose actions are counted one by one; None: only their sum is."""

    def __init__(self, space: ActionSpace | None = None):
        self.space = space if space is not None and space.actions is not None and len(space.actions) <= MOST_COUNTED else None
        self.step, self.update = 0, 0
        self.counts: Counter[str] = Counter({self.space.label(action): 0 for action in self.space.candidates()} if self.space else {})
        self.actions = 0
        self._newest: dict[str, float | int | str] = {}
        self._wait = self._predicted = 0
        self._intervals: list[float] = []
        self._acted_ns = 0

    def hear(self, event: Event, relived: bool = False) -> None:
        """`relived`: the event repeats what was recorded before, so that neither its time nor its action is of this life."""
        if isinstance(event, Step):
            self._acted(event, relived)
        elif isinstance(event, Study):
            self._studied(event)

    def take(self) -> dict[str, float | int | str]:
        """All that is new since it was last asked."""
        timed = timing("action_timing/{}_interval", self._intervals)
        counted = {f"action_count/{label}": count for label, count in self.counts.items()}
        told = {"step": self.step, "training_step": self.update, **self._newest, "action_count": self.actions, **counted, **timed}
        self._newest, self._intervals = {}, []
        return told

    def _acted(self, step: Step, relived: bool) -> None:
        self.step, self._predicted = step.index + 1, 0
        if relived:
            self._acted_ns = 0
            return
        self.actions += 1
        if self.space:
            self.counts[self.space.label(step.executed)] += 1
        started = step.monotonic_ns or step.started_ns  # a clock that never jumps, where there is one
        if self._acted_ns:
            self._intervals.append((started - self._acted_ns) / 1e9)
        self._acted_ns = started

    def _studied(self, study: Study) -> None:
        self.update = study.update
        self._newest.update(metrics_of(study))
        self._wait += 1
        self._predicted += "patch" in study.losses
        self._newest["predictor_training_iterations"] = self._predicted
        if study.gate != "learning":
            self._newest["consecutive_autoencoder_iterations"], self._wait = self._wait, 0


def timing(name: str, seconds: Sequence[float]) -> dict[str, float]:
    """Mean, median, min, max and std under `name` with its place filled; nothing for no values."""
    if not seconds:
        return {}
    of = {"mean": statistics.fmean, "median": statistics.median, "min": min, "max": max, "std": statistics.pstdev}
    return {name.format(key): float(measure(seconds)) for key, measure in of.items()}
