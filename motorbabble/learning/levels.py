"""Levels: when a model deserves one more level of prediction, and when levels go again. Pure counting; no model in sight.

Decisions: a level is judged by predictions scored before their outcome was learned from, against keeping the frame they start from
(a relative measure, as on the card), over a running ratio of errors, so that one lucky transition proves nothing. One more
level is created when the highest was good for a number of evaluations in a row, and levels go when the one below them was bad for
as many: what they were built on no longer holds. Between good and bad lies a gap, so that a level does not come and go.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from motorbabble.errors import ConfigurationError

MEMORY = 0.9  # of a running ratio: about the newest 10 evaluations
WORST = 10.0  # times the error of keeping the frame: no single prediction counts as worse
MOST_LEVELS = 16  # a life or a checkpoint with more makes no sense
LEAST_CHANGE = 1e-6  # mean squared: where less changed, keeping the frame is right, and nothing can be told


@dataclass(frozen=True)
class LevelsConfig:
    most_levels: int = 3  # level 0, which predicts single actions, included; 1: none is ever added
    level_skill: float = 0.8  # over keeping the frame, over the whole span of a level: good enough to build on
    retire_skill: float = 0.4  # below it, what was built on a level goes
    level_evaluations: int = 20  # so many in a row, of transitions where something changed
    evaluate_every: int = 2  # looks: a level above 0 predicts the newest frame, each in its turn; 3 % of the time

    def __post_init__(self):
        if min(self.most_levels, self.level_evaluations, self.evaluate_every) < 1 or not self.retire_skill < self.level_skill < 1:
            raise ConfigurationError(
                f"levels with {self} cannot work; give at least 1 of everything that is counted, and retire_skill below level_skill below 1"
            )
        if self.most_levels > MOST_LEVELS:
            raise ConfigurationError(
                f"most_levels is {self.most_levels}; give at most {MOST_LEVELS}, the last of which spans {2 ** (MOST_LEVELS - 1)} actions"
            )


class Record:
    """How good one level is: its newest errors and those of keeping the frame, and for how many evaluations it was good, or bad, in a row."""

    def __init__(self):
        self.error, self.copy, self.good, self.bad = 0.0, 0.0, 0, 0

    @property
    def skill(self) -> float | None:
        """1 - error / error of keeping the frame; None before the first evaluation."""
        return 1 - self.error / self.copy if self.copy else None


class Levels:
    """`score` every prediction of the newest frame; `verdict` says what should change."""

    def __init__(self, config: LevelsConfig = LevelsConfig()):
        self.config, self.records = config, [Record()]
        self.failed: int | None = None  # a level whose losses are no longer numbers

    def __len__(self) -> int:
        return len(self.records)

    def score(self, level: int, error: float, copy: float) -> None:
        """Mean squared errors over the level's whole span: of its prediction, and of the frame it started from."""
        if not copy > LEAST_CHANGE:
            return
        record = self.records[level]
        error = error if error < WORST * copy else WORST * copy  # which is also what a NaN counts as
        record.error, record.copy = MEMORY * record.error + error, MEMORY * record.copy + copy
        skill = 1 - record.error / record.copy
        record.good = record.good + 1 if skill >= self.config.level_skill else 0
        record.bad = record.bad + 1 if skill < self.config.retire_skill else 0

    def verdict(self) -> tuple[int, str]:
        """How many levels there should be now (those there are, one more, or only those up to the first bad one), and why."""
        most, enough = self.config.most_levels, self.config.level_evaluations
        if len(self) > most:
            return most, f"no more than {most} are wanted"
        if self.failed is not None:
            return self.failed, f"the losses of level {self.failed} were no longer numbers"
        for level, record in enumerate(self.records[:-1]):
            if record.bad >= enough:
                return level + 1, f"level {level} below became too bad to build on, skill {record.skill:.2f} over {enough} predictions"
        top = self.records[-1]
        if top.good >= enough and len(self) < most:
            return len(self) + 1, f"level {len(self) - 1} was good for {enough} predictions in a row, skill {top.skill:.2f}"
        return len(self), ""

    def fail(self, level: int) -> None:
        """It and those above have to go; the one below has to prove itself again before there is another."""
        self.failed, self.records[level - 1].good = level, 0

    def grown(self) -> None:
        self.records.append(Record())

    def retired(self) -> None:
        self.records.pop()
        self.failed = None if self.failed is None or self.failed >= len(self) else self.failed

    def lookahead(self, spans: Sequence[int]) -> int:
        """The accurate horizon, in actions: the largest span whose level is good at present; 0 where none is."""
        good = [span for span, record in zip(spans, self.records, strict=True) if (record.skill or 0.0) >= self.config.level_skill]
        return max(good, default=0)

    def state_dict(self) -> dict[str, Any]:
        return {"records": [vars(record) for record in self.records]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.records = []
        for values in state["records"]:
            record = Record()
            vars(record).update({name: type(now)(values[name]) for name, now in vars(record).items()})
            self.records.append(record)
