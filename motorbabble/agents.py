"""Whole robots with a mind, ready to run: `learn`, and the Run it answers, a few lines over `live`."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from threading import Event as Flag
from typing import Any, Literal, Self

import torch

from motorbabble.analysis.card import Card, at_the_door, make_card
from motorbabble.bounds import Bounds, BoundsConfig
from motorbabble.errors import ConfigurationError, RobotError
from motorbabble.experience import ActionSpace, Event, Observation, Selector, Situation, Step, Study, Window
from motorbabble.learning.beside import GATES, Beside
from motorbabble.learning.learner import ONLINE, Learner, LearnerConfig
from motorbabble.learning.state import flat, teaching_of
from motorbabble.life import History, Pace, check_delay, live, look
from motorbabble.memory import Memory, MemoryConfig
from motorbabble.models.compiling import COMPILING
from motorbabble.robots.interface import RobotInterface
from motorbabble.selectors import (
    LearningProgressSelector,
    LeastTriedSelector,
    PredictionErrorSelector,
    RandomDurationSelector,
    RandomSelector,
    UncertaintySelector,
)
from motorbabble.world_models.base import WorldModel
from motorbabble.world_models.kinds import names_in, preset_of, with_settings

SELECTORS: dict[str, Callable[[int], Selector]] = {
    "uncertainty": UncertaintySelector,
    "learning_progress": LearningProgressSelector,
    "prediction_error": PredictionErrorSelector,
    "random": RandomSelector,
    "random_duration": RandomDurationSelector,
    "least_tried": LeastTriedSelector,
}

CURVE_POINTS = 4000
PATIENCE = 5.0  # seconds a step that was begun may take after the time is up
HELD_OUT_STRETCH, HELD_OUT_EVERY = 12, 8  # steps in a stretch; one stretch in so many is kept for the exam


def learn(
    robot: RobotInterface,
    model: str | WorldModel = "latent",
    selector: str | Selector = "uncertainty",
    steps: int | None = 600,
    seed: int = 0,
    *,
    preset: str = "tiny",
    seconds: float | None = None,
    device: str = "auto",
    threads: int | None = None,
    holds_out: Callable[[Observation], bool] | None = None,
    learner: LearnerConfig = ONLINE,
    stop: Flag | None = None,
    memory: MemoryConfig | None = None,
    about: Mapping[str, Any] | None = None,
    action_delay: float = 0.0,
    action_period: float | None = None,
    beside: bool = False,
    gate: Literal["act", "wait"] = "act",
    bounds: BoundsConfig | None = None,
    learner_of: Callable[[WorldModel, LearnerConfig, int, Callable[[Observation], bool]], Learner] | None = None,
    **overrides: Any,
) -> "Run":
    """A robot that learns while it lives: iterate the Run for its Step and Study events.

    `model`: "latent" or "canvas", in the size that `preset` names, or any WorldModel, which is trained in place while an average of it acts;
    `selector`: a name or any function of a Situation; `steps` of the robot and `seconds` of life end the run, whichever
    comes first. `holds_out` keeps moments out of everything learned from; unless given, every eighth stretch of 12 steps
    is kept for `run.card()`. With `memory` it is recorded, saved, and goes on where an earlier run of the same folders was,
    however that one ended; `about` (plain values) is written down with it. `action_delay` seconds
    pass after each action, `action_period` seconds from the start of one to the start of the next, where that can be kept (None: as fast
    as it goes). `beside`: it learns in a process of its own while the robot acts, which with `gate` "act" never waits for that, and with "wait"
    until it has learned from the newest frame, within the budget of the learner's gate; `threads` are then those of each of the two,
    half of those there are unless given, until the run is closed.
    `bounds`, where given, stop the robot and end the run earlier, and `run.notes` says which did. `learner_of`, where given, makes the
    learner, as for one of many robots that learn together (motorbabble.fleet). Further keywords
    set fields of the learner's or the model's configuration by name:
    `image_size=(64, 64)` (the model sees frames resized to that), `batch_size=8`, `learning_rate=1e-3`, `moved_layers=0`.
    """
    if not isinstance(robot, RobotInterface):
        raise ConfigurationError(f"{robot!r} is no robot; give an object whose class inherits from RobotInterface")
    for name, value in (("steps", steps), ("seconds", seconds), ("threads", threads)):
        if value is not None and not (isinstance(value, int | float) and value > 0):
            raise ConfigurationError(f"{name} is {value!r}; give a positive number of {name}, or None for no limit")
    if not isinstance(seed, int) or seed < 0:
        raise ConfigurationError(f"seed is {seed!r}; give a whole number, 0 or more")
    if gate not in GATES:
        raise ConfigurationError(f"gate is {gate!r}; choose one of {list(GATES)}")
    if threads is not None:
        torch.set_num_threads(threads)
    torch.manual_seed(seed)
    place = _device(device)
    if isinstance(model, str):
        kind, config = preset_of(model, preset)
        known = names_in(ONLINE) | names_in(config)
        config = with_settings(config, overrides)
        model = kind.make(look(robot).image.shape[:2], robot.action_space.size, config)
    else:
        known = names_in(ONLINE)
        height, width, _ = look(robot).image.shape
        fits = model.has_door or model.image_shape == (height, width)
        if not fits or model.action_size != robot.action_space.size:
            raise ConfigurationError(
                f"the model sees {model.image_shape} and knows actions of {model.action_size} numbers, this robot gives {(height, width)} "
                f"and {robot.action_space.size}; make a model for this robot"
            )
    if unknown := set(overrides) - known:
        raise ConfigurationError(f"there is no setting {sorted(unknown)[0]!r}; choose one of {sorted(known)}")
    if isinstance(selector, str):
        if selector == "goal":
            raise ConfigurationError("the goal selector needs a goal; give selector=GoalSelector(picture), from motorbabble.selectors")
        if selector not in SELECTORS:
            raise ConfigurationError(f"there is no selector {selector!r}; choose one of {sorted(SELECTORS)}, or give a function of a Situation")
        selector = SELECTORS[selector](seed)
    settings, holds_out, stop = with_settings(learner, overrides), holds_out or HeldOutStretches(), stop or Flag()
    if learner_of:
        mind = learner_of(model.to(place), settings, seed, holds_out)
    elif beside:
        mind = Beside(model.to(place), settings, seed, holds_out, gate=gate, threads=threads, stop=stop)
    else:
        mind = Learner(model.to(place), settings, seed, holds_out)
    about = {"settings": flat(mind.config) | teaching_of(model), **(about or {})}
    return Run(robot, mind, selector, steps, seconds, stop, memory, about, action_delay, bounds, action_period)


class Run:
    """A life in progress. Iterate it; look at it at any time; ask it for its card when enough was lived.

    One with a memory is saved and closed when it ends, and what learns beside the robot ends with it; `close` it, or use `with`, where you may
    stop iterating before.
    """

    def __init__(
        self,
        robot: RobotInterface,
        learner: Learner,
        select: Selector,
        steps: int | None,
        seconds: float | None,
        stop: Flag | None = None,
        memory: MemoryConfig | None = None,
        about: Mapping[str, Any] | None = None,
        action_delay: float = 0.0,
        bounds: BoundsConfig | None = None,
        action_period: float | None = None,
    ):
        self.robot, self.learner, self.action_delay = robot, learner, check_delay(action_delay)
        self.action_period, self._pace = action_period, Pace(action_period)
        self.select = select  # may be replaced before the first event, by one that asks a person; what is saved stays this one's
        self.steps, self.seconds, self.stop = steps, seconds, stop or Flag()
        self.bounds = Bounds(bounds or BoundsConfig(), robot, self.stop)
        self.lived: deque[Step] = deque(maxlen=learner.config.replay.capacity)
        self.steps_done = 0
        self._held_out: set[int] = set()  # indices of steps whose moment was kept out of what was learned
        self._history = History(robot.action_space, learner.world_model.history)
        self.progress = Progress()
        self.elapsed = 0.0  # seconds of life: looking, learning, choosing, acting, and the delay after it; not what the caller does in between
        self.until = steps  # the number of the step that ends it
        self._asks_anew = False  # for as many steps again, behind whatever is caught up with first
        self.catching_up = False  # learning again from what was recorded after the last save; the robot is at rest
        self._here = 0.0  # seconds of life in this process
        self.about = dict(about or {})  # with what it was set up
        self._between_steps = True
        self._memory = Memory(memory, robot, learner, select, self._history, about) if memory else None
        self._notes = self._memory.notes if self._memory else []  # still there when it is closed
        if learner.world_model.compiled:
            self._notes.append(COMPILING)
        self._events = self._live()
        if self._memory:
            try:
                self._memory.resume(self._restore)
            except BaseException:
                self._memory.release()
                raise

    @property
    def world_model(self) -> WorldModel:
        return self.learner.world_model

    @property
    def action_space(self) -> ActionSpace:
        return self.robot.action_space

    @property
    def window(self) -> Window:
        """The newest frames and the actions between them, as the model wants them."""
        if not self._history.seen:
            raise ConfigurationError("nothing was lived yet, so there is no window; iterate the run first")
        return self._history.window()

    @property
    def situation(self) -> Situation:
        """The newest moment, as a selector sees it."""
        return Situation(self.window, self.action_space, self.world_model, self.steps_done, self._history.episode or 0)

    @property
    def lookahead(self) -> int:
        """How many actions ahead its predictions are good at present; 0: not even one."""
        return self.learner.levels.lookahead(self.learner.trained.spans)

    @property
    def learned_from(self) -> list[Step]:
        """The steps still remembered that were not held out."""
        return [step for step in self.lived if step.index not in self._held_out]

    @property
    def resumed(self) -> bool:
        """Whether it goes on from an earlier life."""
        return self._memory is not None and self._memory.resumed

    def has_learned_from(self, sessions: Iterable[str]) -> bool:
        """Whether this life, or the training it began from, was taught by one of these sessions."""
        return self._memory is not None and not self._memory.taught_by().isdisjoint(sessions)

    @property
    def session(self) -> str | None:
        """The name of the session that is being recorded; None before the first step, without a memory, and when it is closed."""
        recorder = self._memory.recorder if self._memory else None
        return recorder.session if recorder else None

    @property
    def notes(self) -> list[str]:
        """Sentences a person should hear: what was resumed, what was lost, what could not be saved."""
        return self._notes

    def __iter__(self) -> Iterator[Event]:
        while True:
            began, self._between_steps = time.monotonic(), False
            try:
                event = next(self._events, None)
            except BaseException as error:
                self._between_steps = isinstance(error, RobotError)  # the robot failed, what it learned is whole
                self.close()
                raise
            lasted = time.monotonic() - began
            self.elapsed, self._here = self.elapsed + lasted, self._here + lasted
            if event is None:
                self._between_steps = True
                if self.stop.is_set():
                    self.robot.stop()  # before anything is saved
                self.close()
                return
            if isinstance(event, Step):
                self.lived.append(*at_the_door(self.world_model, [event]))  # small frames are all a card needs
                self.steps_done = event.index + 1
                if not self.catching_up and (late := self._pace(event)):
                    self._notes.append(late)
                if self.learner.held_out:
                    self._held_out.add(event.index)
            elif isinstance(event, Study):
                self.progress.add(event, self.steps_done, self.elapsed)
                self._notes.extend(event.notes)
            if not self.catching_up:
                self.heed(event)
                if self._memory:
                    self._memory.keep(event, self.state_dict)
            self._between_steps = True  # only now: what could not be written down was not lived to its end
            yield event
            late = self._here - (math.inf if self.seconds is None else self.seconds)
            if late >= (0 if isinstance(event, Step) else PATIENCE):  # the caller's flag stays as it is: an exam may follow
                self.close()
                return

    def _live(self) -> Iterator[Event]:
        if self._memory:
            self.catching_up = True
            yield from self._memory.catch_up(self.steps_done, self.stop)
            self.catching_up = False
            if self.stop.is_set():
                return
            if self._asks_anew and self.steps is not None:
                self.until = self.steps_done + self.steps
            self._memory.begin(self.state_dict())
        yield from live(
            self.robot,
            self.select,
            self.learner,
            self.stop,
            steps=self.until,
            first=self.steps_done,
            history=self._history,
            action_delay=self.action_delay,
            action_period=self.action_period,
        )

    def heed(self, event: Event) -> None:
        """Stop the robot, then the run, and note why, where this event reaches one of its bounds; also for a life with its robot after it."""
        if why := self.bounds(event):
            self._notes.append(why)

    def forget(self) -> None:
        """What comes next did not follow from what was seen: the next look begins a history."""
        self._history.forget()

    def save(self) -> None:
        """Save now, where it has a memory; in the middle of a recorded step the save before it stands."""
        if self._memory and self._between_steps:
            self._memory.save(self.state_dict())

    def close(self) -> None:
        """Save, close the session, end what learns beside the robot. May be called twice; a closed run lives no further."""
        memory, self._memory = self._memory, None
        self._events = iter(())
        try:
            if memory:
                memory.close(self.state_dict() if self._between_steps else None)
        finally:
            self.learner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info) -> None:
        self.close()

    def state_dict(self) -> dict[str, Any]:
        """What the run itself knows, in plain values."""
        return {
            "steps_done": self.steps_done,
            "steps": self.steps,
            "until": self.until,
            "elapsed": self.elapsed,
            "held_out": sorted(index for index in self._held_out if self.lived and index >= self.lived[0].index),
            "progress": self.progress.state_dict(),
        }

    def _restore(self, state: dict[str, Any], steps: list[Step]) -> None:
        self.lived.extend(at_the_door(self.world_model, steps))
        self.steps_done, self.elapsed, self._held_out = state["steps_done"], state["elapsed"], set(state["held_out"])
        self.progress.load_state_dict(state["progress"])
        if isinstance(self.learner.holds_out, HeldOutStretches):
            self.learner.holds_out.looks = self.learner.replay.moments
        unfinished = state["until"] is not None and state["steps"] == self.steps and self.steps_done < state["until"]
        if self.steps is not None:  # the same command again finishes what it began; after that, it asks for as much again
            self.until, self._asks_anew = (state["until"], False) if unfinished else (self.steps_done + self.steps, True)

    def card(self, test: Sequence[Step] | None = None, name: str = "") -> Card:
        """How well it understands, on `test` steps, or on the moments of its own life that it never learned from."""
        if test is None:
            test = [step for step in self.lived if step.index in self._held_out]
            if len(test) < 4:
                by_itself = isinstance(self.learner.holds_out, HeldOutStretches)
                longer = f"live {HELD_OUT_STRETCH * (HELD_OUT_EVERY - 1) + 4}, or " if by_itself else ""
                raise ConfigurationError(f"{self.steps_done} steps were lived and {len(test)} held out, too few for a card; {longer}give test steps")
        return make_card(self.world_model, self.action_space, self.learned_from, test, robot=self.robot, name=name, curve=self.progress.curve)


class HeldOutStretches:
    """True for every moment of one stretch in eight: whole stretches, so that neighbours in time are held out together."""

    def __init__(self):
        self.looks = 0

    def __call__(self, observation: Observation) -> bool:
        self.looks += 1
        return self.holds(self.looks - 1)

    def holds(self, step: int) -> bool:
        return step // HELD_OUT_STRETCH % HELD_OUT_EVERY == HELD_OUT_EVERY - 1


class Progress:
    """How skill rises, from predictions scored before anything was learned from their outcome.

    A running ratio of the model's error to copy-last's, over the newest moved transitions (about 20 of them).
    """

    def __init__(self):
        self.error, self.copy, self.skill = 0.0, 0.0, 0.0
        self._passed, self._stride = 0, 1
        self.curve: list[tuple[float, int, float]] = []  # seconds of life, robot steps, skill

    def add(self, study: Study, steps: int, seconds: float) -> None:
        copy = study.losses.get("fresh_copy_error", 0.0)
        if copy > 1e-6:
            self.error = 0.95 * self.error + study.losses["fresh_error"]
            self.copy = 0.95 * self.copy + copy
            self.skill = 1 - self.error / self.copy
        self._passed += 1
        if self._passed % self._stride == 0:
            self.curve.append((seconds, steps, self.skill))
        if len(self.curve) > CURVE_POINTS:  # a long life has a coarser curve
            self.curve, self._stride = self.curve[1::2], 2 * self._stride

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        vars(self).update({**state, "curve": [(seconds, step, skill) for seconds, step, skill in state["curve"]]})


def _device(name: str) -> torch.device:
    try:
        return torch.zeros(1, device=("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name).device
    except (RuntimeError, AssertionError):  # an unknown name; a torch that was built without it
        raise ConfigurationError(f"there is no device {name!r} here; use auto or cpu") from None
