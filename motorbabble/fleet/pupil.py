"""Pupil: a robot's side of the learner it shares with others. To the loop it is a Learner, as one that learns beside the robot is.

What it remembers goes to the teacher (teacher.py); `study` takes over the newest weights between two actions. Where the robot waits, it waits
until the teacher has studied its newest look. A teacher that was killed comes back by itself: it is told the newest look once more, and reads what
came before from the robot's recordings.
"""

import secrets
import time
from collections.abc import Callable, Iterator
from threading import Event as Flag
from typing import Any

import numpy as np
import torch

from motorbabble.errors import LearningError
from motorbabble.exchange.extras import extra
from motorbabble.experience import Observation, Study
from motorbabble.fleet.teacher import News
from motorbabble.learning.beside import as_error
from motorbabble.learning.learner import Learner, LearnerConfig
from motorbabble.learning.state import grow_as_saved, load_counters
from motorbabble.world_models.base import WorldModel

POLL = 0.25  # seconds between two looks at the flag that ends a wait
SILENT = 180.0  # seconds without an answer; a teacher that comes back may have much to read


class Pupil(Learner):
    """`robot`: its number in the fleet; `first`: the robot's moment that the first look is; `stop` ends its waits."""

    def __init__(
        self,
        world_model: WorldModel,
        config: LearnerConfig = LearnerConfig(),
        seed: int = 0,
        holds_out: Callable[[Observation], bool] | None = None,
        *,
        robot: int,
        first: int,
        waits: bool,
        stop: Flag,
    ):
        super().__init__(world_model, config, seed, holds_out)
        self.robot, self.waits = robot, waits
        self._next, self._stop, self._life = first, stop, secrets.token_hex(4)
        self.teacher: Any = None
        self._newest: tuple[int, np.ndarray | None, np.ndarray | None] | None = None
        self._version, self._heard = "", time.monotonic()
        self._asked: Any = None

    def keep(self, image: np.ndarray | None, led: np.ndarray | None) -> None:
        self._newest = (self._next, image, led)
        self._next += 1
        self.replay.skip()  # it is remembered elsewhere; here looks are only counted
        self._tell()

    def study(self) -> Iterator[Study]:
        """What was learned from this robot's looks since; LearningError when the teacher failed, or has been silent for long."""
        newest = self._next - 1 if self.waits else -1
        late = time.monotonic() + self.config.gate.max_seconds
        while self.teacher:
            news = self._hear(newest, POLL if self.waits else 0.0)
            if news:
                self._take(news)
                yield from news.studies
            if not self.waits or (news and news.studied >= newest) or self._stop.is_set() or time.monotonic() >= late:
                return

    def catch_up(self) -> None:
        """Take over the newest weights, however long that takes: nothing more is studied."""
        self._asked, self._heard = None, time.monotonic()
        while self.teacher:
            if news := self._hear(-1, POLL):
                return self._take(news)

    # Parts

    def _tell(self) -> None:
        if self.teacher and self._newest:
            self.teacher.hear.remote(self.robot, self._life, *self._newest)

    def _hear(self, studied: int, seconds: float) -> News | None:
        """What there is to hear, once this robot's look number `studied` was studied; None: nothing came within so many seconds."""
        ray = extra("ray", "fleet")
        if not self._asked:
            self._asked = self.teacher.news.options(concurrency_group="news").remote(self.robot, self._version, studied, POLL)
        lost: Exception | None = None
        if ray.wait([self._asked], timeout=seconds)[0]:
            asked, self._asked = self._asked, None
            try:
                news: News = ray.get(asked)
            except ray.exceptions.RayError as error:  # it was killed, and another one begins
                lost = error
                self._stop.wait(POLL)
                self._tell()
            else:
                self._heard = time.monotonic()
                if news.failed:
                    raise as_error(*news.failed)
                return news
        if time.monotonic() - self._heard > SILENT:
            raise LearningError(f"the learner of this fleet has not answered for {SILENT:g} s; look at its machine, then start again") from lost
        return None

    def _take(self, news: News) -> None:
        """The newest weights that act, with the levels and counters that belong to them."""
        if not news.weights:
            return
        weights, state = extra("ray", "fleet").get(news.weights[0]), news.state
        grow_as_saved(self, state)
        self.levels.load_state_dict(state["levels"])
        self.surprise.load_state_dict(state["surprise"])
        load_counters(self, state["counters"])
        self.world_model.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in weights.items()})
        self._version = news.version
