"""Spread: a learner over several devices of one machine, or several processes on its cores. To whoever has it, it is a Learner.

This process is the first, and decides: what is remembered, which windows are drawn, when a level grows. The others, its helpers (helper.py), are told
of each update and take their share of its batch; torch's DistributedDataParallel makes everybody's gradients their mean. So they learn what one would
learn, and only the first is ever saved.

Decisions: one that lost a helper is of no more use, since an update may be half done: whoever has it begins again from what was saved. Helpers are
started as the process beside a robot is (beside.py), and end with this one, however it ends. They meet in a file of a private folder, and speak over
the loopback only. A frame is sent to each of them once, when it is first drawn for it.
"""

import atexit
import gc
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from threading import Event as Flag
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from motorbabble.errors import ConfigurationError, LearningError, MotorbabbleError
from motorbabble.experience import Observation, Window
from motorbabble.learning.beside import as_error, started_alone
from motorbabble.learning.helper import help_out, meet
from motorbabble.learning.learner import Learner, LearnerConfig
from motorbabble.learning.nearby import Slots
from motorbabble.learning.process import state_of, stripped
from motorbabble.learning.replay import Remembered
from motorbabble.world_models.base import WorldModel, helpers

LATE = 120.0  # seconds until a helper must have begun
LEAVING = 10.0  # until one must have ended, or it is killed
Long = tuple[int, list[Window]] | None  # a level above 0, and windows for it


class Spread(Learner):
    """A Learner with helpers: `processes` in all, each helper's of `threads` threads; on CUDA each has a device, this one the model's.

    `when_lost` is called, in another thread, once a helper is gone, with the error and whether somebody killed it: this one may wait for it in
    vain. ConfigurationError where they cannot share a batch evenly, or are more than there are devices. `close` it: a process has one at a time.
    """

    def __init__(
        self,
        world_model: WorldModel,
        config: LearnerConfig = LearnerConfig(),
        seed: int = 0,
        holds_out: Callable[[Observation], bool] | None = None,
        *,
        processes: int,
        threads: int = 1,
        when_lost: Callable[[MotorbabbleError, bool], None] = lambda error, killed: None,
    ):
        self._helpers: list[_Helper] = []
        self._when_lost, self._is_lost, self._is_broken, self._closed = when_lost, Flag(), False, False
        self._alike_after = -1  # updates: the helpers are what this one was then
        self._error: MotorbabbleError | None = None
        devices = _devices(world_model, config, processes)
        self._folder = tempfile.TemporaryDirectory(prefix="motorbabble-", ignore_cleanup_errors=True)
        meeting = Path(self._folder.name) / "meeting"
        try:
            for rank, device in enumerate(devices, 1):
                told = (stripped(world_model), replace(config, ema_decay=0.0, gauge_every=0), str(device), threads, rank, processes, meeting)
                self._helpers.append(_Helper(told))
            late = time.monotonic() + LATE
            for helper in self._helpers:
                helper.wait_until_begun(late)
            threading.Thread(target=self._watch, daemon=True).start()
            helpers.has_some = True
            meet(world_model.device, 0, processes, meeting)
            self._together(lambda: Learner.__init__(self, world_model, config, seed, holds_out))
        except BaseException:
            self.close()
            raise

    @property
    def helpers(self) -> list[int]:
        """The numbers of their processes."""
        return [helper.process.pid for helper in self._helpers]

    def update(self, windows: list[Window], fresh: bool = False, background: np.ndarray | None = None, long: Long = None) -> dict[str, float]:
        """As a Learner's, given the whole batch. Raises what a helper failed with, or LearningError where one is gone."""
        if self._closed:
            raise ConfigurationError("this learner was closed, and its helpers are gone; make another one")
        mean = self.replay.background() if background is None else background
        shares = self._shares(windows)
        longs = [(long[0], share) for share in self._shares(long[1])] if long else [None] * len(shares)

        def learn() -> dict[str, float]:
            if self._alike_after != self.updates:  # at first, and where something was loaded
                self._tell("load", state_of(self))
            for helper, share, above in zip(self._helpers, shares[1:], longs[1:], strict=True):
                helper.tell("update", self.rng.bit_generator.state, *helper.sent(mean, share, above, self.config.replay.capacity))
            losses = Learner.update(self, shares[0], fresh, mean, longs[0])
            self._alike_after = self.updates
            return losses

        return self._together(learn)

    def grow(self) -> None:
        def grow() -> None:
            self._tell("grow", self.rng.bit_generator.state)
            Learner.grow(self)

        self._together(grow)

    def retire(self) -> None:
        def retire() -> None:
            self._tell("retire")
            Learner.retire(self)

        self._together(retire)

    def close(self) -> None:
        """The helpers are gone. May be called twice."""
        if self._closed:
            return
        self._closed = True
        with suppress(OSError):
            self._tell("end")
        vars(self).pop("_losses", None)
        gc.collect()  # what was tied to the group holds it, and its threads
        if dist.is_initialized() and (not self._is_broken or dist.get_backend() == "gloo"):  # NCCL might wait for ever
            dist.destroy_process_group()
        helpers.has_some = dist.is_initialized()
        for helper in self._helpers:
            helper.end()
        self._folder.cleanup()
        super().close()

    # Parts

    def _shares(self, windows: Sequence[Window]) -> list[list[Window]]:
        """Of each process, in their order: the first one has the first window, and the last one the last."""
        processes = len(self._helpers) + 1
        count, odd = divmod(len(windows), processes)
        if odd:
            raise ConfigurationError(f"a batch of {len(windows)} windows cannot be shared evenly by {processes} processes; give a multiple")
        return [list(windows[i * count : (i + 1) * count]) for i in range(processes)]

    def _tell(self, *message: Any) -> None:
        for helper in self._helpers:
            helper.tell(*message)

    def _together(self, act: Callable[[], Any]) -> Any:
        """What all do at once; where that fails because one of them is gone, that is said."""
        try:
            with helpers.joined():
                return act()
        except BaseException as error:
            self._is_broken = True
            if isinstance(error, RuntimeError | OSError) and self._is_lost.wait(LEAVING) and self._error:
                raise self._error from error
            raise

    def _watch(self) -> None:
        """In a thread: until a helper is gone. A collective of NCCL waits for it for long, so whoever has this one is told here."""
        wait([helper.process.sentinel for helper in self._helpers])
        time.sleep(0.5)  # whoever was killed takes others along
        if self._closed:
            return
        gone = max((helper for helper in self._helpers if helper.process.exitcode is not None), key=lambda helper: helper.signal)
        self._error, self._is_broken = gone.why(), True
        self._is_lost.set()
        self._when_lost(self._error, bool(gone.signal))


class _Helper:
    """One of the processes, as the first one knows it."""

    def __init__(self, told: tuple[Any, ...]):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._frames = Slots()
        self.process: Any = context.Process(target=help_out, args=(theirs,), name="helper", daemon=True)
        started_alone(self.process)
        atexit.register(self.process.kill)
        theirs.close()
        with suppress(OSError):  # it is gone already, which is heard below
            self._pipe.send(told)

    @property
    def signal(self) -> int:
        """What it was killed by; 0: it was not."""
        return max(0, -(self.process.exitcode or 0))

    def wait_until_begun(self, late: float) -> None:
        try:
            if not self._pipe.poll(max(0.0, late - time.monotonic())):
                raise LearningError(f"a process that is to help learning has not begun within {LATE:g} s; look at the machine, then start again")
            said = self._pipe.recv()
        except (EOFError, OSError):
            self.process.join(1.0)
            raise self.why() from None
        if said is not None:
            raise _failed(said)

    def tell(self, *message: Any) -> None:
        self._pipe.send(message)

    def sent(self, mean: np.ndarray, windows: list[Window], long: Long, most: int) -> tuple[Any, ...]:
        """The mean frame and its windows, as they are sent: frames that it does not have yet, by number, and for each window their numbers."""
        drawn = [[(_frames(window), window.actions) for window in batch] for batch in (windows, long[1] if long else [])]
        wanted = {id(frame): frame for batch in drawn for frames, _ in batch for frame in frames}
        new = self._frames.fetch(wanted.values(), max(most, len(wanted)))
        numbered, above = ([([self._frames[frame] for frame in frames], actions) for frames, actions in batch] for batch in drawn)
        return np.asarray(mean, np.float32), new, numbered, (long[0], above) if long else None

    def end(self) -> None:
        self.process.join(LEAVING)
        self.process.kill()  # it has nothing to lose
        self.process.join()
        atexit.unregister(self.process.kill)
        self._pipe.close()

    def why(self) -> MotorbabbleError:
        """It is gone, and this is what of."""
        with suppress(EOFError, OSError):
            if self._pipe.poll():
                return _failed(self._pipe.recv())
        how = f"killed by signal {self.signal}" if self.signal else f"exit code {self.process.exitcode}"
        return LearningError(f"a process that helps learning is gone ({how}); start again, and it goes on from what was saved")


def _failed(said: tuple[str, str, str]) -> MotorbabbleError:
    return as_error(*said, who="a process that helps learning")


def _frames(window: Window) -> Sequence[np.ndarray]:
    return window.frames if isinstance(window, Remembered) and window.frames else tuple(window.images)


def _devices(model: WorldModel, config: LearnerConfig, processes: int) -> list[torch.device]:
    """One for each helper."""
    if not dist.is_available() or model.device.type not in ("cpu", "cuda"):
        raise ConfigurationError(f"this torch spreads nothing over several {model.device.type} devices; learn on one, with a Learner")
    if dist.is_initialized():
        raise ConfigurationError(f"{dist.get_world_size()} processes learn together already; spread one learner at a time, in a process of its own")
    if processes < 2:
        raise ConfigurationError(f"learning cannot be spread over {processes} processes; give 2 or more, or take a Learner")
    if config.compile:
        raise ConfigurationError(f"compile is true in one of {processes} processes that learn together, which cannot be; leave it false")
    if config.batch_size % processes:
        raise ConfigurationError(f"a batch of {config.batch_size} windows cannot be shared evenly by {processes} devices; give a multiple")
    if model.device.type != "cuda":
        return [model.device] * (processes - 1)
    others = [number for number in range(torch.cuda.device_count()) if number != (model.device.index or 0)]
    if len(others) < processes - 1:
        raise ConfigurationError(f"there are {len(others) + 1} devices here, not {processes}; give fewer, or learn on the CPU")
    return [torch.device("cuda", number) for number in others[: processes - 1]]
