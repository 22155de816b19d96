"""A life to watch: a recipe's robot learns in the workshop, and a page sees the newest of it, whenever it looks.

Pictures are imagined only while somebody looks, and at most so often, since they cost the time of learning. A person may drive: then
what curiosity proposes is shown, and nothing moves until an action is chosen.
"""

import hashlib
import time
from collections import deque
from dataclasses import dataclass, field, replace
from threading import Condition, Event
from typing import Any

import numpy as np

from motorbabble.agents import Run
from motorbabble.analysis.view import View
from motorbabble.birth import born
from motorbabble.errors import ConfigurationError, RobotError
from motorbabble.experience import Action, Choice, Selector, Situation, Step, Study, as_choice, has_moved
from motorbabble.explorer.workshop import Job, Pace
from motorbabble.figures import Tile, fit
from motorbabble.learning.checkpoint import put_aside
from motorbabble.recipes import KeepConfig, LearningRecipe, robot_from
from motorbabble.robots.interface import RobotInterface

LOOKED_AT = 2.0  # seconds since a page last asked for a picture
PICTURE_EVERY = 0.4  # seconds, at most so often
CARD_NEEDS = 100  # steps


@dataclass(frozen=True)
class Seen:
    """What a page shows of a life. `version` rises when the pictures are others; `number` with every event."""

    number: int = 0
    version: int = 0
    doing: str = "waking up"
    groups: tuple[tuple[str, tuple[Tile, ...]], ...] = ()
    step: int = 0
    update: int = 0
    action: str = ""  # what was done last, or is proposed
    why: str = ""
    scores: tuple[tuple[str, float], ...] = ()  # by label, the highest first
    counts: tuple[tuple[str, int], ...] = ()
    happened: str = ""  # how good the last prediction was
    skill: float | None = None  # of predictions made before their outcome was learned from; 0: copy-last, 1: perfect
    mean_skill: float | None = None  # what showing the mean frame would have had, on the same frames
    seeing: float | None = None  # of reconstruction, over the mean frame
    uncertainty: float | None = None  # nats, mean over the actions that were scored
    views: int = 0  # pictures that look different from one another
    learning: float = 0.0  # seconds of gradient steps
    elapsed: float = 0.0  # seconds of life
    told: float = 0.0  # when that was, by the monotonic clock
    notes: tuple[str, ...] = ()
    curve: tuple[tuple[float, float], ...] = ()  # seconds of life, skill


class Wheel:
    """A selector that a person can take over from another one, press by press."""

    def __init__(self, select: Selector, stop: Event, consider: Any):
        self.select, self.stop, self.consider = select, stop, consider
        self._turned = Condition()
        self._by_hand, self._wish = False, None

    @property
    def by_hand(self) -> bool:
        return self._by_hand

    def take(self, by_hand: bool) -> None:
        with self._turned:
            self._by_hand, self._wish = by_hand, None
            self._turned.notify_all()

    def press(self, action: Action) -> None:
        """Do this next. Of several presses before it is done, the last counts."""
        with self._turned:
            self._wish = dict(action)
            self._turned.notify_all()

    def released(self) -> None:
        """Nobody is waited for any more."""
        with self._turned:
            self._turned.notify_all()

    def __call__(self, situation: Situation) -> Choice:
        proposal = as_choice(self.select(situation), situation.action_space)
        if self._by_hand and self._wish is None:
            self.consider(situation, proposal)
        with self._turned:
            self._turned.wait_for(lambda: self.stop.is_set() or not self._by_hand or self._wish is not None)
            wish, self._wish = self._wish, None
        return proposal if wish is None else Choice(wish, proposal.scores, "a person chose it")

    def observe(self, event: Step) -> None:
        if observe := getattr(self.select, "observe", None):
            observe(event)


@dataclass
class _Tally:
    """Squared errors on transitions that moved, the older ones counting less: of the model, of copy-last and of the mean frame."""

    errors: np.ndarray = field(default_factory=lambda: np.zeros(3))

    def add(self, *errors: float) -> None:
        self.errors = 0.95 * self.errors + np.array(errors)

    def skill_of(self, who: int) -> float | None:
        return None if self.errors[1] <= 0 else float(1 - self.errors[who] / self.errors[1])


def view_of(image: np.ndarray) -> bytes:
    """What two pictures share that look the same from afar: four shades of 32 x 32 squares. A dot shows, most of a camera's noise does not."""
    return hashlib.blake2b((fit(image, 32) // 64).tobytes(), digest_size=8).digest()


class Life(Job):
    """`name`: of its recipe, and of its checkpoint. `fresh`: what was saved under that name is put aside, not deleted."""

    def __init__(self, name: str, recipe: LearningRecipe, keep: KeepConfig, fresh: bool = False):
        self.name, self.recipe, self.keep, self.fresh = name, recipe, keep, fresh
        self.title = f"{name}, learning live"
        self.seen = Seen()
        self.robot: RobotInterface | None = None
        self.wheel: Wheel | None = None
        self.actions: tuple[tuple[str, Action], ...] = ()  # that can be pressed: label, action
        self.session = self.checkpoint = ""  # ids, as soon as they are known
        self.card: tuple[str, ...] = ()  # what it says in the end
        self.card_page = ""
        self._watched, self._drawn = 0.0, 0.0
        self._view, self._tally = View(side=224), _Tally()
        self._counts: dict[str, int] = {}
        self._views: set[bytes] = set()
        self._curve: deque[tuple[float, float]] = deque(maxlen=2000)
        self._notes: list[str] = []
        self._stop: Event | None = None

    # What a page does, from any thread

    def look(self) -> Seen:
        """The newest; asking for it is what makes it draw."""
        self._watched = time.monotonic()
        return self.seen

    def halt(self) -> None:
        robot, wheel = self.robot, self.wheel
        if robot is not None:
            robot.stop()
        if self._stop is not None:
            self._stop.set()
        if wheel is not None:
            wheel.released()

    # The life

    def run(self, pace: Pace) -> str:
        self._stop = pace.stop
        recipe = self.recipe
        with robot_from(recipe.robot, recipe.seed) as robot:
            self.robot, space = robot, robot.action_space
            self.actions = tuple((space.label(action), dict(action)) for action in (space.actions or space.candidates(9)))
            memory = self.keep.memory(robot.robot_type, recipe.name or self.name, recipe.record)
            if self.fresh and memory.checkpoint_dir and (aside := put_aside(memory.checkpoint_dir)):
                self._notes.append(f"What was saved as {memory.checkpoint_dir.name} is kept as {aside.name}.")
            with born(self.name, recipe, robot, memory, pace.stop) as run:
                self.wheel = Wheel(run.select, pace.stop, lambda situation, choice: self._considered(run, situation, choice))
                run.select = self.wheel
                self.checkpoint = f"{robot.robot_type}/{memory.checkpoint_dir.name}" if memory.checkpoint_dir else ""
                try:
                    for event in run:
                        if isinstance(event, Study):
                            self._studied(run, event)
                        elif isinstance(event, Step):
                            self._stepped(run, event)
                            if not run.catching_up:
                                pace.wait()
                except RobotError:
                    if not pace.stop.is_set():  # else it was stopped in the middle of an action, as was asked
                        raise
                return self._ended(run)

    def _studied(self, run: Run, event: Study) -> None:
        seeing = event.losses.get("reconstruction_skill")
        skill = run.progress.skill if run.progress.copy else None
        if skill is not None:
            self._curve.append((run.elapsed, skill))
        self._tell(run, doing="catching up with what was recorded" if run.catching_up else "learning", update=event.update, learning=event.seconds)
        self.seen = replace(self.seen, seeing=seeing if seeing is not None else self.seen.seeing, skill=skill)

    def _stepped(self, run: Run, event: Step) -> None:
        label = run.action_space.label(event.executed)
        self.session = f"{run.robot.robot_type}/{run.session}" if run.session else self.session
        self._counts[label] = self._counts.get(label, 0) + 1
        self._views.add(view_of(event.observation.image))
        self._view.watch(event, run.situation)
        outcome = self._view.last
        if outcome is not None:
            frame = run.world_model.at_the_door(event.observation.image)
            if has_moved(outcome.prediction.before, frame):
                mean = float(np.square((frame - run.learner.replay.background()) / 255.0).mean())
                self._tally.add(outcome.error, outcome.copy_error, mean)
            happened = f"{outcome.prediction.label}: error {outcome.error:.2g}, keeping the frame before would be {outcome.copy_error:.2g}"
            self.seen = replace(self.seen, happened=happened)
        if run.catching_up:
            self._tell(run, doing="catching up with what was recorded")
        else:
            self._chosen(run, event.choice, f"did {label}", event.index + 1)
            self._draw()

    def _considered(self, run: Run, situation: Situation, choice: Choice) -> None:
        """A person is to choose: what is proposed, before anything moves."""
        self._view.consider(situation, choice)
        self._chosen(run, choice, f"waits for you; {run.action_space.label(choice.action)} is proposed", run.steps_done)
        self._draw(anyway=True)

    def _chosen(self, run: Run, choice: Choice, doing: str, step: int) -> None:
        finite = [(label, float(score)) for label, score in choice.scores.items() if np.isfinite(score)]
        scores = tuple(sorted(finite, key=lambda pair: -pair[1])[:12])
        uncertainty = float(np.mean([score for _, score in scores])) if scores and self.recipe.selector == "uncertainty" else None
        self._tell(
            run,
            doing=doing,
            step=step,
            action=run.action_space.label(choice.action),
            why=choice.why,
            scores=scores,
            counts=tuple(sorted(self._counts.items())),
            mean_skill=self._tally.skill_of(2),
            uncertainty=uncertainty,
            views=len(self._views),
        )

    def _tell(self, run: Run, **news: Any) -> None:
        while run.notes:
            self._notes.append(run.notes.pop(0))
        self.seen = replace(
            self.seen,
            number=self.seen.number + 1,
            elapsed=run.elapsed,
            told=time.monotonic(),
            notes=tuple(self._notes[-6:]),
            curve=tuple(self._curve),
            **news,
        )

    def _draw(self, anyway: bool = False) -> None:
        now = time.monotonic()
        if not anyway and (now - self._watched > LOOKED_AT or now - self._drawn < PICTURE_EVERY) and self.seen.groups:
            return
        groups = tuple((title, tuple(tiles)) for title, tiles in self._view.groups())
        self._drawn = time.monotonic()
        self.seen = replace(self.seen, groups=groups, version=self.seen.version + 1)

    def _ended(self, run: Run) -> str:
        stopped = self._stop is not None and self._stop.is_set()
        if run.steps_done >= CARD_NEEDS and not stopped:
            self._tell(run, doing="takes its exam")
            try:
                card = run.card(name=self.name)
            except ConfigurationError as few:
                self.card = (f"There is no card: {few}.",)
            else:
                self.card_page = str(card.save(self.recipe.out / run.robot.robot_type / f"{self.recipe.name or self.name}-seed{self.recipe.seed}"))
                self.card = tuple(card.sentences())
        kept = f"; it is saved as {self.checkpoint}, and goes on from here when started again" if self.checkpoint else ""
        self._tell(run, doing="at rest")
        return f"{'stopped' if stopped else 'done'} after {run.steps_done} steps and {run.learner.updates} updates{kept}"
