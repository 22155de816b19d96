"""Beside: a learner in a process of its own, so that a robot acts on time while it is learned from.

To the loop it is a Learner. What it remembers goes to the process (process.py), and `study` takes over the newest weights between two
actions. With `gate` "wait" the robot waits, as for any learner, until the newest look was learned from and the gate opens or its budget
ends; with "act" it never does. In a life that goes faster than it is learned from, some looks are only ever replayed.

Decisions: the process is started anew (never forked: threads and CUDA do not survive that), at the first look, without the program's own
script, which would run the robot a second time. This object is a whole Learner all the same: it keeps the replay, and before a save
`gather` fetches the rest from between two updates, so checkpoints know nothing of processes. Where the clock decides how many updates
there are, a life does not repeat: that an interrupted one goes on to the bit is a promise of the Learner in the loop; here no step is lost.
"""

import atexit
import multiprocessing
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from queue import SimpleQueue
from threading import Event as Flag
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch

from motorbabble import errors
from motorbabble.errors import ConfigurationError, LearningError, MotorbabbleError
from motorbabble.experience import Observation, Study
from motorbabble.learning.board import Board
from motorbabble.learning.gate import QualityGate
from motorbabble.learning.learner import Learner, LearnerConfig
from motorbabble.learning.process import TOLD, load, main, state_of, stripped
from motorbabble.learning.state import grow_as_saved, load_counters
from motorbabble.world_models.base import WorldModel, this_process

GATES = ("act", "wait")
POLL = 0.05  # seconds between two looks at the flag that ends a wait
SILENT = 120.0  # seconds without a word from a process that has something to say
LEAVING = 20.0  # the same where somebody wants to stop


class Beside(Learner):
    """A Learner, as the loop, a checkpoint and a card see it. `stop` ends its waits; `threads` are the process's (None: half of those here, which
    the process has until this is closed).
    """

    def __init__(
        self,
        world_model: WorldModel,
        config: LearnerConfig = LearnerConfig(),
        seed: int = 0,
        holds_out: Callable[[Observation], bool] | None = None,
        *,
        gate: Literal["act", "wait"] = "act",
        threads: int | None = None,
        stop: Flag | None = None,
    ):
        if gate not in GATES:
            raise ConfigurationError(f"gate is {gate!r}; choose one of {list(GATES)}")
        if this_process()[1] > 1:
            raise ConfigurationError("several processes learn together already; learn beside a robot from one of them, or with beside=False")
        super().__init__(world_model, config, seed, holds_out)
        self.waits = gate == "wait"
        self._threads, self._stop = threads, stop or Flag()
        self._before = 0  # threads here before the process took half of them
        self._process: Any = None
        self._begun = self._closed = self._failed = self._whole = False
        self._outbox: SimpleQueue[Any] = SimpleQueue()
        self._early: deque[tuple[str, Any, int]] = deque()  # what came while its state was waited for
        self._answered, self._heard = 0, time.monotonic()  # the newest look the process knows, and when it last spoke

    @property
    def process(self) -> int | None:
        """The process's number, once there is one."""
        return self._process.pid if self._process else None

    def keep(self, image: np.ndarray | None, led: np.ndarray | None) -> None:
        if not self._begun:
            self._begin()
        super().keep(image, led)
        self._whole = False
        self._outbox.put(("look", image, led))

    def study(self) -> Iterator[Study]:
        """What was learned since, and more of it while the robot waits. Raises what the process raised, or LearningError when it is gone."""
        if not self._begun or self._closed:
            return
        self._whole = False
        usual, most = self.config.updates_per_step, self.config.gate.max_updates
        gate = QualityGate(self.config.gate, max(usual, min(2 * usual, most)) if self.surprise.felt else usual)
        waiting, began, looks = self.waits, time.monotonic(), self.replay.moments
        while True:
            what, told, moments = self._early.popleft() if self._early else self._hear(POLL if waiting else 0.0)
            if what == "rested" and moments == looks:
                waiting = False  # it learned from this look all that it will
            elif what == "studied":
                outcome = "beside"
                if waiting and moments == looks:
                    losses = told.losses
                    outcome = gate.judge(losses["total"], losses.get("reconstruction_skill", 1.0), time.monotonic() - began)
                    waiting = outcome == "learning"
                if outcome != "learning":
                    self._take()
                yield replace(told, gate="diverged" if told.gate == "diverged" else outcome)
            elif not what and (not waiting or self._stop.is_set() or time.monotonic() - began >= self.config.gate.max_seconds):
                break
        self._take()

    def update(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        raise ConfigurationError("one that learns beside the robot decides by itself what it studies; to teach it by hand, make it with beside=False")

    def gather(self) -> None:
        if not self._begun or self._closed or self._whole:
            return
        self._outbox.put(("gather",))
        self._heard = time.monotonic()
        while (message := self._hear(POLL, expected=True))[0] != "state":
            if message[0]:
                self._early.append(message)
        load(self, message[1])
        self._whole = True

    def close(self) -> None:
        """What it learned is here, and the process is gone."""
        if not self._begun or self._closed:
            return
        with suppress(MotorbabbleError):  # of one that failed we keep what we had
            if not self._failed:
                self.gather()
        self._closed = True
        self._outbox.put(None)
        self._process.kill()  # it has nothing to lose
        atexit.unregister(self._process.kill)
        torch.set_num_threads(self._before)
        self._process.join()
        self._sender.join()
        self._pipe.close()

    # Parts

    def _begin(self) -> None:
        kinds = {type(module) for module in self.trained.modules()}
        if own := sorted(kind.__name__ for kind in kinds if kind.__module__ == "__main__"):
            raise ConfigurationError(
                f"{own[0]} is written in the program itself, where no other process finds it; put it into a module, or learn with beside=False"
            )
        self._before = torch.get_num_threads()
        threads = self._threads or max(1, self._before // 2)  # two compute at once
        settings = (self.config, self.trained.device, threads, state_of(self), self.replay)
        try:
            first = ForkingPickler.dumps(("begin", stripped(self.trained), *settings))
        except Exception as error:  # whatever a model of yours may hold
            raise ConfigurationError(
                f"a {type(self.trained).__name__} cannot be sent to a process of its own ({error}); learn in the loop, with beside=False"
            ) from error
        context = multiprocessing.get_context("spawn")
        self._board = Board(context, self.trained, self.config.levels.most_levels)
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=main, args=(theirs, self._board), name="learner", daemon=True)
        started_alone(self._process)
        atexit.register(self._process.kill)  # before Python asks it politely to end, which it does not hear
        if self._threads is None:
            torch.set_num_threads(threads)
        theirs.close()
        self._begun, self._answered, self._heard = True, self.replay.moments, time.monotonic()
        self._sender = threading.Thread(target=_send, args=(self._pipe, first, self._outbox), daemon=True)
        self._sender.start()

    def _hear(self, seconds: float, expected: bool = False) -> tuple[str, Any, int]:
        """One message that came within so many seconds; ("", None, 0) when none did. `expected`: whether one must come even if it has learned all."""
        try:
            if self._pipe.poll(seconds):
                self._failed = True  # should anything break in here: after half of a message nobody knows where the next one begins
                what, told, moments = self._pipe.recv()
                self._failed = False
                self._answered, self._heard = max(self._answered, moments), time.monotonic()
                if what != "failed":
                    return what, told, moments
                error = as_error(*told)
            else:
                now, silent = time.monotonic(), LEAVING if expected and self._stop.is_set() else SILENT
                if not expected and self._answered >= self.replay.moments:
                    self._heard = now
                if now - self._heard <= silent:
                    return "", None, 0
                error = LearningError(f"the process that learns beside the robot has said nothing for {silent:g} s; look at it, then start again")
        except (EOFError, OSError):
            error = self._gone()
        self._failed = True
        raise error

    def _gone(self) -> LearningError:
        self._process.join(1.0)
        code = self._process.exitcode
        how = f"killed by signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        more = "; the machine may be out of memory" if code == -signal.SIGKILL else ""
        return LearningError(f"the process that learns beside the robot is gone ({how}{more}); start again, and it goes on from what was saved")

    def _take(self) -> None:
        """The newest weights that act, with the levels and counters that belong to them."""

        def prepared(news: dict[str, Any]) -> WorldModel:
            grow_as_saved(self, news)
            self.levels.load_state_dict(news["levels"])
            self.surprise.load_state_dict(news["surprise"])
            load_counters(self, news["counters"])
            return self.world_model

        self._board.take(prepared)


def started_alone(process: Any) -> None:
    """Start it without the program's own script, which a fresh process would run otherwise, and deaf to what the parent is told, who then ends it."""
    resource_tracker.ensure_running()  # which would let Ctrl+C through again
    main = sys.modules["__main__"]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, TOLD)
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        process.start()
    finally:
        sys.modules["__main__"] = main
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _send(pipe: Connection, first: Any, outbox: "SimpleQueue[Any]") -> None:
    """In a thread, since a pipe is full after one picture and the robot waits for nobody."""
    with suppress(OSError):  # the other end is gone, which is heard where we listen
        pipe.send_bytes(first)
        while (message := outbox.get()) is not None:
            pipe.send(message)


def as_error(name: str, text: str, where: str, who: str = "the process that learns beside the robot") -> MotorbabbleError:
    """What another process failed with, as it would be raised here: one of ours as what it is. `where` goes along as a note."""
    kind = vars(errors).get(name)
    if isinstance(kind, type) and issubclass(kind, MotorbabbleError):
        error = kind(text)
    else:
        error = LearningError(f"{who} failed with {name} ({text:.300}); learn in the loop to find out why")
    error.add_note(where)
    return error
