"""babble train: learn offline from recorded sessions, in one process or several, and go on where it was.

Decisions: several processes are torch's own affair (torchrun starts them, DistributedDataParallel averages their gradients),
and only the first of them speaks and saves; a training is a checkpoint like any other, so Ctrl+C and kills cost at most a minute.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event as Flag
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from motorbabble.commands.flags import parse, words_and_flags
from motorbabble.commands.together import interrupts, is_one_of_several, joined, launch
from motorbabble.errors import ConfigurationError
from motorbabble.experience import Study
from motorbabble.recording.format import check_name
from motorbabble.tracking import Tracking, TrackingConfig

if TYPE_CHECKING:
    import torch
    from rich.console import Console

    from motorbabble.learning.training import Score, Trained, Training, Validated
    from motorbabble.learning.windows import SessionWindows
    from motorbabble.world_models.kinds import Kind

SAVE_UPDATES, SAVE_SECONDS = 500, 60.0
OF_ONE_KIND = {"latent": ("autoencoder_type", "predictor_type"), "canvas": ("canvas_history_size", "separator_width")}


@dataclass(frozen=True)
class Train:
    """Learn from recorded sessions, without a robot. The same command again goes on where it was."""

    steps: int = 2000  # updates, at most
    until_skill: float | None = None  # stop when skill on held-out windows reaches this; 1: perfect, 0: "nothing changes"
    name: str = "offline"  # of the checkpoint
    model: Literal["latent", "canvas"] = "latent"  # what predicts in latents, or paints the next frame beside the last ones
    preset: Literal["tiny", "base", "large"] = "tiny"  # size of the model
    autoencoder_type: Literal["vit", "cnn"] = "vit"  # of a latent model, what sees: a masked transformer, or convolutions
    predictor_type: Literal["transformer", "lstm"] = "transformer"  # of a latent model, what predicts
    canvas_history_size: int = 3  # of a canvas model: frames side by side, the next one included
    separator_width: int = 16  # of a canvas model: pixels of the bar between two frames; a multiple of the patch
    image_size: tuple[int, int] | None = None  # height and width that the model sees; frames are resized to it. None: as recorded
    patch_size: int = 16  # pixels; must divide the height and width that the model sees
    devices: int = 1  # processes that learn together, each on a device of its own where there are several
    device: str = "auto"  # auto, cpu or cuda
    threads: int | None = None  # of the CPU, per process; None: as torch finds it
    compile: bool = False  # by torch's compiler: the first updates take minutes, all later ones less; for long trainings, with --devices 1
    seed: int = 0
    learning_rate: float = 1e-3  # the highest: reached after warm-up, then down along a cosine
    batch_size: int = 8  # windows per update, of all processes together
    shift: tuple[int, int] = (16, 16)  # pixels down and right by which windows are moved at random, at most; around the edges
    validate_every: int = 100  # updates
    validation_windows: int = 64  # held out, for each validation
    patience: int = 10  # validations without a gain before it stops
    memory_mb: float = 1024.0  # of decoded frames kept, per process
    sessions: Path = Path("saved/sessions")  # where sessions are looked for
    checkpoints: Path = Path("saved/checkpoints")  # where the checkpoint goes
    out: Path = Path("saved/cards")  # where the metrics go, in a folder of their own
    fresh: bool = False  # begin anew; else it goes on from the newest checkpoint of this name
    track: Annotated[TrackingConfig, tyro.conf.arg(name="")] = field(default_factory=TrackingConfig)


def train(arguments: Sequence[str]) -> None:
    """Learn from recorded sessions: babble train SESSION... [flags], each a name, a path, latest, all or ROBOT/all."""
    names, settings = _parsed(arguments)
    if settings.devices > 1 and not is_one_of_several():
        _windows(names, settings)  # what cannot work is said once, before any process starts
        launch(settings.devices, ["train", *arguments])
    else:
        with joined(settings.device) as device, interrupts() as stop:
            if settings.threads:
                import torch

                torch.set_num_threads(settings.threads)
            _train(names, settings, device, stop)
        if stop.is_set() and not is_one_of_several():
            raise KeyboardInterrupt


def _parsed(arguments: Sequence[str]) -> tuple[list[str], Train]:
    """Sessions come first, flags after them."""
    words, flags = words_and_flags(arguments)
    settings: Train = parse(Train(), flags, "babble train SESSION...")
    if not words:
        raise ConfigurationError("babble train needs a session; give names, paths, latest, or all, before any flag")
    if settings.devices < 1 or settings.steps < 1 or settings.seed < 0:
        raise ConfigurationError(f"{settings.devices} devices, {settings.steps} steps and seed {settings.seed} cannot work; give positive numbers")
    check_name(settings.name)
    for kind, names in OF_ONE_KIND.items():
        for name in names:
            if kind != settings.model and getattr(settings, name) != getattr(Train, name):
                raise ConfigurationError(f"{name} is a setting of a {kind} model, this one is {settings.model}; leave it out, or give --model {kind}")
    if settings.compile and settings.devices > 1:
        raise ConfigurationError(f"compile is true with {settings.devices} devices, which cannot be; leave it out, or give --devices 1")
    if settings.batch_size % settings.devices:
        raise ConfigurationError(f"a batch of {settings.batch_size} windows cannot be shared evenly by {settings.devices} devices; give a multiple")
    return words, settings


def _train(names: Sequence[str], settings: Train, device: "torch.device", stop: Flag) -> None:
    import torch
    from rich.console import Console

    from motorbabble.learning.learner import Learner
    from motorbabble.learning.training import Training, scored
    from motorbabble.models.compiling import COMPILING
    from motorbabble.world_models.base import this_process

    first = this_process()[0] == 0
    console = Console(quiet=not first, highlight=False)
    windows, validation, said = _windows(names, settings)
    held_names = sorted({part.reader.name for part in validation.parts})
    console.print(f"{said}.")
    torch.manual_seed(settings.seed)
    kind, config = _model(settings)
    model = kind.make(windows.image_shape, windows.action_space.size, config).to(device)
    learner = Learner(model, _learner_config(settings), settings.seed)
    held_out = validation.spread(settings.validation_windows)
    training = Training(learner, windows, held_out, windows.background(), _training_config(settings), stop, held_names)
    console.print(f"{len(windows)} windows of {windows.length} frames to learn from, {len(held_out)} to be tested on.")
    if settings.compile:
        console.print(COMPILING)
    with _checkpoints(settings, windows, console, training) as save:
        with _tracking(training, settings, windows.robot_type, console) as track:
            _watch(training, settings, console, save, track)
        if training.outcome != "learning":
            training.keep_best()
        save()
    score = scored(learner.world_model, held_out, training.background)
    for sentence in _sentences(training, score, windows):
        console.print(sentence)


def _model(settings: Train) -> "tuple[Kind, Any]":
    """Its kind, and its config."""
    from motorbabble.world_models.kinds import preset_of, with_settings

    kind, preset = preset_of(settings.model, settings.preset)
    names = ("image_size", "patch_size", *OF_ONE_KIND[settings.model])
    return kind, with_settings(preset, {name: getattr(settings, name) for name in names})


def _windows(names: Sequence[str], settings: Train) -> "tuple[SessionWindows, SessionWindows, str]":
    """Windows to learn from, windows held out, and a sentence about both."""
    from motorbabble.learning.windows import SessionWindows, hold_out
    from motorbabble.recording.reader import RecordingReader
    from motorbabble.recording.shelf import find_sessions

    kind, config = _model(settings)
    length = kind.history(config) + 1
    readers = [RecordingReader(folder) for folder in find_sessions(names, settings.sessions)]
    before = {} if settings.fresh else _before(settings.checkpoints / readers[0].robot_type / settings.name)
    learned, held, said = hold_out(readers, length, **before)
    SessionWindows([*learned, *held], length)  # refuses what does not fit together
    learned_windows = SessionWindows(learned, length, settings.seed, settings.memory_mb, settings.image_size)
    return learned_windows, SessionWindows(held, length, memory_mb=0, image_size=settings.image_size), said


def _before(folder: Path) -> dict[str, list[str]]:
    """Names of the sessions that an earlier training of this name learned from, and held out."""
    from motorbabble.learning.checkpoint import Checkpoints

    loaded = Checkpoints(folder).load()
    training = loaded.state.get("training", {}) if loaded else {}
    return {"learned": [name for name, _ in training.get("sources", [])], "held_out": training.get("held_out", [])}


def _learner_config(settings: Train) -> Any:
    from motorbabble.learning.learner import LearnerConfig
    from motorbabble.learning.schedule import ScheduleConfig

    warmup = min(100, settings.steps // 10)
    schedule = ScheduleConfig("cosine", settings.learning_rate, warmup, settings.steps)
    return LearnerConfig(batch_size=settings.batch_size, shift=settings.shift, ema_decay=0.99, compile=settings.compile, schedule=schedule)


def _training_config(settings: Train) -> Any:
    from motorbabble.learning.training import TrainingConfig

    return TrainingConfig(settings.steps, settings.until_skill, settings.validate_every, settings.validation_windows, settings.patience)


# Going on


@contextmanager
def _checkpoints(settings: Train, windows: "SessionWindows", console: "Console", training: "Training") -> Iterator[Any]:
    """Goes on from the newest generation, and gives a function that saves one; the first process's saves, the others' does nothing."""
    import torch.distributed as dist

    from motorbabble.learning.checkpoint import Checkpoints, Identity, put_aside
    from motorbabble.learning.state import architecture_of, flat
    from motorbabble.learning.training import resume, saved_of
    from motorbabble.world_models.base import this_process

    rank, processes = this_process()
    folder = settings.checkpoints / windows.robot_type / settings.name
    identity = Identity(windows.robot_type, windows.action_space, architecture_of(training.learner.trained))
    about = flat(settings)
    if rank == 0 and settings.fresh and (aside := put_aside(folder)):
        console.print(f"What was saved as {settings.name} is kept in {aside}.")
    checkpoints = Checkpoints(folder)
    if rank == 0:
        checkpoints.__enter__()
    try:
        loaded = None if settings.fresh else checkpoints.load(identity)
        if processes > 1:
            dist.barrier()  # nobody saves while another still loads
        if loaded is not None:
            for sentence in resume(training, loaded, about):
                console.print(sentence)
        yield (lambda: checkpoints.save(training.learner.updates, saved_of(training, identity, about))) if rank == 0 else (lambda: None)
    finally:
        if rank == 0:
            checkpoints.__exit__()


# Watching


@contextmanager
def _tracking(training: "Training", settings: Train, robot_type: str, console: "Console") -> Iterator[Callable[["Trained | Validated"], None]]:
    """Gives a function that every event is told to; the first process's hands it to trackers, the others' does nothing."""
    from motorbabble.learning.state import architecture_of, flat
    from motorbabble.learning.training import Trained

    learner = training.learner
    if console.quiet:
        yield lambda event: None
        return
    told = {**flat(settings), "robot_type": robot_type, **architecture_of(learner.trained), **flat(learner.config)}
    folder = settings.out / robot_type / settings.name

    def track(event: "Trained | Validated") -> None:
        if isinstance(event, Trained):
            tracking(Study(event.update, event.losses, "learning", event.seconds, event.windows))
        else:
            tracking.tell({"validation/skill": event.score.skill, "validation/error": event.score.model_all})
        while tracking.notes:
            console.print(tracking.notes.pop(0), markup=False, soft_wrap=True)

    with Tracking(folder, settings.track, settings=told, title=settings.name, goes_on=learner.updates > 0) as tracking:
        yield track
    while tracking.notes:
        console.print(tracking.notes.pop(0), markup=False, soft_wrap=True)


def _watch(training: "Training", settings: Train, console: "Console", save: Any, track: Callable[["Trained | Validated"], None]) -> None:
    """Learn, with a bar that tells rate, time left and skill; save now and then. `track` hears of every event."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from motorbabble.learning.training import Trained

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("updates  {task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("left  {task.fields[skill]}"),
    )
    learner, due, began = training.learner, (training.learner.updates, time.monotonic()), time.monotonic()
    with Progress(*columns, console=console, disable=console.quiet) as bar:
        task = bar.add_task("train", total=settings.steps, completed=learner.updates, rate="", skill=_skill(training))
        first = learner.updates
        for event in training:
            track(event)
            if isinstance(event, Trained):
                rate = (event.update - first) / (time.monotonic() - began)
                bar.update(task, completed=event.update, rate=f"{rate:.2f}/s  {rate * settings.batch_size:.1f} windows/s")
            else:
                bar.update(task, skill=_skill(training))
                bar.console.print(f"update {event.update:6d}   skill on held-out windows {event.score.skill:.3f}{'   best' if event.best else ''}")
            if learner.updates - due[0] >= SAVE_UPDATES or time.monotonic() - due[1] >= SAVE_SECONDS:
                save()
                due = (learner.updates, time.monotonic())


def _skill(training: "Training") -> str:
    return f"skill {training.history[-1][1]:.3f}" if training.history else "skill not yet"


def _sentences(training: "Training", score: "Score", windows: "SessionWindows") -> list[str]:
    why = {
        "threshold": f"The skill that was asked for ({training.config.until_skill}) was reached",
        "plateau": f"{training.config.patience} validations brought nothing more",
        "updates": "All updates are done",
        "learning": "It was stopped, and goes on with the same command",
    }
    learner = training.learner
    said = [f"{why[training.outcome]}: {learner.updates} updates, {learner.samples} windows, {learner.seconds:.0f} s of learning."]
    if score.over_copy is None:
        said.append(f"Nothing moved in the held-out windows. Skill over the mean frame: {score.over_mean:.3f} (1 is perfect).")
    else:
        mean = 1 - score.mean_moved / score.copy_moved
        floors = f"the last frame {score.copy_moved:.2e} (skill 0), the mean frame {score.mean_moved:.2e} (skill {mean:.2f})"
        said.append(f"Held out, where something moved: squared error {score.model_moved:.2e}, skill {score.over_copy:.3f}. Floors: {floors}.")
    if windows.damaged:
        said.append(f"{len(windows.damaged)} damaged frames were left out; babble sessions check names them.")
    return said
