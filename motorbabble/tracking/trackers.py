"""Tracking: a run's events in, entries out to every tracker, none of which can hold up the robot or end the run.

The file of metrics is written at once. Every other tracker works in a thread of its own behind a short queue in which the newest
entry pushes out the oldest. One that fails is dropped after a sentence, and life goes on without it.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Condition, Thread
from typing import Any, Protocol, Self

import numpy as np

from motorbabble.errors import ConfigurationError
from motorbabble.experience import ActionSpace, Event, Step, Study
from motorbabble.tracking.jsonl import JsonlTracker
from motorbabble.tracking.metrics import Entry, Meter, Values
from motorbabble.tracking.rerun import RerunTracker, check_file
from motorbabble.tracking.wandb import WandbTracker, check_project

QUEUE = 64  # entries that may wait for a tracker
LAST_WORDS = 20.0  # seconds for all trackers to finish when a run ends


@dataclass(frozen=True)
class TrackingConfig:
    log_interval: int = 10  # updates from one entry of metrics to the next
    visualization_interval: int = 100  # actions of the robot from one picture, and one look inside the model, to the next
    wandb: str | None = None  # project at Weights & Biases; offline without a key
    rerun: Path | None = None  # file that ends in .rrd, for rerun's viewer

    def __post_init__(self):
        if self.log_interval < 1 or self.visualization_interval < 1:
            raise ConfigurationError(
                f"log_interval is {self.log_interval} and visualization_interval {self.visualization_interval}; give at least 1 of each"
            )
        if self.rerun is not None and self.rerun.suffix != ".rrd":
            raise ConfigurationError(f"{self.rerun} is no name for a rerun recording; give a file that ends in .rrd")


class Tracker(Protocol):
    """What a tracker of your own must have. `wants_pictures` (False unless it has it) and `notes` (sentences) are welcome."""

    def log(self, entry: Entry) -> None: ...

    def close(self) -> None: ...


class Tracking:
    """Call it with every event of a run, and close it at the end. `notes` are sentences that a person should hear.

    `status` answers further metrics for every entry. `measure` answers costly ones, and `picture` an image (H, W, 3): both are asked after every
    `visualization_interval`-th action, while the robot is at rest, so they may look into the model; `foresee` is told the action before it, for a
    picture that shows what was expected then.
    `also`: trackers of your own, each made by a call in the thread that it will work in.
    """

    def __init__(
        self,
        folder: Path | None,
        config: TrackingConfig = TrackingConfig(),
        space: ActionSpace | None = None,
        *,
        settings: Mapping[str, Any] | None = None,
        title: str = "",
        goes_on: bool = False,
        status: Callable[[], Values] | None = None,
        measure: Callable[[], Values] | None = None,
        picture: Callable[[Step], np.ndarray] | None = None,
        foresee: Callable[[Step], None] | None = None,
        also: Sequence[Callable[[], Tracker]] = (),
    ):
        self.config, self.notes = config, []
        self.space, self._meter = space, Meter(space)
        self._questions: dict[str, Callable[..., Any] | None] = {"picture": picture, "foresee": foresee}
        self._questions |= {name: _plainly(ask) if ask else None for name, ask in (("status", status), ("measure", measure))}
        self._last: Step | None = None
        told, makers = dict(settings or {}), [(getattr(maker, "__name__", "a tracker"), maker) for maker in also]
        if config.wandb is not None:
            project, place = config.wandb, folder or Path("saved")
            check_project(project)
            makers.append(("W&B", lambda: WandbTracker(project, place, told, title)))
        if config.rerun is not None:
            path = config.rerun
            check_file(path)
            makers.append(("rerun", lambda: RerunTracker(path, told, title)))
        self._file = JsonlTracker(folder / "metrics.jsonl", goes_on, told) if folder else None
        self._behind = [Behind(name, maker) for name, maker in makers]

    def __call__(self, event: Event, relived: bool = False) -> None:
        """`relived`: what was recorded before and is now learned again."""
        self._meter.hear(event, relived)
        if isinstance(event, Step):
            self._last = event
            if not relived:
                self._look(event)
        elif isinstance(event, Study) and (event.update % self.config.log_interval == 0 or event.gate == "diverged"):
            self._tell({**self._meter.take(), **(self._asked("status") or {})})
        for behind in self._behind:
            self.notes += behind.heard()

    def tell(self, values: Values, pictures: Mapping[str, np.ndarray] | None = None) -> None:
        """Metrics, and pictures (H, W, 3), from elsewhere: an entry of their own, at once."""
        self._tell({"step": self._meter.step, "training_step": self._meter.update, **values}, pictures)

    def flush(self, seconds: float = LAST_WORDS) -> None:
        """Wait until everything is told, for so long at most."""
        until = time.monotonic() + seconds
        for behind in self._behind:
            behind.flush(until - time.monotonic())
            self.notes += behind.heard()

    def close(self, seconds: float = LAST_WORDS) -> None:
        """Tell the rest and end every tracker, within so many seconds. May be called twice."""
        until = time.monotonic() + seconds
        for behind in self._behind:
            behind.ask_to_end()
        for behind in self._behind:
            behind.end(until - time.monotonic())
            self.notes += behind.heard()
        self._behind = []
        if self._file:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info) -> None:
        self.close()

    def _look(self, step: Step) -> None:
        """Into the model, when it is time: further metrics, and a picture where a tracker wants one."""
        every, pictured = self.config.visualization_interval, any(behind.wants_pictures for behind in self._behind)
        measured, picture = {}, None
        if (step.index + 1) % every == 0:
            measured = self._asked("measure") or {}
            picture = self._asked("picture", step) if pictured else None
        if (step.index + 2) % every == 0 and pictured:
            self._asked("foresee", step)
        if measured or picture is not None:
            self.tell(measured, {} if picture is None else {"predictions_visualization": picture})

    def _asked(self, what: str, *about: Step) -> Any:
        """The answer of a function that was handed in; it is not asked again once it failed."""
        ask = self._questions[what]
        try:
            return ask(*about) if ask else None
        except Exception as error:  # whatever it is, it must not end a life
            self._questions[what] = None
            self.notes.append(f"Looking into the model ({what}) failed and is left out from here on: {_said(error)}.")
            return None

    def _tell(self, values: Values, pictures: Mapping[str, np.ndarray] | None = None) -> None:
        last, action = self._last, ""
        if last:
            action = f"{self.space.label(last.executed) if self.space else dict(last.executed)}: {last.choice.why}"
        entry = Entry(values, last.observation.image if last else None, action, pictures or {})
        if self._file and len(values) > 2:  # a picture alone has nothing to write
            try:
                self._file.log(entry)
            except (OSError, ValueError) as error:
                self.notes.append(f"{self._file.path} is no longer written, since that failed: {_said(error)}.")
                self._file = None
        for behind in self._behind:
            behind.log(entry)


class Behind:
    """A tracker in a thread of its own, behind a queue. It is made there too, since connecting may take long."""

    def __init__(self, name: str, make: Callable[[], Tracker]):
        self.name = name
        self.wants_pictures = True  # until it is known
        self._waiting: deque[Entry] = deque()
        self._changed = Condition()
        self._busy, self._ending, self._ended = True, False, False
        self._dropped = 0
        self._notes: list[str] = []
        self._thread = Thread(target=self._work, args=(make,), name=f"tracker {name}", daemon=True)
        self._thread.start()

    def log(self, entry: Entry) -> None:
        with self._changed:
            if self._ended:
                return
            if len(self._waiting) == QUEUE:
                self._waiting.popleft()
                self._dropped += 1
            self._waiting.append(entry)
            self._changed.notify_all()

    def heard(self) -> list[str]:
        """Sentences since it was last asked."""
        with self._changed:
            notes, self._notes = self._notes, []
        return notes

    def flush(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._ended or not (self._busy or self._waiting), max(0.0, seconds))

    def ask_to_end(self) -> None:
        with self._changed:
            self._ending = True
            self._changed.notify_all()

    def end(self, seconds: float) -> None:
        self._thread.join(max(0.0, seconds))
        with self._changed:
            if self._thread.is_alive():
                self._notes.append(f"{self.name} did not finish in time; {len(self._waiting)} entries were not told to it.")
            if self._dropped:
                self._notes.append(f"{self.name} was slower than the run; {self._dropped} entries were not told to it.")

    def _work(self, make: Callable[[], Tracker]) -> None:
        try:
            tracker = make()
            with self._changed:
                self._notes += getattr(tracker, "notes", [])
                self.wants_pictures = getattr(tracker, "wants_pictures", False)
            while (entry := self._next()) is not None:
                tracker.log(entry)
            tracker.close()
        except Exception as error:  # foreign code: whatever it raises, the run goes on without it
            with self._changed:
                self._notes.append(f"{self.name} is left out from here on, since it failed: {_said(error)}.")
        finally:
            with self._changed:
                self._busy, self._ended, self.wants_pictures = False, True, False
                self._waiting.clear()
                self._changed.notify_all()

    def _next(self) -> Entry | None:
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._waiting or self._ending)
            self._busy = bool(self._waiting)
            return self._waiting.popleft() if self._waiting else None


def _plainly(ask: Callable[[], Mapping[str, Any]]) -> Callable[[], Values]:
    """The same question, with numbers of any library answered as Python's own."""
    return lambda: {name: value if isinstance(value, str | int) else float(value) for name, value in ask().items()}


def _said(error: Exception) -> str:
    """An error in one line, without a full stop."""
    text = " ".join(str(error).split()).rstrip(".")
    return f"{text[:200]} ({type(error).__name__})" if text else type(error).__name__
