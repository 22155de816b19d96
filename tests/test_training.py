"""Offline training: the same in several processes, never from what is held out, ends when it should, goes on to the bit."""

import json
import os
import signal
import subprocess
import sys
import threading
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from counting import Counting, read
from several_processes import CANVAS_UPDATES, learned
from test_canvas import small as small_canvas
from test_latent import SMALL, small
from test_windows import counts, recorded

from motorbabble.commands.train import train
from motorbabble.errors import CheckpointMismatch, ConfigurationError, Diverged, RecordingError
from motorbabble.experience import Window
from motorbabble.learning import training as training_file
from motorbabble.learning.checkpoint import Checkpoints, Identity, Loaded
from motorbabble.learning.learner import Learner, LearnerConfig
from motorbabble.learning.schedule import ScheduleConfig
from motorbabble.learning.state import architecture_of
from motorbabble.learning.training import Score, Trained, Training, TrainingConfig, Validated, resume, saved_of, scored
from motorbabble.learning.windows import SessionWindows, hold_out
from motorbabble.models import compiling
from motorbabble.robots.toroidal_dot import ToroidalDotConfig, ToroidalDotRobot
from motorbabble.world_models.latent import AutoencoderLatentPredictorWorldModelConfig, LatentWorldModel

HERE = Path(__file__).parent


# Several processes


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory) -> list[dict]:
    """What each of two processes learned from its half of every batch."""
    folder = tmp_path_factory.mktemp("processes")
    command = [sys.executable, "-W", "error", str(HERE / "several_processes.py")]
    settings = os.environ | {"PYTHONPATH": str(HERE.parent)}
    running = [subprocess.Popen([*command, str(rank), "2", str(folder)], env=settings) for rank in range(2)]
    assert [process.wait(120) for process in running] == [0, 0]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def apart(several: list[dict[str, float]], one: list[dict[str, float]]) -> float:
    """The largest difference of any loss in any update, relative to those above 1."""
    return max(abs(a[name] - b[name]) / max(1.0, abs(b[name])) for a, b in zip(several, one, strict=False) for name in b)


def test_two_processes_learn_what_one_learns(two_processes):
    one, weights = learned()
    first, second = (process["honest"] for process in two_processes)
    assert len(first[0]) == 30
    assert apart(first[0], one) < 1e-5
    assert first == second, "both say the same, and have the same weights"
    # Keys' biases hardly matter to attention: what little gradient they have is rounding, which Adam makes as large as any other. So it
    # is with the ensemble's weights to units that are hardly ever on.
    away = np.abs(np.array(first[1]) - weights)
    assert np.mean(away > 1e-5) < 4e-3 and away.max() < 2e-3


def test_two_processes_learn_on_canvases_what_one_learns(two_processes):
    """Its updates differ in what is hidden, and so in the weights they go through."""
    one, _ = learned(CANVAS_UPDATES, make=small_canvas)
    first, second = (process["canvas"] for process in two_processes)
    assert len({frozenset(losses) for losses in one}) > 1, "more than one kind of update was met"
    assert apart(first[0], one) < 1e-5 and first == second


@pytest.mark.parametrize("fault", ["own chance", "own normalisers"])
def test_a_fault_in_what_processes_share_would_be_noticed(two_processes, fault):
    one, _ = learned(3)
    assert apart(two_processes[0][fault][0], one) > 1e-4


# Events


def windows_of(readers, length: int = 3, **settings) -> tuple[SessionWindows, list[Window]]:
    parts, held, _ = hold_out(readers, length)
    return SessionWindows(parts, length, **settings), SessionWindows(held, length).spread(6)


def counting_model() -> LatentWorldModel:
    return LatentWorldModel((32, 32), 1, AutoencoderLatentPredictorWorldModelConfig(*SMALL, prediction_history_size=2))


def trained_on(readers, stop=None, batch_size: int = 4, learner_seed: int = 0, **settings) -> Training:
    windows, validation = windows_of(readers)
    torch.manual_seed(learner_seed)
    schedule = ScheduleConfig("cosine", 2e-3, 3, settings.get("updates", 2000))
    learner = Learner(counting_model(), LearnerConfig(batch_size=batch_size, schedule=schedule), learner_seed)
    return Training(learner, windows, validation, windows.background(), TrainingConfig(**settings), stop)


def without_learning(training: Training, monkeypatch, skills=()) -> list[list[Window]]:
    """Updates that only note their windows, and validations that come out as told; answers the windows."""
    given, told = [], iter(skills)

    def update(windows, background=None):
        given.append(windows)
        training.learner.updates += 1
        return {"total": 1.0}

    monkeypatch.setattr(training.learner, "update", update)
    monkeypatch.setattr(training_file, "scored", lambda *_: Score(1 - next(told, 0.0), 1.0, 1.0, 1.0, 1.0))
    return given


@pytest.fixture
def readers(tmp_path):
    return [recorded(tmp_path / "sessions", 20, first) for first in (0, 1000)]


def test_nothing_is_learned_from_held_out_sessions(readers, monkeypatch):
    training = trained_on(readers, updates=30)
    given = without_learning(training, monkeypatch)
    list(training)
    seen = {count for batch in given for count in counts(batch)}
    held_out = set(counts(training.validation))
    assert seen == {read(readers[0].image(moment))[0] for moment in range(20)}
    assert held_out and not seen & held_out


def test_validations_come_when_they_should(readers, monkeypatch):
    training = trained_on(readers, updates=25, validate_every=10)
    without_learning(training, monkeypatch, [0.1, 0.3, 0.2])
    events = list(training)
    assert [event.update for event in events if isinstance(event, Validated)] == [10, 20, 25]
    assert [event.best for event in events if isinstance(event, Validated)] == [True, True, False]
    assert sum(isinstance(event, Trained) for event in events) == 25
    assert (training.outcome, training.best) == ("updates", (20, pytest.approx(0.3)))
    assert list(training) == []


def test_a_threshold_ends_it(readers, monkeypatch):
    training = trained_on(readers, updates=1000, validate_every=5, until_skill=0.5)
    without_learning(training, monkeypatch, [0.1, 0.49, 0.5, 0.6])
    list(training)
    assert (training.outcome, training.learner.updates) == ("threshold", 15)


@pytest.mark.parametrize(
    ("skills", "updates"), [([0.5, 0.5, 0.5, 0.5], 20), ([0.1, 0.2, 0.19, 0.201, 0.1, 0.9], 25), ([0.5, 0.4, 0.6, 0.6, 0.6, 0.6], 30)]
)
def test_a_plateau_ends_it(readers, monkeypatch, skills, updates):
    training = trained_on(readers, updates=1000, validate_every=5, patience=3)
    without_learning(training, monkeypatch, skills)
    list(training)
    assert (training.outcome, training.learner.updates) == ("plateau", updates)


def test_it_stops_after_the_update_when_asked(readers, monkeypatch):
    stop = threading.Event()
    training = trained_on(readers, stop, updates=100)
    without_learning(training, monkeypatch)
    for event in training:
        if event.update == 7:
            stop.set()
    assert (training.learner.updates, training.position, training.outcome) == (7, 28, "learning")


def test_a_loss_that_is_not_finite_is_said(readers, monkeypatch):
    training = trained_on(readers)
    monkeypatch.setattr(training.learner, "update", lambda *_, **__: {"total": float("nan")})
    with pytest.raises(Diverged, match="lower the learning rate"):
        next(iter(training))


def test_the_best_average_is_kept(readers, monkeypatch):
    training = trained_on(readers, updates=15, validate_every=5)
    without_learning(training, monkeypatch, [0.1, 0.3, 0.2])
    model = training.learner.world_model
    for event in training:
        with torch.no_grad():
            model.predictor.head.bias.fill_(event.update)
    training.keep_best()
    assert set(model.predictor.head.bias.tolist()) == {10.0}


@pytest.mark.parametrize(
    "bad", [{"updates": 0}, {"patience": 0}, {"until_skill": 1.0}, {"until_skill": float("nan")}, {"until_error": 0.0}, {"least_gain": float("nan")}]
)
def test_settings_that_cannot_work_are_refused(bad):
    with pytest.raises(ConfigurationError):
        TrainingConfig(**bad)


def test_without_a_window_to_be_tested_on_it_does_not_begin(readers):
    windows, _ = windows_of(readers)
    with pytest.raises(ConfigurationError, match="no held-out window"):
        Training(Learner(counting_model()), windows, [], windows.background())


# Scores


class Copies(LatentWorldModel):
    """Imagines `what` in place of a prediction: 0 the last frame, 1 black."""

    def imagine(self, window, plans, *, pictures=True):
        imagined = super().imagine(window, plans, pictures=pictures)
        last = torch.from_numpy(window.images[-1]).movedim(-1, 0).float() / 255
        imagined.images[:] = last * (1 - self.what)
        return imagined


def test_copying_has_no_skill_and_worse_has_less(readers):
    windows, validation = windows_of(readers)
    background = windows.background()
    for what, skill in ((0, 0.0), (1, None)):
        model = Copies((32, 32), 1, counting_model().config)
        model.what = what
        score = scored(model, validation, background)
        errors = [np.square(w.images[-1] / 255.0 - (1 - what) * w.images[-2] / 255.0).mean() for w in validation]
        assert score.model_all == pytest.approx(np.mean(errors), rel=1e-5)
        assert score.over_copy == pytest.approx(1 - score.model_moved / score.copy_moved)
        assert skill is None or score.over_copy == pytest.approx(skill, abs=1e-5)
        assert score.mean_all == pytest.approx(np.mean([np.square((w.images[-1] - background) / 255).mean() for w in validation]), rel=1e-5)


def test_where_nothing_moves_the_mean_frame_is_the_measure():
    frame = np.zeros((32, 32, 3), np.uint8)
    frame[:8] = 200
    still = Window(np.stack([frame, frame]), np.zeros((1, 1), np.float32))
    score = scored(counting_model().eval(), [still], np.full((32, 32, 3), 50.0))
    assert score.over_copy is None
    assert score.skill == score.over_mean == pytest.approx(1.0, abs=1e-3)  # untrained it copies


# Going on


def identity_of(training: Training) -> Identity:
    return Identity(training.windows.robot_type, training.windows.action_space, architecture_of(training.learner.trained))


def all_of(training: Training) -> dict[str, torch.Tensor | str]:
    """Every number there is."""
    saved = saved_of(training, identity_of(training), {})
    plain = {name: value for name, value in saved.state.items() if name not in ("counters", "generators")}
    counters = {name: value for name, value in saved.state["counters"].items() if name != "seconds"}
    state = json.dumps([plain, counters, saved.state["generators"]["learner"]])
    return {f"{stem}/{name}": tensor.clone() for stem, tensors in saved.tensors.items() for name, tensor in tensors.items()} | {"state": state}


def differing(one: dict, other: dict) -> list[str]:
    return [name for name in {*one, *other} if not (torch.equal(one[name], other[name]) if name != "state" else one[name] == other[name])]


SETTINGS = {"updates": 10, "validate_every": 4}


def interrupted(readers, folder: Path, at: int, forget=lambda loaded: None) -> tuple[Training, list[str]]:
    """Killed after event number `at`, loaded from disk by a new process's worth of objects, and lived to the end."""
    training = trained_on(readers, **SETTINGS)
    list(islice(iter(training), at))
    identity = identity_of(training)
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(training.learner.updates, saved_of(training, identity, {"seed": 0}))
        loaded = checkpoints.load(identity)
    forget(loaded)
    again = trained_on(readers, learner_seed=9, **SETTINGS)
    said = resume(again, loaded, {"seed": 0})
    list(again)
    return again, said


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    readers = [recorded(folder, 20, first) for first in (0, 1000)]
    training = trained_on(readers, **SETTINGS)
    list(training)
    return readers, all_of(training)


@pytest.mark.parametrize("at", [1, 4, 7])  # 7 stands in the middle of an epoch and between two validations; after event 4 one is due
def test_it_goes_on_to_the_bit(uninterrupted, tmp_path, at):
    readers, whole = uninterrupted
    again, said = interrupted(readers, tmp_path, at)
    assert differing(whole, all_of(again)) == []
    assert said[0].startswith("It goes on where it was") and len(said) == 1


def without_order(loaded: Loaded) -> None:
    loaded.state["training"]["position"] = 0


def without_history(loaded: Loaded) -> None:
    loaded.state["training"]["history"] = []


def without_chance(loaded: Loaded) -> None:
    loaded.state["generators"]["learner"] = np.random.default_rng(0).bit_generator.state


def without_counters(loaded: Loaded) -> None:
    loaded.state["counters"]["updates"] = 0


def without_moments(loaded: Loaded) -> None:
    loaded.tensors["optimizer"].clear()


def without_average(loaded: Loaded) -> None:
    for stem in ("autoencoder", "predictor_0"):
        loaded.tensors[stem].update({name: loaded.tensors[stem][name.replace("averaged", "trained")] for name in loaded.tensors[stem]})


def without_best(loaded: Loaded) -> None:
    loaded.tensors["best"].clear()


def without_mean_frame(loaded: Loaded) -> None:
    loaded.tensors["memory"]["background"] += 1


@pytest.mark.parametrize(
    "forget",
    [without_order, without_history, without_chance, without_counters, without_moments, without_average, without_best, without_mean_frame],
)
def test_whatever_is_left_out_is_noticed(uninterrupted, tmp_path, forget, monkeypatch):
    readers, whole = uninterrupted
    if forget is without_best:  # only a training whose best lies behind it needs them
        monkeypatch.setattr(training_file, "scored", lambda *_: Score(1.0, 0.5, 1.0, 1.0, 1.0))
    again, _ = interrupted(readers, tmp_path, 7, forget)
    assert differing(whole, all_of(again)) if forget is not without_best else not again.best_weights


def test_other_sessions_begin_another_order(readers, tmp_path):
    training = trained_on(readers, **SETTINGS)
    list(islice(iter(training), 6))
    loaded = Loaded(**vars_of(training))
    more = trained_on([recorded(tmp_path / "more", 20, 5000), *readers], **SETTINGS)
    said = resume(more, loaded, {"seed": 1})
    assert "others than before" in said[1] and (more.position, more.history) == (0, [])
    assert more.learner.updates == 5


def vars_of(training: Training, **about) -> dict:
    saved = saved_of(training, identity_of(training), about)
    return {"tensors": saved.tensors, "state": saved.state, "generation": 1}


def test_settings_that_changed_are_said_unless_they_change_nothing(readers):
    training = trained_on(readers, **SETTINGS)
    loaded = Loaded(**vars_of(training, learning_rate=1e-3, devices=1))
    said = resume(training, loaded, {"learning_rate": 2e-3, "devices": 2})
    assert said[1] == "Other settings than before: learning_rate: 0.001 there, 0.002 here."


def test_a_robots_life_is_no_training(readers):
    training = trained_on(readers, **SETTINGS)
    with pytest.raises(CheckpointMismatch, match="choose another --name"):
        resume(training, Loaded({}, {"run": {}}, 1), {})


# It really learns


def dot_sessions(folder: Path) -> list:
    config = ToroidalDotConfig(image_size=32, dot_radius=3, move_pixels=5)
    return [recorded(folder, 120, seed, ToroidalDotRobot(config, seed=seed)) for seed in range(2)]


def test_it_learns_what_a_recorded_dot_does(tmp_path):
    readers = dot_sessions(tmp_path)
    windows, validation = windows_of(readers)
    torch.manual_seed(0)
    model = LatentWorldModel((32, 32), windows.action_space.size, small(prediction_history_size=2).config)
    schedule = ScheduleConfig("cosine", 3e-3, 15, 250)
    learner = Learner(model, LearnerConfig(batch_size=8, shift=(4, 4), schedule=schedule))
    training = Training(learner, windows, validation, windows.background(), TrainingConfig(250, until_skill=0.8, validate_every=25))
    list(training)
    training.keep_best()
    assert training.outcome == "threshold"
    score = scored(learner.world_model, validation, training.background)
    assert score.over_copy == training.best[1] >= 0.8


# The command


QUICK = ["--patch-size", "16", "--batch-size", "2", "--validate-every", "2", "--validation-windows", "4", "--device", "cpu"]


@pytest.fixture
def shelf(tmp_path, monkeypatch) -> Path:
    """A folder to work in, with two recorded sessions of the counting robot."""
    monkeypatch.chdir(tmp_path)
    for first in (0, 1000):
        recorded(Path("saved/sessions/counting"), 12, first)
    return tmp_path


def test_the_command_trains_saves_and_goes_on(shelf, capsys):
    train(["all", "--steps", "3", *QUICK])
    said = capsys.readouterr().out
    assert "1 sessions to learn from; 1 held out" in said and "update      2" in said and "Floors: the last frame" in " ".join(said.split())
    train(["counting/all", "latest", "--steps", "5", *QUICK])
    said = " ".join(capsys.readouterr().out.split())
    assert "It goes on where it was: 3 updates." in said and "steps: 3 there, 5 here" in said and "5 updates, 10 windows" in said
    folder = Path("saved/checkpoints/counting/offline")
    assert [path.name for path in sorted(folder.glob("gen-*"))] == ["gen-00000003", "gen-00000005"]
    train(["all", "--steps", "2", "--fresh", *QUICK])
    assert "goes on" not in capsys.readouterr().out
    assert len(list(folder.parent.glob("offline-until-*"))) == 1


def test_the_command_says_what_is_wrong(shelf):
    for words, error, sentence in [
        ([], ConfigurationError, "needs a session"),
        (["--steps", "5"], ConfigurationError, "needs a session"),
        (["nothing"], RecordingError, "there is no session 'nothing'"),
        (["other/all"], RecordingError, "there is no session in saved/sessions/other"),
        (["all", "--devices", "0"], ConfigurationError, "0 devices"),
        (["all", "--devices", "3"], ConfigurationError, "8 windows cannot be shared evenly by 3"),
        (["all", "--devices", "2", "--compile"], ConfigurationError, "compile is true with 2 devices"),
        (["all", "--device", "abacus"], ConfigurationError, "no device 'abacus'"),
    ]:
        with pytest.raises(error, match=sentence):
            train(words)


def test_a_training_can_be_compiled_and_says_so(shelf, capsys, monkeypatch):
    monkeypatch.setattr(compiling, "BACKEND", "eager")  # recorded, and computed operation by operation, which takes no minutes
    torch._dynamo.reset()
    train(["all", "--steps", "3", "--compile", *QUICK])
    assert "is compiled first" in " ".join(capsys.readouterr().out.split())
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"]
    torch._dynamo.reset()


def test_ctrl_c_saves_after_the_update(shelf, capsys, monkeypatch):
    honest, before = Learner.update, signal.getsignal(signal.SIGINT)

    def interrupted_update(learner, *arguments, **settings):
        if learner.updates == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return honest(learner, *arguments, **settings)

    monkeypatch.setattr(Learner, "update", interrupted_update)
    with pytest.raises(KeyboardInterrupt):
        train(["all", "--steps", "50", *QUICK])
    assert "It was stopped, and goes on with the same command: 5 updates" in " ".join(capsys.readouterr().out.split())
    assert Checkpoints(Path("saved/checkpoints/counting/offline")).load().state["counters"]["updates"] == 5
    assert signal.getsignal(signal.SIGINT) is before


def test_robots_of_two_types_are_not_mixed(shelf):
    other = type("Other", (Counting,), {"robot_type": "other"})()
    recorded(Path("saved/sessions/other"), 12, robot=other)
    with pytest.raises(ConfigurationError, match="one type of robot at a time"):
        train(["all", *QUICK])


@pytest.mark.parametrize("how", ["--devices", pytest.param("torchrun", marks=pytest.mark.soak)])
def test_two_processes_by_one_command(shelf, how):
    command = ["-m", "motorbabble", "train", "all", "--steps", "3", *QUICK]
    start = [sys.executable, *command, "--devices", "2"]
    if how == "torchrun":
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *command]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent)}
    done = subprocess.run(start, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("All updates are done: 3 updates, 6 windows") == 1, "only the first process speaks"
    train(["all", "--steps", "3", "--name", "alone", *QUICK])
    one, two = (saved_skill(name) for name in ("alone", "offline"))
    assert one == pytest.approx(two, abs=1e-5)


def saved_skill(name: str) -> float:
    loaded = Checkpoints(Path("saved/checkpoints/counting", name)).load()
    return loaded.state["training"]["history"][-1][1]
