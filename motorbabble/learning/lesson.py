"""Lesson: a model is taught one frame, a stretch or all of a recorded session, for so many updates or until it is good enough.

    lesson = Lesson(RecordingReader(folder), range(40, 60), LessonConfig("autoencoder", updates=200), checkpoint)
    for event in lesson: ...  # Trained and Validated, as of any training
    lesson.save(checkpoints / reader.robot_type / "a-new-name")

Decisions: it is a Training like any other, with the learner's own update, whose windows are those moments and whose exam is those same
moments; so its score says how well they can be learned by heart, and a card says what is understood. The checkpoint it begins from
is only read. Its optimiser goes on where that one's was. The average of the weights follows sooner than in a life, since a lesson is short.

"autoencoder" teaches what sees, alone: windows are single frames, from which nothing can be predicted, and every weight outside the
checkpoint's file `autoencoder` is frozen, in the average too. "predictor" teaches all of level 0 together, as a life does.
"""

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event as Flag
from typing import Any, Literal

import numpy as np
import torch

from motorbabble.errors import CheckpointError, ConfigurationError, MotorbabbleError
from motorbabble.experience import Window
from motorbabble.learning.checkpoint import Checkpoints, Identity, Loaded, Saved
from motorbabble.learning.learner import Learner, LearnerConfig
from motorbabble.learning.schedule import ScheduleConfig
from motorbabble.learning.state import architecture_of, load_learned, model_from
from motorbabble.learning.training import Score, Trained, Training, TrainingConfig, Validated, saved_of
from motorbabble.learning.windows import Part, SessionWindows
from motorbabble.recording.reader import RecordingReader
from motorbabble.world_models.base import WorldModel
from motorbabble.world_models.kinds import preset_of, with_settings

EMA_DECAY, WARMUP = 0.9, 15
SMALL_FRAME, SMALL_PATCH = (64, 64), 8  # pixels: what a new model sees where its usual patch does not divide the frames


@dataclass(frozen=True)
class LessonConfig:
    subject: Literal["autoencoder", "predictor"] = "autoencoder"
    updates: int = 100  # at most
    until_skill: float | None = None  # stop at this skill; 1 is perfect, 0 the mean frame (autoencoder) or copy-last (predictor)
    until_error: float | None = None  # stop at this mean squared error, pixels in [0, 1]; an empty picture may pass it: see `floors`
    learning_rate: float = 1e-3
    batch_size: int = 4
    shift: tuple[int, int] | None = None  # pixels down and right, at most, either way; None: as the model was taught before, else 16
    measure_every: int = 10  # updates
    measure_windows: int = 8  # of those it learns from, spread evenly
    seed: int = 0
    model: Literal["latent", "canvas"] = "latent"  # a new one, where there is no checkpoint


class Lesson:
    """`moments`: of the session, those to be shown or predicted; None: all. `checkpoint`: the folder of the model to begin from; None: a new one.

    A prediction also looks at the frames before its moment. `stop` ends it after the update at work. ConfigurationError where nothing can be
    learned from these moments, or the frames are of another size; CheckpointMismatch where the model knows other actions.
    """

    def __init__(
        self,
        reader: RecordingReader,
        moments: range | None = None,
        config: LessonConfig = LessonConfig(),
        checkpoint: Path | None = None,
        stop: Flag | None = None,
        device: torch.device | str = "cpu",
    ):
        self.reader, self.config, self.checkpoint = reader, config, checkpoint
        self.moments = range(len(reader)) if moments is None else moments
        if config.subject not in ("autoencoder", "predictor"):
            raise ConfigurationError(f"there is no lesson for {config.subject!r}; teach autoencoder or predictor")
        loaded = None if checkpoint is None else Checkpoints(checkpoint).load()
        with torch.random.fork_rng(devices=[]):  # somebody else may be drawing from torch's own generator
            torch.manual_seed(config.seed)
            model = model_from(checkpoint, reader.robot_type, reader.action_space)
            if model is None and checkpoint is not None:
                raise CheckpointError(f"{checkpoint.name} holds no generation; choose another checkpoint, or begin with a new model")
            learner = _learner(model or new_model(config.model, reader), loaded, config, device)
        self.taught_before = understood(loaded, lambda: sessions_of(loaded))
        for name, weight in learner.trained.named_parameters():
            weight.requires_grad_(_is_taught(learner.trained, name, config.subject))
        whole = SessionWindows([Part.whole(reader)], 1, memory_mb=0, image_size=_size(learner.trained))
        if whole.image_shape != learner.trained.image_shape:
            raise ConfigurationError(
                f"the model sees frames of {learner.trained.image_shape} pixels, this session has {whole.image_shape}; choose another checkpoint"
            )
        windows = self._windows(learner.trained)
        updates = learner.updates + config.updates
        until = TrainingConfig(updates, config.until_skill, config.measure_every, config.measure_windows, 10**9, until_error=config.until_error)
        exam = seen if config.subject == "autoencoder" else None
        self.training = Training(learner, windows, windows.spread(config.measure_windows), whole.background(), until, stop, exam=exam)
        self.first = learner.updates  # updates that the model had before

    def __iter__(self) -> Generator[Trained | Validated, None, None]:
        if not self.training.history:
            yield self.training.validate()  # how good it was before
        yield from self.training

    @property
    def learner(self) -> Learner:
        return self.training.learner

    def floors(self) -> dict[str, float]:
        """Mean squared errors, pixels in [0, 1], on the moments of the exam, of pictures that nobody had to learn."""
        truth = [window.images[-1] / 255 for window in self.training.validation]
        mean = self.training.background / 255
        floors = {"a black picture": _error(truth, [np.zeros(1)] * len(truth)), "the mean frame": _error(truth, [mean] * len(truth))}
        if self.config.subject == "predictor":
            floors["the last frame"] = _error(truth, [window.images[-2] / 255 for window in self.training.validation])
        return floors

    def describe(self) -> str:
        moments = f"moments {self.moments.start} to {self.moments.stop - 1}" if len(self.moments) > 1 else f"moment {self.moments.start}"
        begun = f"begun from {self.checkpoint.name}" if self.checkpoint else "a new model"
        return f"{self.config.subject} on {moments} of {self.reader.name}, {self.learner.updates - self.first} updates, {begun}"

    def save(self, folder: Path) -> None:
        """All of it as a new checkpoint in `folder`, ROBOT_TYPE/NAME as any other; ConfigurationError where there is one already.

        Between two updates only. It is a training: a life may begin from it, and `babble train` may go on with it.
        """
        model = self.learner.trained
        identity = Identity(self.reader.robot_type, self.reader.action_space, architecture_of(model))
        saved = saved_of(self.training, identity, {"lesson": self.describe()})
        sources = [*self.training.windows.sources, *([name, 0] for name in self.taught_before if name != self.reader.name)]
        state = {**saved.state, "training": {**saved.state["training"], "sources": sources}}
        save_new(folder, self.learner.updates, replace(saved, state=state))

    # Parts

    def _windows(self, model: WorldModel) -> SessionWindows:
        """Of as many frames as the subject wants, or, where these moments have fewer before them, as there are."""
        most, least = (1, 1) if self.config.subject == "autoencoder" else (model.history + 1, 2)
        for length in range(most, least - 1, -1):
            part = Part(self.reader, tuple(_ending_in(self.reader, self.moments, length)))
            if part.starts(length):
                return SessionWindows([part], length, self.config.seed, image_size=_size(model))
        what = f"moments {self.moments.start} to {self.moments.stop - 1} of {self.reader.name}"
        if self.config.subject == "predictor" and list(_ending_in(self.reader, self.moments, 1)):
            raise ConfigurationError(f"no action led to {what}, which begin an episode, so nothing can be predicted; choose a later moment")
        raise ConfigurationError(f"{what} hold no frame that can be read; the session has {len(self.reader)}, counted from 0")


def seen(model: WorldModel, windows: Sequence[Window], background: np.ndarray) -> Score:
    """How well `model` shows the last frame of each window when it sees it whole; nothing moves, so the mean frame is the floor."""
    frames = np.stack([window.images[-1] for window in windows])
    shown = model.reconstruct(frames).movedim(1, -1).double().cpu().numpy()
    truth = frames / 255
    nothing = math.nan
    return Score(nothing, nothing, nothing, float(np.square(shown - truth).mean()), float(np.square(background / 255 - truth).mean()))


def new_model(kind: str, reader: RecordingReader) -> WorldModel:
    """A tiny model with fresh weights for the frames and actions of a session; where its patch does not divide them, they are made smaller."""
    of, config = preset_of(kind, "tiny")
    height, width, *_ = reader.moment(reader.stretches[0].start).frame.shape
    patch = config.autoencoder.patch_size
    if height % patch or width % patch:
        bar = {"separator_width": patch} if kind == "canvas" else {}
        config = with_settings(config, {"image_size": SMALL_FRAME, "patch_size": SMALL_PATCH, **bar})
    return of.make((height, width), reader.action_space.size, config)


def save_new(folder: Path, number: int, saved: Saved) -> None:
    """The first generation of a checkpoint; ConfigurationError where there is one already."""
    check_free(folder)
    with Checkpoints(folder) as checkpoints:
        check_free(folder)  # nobody else took it meanwhile
        checkpoints.save(number, saved)


def check_free(folder: Path) -> None:
    """ConfigurationError where a checkpoint is there already: nothing is ever written over."""
    if folder.is_symlink() or Checkpoints(folder).generations():
        raise ConfigurationError(f"there is a checkpoint {folder.name} of {folder.parent.name} already; choose another name")


def _learner(model: WorldModel, loaded: Loaded | None, config: LessonConfig, device: torch.device | str) -> Learner:
    def made() -> Learner:
        shift = config.shift or _shift_of(loaded) or LearnerConfig.shift
        schedule = ScheduleConfig("constant", config.learning_rate, WARMUP)
        settings = LearnerConfig(config.batch_size, shift=shift, ema_decay=EMA_DECAY, gauge_every=0, schedule=schedule)
        learner = Learner(model.to(device), settings, config.seed)
        if loaded is not None:
            load_learned(learner, loaded)
        return learner

    return understood(loaded, made)


def understood(loaded: Loaded | None, read: Callable[[], Any]) -> Any:
    """What is read of a checkpoint; CheckpointError where it says something that no checkpoint of ours says."""
    try:
        return read()
    except MotorbabbleError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        if loaded is None:
            raise
        raise CheckpointError(f"the checkpoint says something this program does not understand ({error!r:.200}); choose another") from error


def _shift_of(loaded: Loaded | None) -> tuple[int, int] | None:
    """How far frames were moved while the model was taught, where it says so."""
    about = loaded.state.get("about", {}) if loaded else {}
    told = about.get("shift", about.get("settings", {}).get("shift"))
    return None if told is None else (int(told[0]), int(told[1]))


def sessions_of(loaded: Loaded | None) -> list[str]:
    """Names of the sessions that the model was taught before, by a training or by a life."""
    if loaded is None:
        return []
    state = loaded.state
    if "training" in state:
        return sorted({str(name) for name, _ in state["training"]["sources"]})
    return sorted({*(str(segment["session"]) for segment in state["trail"]["segments"]), *map(str, state["taught"])})


def _is_taught(model: WorldModel, weight: str, subject: str) -> bool:
    return model.file_of(weight) == "autoencoder" if subject == "autoencoder" else model.level_of(weight) == 0


def _ending_in(reader: RecordingReader, moments: range, length: int) -> Iterator[range]:
    """Stretches in which every window of `length` frames ends in one of `moments`."""
    for stretch in reader.stretches:
        newest = range(max(stretch.start, moments.start), min(stretch.stop, moments.stop))
        if newest:
            yield range(max(stretch.start, newest.start - length + 1), newest.stop)


def _size(model: WorldModel) -> tuple[int, int] | None:
    return model.image_shape if model.has_door else None


def _error(truth: Sequence[np.ndarray], shown: Sequence[np.ndarray]) -> float:
    return float(np.mean([np.square(one - other).mean() for one, other in zip(truth, shown, strict=True)]))
