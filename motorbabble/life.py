"""live(): the only loop. Look, learn, choose, act; yield everything that happens, in order.

It is a generator, so whoever iterates decides how long life lasts, and recorder, tracker, terminal and
browser consume one stream. `with robot:` stands outside it: an abandoned generator runs no `finally`, a
`with` always does. Whatever goes wrong, the robot stops first and the error travels on.
"""

import time
from collections import deque
from collections.abc import Iterator, Mapping
from threading import TIMEOUT_MAX
from threading import Event as Flag
from typing import TYPE_CHECKING, Any

import numpy as np

from motorbabble.errors import ActionError, ConfigurationError, Diverged, EndOfSession, FrameError, RobotError
from motorbabble.experience import Action, ActionSpace, Ending, Event, Observation, Selector, Situation, Step, Window, as_choice, check_frame

if TYPE_CHECKING:
    from motorbabble.learning.learner import Learner
    from motorbabble.robots.interface import RobotInterface
    from motorbabble.world_models.base import WorldModel

LATE = 5  # actions in a row that start late
LOOKS = 5  # a robot that answers None this many times in a row has no eyes


def live(
    robot: "RobotInterface",
    select: Selector,
    learner: "Learner | None" = None,
    stop: Flag | None = None,
    *,
    world_model: "WorldModel | None" = None,
    steps: int | None = None,
    first: int = 0,
    history: "History | None" = None,
    action_delay: float = 0.0,
    action_period: float | None = None,
) -> Iterator[Event]:
    """Yield a Study per gradient step and a Step per action until `stop` is set, step number `steps` is reached or a recording ends.

    Steps are counted from `first`: a life that was interrupted goes on counting where it was. An Ending is yielded where an
    episode ended and nothing could be done.

    `world_model` is what selectors imagine with; the learner's own unless given. Raises whatever the robot, the selector
    or the learner raise, after robot.stop(); Diverged when a loss is no longer finite. `history`: kept by a caller who wants to
    look at the newest frames too. `action_delay`: seconds that pass after each action and whatever is done with its Step; `stop` ends the wait.
    `action_period`: seconds from the start of one action to the start of the next, where it can be kept; what was chosen earlier waits.
    """
    if steps is not None and steps < 1:
        raise ConfigurationError(f"steps is {steps}; a life needs a positive number of steps, or None for no limit")
    mind = world_model or (learner.world_model if learner else None)
    history = history or History(robot.action_space, mind.history if mind else 3)
    return _live(robot, select, learner, stop or Flag(), mind, steps, first, history, check_delay(action_delay), check_period(action_period))


def _live(
    robot: "RobotInterface",
    select: Selector,
    learner: "Learner | None",
    stop: Flag,
    mind: "WorldModel | None",
    steps: int | None,
    step: int,
    history: "History",
    action_delay: float,
    action_period: float | None,
) -> Iterator[Event]:
    due = 0.0  # on the monotonic clock
    try:
        while not stop.is_set() and (steps is None or step < steps):
            observation = look(robot)
            history.add(observation)
            if learner:
                learner.remember(observation, history.led)
                for study in learner.study():
                    if study.gate == "diverged":
                        robot.stop()
                    yield study
                    if study.gate == "diverged":
                        raise Diverged(
                            f"learning diverged at update {study.update}: the loss is not finite; lower the learning rate, or check the frames"
                        )
                    if stop.is_set():
                        return
            if observation.ends:
                history.ended()
                yield Ending(observation)
                continue
            chosen = select(Situation(history.window(), robot.action_space, mind, step, observation.episode))
            if stop.is_set():  # while it was thought about, or a person was asked
                return
            choice = as_choice(chosen, robot.action_space)
            if action_period and stop.wait(max(0.0, due - time.monotonic())):
                return
            due = time.monotonic() + (action_period or 0.0)
            started, monotonic = time.time_ns(), time.monotonic_ns()
            executed = as_executed(robot.execute_action(choice.action), robot.action_space)
            event = Step(step, observation, choice.action, executed, choice, started, time.time_ns(), monotonic)
            history.acted(executed)
            if observe := getattr(select, "observe", None):  # for selectors that learn
                observe(event)
            step += 1
            yield event
            stop.wait(action_delay)
    except EndOfSession:
        return  # a recording has no further frame, or no further action
    except GeneratorExit:
        raise  # nobody asks for more: between two steps the robot is at rest
    except BaseException:
        robot.stop()
        raise


class History:
    """The newest frames of one episode and the actions between them."""

    def __init__(self, space: ActionSpace, frames: int):
        self.space, self.episode = space, None
        self.seen: deque[Observation] = deque(maxlen=frames)
        self.actions: deque[np.ndarray] = deque(maxlen=max(frames - 1, 0))
        self.led: np.ndarray | None = None  # the encoded action that led to the newest frame
        self.over = False  # the newest frame was the last of its episode

    def add(self, observation: Observation) -> None:
        if self.over and observation.episode == self.episode:
            raise RobotError(f"episode {self.episode} had ended, yet the robot still shows it; raise the episode at every reset")
        self.over = False
        if self.seen and observation.image.shape != self.seen[-1].image.shape:
            raise FrameError(
                f"the frame is {observation.image.shape}, the one before was {self.seen[-1].image.shape}; a robot's frames keep one size"
            )
        if observation.episode != self.episode:
            self.seen.clear()
            self.actions.clear()
            self.led, self.episode = None, observation.episode
        if self.led is not None:
            self.actions.append(self.led)
        self.seen.append(observation)

    def acted(self, action: Action) -> None:
        self.led = self.space.encode(action)

    def ended(self) -> None:
        self.led, self.over = None, True

    def forget(self) -> None:
        """What comes next did not follow from what was seen."""
        self.seen.clear()
        self.actions.clear()
        self.led, self.episode, self.over = None, None, False

    def window(self) -> Window:
        actions = np.stack(self.actions) if self.actions else np.zeros((0, self.space.size), np.float32)
        shared = set.intersection(*(set(observation.state) for observation in self.seen))
        states = {name: np.stack([observation.state[name] for observation in self.seen]) for name in sorted(shared)}
        return Window(np.stack([observation.image for observation in self.seen]), actions, states)


class Pace:
    """Says once, when it hears of it step by step, that actions do not keep their period."""

    def __init__(self, action_period: float | None):
        self.period, self.said = check_period(action_period), False
        self._before = 0
        self._late: deque[float] = deque(maxlen=LATE)  # seconds between the newest starts, as long as each was too long

    def __call__(self, step: Step) -> str:
        """A sentence after LATE intervals in a row that were a twentieth longer than asked for; else nothing."""
        seconds, before, self._before = (step.monotonic_ns - self._before) / 1e9, self._before, step.monotonic_ns
        if self.period is None or self.said or not before:
            return ""
        if seconds < 1.05 * self.period:
            self._late.clear()
            return ""
        self._late.append(seconds)
        self.said = len(self._late) == LATE
        lasted = f"the last {LATE} began {sum(self._late) / len(self._late):.2f} s apart"
        return f"Actions cannot keep a period of {self.period:g} s: {lasted}; give a longer one, or less to do in between." if self.said else ""


def look(robot: "RobotInterface") -> Observation:
    """A legal Observation, or one sentence why there is none."""
    for _ in range(LOOKS):
        seen: Any = robot.get_observation()
        if isinstance(seen, Observation):
            return seen
        if seen is not None:
            return Observation(check_frame(seen).copy(), captured_ns=time.time_ns())
    raise RobotError(f"{type(robot).__name__} gave no frame {LOOKS} times in a row; check its camera, or raise RobotError in get_observation")


def as_executed(done: Any, space: ActionSpace) -> Action:
    """What a robot says it did; RobotError when that is no action."""
    if not isinstance(done, Mapping):
        raise RobotError(f"execute_action returned {done!r}; return the action that was really executed")
    try:
        return space.nearest(done)
    except (ActionError, TypeError, ValueError):
        raise RobotError(f"execute_action returned {dict(done)}, which is none of {space}; return the action that was really executed") from None


def check_period(action_period: float | None) -> float | None:
    """The same seconds, if they can be kept; None: actions follow one another as they can."""
    if action_period is not None and not 0 < action_period <= TIMEOUT_MAX:
        raise ConfigurationError(f"action_period is {action_period}; give a positive number of seconds, or None for as fast as it goes")
    return action_period


def check_delay(action_delay: float) -> float:
    """The same seconds, if they can be waited."""
    if not 0 <= action_delay <= TIMEOUT_MAX:  # NaN is neither
        raise ConfigurationError(f"action_delay is {action_delay}; give a finite number of seconds, 0 or more")
    return action_delay
