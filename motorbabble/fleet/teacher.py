"""Teacher: the one learner of a fleet, in a Ray actor of its own. It hears every robot's looks and lets all have the weights.

It is a plain Learner whose gate never opens, in a thread: it studies the newest look of each robot in turn, at least `updates_per_step` times,
up to `beside_updates` times while no other look waits, and rests when nothing new comes.

Decisions: what it was not told it reads. A look is told with its number, and whatever is missing before it (it was killed meanwhile; a robot was, and
another one took its place) is on disk by then, since a step is recorded before the next look. So a teacher that begins again needs only its
checkpoint, and no look is missing from what it learns from. The checkpoint is a training's: a life may begin with what a fleet has learned.
Over several devices (spread.py) it ends where one of its helpers is killed, and begins again in the same way.
"""

import copy
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
import torch

from motorbabble.errors import CheckpointError, CheckpointMismatch, MotorbabbleError
from motorbabble.experience import Observation, Study
from motorbabble.fleet.replays import Replays
from motorbabble.fleet.tape import Tape
from motorbabble.learning.checkpoint import Checkpoints, Identity
from motorbabble.learning.learner import Learner, LearnerConfig
from motorbabble.learning.process import as_told
from motorbabble.learning.spread import Spread
from motorbabble.learning.state import counters_of, load_learned
from motorbabble.learning.training import saved_learner
from motorbabble.world_models.kinds import CLASSES

REMEMBERED = 200  # studies that a robot has not yet heard of
Failure = tuple[str, str, str]  # an error's name, its words, where it came from


@dataclass(frozen=True)
class News:
    studied: int  # the newest of this robot's looks that was studied
    studies: list[Study]
    version: str  # of the weights
    weights: list[Any]  # a reference to them, or nothing where the robot has them
    state: dict[str, Any]  # what belongs to them
    failed: Failure | None = None


@dataclass(frozen=True)
class Mind:
    """What a teacher needs to know of this kind of robot: which model to make, and how it is taught."""

    kind: str  # of the model, as in world_models/kinds.py
    settings: Any
    image_shape: tuple[int, int]
    action_size: int
    config: LearnerConfig
    identity: Identity


@dataclass(frozen=True)
class Course(Mind):
    """What a teacher begins with, and once more when it was killed: small, so that Ray keeps it with the actor."""

    seed: int
    robots: int
    fleet: str  # whose recordings are read
    folder: Path  # of the checkpoint
    sessions: Path  # of the robot type
    save_updates: int
    save_seconds: float
    device: str = "cpu"
    devices: int = 1  # that each batch is spread over
    threads: int = 1  # of each
    holds_out: Callable[[Observation], bool] | None = None


class Teacher:
    """Methods are called by robots and by whoever started the fleet. `hear` keeps its order; `news` may wait, in threads of its own."""

    def __init__(
        self,
        course: Course,
        again: Callable[[], bool] = lambda: False,
        share: Callable[[Any], Any] = lambda weights: weights,
        end: Callable[[], None] = lambda: None,
    ):
        """`again`: whether it was killed before. `share`: what makes of a set of weights something that is cheap to send to many.
        `end`: what ends its process at once, so that another one begins.
        """
        self.course, self._again, self._share, self._end = course, again, share, end
        self.failed: Failure | None = None
        self._inbox: SimpleQueue[Any] = SimpleQueue()
        self._told = threading.Condition()
        self._studied, self._lives = [-1] * course.robots, [""] * course.robots
        self._studies: list[deque[Study]] = [deque(maxlen=REMEMBERED) for _ in range(course.robots)]
        self._begun, self._newest, self._shared = secrets.token_hex(4), None, ("", None)
        self._held = ExitStack()
        try:
            self._begin()
        except BaseException as error:
            self._fail(error)
            return
        self._thread = threading.Thread(target=self._teach, daemon=True)
        self._thread.start()

    def begun(self) -> tuple[Failure | None, list[str]]:
        """Why it cannot teach, if it cannot; and sentences a person should hear."""
        return self.failed, self.notes

    def hear(self, robot: int, life: str, moment: int, image: np.ndarray | None, led: np.ndarray | None) -> None:
        """A robot's look number `moment`, as the model sees it; None: it is held out. `life`: another word where another actor took its place."""
        self._inbox.put((robot, life, moment, image, led))

    def news(self, robot: int, version: str, studied: int, seconds: float) -> News:
        """What there is, once the robot's look number `studied` was studied, or after so many seconds. `version`: of the weights it has."""
        with self._told:
            self._told.wait_for(lambda: self.failed or self._studied[robot] >= studied, seconds)
            studies, newest = list(self._studies[robot]), self._newest
            self._studies[robot].clear()
            if self.failed or newest is None or newest[0] == version:
                return News(self._studied[robot], studies, version, [], {}, self.failed)
            if self._shared[0] != newest[0]:
                self._shared = (newest[0], self._share(newest[1]))
            return News(self._studied[robot], studies, newest[0], [self._shared[1]], newest[2])

    def taught(self) -> tuple[dict[str, np.ndarray], int]:
        """The newest weights that act, and how many levels of prediction they are of."""
        assert self._newest
        return self._newest[1], len(self._newest[2]["levels"]["records"])

    def facts(self) -> dict[str, Any]:
        return {**counters_of(self.learner), "looks": [one.moments for one in self.replays.of], "remembered": [len(one) for one in self.replays.of]}

    def close(self) -> Failure | None:
        """Save, and let go of the checkpoint. Answers why, if it could not."""
        self._inbox.put(None)
        if not self.failed:
            self._thread.join()
        if not self.failed:
            try:
                self._save()
            except MotorbabbleError as error:
                self._fail(error)
        self._held.close()
        return self.failed

    # Parts

    def _begin(self) -> None:
        course, most = self.course, self.course.config.beside_updates
        self.notes: list[str] = []
        self._to_say: tuple[str, ...] = ()  # with the next study
        forever = replace(course.config.gate, reconstruction_skill=float("inf"), max_updates=most, max_seconds=float("inf"), patience=most + 1)
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if course.device == "auto" else course.device)
        torch.manual_seed(course.seed)
        model = CLASSES[course.kind].make(course.image_shape, course.action_size, course.settings)
        spread = partial(Spread, processes=course.devices, threads=course.threads, when_lost=self._lost) if course.devices > 1 else Learner
        self.learner = spread(model.to(device), replace(course.config, updates_per_step=most, gate=forever), course.seed)
        self._held.callback(self.learner.close)
        self.learner.replay = self.replays = Replays(course.config.replay, course.robots)
        self._checkpoints = self._held.enter_context(Checkpoints(course.folder))
        if loaded := self._checkpoints.load(course.identity):
            self._go_on(loaded)
        else:
            self._save()
        self._due = (self.learner.updates, time.monotonic())
        self._publish()

    def _go_on(self, loaded: Any) -> None:
        """With what was learned before; what was lived is read when its robot is heard."""
        if loaded.state.get("training", {}).get("fleet") != self.course.fleet:
            raise CheckpointMismatch(f"{self.course.folder} is no fleet's checkpoint; choose another --name, or begin anew with --fresh")
        load_learned(self.learner, loaded)
        self.learner.rng.bit_generator.state = loaded.state["generators"]["learner"]
        goes_on = f"goes on where it was saved, after {self.learner.updates} updates."
        self.notes = [f"It {goes_on}", *loaded.notes]
        if self._again():
            who = "The learner's actor" if self.course.devices == 1 else "The learner's actor, or one of its helpers,"
            self._to_say = (f"{who} was killed; another one {goes_on}", *loaded.notes)

    def _teach(self) -> None:
        try:
            torch.set_num_threads(self.course.threads)
            due: dict[int, int] = {}  # whose newest look waits, longest first, and its number
            while (news := self._listen(due)) is not None:
                if news:
                    self._study(*news)
                updates, since = self._due
                if self.learner.updates - updates >= self.course.save_updates or time.monotonic() - since >= self.course.save_seconds:
                    with suppress(CheckpointError):  # a full disk may be freed; the save before and the sessions still hold
                        self._save()
        except BaseException as error:
            self._fail(error)

    def _listen(self, due: dict[int, int]) -> tuple[int, int] | tuple[()] | None:
        """All that came; then whose turn it is, and which look. Nothing, where nothing new is to be studied; None: it is over."""
        while True:
            try:
                message = self._inbox.get(timeout=0.0 if due else 1.0)
            except Empty:
                break
            if message is None:
                return None
            robot, life, moment, image, led = message
            if self._remember(robot, life, moment, image, led):
                due[robot] = moment  # a newer look keeps the place of the one before
        if not due:
            return ()
        robot = next(iter(due))
        return robot, due.pop(robot)

    def _remember(self, robot: int, life: str, moment: int, image: np.ndarray | None, led: np.ndarray | None) -> bool:
        """Whether it was new. What came before it and was never heard is read."""
        one, course = self.replays.of[robot], self.course
        if self._lives[robot] != life:  # one that was killed may have told a last look from which nothing came
            known, self._lives[robot] = one.moments, life
            one.skip()
            one.moments = min(known, moment)
        if moment < one.moments:
            return False
        if moment > one.moments:
            first = max(one.moments, moment - one.config.capacity)
            for number, seen, action in Tape(course.sessions, course.fleet, robot).looks(first, moment):
                self._skip(robot, number)
                if seen and course.holds_out and course.holds_out(seen):
                    seen = None
                self.replays.hear(robot, self.learner.trained.at_the_door(seen.image) if seen else None, action)
            self._skip(robot, moment)
        self.replays.hear(robot, image, led)
        return True

    def _skip(self, robot: int, moment: int) -> None:
        """Whatever is nowhere to be found before that moment."""
        one = self.replays.of[robot]
        if one.moments < moment:
            one.skip()
            one.moments = moment

    def _study(self, robot: int, moment: int) -> None:
        self.replays.turn = robot
        for number, study in enumerate(self.learner.study(), 1):
            self._publish()
            diverged = study.gate == "diverged"
            study, self._to_say = replace(study, notes=(*self._to_say, *study.notes)), ()
            with self._told:
                for each in range(self.course.robots) if diverged else [robot]:
                    self._studies[each].append(replace(study, gate="diverged" if diverged else "beside"))
            if number >= self.course.config.updates_per_step:
                self._has_studied(robot, moment)
                if not self._inbox.empty():
                    break
        self._has_studied(robot, moment)

    def _has_studied(self, robot: int, moment: int) -> None:
        with self._told:
            self._studied[robot] = moment
            self._told.notify_all()

    def _publish(self) -> None:
        learner = self.learner
        weights = {name: value.detach().cpu().numpy().copy() for name, value in learner.world_model.state_dict().items()}
        state = {"levels": learner.levels.state_dict(), "surprise": learner.surprise.state_dict(), "counters": counters_of(learner)}
        state = copy.deepcopy(state)  # it is sent while learning goes on
        self._newest = (f"{self._begun}-{learner.updates}", weights, state)

    def _save(self) -> None:
        course, learner = self.course, self.learner
        self._due = (learner.updates, time.monotonic())
        tapes = [Tape(course.sessions, course.fleet, robot) for robot in range(course.robots)]
        sources = [[meta.session, meta.moments or 0] for tape in tapes for meta in tape.sessions()]
        training = {"fleet": course.fleet, "position": 0, "history": [], "sources": sources, "held_out": []}
        mean = self.replays.background() if len(self.replays) else np.zeros((*course.image_shape, 3))
        best = {name: value.detach() for name, value in learner.world_model.state_dict().items()}
        about = {"fleet": course.fleet, "robots": course.robots}
        self._checkpoints.save(learner.updates, saved_learner(learner, course.identity, training, mean, best, about))

    def _lost(self, error: MotorbabbleError, killed: bool) -> None:
        """A helper is gone; where it was killed, all begin again from what was saved."""
        if killed:
            self._end()
        self._fail(error)

    def _fail(self, error: BaseException) -> None:
        with self._told:
            self.failed = as_told(error)
            self._told.notify_all()
