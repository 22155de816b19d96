"""A recorded session on the canvas, in the workshop: the canvas world model lives through it, learns, and predicts every next frame.

Decisions: it is the mission's own face of that model on a ReplayRobot, and this file only listens. An error is always that of the prediction
that was made for the frame beside it, before anything was learned from that frame; copy-last's is on the same frame. Pictures are made
in the thread that learns, between two gradient steps, while somebody looks and at most so often.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock

import numpy as np
import torch

from motorbabble.analysis.canvas import drawn, words_of
from motorbabble.errors import ConfigurationError, MotorbabbleError
from motorbabble.experience import Event, Step, Study
from motorbabble.explorer.lessons import place_for
from motorbabble.explorer.places import Places
from motorbabble.explorer.workshop import Job, Pace
from motorbabble.faces import AutoencoderConcatPredictorWorldModel
from motorbabble.figures import Tile
from motorbabble.learning.checkpoint import Checkpoints, Identity, Loaded
from motorbabble.learning.lesson import check_free, new_model, save_new, sessions_of, understood
from motorbabble.learning.state import architecture_of, load_learned, model_from
from motorbabble.learning.training import saved_learner
from motorbabble.recording.reader import RecordingReader
from motorbabble.robots.replay import ReplayRobot, create_recorded_action_selector
from motorbabble.world_models.canvas import CanvasWorldModel

LOOKED_AT, PICTURES_EVERY = 3.0, 1.0  # seconds since somebody asked; seconds between two sets of pictures
SIDE, CANVAS_SIDE = 224, 480  # pixels
KEPT = 100_000  # gradient steps whose losses are kept


@dataclass(frozen=True)
class CanvasSettings:
    skill: float = 0.9  # of reconstruction: an iteration's training ends at it; 1 is perfect, 0 the mean frame
    updates: int = 20  # per iteration, at most
    learning_rate: float = 2e-3
    first: int = 0  # moment of the session to begin at
    seed: int = 0

    def __post_init__(self):
        if self.updates < 1 or not self.skill <= 1 or not self.learning_rate > 0 or self.first < 0 or self.seed < 0:
            raise ConfigurationError(f"{self} cannot work; give at least 1 update, a skill of at most 1, a positive learning rate, and a moment")


@dataclass(frozen=True)
class Iteration:
    """One moment of the session. Errors: mean squared, pixels in [0, 1], on its frame; None where nothing had been predicted for it."""

    moment: int
    updates: int
    loss: float  # of its last gradient step, relative: 1 is showing the mean frame; NaN where there was none
    gate: str  # how its training ended
    error: float | None
    copy_error: float | None
    seconds: float
    action: str


@dataclass(frozen=True)
class OnShow:
    """What pages show; `number` rises with every change, `drawn` when the pictures are others."""

    number: int = 0
    drawn: int = 0
    doing: str = "waking up"
    frames: tuple[Tile, ...] = ()  # now, predicted for now, predicted next
    canvases: tuple[Tile, ...] = ()
    iterations: tuple[Iteration, ...] = ()
    saved: str = ""
    notes: tuple[str, ...] = field(default=())


class OnCanvas:
    """One life of the model on one session, over however many jobs. `session`, `checkpoint`: ids; no checkpoint: a new model."""

    def __init__(self, places: Places, session: str, settings: CanvasSettings = CanvasSettings(), checkpoint: str = ""):
        self.places, self.session, self.settings, self.checkpoint = places, session, settings, checkpoint
        self.reader = RecordingReader(places.entry(session).folder)  # its own, since pages read at the same time
        self.folder: Path | None = places.checkpoint(checkpoint) if checkpoint else None
        if settings.first >= len(self.reader):
            raise ConfigurationError(f"session {session} has {len(self.reader)} moments, counted from 0, and none is number {settings.first}")
        self.show = OnShow()
        self.losses: list[tuple[int, float]] = []  # gradient step, loss
        self.over = False  # the session has ended
        self.face: AutoencoderConcatPredictorWorldModel | None = None
        self._robot: ReplayRobot | None = None
        self._taught_before: Sequence[str] = ()
        self._between, self._telling = Lock(), Lock()
        self._looked, self._drew = -np.inf, -np.inf
        self._steps = 0  # of gradient, in all
        self._updates, self._gate, self._began = 0, "", 0.0  # of the iteration at work
        self._frames: tuple[np.ndarray, tuple[np.ndarray, str] | None, Iteration] | None = None  # of the newest iteration, its prediction
        self._before: np.ndarray | None = None  # the frame before, as the model sees it
        self._foreseen: tuple[np.ndarray, str] | None = None  # what was predicted for the frame to come, and for which action

    def look(self) -> OnShow:
        """The newest; asking for it is what makes it draw."""
        self._looked = time.monotonic()
        return self.show

    def go_on(self, iterations: int, pace: Pace) -> str:
        """So many moments more; answers how it ended."""
        try:
            return self._went_on(iterations, pace)
        except MotorbabbleError as error:
            self._tell(doing=str(error))
            raise

    def save(self, name: str) -> str:
        """Its weights as a new checkpoint; answers a sentence. ConfigurationError where the name cannot be had, or nothing was learned yet."""
        folder = place_for(self.places, self.reader.robot_type, name)
        face = self.face
        if face is None or not self.losses:
            raise ConfigurationError("nothing was learned yet that could be saved; run some iterations first")
        check_free(folder)
        with self._between:
            learner = face.life.learner
            identity = Identity(self.reader.robot_type, self.reader.action_space, architecture_of(learner.trained))
            learned = [[self.reader.name, len(self.show.iterations)], *([other, 0] for other in self._taught_before if other != self.reader.name)]
            training = {"position": 0, "history": [], "sources": learned, "held_out": []}
            about = {"lesson": f"canvas on {len(self.show.iterations)} moments of {self.reader.name}, {self._steps} updates"}
            save_new(folder, learner.updates, saved_learner(learner, identity, training, learner.replay.background(), {}, about))
            saved = f"{self.reader.robot_type}/{folder.name}"
            self._tell(saved=saved)
        return f"saved as {saved}"

    # Parts

    def _went_on(self, iterations: int, pace: Pace) -> str:
        if self.face is None:
            self._wake()
        face, robot = self.face, self._robot
        assert face is not None and robot is not None
        before = len(self.show.iterations)
        self._began = time.monotonic()
        self._between.acquire()
        try:
            face.run(iterations, lambda event: self._heard(event, pace), pace.stop)
        finally:
            self._between.release()
        done = len(self.show.iterations) - before
        self.over = done < iterations and not pace.stop.is_set()
        said = f"{done} iteration{'s' * (done != 1)} done"
        if self.over:
            said = f"end of session: after {said.removesuffix(' done')} there is no further frame"
        elif pace.stop.is_set():
            said = f"stopped after {said.removesuffix(' done')}"
        self._draw(face)
        self._tell(doing=said)
        return said

    def _wake(self) -> None:
        torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))  # one core is left to the pages
        settings, loaded = self.settings, None if self.folder is None else Checkpoints(self.folder).load()
        robot = ReplayRobot(self.reader, first=settings.first)
        model = model_from(self.folder, self.reader.robot_type, self.reader.action_space)
        if model is not None and not isinstance(model, CanvasWorldModel):
            raise ConfigurationError(
                f"{self.checkpoint} is a {type(model).__name__}, which knows no canvas; choose a canvas checkpoint, or a new model"
            )
        torch.manual_seed(settings.seed)
        face = AutoencoderConcatPredictorWorldModel(
            robot,
            create_recorded_action_selector(robot),
            training_callback=self._trained,
            model=model or new_model("canvas", self.reader),
            seed=settings.seed,
            holds_out=lambda observation: False,
            reconstruction_skill=settings.skill,
            max_updates=settings.updates,
            updates_per_step=1,
            learning_rate=settings.learning_rate,
        )
        if loaded is not None:
            understood(loaded, lambda: self._remember(face, loaded))
        self.face, self._robot = face, robot

    def _remember(self, face: AutoencoderConcatPredictorWorldModel, loaded: Loaded) -> None:
        load_learned(face.life.learner, loaded)
        self._taught_before = sessions_of(loaded)

    def _trained(self, update: int, loss: float) -> None:
        self._steps += 1
        self.losses.append((self._steps, loss))
        if len(self.losses) > KEPT:
            del self.losses[: KEPT // 2]

    def _heard(self, event: Event, pace: Pace) -> None:
        face = self.face
        assert face is not None
        if isinstance(event, Study):
            self._updates, self._gate = self._updates + 1, event.gate
            self._tell(doing=f"moment {self._moment()}: training, update {self._updates} of at most {self.settings.updates}")
        elif isinstance(event, Step):
            self._lived(face, event)
        now = time.monotonic()
        if pace.paused or (now - self._looked < LOOKED_AT and now - self._drew >= PICTURES_EVERY):
            self._draw(face)
        self._between.release()  # whoever wants to save may do so now
        try:
            pace.wait()
        finally:
            self._between.acquire()
            self._began += time.monotonic() - now  # pictures and pauses are no part of an iteration

    def _moment(self) -> int:
        assert self._robot is not None
        return self._robot.moment[1] if self._robot.moment else self.settings.first

    def _lived(self, face: AutoencoderConcatPredictorWorldModel, event: Step) -> None:
        model, space = face.world_model, self.reader.action_space
        frame, now = model.at_the_door(event.observation.image), time.monotonic()
        copied = None if self._before is None or face.prediction_error is None else _mse(self._before, frame)
        loss = self.losses[-1][1] if self._updates else float("nan")
        label = space.label(event.executed)
        lived = Iteration(self._moment(), self._updates, loss, self._gate, face.prediction_error, copied, now - self._began, label)
        foreseen = self._foreseen if face.prediction_error is not None else None
        self._frames = (frame, foreseen, lived)
        self._foreseen = None if face.predicted_frame is None else (face.predicted_frame, label)
        self._before, self._updates, self._gate, self._began = frame, 0, "", now
        self._tell(iterations=(*self.show.iterations, lived), saved="", doing=f"moment {lived.moment}: did “{label}”")

    def _draw(self, face: AutoencoderConcatPredictorWorldModel) -> None:
        """The newest of everything, as pictures with their words."""
        model, space = face.world_model, self.reader.action_space
        assert isinstance(model, CanvasWorldModel)
        frames: list[Tile] = []
        if self._frames is not None:
            frame, foreseen, lived = self._frames
            frames.append(Tile(frame, f"moment {lived.moment}", "as the model sees it", mark=True))
            if foreseen is not None and lived.error is not None:
                note = f"squared error {lived.error:.2g}; keeping the frame before: {lived.copy_error:.2g}"
                frames.append(Tile(foreseen[0], f"predicted for it, after “{foreseen[1]}”", note))
            if self._foreseen is not None:
                frames.append(Tile(self._foreseen[0], f"predicted next, after “{self._foreseen[1]}”", "what comes is not known yet"))
        canvases: list[Tile] = []
        actions = face.training_actions
        if face.training_canvas is not None and face.reconstruction is not None and actions is not None:
            words = words_of(space, actions)
            hidden = drawn(model, face.training_canvas, words, hidden=True, side=CANVAS_SIDE)
            canvases.append(Tile(hidden, "it trains on this canvas", "hatched: hidden from it"))
            canvases.append(
                Tile(drawn(model, face.reconstruction, words, side=CANVAS_SIDE), "its reconstruction", "earlier frames decoded, the last painted")
            )
        if face.prediction_canvas is not None and self._foreseen is not None:
            words = [*words_of(space, face.life.window.last(model.history).actions), self._foreseen[1]]
            canvases.append(Tile(drawn(model, face.prediction_canvas, words, "next", side=CANVAS_SIDE), "its prediction", "the newest frame painted"))
        self._drew = time.monotonic()
        self._tell(frames=tuple(frames), canvases=tuple(canvases), drawn=self.show.drawn + 1)

    def _tell(self, **news) -> None:
        with self._telling:
            self.show = replace(self.show, number=self.show.number + 1, **news)


class CanvasJob(Job):
    """Some iterations of it. Another job may go on with the same `canvas` later."""

    def __init__(self, canvas: OnCanvas, iterations: int):
        if iterations < 1:
            raise ConfigurationError(f"{iterations} iterations do nothing; give at least 1")
        if canvas.over:
            raise ConfigurationError(f"end of session: {canvas.session} holds no further frame; press Run to begin it anew")
        self.canvas, self.iterations = canvas, iterations
        self.before = len(canvas.show.iterations)
        self.title = f"canvas on {canvas.session}"

    def run(self, pace: Pace) -> str:
        return self.canvas.go_on(self.iterations, pace)


def _mse(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.square((one.astype(float) - other) / 255).mean())
