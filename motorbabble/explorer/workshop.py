"""Workshop: the one thing that is worked on at a time, in a thread that belongs to the application and to no page.

A page asks for work and looks at how far it is; closed and opened again it finds the work where it is. Whoever asks while
somebody else's work goes on is told whose and since when. STOP never waits for the thread: it halts the robot first.
"""

import logging
import threading
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from threading import Condition, Event, Lock, Thread

from motorbabble.errors import ConfigurationError, MotorbabbleError
from motorbabble.learning.heap import give_back

PATIENCE = 10.0  # seconds that a closing application waits for its work to end


class Busy(ConfigurationError):
    """Something else is worked on."""


class Pace:
    """How fast work may go on: `wait` at every place where it can be halted, and end where `stop` is set."""

    def __init__(self):
        self.stop = Event()
        self._may = Condition()
        self._held, self._steps = False, 0

    def wait(self) -> bool:
        """Comes back at once, or when a paused work may go on; whether it may, since the end may come meanwhile."""
        with self._may:
            self._may.wait_for(lambda: self.stop.is_set() or not self._held or self._steps > 0)
            if self._held and self._steps:
                self._steps -= 1
        return not self.stop.is_set()

    @property
    def paused(self) -> bool:
        return self._held

    def hold(self) -> None:
        with self._may:
            self._held, self._steps = True, 0

    def go_on(self) -> None:
        with self._may:
            self._held = False
            self._may.notify_all()

    def one_more(self) -> None:
        """Hold, but behind one more step."""
        with self._may:
            self._held, self._steps = True, self._steps + 1
            self._may.notify_all()

    def end(self) -> None:
        self.stop.set()
        with self._may:
            self._may.notify_all()


class Job(ABC):
    """Something to work on. Everything a page reads of it may be read at any time, from any thread."""

    title: str

    @abstractmethod
    def run(self, pace: Pace) -> str:
        """Work, in the workshop's thread, until done or `pace.stop`; answers a sentence on how it ended."""

    def halt(self) -> None:
        """Whatever can move stands still, now: called from any thread, never raises, may be called again."""
        return None


@dataclass(frozen=True)
class Status:
    """What every page says of the workshop. `state`: idle, running, paused, stopping, done, failed."""

    state: str = "idle"
    title: str = ""
    since: float = 0.0  # seconds since 1970
    until: float = 0.0  # likewise; 0 while it goes on
    sentence: str = ""

    @property
    def is_busy(self) -> bool:
        return self.state in ("running", "paused", "stopping")

    @property
    def clock(self) -> str:
        return time.strftime("%H:%M:%S", time.localtime(self.since))


class Workshop:
    def __init__(self):
        self.job: Job | None = None  # the newest, at work or ended
        self._lock, self._pace, self._thread = Lock(), Pace(), None
        self._began, self._ended, self._said, self._failed = 0.0, 0.0, "", False

    @property
    def status(self) -> Status:
        with self._lock:
            return self._status()

    def start(self, job: Job) -> None:
        """Begin to work on it; Busy, with what is worked on and since when, where something else is."""
        with self._lock:
            now = self._status()
            if now.is_busy:
                raise Busy(f"busy: {now.title} has been running since {now.clock}; stop it first, or wait until it is done")
            self.job, self._pace, self._began, self._ended, self._said, self._failed = job, Pace(), time.time(), 0.0, "", False
            self._thread = Thread(target=self._work, args=(job, self._pace), name="workshop", daemon=True)
            self._thread.start()

    def pause(self) -> None:
        self._pace.hold()

    def resume(self) -> None:
        self._pace.go_on()

    def step(self) -> None:
        """One more step, then pause."""
        self._pace.one_more()

    def stop(self) -> None:
        """The robot first; then the work ends at its next step. Without work nothing happens."""
        job = self.job
        if job is not None:
            job.halt()
        self._pace.end()

    def close(self) -> None:
        """Stop, and wait until it has ended: what was lived is saved and its session is closed."""
        self.stop()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(PATIENCE)

    # Parts

    def _status(self) -> Status:
        if self.job is None:
            return Status()
        alive = self._thread is not None and self._ended == 0.0
        if alive:
            state = "stopping" if self._pace.stop.is_set() else "paused" if self._pace.paused else "running"
        else:
            state = "failed" if self._failed else "done"
        return Status(state, self.job.title, self._began, self._ended, self._said)

    def _work(self, job: Job, pace: Pace) -> None:
        said, failed = "", False
        try:
            said = job.run(pace)
        except MotorbabbleError as error:
            said, failed = str(error), True
        except Exception as error:  # shown on every page; the log has where it came from
            logging.getLogger(__name__).exception("%s failed", job.title)
            said, failed = f"{job.title} failed: {error!r:.300}; start it again, and report this if it comes back", True
        finally:
            with suppress(Exception):
                job.halt()
            give_back()
            with self._lock:
                self._said, self._failed, self._ended = said, failed, time.time()
