"""Body: one robot of a fleet in a Ray actor of its own, where `live` goes on as everywhere, with a Pupil as its learner.

Decisions: it lives in beats of a part of a second, and what a beat answers is acknowledged; each step was on disk before that. It holds its
robot until it is closed, and is replaced, not repaired, when it is killed: the next one counts on from what this one recorded.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event as Flag
from typing import Any

from motorbabble.birth import born
from motorbabble.experience import Event, Observation, Step
from motorbabble.fleet.pupil import Pupil
from motorbabble.fleet.tape import Tape
from motorbabble.fleet.teacher import Mind
from motorbabble.learning.checkpoint import Identity
from motorbabble.learning.state import architecture_of
from motorbabble.life import live
from motorbabble.memory import MemoryConfig
from motorbabble.recipes import LearningRecipe, RobotConfig, robot_from
from motorbabble.selectors import RandomSelector


@dataclass(frozen=True)
class Place:
    """Which robot of which fleet."""

    name: str  # the recipe's
    recipe: LearningRecipe
    robot: int
    config: RobotConfig
    settings: Mapping[str, Any]  # of the model and the learner, as `learn` takes them
    holds_out: Callable[[Observation], bool] | None = None


@dataclass(frozen=True)
class Beat:
    """What one robot answers for: so many steps are on disk."""

    robot: int
    steps: int
    updates: int  # of the learner, as this robot has heard of them
    skill: float  # of this robot's own predictions, each scored before anything was learned from its outcome
    seconds: float  # of this actor's life
    over: bool
    notes: tuple[str, ...] = ()


class Body:
    def __init__(self, place: Place):
        self.place, self._held = place, ExitStack()
        self._seed, self._over = place.recipe.seed + 1000 * place.robot, False

    def hold(self, life: int) -> str:
        """Take hold of the robot; answers its type. Raises what the robot raises. `life`: how many actors it had before."""
        self.robot = self._held.enter_context(robot_from(self.place.config, self._seed + life))
        return self.robot.robot_type

    def begin(self, fleet: str) -> tuple[int, Mind]:
        """Answers the steps that this robot of that fleet has done before, and what its teacher must know."""
        place, seed = self.place, self._seed
        sessions = place.recipe.keep.sessions / self.robot.robot_type
        tape = Tape(sessions, fleet, place.robot)
        moments, steps = tape.extent()
        recipe = replace(place.recipe, seed=seed + len(tape.sessions()), threads=1, beside=False, seconds=None)
        self.stop = Flag()
        pupil = partial(Pupil, robot=place.robot, first=moments, waits=not place.recipe.beside or place.recipe.gate == "wait", stop=self.stop)
        memory = MemoryConfig(None, sessions, save_seconds=math.inf, quota_bytes=recipe.keep.max_disk_gb * 1e9)
        about = tape.about(moments)
        self.run = born(
            place.name, recipe, self.robot, memory, self.stop, place.holds_out or _nothing, about=about, learner_of=pupil, **place.settings
        )
        self.run.steps_done = steps
        model, space = self.run.learner.trained, self.robot.action_space
        identity = Identity(self.robot.robot_type, space, architecture_of(model))
        settings: Any = model.config
        return steps, Mind(type(model).__name__, settings, model.image_shape, space.size, self.run.learner.config, identity)

    def meet(self, teacher: Any, until: int) -> None:
        """From now on it learns from that teacher, and lives until it has done `until` steps in all its lives."""
        assert isinstance(self.run.learner, Pupil)
        self.run.learner.teacher, self.run.until = teacher, until
        self._events: Iterator[Event] = iter(self.run)

    def again(self, life: int, fleet: str, teacher: Any, until: int) -> Beat:
        """All of that for one that was killed: it goes on where its recordings end."""
        self.hold(life)
        self.begin(fleet)
        self.meet(teacher, until)
        return self._beat()

    def live(self, seconds: float) -> Beat:
        """For so long, or a step longer. Raises what the life raises; the robot was stopped then."""
        late, self._over = time.monotonic() + seconds, False
        for event in self._events:
            if isinstance(event, Step) and time.monotonic() >= late:
                return self._beat()
        self._over = True
        return self._beat()

    def close(self, stop: bool = True) -> Beat:
        """What was lived is closed; the robot first, for good, unless it is still to sit an exam (`stop` False). May be called twice."""
        if stop:
            self.stop.set()
            self.robot.stop()
        self.run.close()
        return self._beat()

    def exam(self, steps: int, folder: Path) -> tuple[Path, list[str], dict[str, Any]]:
        """Steps it will not learn from, with random actions, after its life: the page of its card, the sentences on it, its scores."""
        assert isinstance(self.run.learner, Pupil)
        self.run.learner.catch_up()
        lived = live(self.robot, RandomSelector(self.place.recipe.seed + 1), steps=steps)
        card = self.run.card([event for event in lived if isinstance(event, Step)], name=self.place.name)
        return card.save(folder).absolute(), card.sentences(), dict(card.model)

    def release(self) -> None:
        self._held.close()

    def _beat(self) -> Beat:
        run, notes = self.run, tuple(self.run.notes)
        run.notes.clear()
        return Beat(self.place.robot, run.steps_done, run.learner.updates, run.progress.skill, run.elapsed, self._over, notes)


def _nothing(observation: Observation) -> bool:
    """Held out: the exam is lived afterwards."""
    return False
