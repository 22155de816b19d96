"""A lesson in the workshop: a copy of a checkpoint's model is taught some moments of a session, and saved under a name of one's choice.

Models that pages look with are never trained; whatever a lesson learns is its own until it is saved, and then a new checkpoint. A name that was
given before is saved to when the lesson is done or stopped; so nobody else's work, begun afterwards, can make it be lost.
"""

import os
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock

import numpy as np
import torch

from motorbabble.analysis.card import thinking
from motorbabble.errors import ConfigurationError, RecordingError
from motorbabble.experience import Window
from motorbabble.explorer.places import Places
from motorbabble.explorer.workshop import Job, Pace
from motorbabble.figures import Tile, to_uint8
from motorbabble.learning.learner import Learner
from motorbabble.learning.lesson import Lesson, LessonConfig, check_free
from motorbabble.learning.training import Score, Trained, Validated
from motorbabble.recording.format import check_name
from motorbabble.recording.reader import RecordingReader

# Of a loss, the parts that are drawn.
PARTS = {"total": "all of it", "reconstruction": "seeing", "patch": "predicting", "masked": "guessing what is hidden"}


@dataclass(frozen=True)
class Taught:
    """How far a lesson is. Losses are of single updates; errors are squared, pixels in [0, 1], of the model that acts, on the moments taught."""

    number: int = 0  # rises with every change
    doing: str = "making a copy of the model"
    done: int = 0  # updates
    total: int = 1
    rate: float = 0.0  # updates per second
    left: float | None = None  # seconds, at most
    losses: dict[str, float] = field(default_factory=dict)  # of the newest update
    first: Score | None = None  # before the lesson
    score: Score | None = None  # the newest
    floors: dict[str, float] = field(default_factory=dict)
    pictures: tuple[Tile, ...] = ()
    saved: str = ""  # the id of the checkpoint that holds it as it is now


class LessonJob(Job):
    """`session`, `checkpoint`: ids; no checkpoint: a new model. `moments` None: the whole session. `name`: of the checkpoint to be; may come later.

    `taught` is the newest; `losses` and `errors` are all there were, to be drawn. RecordingError, CheckpointError or ConfigurationError, before
    anything begins, where something asked for is not there or a name cannot be had.
    """

    def __init__(self, places: Places, session: str, moments: range | None, config: LessonConfig, checkpoint: str = "", name: str = ""):
        self.places, self.session, self.moments, self.config, self.checkpoint, self.name = places, session, moments, config, checkpoint, name.strip()
        self.reader = RecordingReader(places.entry(session).folder)  # its own, since pages read at the same time
        self.folder = places.checkpoint(checkpoint) if checkpoint else None
        if self.name:
            check_free(place_for(places, self.reader.robot_type, self.name))
        self.title = f"lesson for the {config.subject} on {told(moments)} of {session}"
        self.taught = Taught(total=config.updates)
        self.losses: dict[str, list[tuple[int, float]]] = {part: [] for part in PARTS}  # update, loss
        self.errors: list[tuple[int, float]] = []  # update, squared error
        self.lesson: Lesson | None = None
        self._between = Lock()  # held by whoever changes weights, or needs them not to change
        self._telling = Lock()
        self._seconds = 0.0
        self._before: np.ndarray | None = None  # what it showed before the lesson

    def run(self, pace: Pace) -> str:
        torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))  # one core is left to the pages
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.lesson = lesson = Lesson(self.reader, self.moments, self.config, self.folder, pace.stop, device)
        self._tell(doing="learning", floors=lesson.floors())
        with closing(iter(lesson)) as events:
            while pace.wait():
                began = time.monotonic()
                with self._between:
                    event = next(events, None)
                    self._seconds += time.monotonic() - began
                    if isinstance(event, Validated):
                        self._measured(lesson, event)
                    elif event is not None:
                        self._learned(lesson, event)
                if event is None:
                    break
        said = self._ended(lesson)
        self._tell(doing=said, left=None)
        if not self.name:
            return f"{said}; not saved yet"
        return f"{said}; {self.save(self.name)}"

    def save(self, name: str) -> str:
        """As it is now, as a new checkpoint; answers a sentence. ConfigurationError where the name cannot be had, or nothing was learned yet."""
        folder = place_for(self.places, self.reader.robot_type, name)
        if self.lesson is None:
            raise ConfigurationError("nothing was learned yet that could be saved; wait for the first update")
        with self._between:
            self.lesson.save(folder)
            self._tell(saved=f"{self.reader.robot_type}/{folder.name}")
        return f"saved as {self.reader.robot_type}/{folder.name}"

    # Parts

    def _learned(self, lesson: Lesson, event: Trained) -> None:
        done = event.update - lesson.first
        for part, line in self.losses.items():
            if part in event.losses:
                line.append((done, event.losses[part]))
        rate = done / max(self._seconds, 1e-9)
        shown = {part: event.losses[part] for part in PARTS if part in event.losses}
        self._tell(done=done, rate=rate, left=(self.config.updates - done) / rate, losses=shown, saved="")

    def _measured(self, lesson: Lesson, event: Validated) -> None:
        self.errors.append((event.update - lesson.first, event.score.model_all))
        pictures = self._pictures(lesson.learner, lesson.training.validation[len(lesson.training.validation) // 2], event.score)
        self._tell(score=event.score, first=self.taught.first or event.score, pictures=pictures)

    def _pictures(self, learner: Learner, window: Window, score: Score) -> tuple[Tile, ...]:
        model = learner.world_model
        seeing = self.config.subject == "autoencoder"
        with thinking(model):
            if seeing:
                image = model.reconstruct(window.images[-1:])[0]
            else:
                images = model.imagine(Window(window.images[:-1], window.actions[:-1]), window.actions[-1:][None]).images
                assert images is not None
                image = images[0, 0]
        shown = to_uint8(image.float().cpu().numpy().transpose(1, 2, 0))
        self._before = shown if self._before is None else self._before
        truth, what = window.images[-1], "seen" if seeing else "predicted"
        first = () if seeing else (Tile(window.images[-2], "the frame before", self._action(window)),)
        return (
            *first,
            Tile(truth, "one of these moments", "" if seeing else "what came", mark=True),
            Tile(self._before, f"{what} before the lesson", f"squared error {_mse(self._before, truth):.2g}"),
            Tile(shown, f"{what} now", f"squared error {_mse(shown, truth):.2g}"),
        )

    def _action(self, window: Window) -> str:
        space = self.reader.action_space
        return f"then “{space.label(space.decode(window.actions[-1]))}”"

    def _ended(self, lesson: Lesson) -> str:
        config, done, score = self.config, self.taught.done, self.taught.score
        updates = f"{done} update{'s' * (done != 1)}"
        asked = f"the error asked for ({config.until_error:g})" if config.until_error is not None else f"the skill asked for ({config.until_skill})"
        why = {"threshold": f"{asked} was reached after {updates}", "updates": f"all {updates} are done", "learning": f"stopped after {updates}"}
        missed = config.until_error is not None or config.until_skill is not None
        said = why[lesson.training.outcome]
        if lesson.training.outcome == "updates" and missed:
            said += f", and {asked} was not reached"
        return said if score is None else f"{said}; skill {score.skill:.3f}, squared error {score.model_all:.2g}"

    def _tell(self, **news) -> None:
        with self._telling:
            self.taught = replace(self.taught, number=self.taught.number + 1, **news)


def place_for(places: Places, robot_type: str, name: str) -> Path:
    """Where a checkpoint of that name would be; ConfigurationError where that is no name. Nothing made up leads outside the folder."""
    if not name.strip():
        raise ConfigurationError("no name was given to save it under; write one first")
    with suppress(RecordingError):
        return places.checkpoint_folder / check_name(robot_type) / check_name(name.strip())
    raise ConfigurationError(
        f"{name!r:.80} cannot name a checkpoint; use letters, digits, '.', '_' and '-', at most 100, beginning with a letter or digit"
    )


def told(moments: range | None) -> str:
    """Which moments, in words."""
    if moments is None:
        return "all moments"
    return f"moment {moments.start}" if len(moments) == 1 else f"moments {moments.start} to {moments.stop - 1}"


def _mse(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.square((one.astype(float) - other) / 255).mean())
