"""Watching a life: metrics by name, throttled, in a file that is always there; a panel that a person reads; trackers that fail or are slow."""

import io
import json
import math
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from events import SPACE, a_step, a_study
from recordings import recorded
from rich.console import Console

from motorbabble.agents import learn
from motorbabble.commands.train import train
from motorbabble.errors import ConfigurationError
from motorbabble.experience import ActionSpace, Channel, Study
from motorbabble.faces import AutoencoderLatentPredictorWorldModel
from motorbabble.robots.toroidal_dot import ToroidalDotRobot
from motorbabble.tracking import JsonlTracker, Terminal, Tracking, TrackingConfig, metrics_of, sparkline
from motorbabble.tracking.metrics import NAMES, Meter
from motorbabble.tracking.trackers import QUEUE
from motorbabble.watching import tracked
from motorbabble.world_models.latent import _quality
from motorbabble.world_models.losses import squared


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def small_dot(seed: int = 0) -> ToroidalDotRobot:
    return ToroidalDotRobot(seed=seed, image_size=32, dot_radius=2, move_pixels=5)


SMALL = {"patch_size": 8, "batch_size": 2, "width": 32, "decoder_width": 32, "depth": 1, "heads": 2}


class Told:
    """A tracker that remembers."""

    wants_pictures = True

    def __init__(self):
        self.entries, self.closed, self.thread = [], False, threading.get_ident()

    def log(self, entry):
        self.entries.append(entry)

    def close(self):
        self.closed = True


# Names


def test_losses_go_by_the_missions_names():
    named = metrics_of(a_study(3))
    assert named["predictor_patch_loss"] == 0.4 and named["predictor_latent_loss"] == 0.3 and named["predictor_action_loss"] == 0.2
    assert named["reconstruction_loss"] == 0.5 and named["prediction_errors/level_0"] == 0.1 and named["predictor_training_loss"] == 1.0
    assert named["training_step"] == 3


ALWAYS = """step training_step reconstruction_loss autoencoder_training_loss predictor_training_loss predictor_patch_loss predictor_latent_loss
predictor_action_loss predictor_explained_variance predictor_skill predictor_grad_norm predictor_lr mask_ratio prediction_errors/level_0
consecutive_autoencoder_iterations predictor_training_iterations action_count action_count/stay action_count/move gate lookahead
predictor_uwr_95th grad_norms/transformer/transformer_layer_0_self_attn uwr/transformer/transformer_layer_0_linear1 predictor/grad/grad_action_ratio
predictor/attn/apa_mean predictor/attn/alf_mean predictor/attn/ttar_mean predictor/attn/ri16_mean predictor/attn/attn_entropy_mean
predictor/attn/uniform_baseline_mean predictor/counterfactual/asg predictor/counterfactual/azg predictor/action_sensitivity/variance
action_timing/mean_interval action_timing/median_interval action_timing/min_interval action_timing/max_interval action_timing/std_interval"""


@pytest.fixture(scope="module")
def a_life(tmp_path_factory) -> tuple[Path, Told]:
    """Short, real and tracked: its folder, and what a tracker was told."""
    folder, told = tmp_path_factory.mktemp("life"), []
    run = learn(small_dot(), steps=24, seed=0, gauge_every=10, **SMALL)
    config = TrackingConfig(log_interval=6, visualization_interval=8)
    with tracked(run, folder, config, "dot", seed=0, also=[lambda: told.append(Told()) or told[0]]) as tracking:
        for event in run:
            tracking(event)
        assert not tracking.notes
    return folder, told[0]


@pytest.mark.parametrize("name", ALWAYS.split())
def test_a_life_logs_every_metric_of_the_mission(a_life, name):
    logged = [line[name] for line in lines(a_life[0] / "metrics.jsonl") if name in line]
    assert logged
    assert all(isinstance(value, str) if name == "gate" else math.isfinite(value) for value in logged)


def test_what_is_logged_is_what_happened(a_life):
    written = [line for line in lines(a_life[0] / "metrics.jsonl") if "gate" in line]
    assert [line["training_step"] for line in written] == list(range(6, written[-1]["training_step"] + 1, 6))
    for line in written:
        assert 0.25 <= line["mask_ratio"] <= 0.9 and line["mask_ratio"] * 16 == pytest.approx(round(line["mask_ratio"] * 16))
        assert line["action_count"] == line["step"] == line["action_count/stay"] + line["action_count/move"]
        assert line["action_timing/min_interval"] <= line["action_timing/median_interval"] <= line["action_timing/max_interval"]
        assert 1 <= line["consecutive_autoencoder_iterations"] <= 2 >= line["predictor_training_iterations"] >= 1
    assert len({line["mask_ratio"] for line in written}) > 1, "drawn anew each time"


def test_the_settings_are_logged_first(a_life):
    settings = json.loads((a_life[0] / "settings.json").read_text())
    wanted = "weight_decay schedule.warmup_steps schedule.lr_min_ratio schedule.learning_rate pred_patch_w pred_latent_w pred_action_w mask_ratio_min"
    wanted += " mask_ratio_max gate.reconstruction_skill prediction_history_size replay.capacity batch_size autoencoder.width robot_type seed"
    assert set(wanted.split()) <= set(settings)
    assert settings["batch_size"] == 2 and settings["pred_action_w"] == 1.0 and settings["robot_type"] == "toroidal_dot"


def test_pictures_come_every_so_many_actions(a_life):
    pictured = [(entry.step, entry.pictures["predictions_visualization"]) for entry in a_life[1].entries if entry.pictures]
    assert [step for step, _ in pictured] == [8, 16, 24]
    assert all(picture.ndim == 3 and picture.dtype == np.uint8 and picture.std() > 5 for _, picture in pictured)
    assert a_life[1].closed and a_life[1].entries[-1].frame.shape == (32, 32, 3)


def test_explained_variance_and_skill_have_the_floors_they_claim():
    rng = torch.Generator().manual_seed(0)
    before, real = torch.rand(2, 3, 16, 12, generator=rng), torch.rand(2, 3, 16, 12, generator=rng)
    grey = torch.full_like(real, 0.3)

    def quality(shown: torch.Tensor) -> dict[str, torch.Tensor]:
        return _quality(shown, squared(shown, real), squared(before, real), real)

    of = {name: quality(shown) for name, shown in {"perfect": real, "copy": before, "grey": grey}.items()}
    assert of["perfect"]["explained_variance"] == of["perfect"]["skill"] == 1
    assert float(of["copy"]["skill"]) == pytest.approx(0, abs=1e-6) and float(of["grey"]["explained_variance"]) == pytest.approx(0, abs=1e-5)
    half = real + 0.5 * (before - real)
    wrong = (half - real).numpy()
    assert float(quality(half)["explained_variance"]) == pytest.approx(1 - wrong.var() / real.numpy().var(), abs=1e-5)


def test_being_tracked_changes_nothing(tmp_path):
    def losses(track: bool) -> list[float]:
        run = learn(small_dot(), steps=10, seed=3, max_seconds=math.inf, **SMALL)
        config = TrackingConfig(log_interval=1, visualization_interval=2)
        tracking = tracked(run, tmp_path, config, also=[Told]) if track else lambda event: None
        found = [event.losses["total"] for event in run if tracking(event) or isinstance(event, Study)]
        if track:
            tracking.close()
        return found

    assert losses(True) == losses(False)


# What a meter counts


def test_waits_at_the_gate_and_updates_since_the_last_action():
    meter = Meter(SPACE)
    for update, gate in enumerate(["learning", "learning", "passed"], 1):
        meter.hear(a_study(update, gate))
    told = meter.take()
    assert told["consecutive_autoencoder_iterations"] == 3 and told["predictor_training_iterations"] == 3
    meter.hear(a_step(0))
    meter.hear(Study(4, {"total": 1.0, "reconstruction": 1.0}, "learning", 1.0))  # early life: nothing to predict yet
    meter.hear(a_study(5, "learning"))
    told = meter.take()
    assert told["predictor_training_iterations"] == 1 and "consecutive_autoencoder_iterations" not in told, "this wait is not over"


def test_intervals_are_those_since_the_last_entry():
    meter = Meter(SPACE)
    for index, started in enumerate([1.0, 2.0, 4.0]):
        meter.hear(a_step(index, started))
    assert {name: value for name, value in meter.take().items() if "timing" in name} == {
        "action_timing/mean_interval": 1.5,
        "action_timing/median_interval": 1.5,
        "action_timing/min_interval": 1.0,
        "action_timing/max_interval": 2.0,
        "action_timing/std_interval": 0.5,
    }
    meter.hear(a_step(3, 4.25))
    assert meter.take()["action_timing/mean_interval"] == 0.25
    assert not [name for name in meter.take() if "timing" in name]


def test_relived_actions_are_neither_counted_nor_timed():
    meter = Meter(SPACE)
    meter.hear(a_step(0, 1.0), relived=True)
    meter.hear(a_step(1, 100.0))
    meter.hear(a_step(2, 101.0, action=0))
    told = meter.take()
    assert told["step"] == 3 and told["action_count"] == 2 and told["action_count/move"] == 1
    assert told["action_timing/max_interval"] == 1.0


def test_a_rare_measurement_is_in_the_next_entry_and_only_there():
    meter = Meter(SPACE)
    meter.hear(a_study(1, **{"prediction_errors/level_1": 0.25}))
    meter.hear(a_study(2))
    assert meter.take()["prediction_errors/level_1"] == 0.25
    meter.hear(a_study(3))
    assert "prediction_errors/level_1" not in meter.take()


def test_ranges_and_long_lists_are_counted_in_sum():
    box = ActionSpace.box([Channel("speed", -1, 1)], {"speed": 0.0})
    long = ActionSpace.discrete([{"action": i} for i in range(1000)])
    for space in (box, long):
        assert [name for name in Meter(space).take() if name.startswith("action_count")] == ["action_count"]


def test_no_two_losses_share_a_name():
    assert len(set(NAMES.values())) == len(NAMES)


# The file


def test_lines_are_throttled_and_there_at_once(tmp_path):
    with Tracking(tmp_path / "deep", TrackingConfig(log_interval=5), SPACE) as tracking:
        for i in range(1, 13):
            tracking(a_study(i))
            tracking(a_step(i - 1))
        written = lines(tmp_path / "deep" / "metrics.jsonl")  # read before it is closed
    assert [line["training_step"] for line in written] == [5, 10]
    assert [line["step"] for line in written] == [4, 9]


def test_what_is_not_finite_is_null_and_always_logged(tmp_path):
    with Tracking(tmp_path, TrackingConfig(log_interval=1000)) as tracking:
        tracking(Study(3, {"total": float("nan")}, "diverged", 1.0))
    (line,) = lines(tmp_path / "metrics.jsonl")
    assert line["predictor_training_loss"] is None and line["gate"] == "diverged"


def test_a_life_that_goes_on_appends_and_repeats_nothing(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with Tracking(tmp_path, TrackingConfig(log_interval=2)) as tracking:
        for i in range(1, 7):
            tracking(a_study(i))
    with path.open("a") as file:
        file.write('{"training_step": 8, "st')  # torn by a kill
    with Tracking(tmp_path, TrackingConfig(log_interval=2), goes_on=True) as tracking:
        for i in range(5, 11):
            tracking(a_study(i), relived=i < 7)
    whole = [json.loads(line)["training_step"] for line in path.read_text().splitlines() if line.endswith("}")]
    assert whole == [2, 4, 6, 8, 10]
    with JsonlTracker(path):
        pass
    assert path.read_text() == "", "another life begins another file"


def test_a_disk_that_fills_up_ends_the_file_and_not_the_life(tmp_path):
    with Tracking(tmp_path, TrackingConfig(log_interval=1)) as tracking:
        tracking(a_study(1))
        tracking._file._file.close()  # as good as a disk that says no
        tracking(a_study(2))
        tracking(a_study(3))
    assert len(tracking.notes) == 1 and "metrics.jsonl is no longer written" in tracking.notes[0]


# Trackers that fail, or are slow


class Failing(Told):
    def log(self, entry):
        super().log(entry)
        if len(self.entries) == 3:
            raise RuntimeError("the server\nis gone.")


def test_a_tracker_that_fails_is_dropped_after_one_sentence(tmp_path):
    made = []

    def failing():
        made.append(Failing())
        return made[0]

    def broken():
        raise OSError("no such host")

    with Tracking(tmp_path, TrackingConfig(log_interval=1), SPACE, also=[failing, broken, Told]) as tracking:
        for i in range(1, 30):
            tracking(a_study(i))
        tracking.flush()
        for i in range(30, 40):
            tracking(a_study(i))
    assert len(lines(tmp_path / "metrics.jsonl")) == 39, "the file goes on"
    assert len(made[0].entries) == 3
    assert sorted(tracking.notes) == [
        "broken is left out from here on, since it failed: no such host (OSError).",
        "failing is left out from here on, since it failed: the server is gone (RuntimeError).",
    ]


def test_a_slow_tracker_holds_nobody_up_and_hears_the_newest(tmp_path):
    gate, made = threading.Event(), []

    class Slow(Told):
        def log(self, entry):
            gate.wait(10)
            super().log(entry)

    tracking = Tracking(tmp_path, TrackingConfig(log_interval=1), SPACE, also=[lambda: made.append(Slow()) or made[0]])
    began = time.monotonic()
    for i in range(1, 3 * QUEUE + 1):
        tracking(a_study(i))
    assert time.monotonic() - began < 5
    gate.set()
    tracking.close()
    updates = [entry.update for entry in made[0].entries]
    assert QUEUE <= len(updates) <= QUEUE + 1 and updates[-QUEUE:] == list(range(2 * QUEUE + 1, 3 * QUEUE + 1))
    assert made[0].thread != threading.get_ident() and made[0].closed
    assert tracking.notes == [f"<lambda> was slower than the run; {3 * QUEUE - len(updates)} entries were not told to it."]


def test_the_end_does_not_wait_for_ever():
    never = threading.Event()

    class Stuck(Told):
        def log(self, entry):
            never.wait(30)

    tracking = Tracking(None, TrackingConfig(log_interval=1), also=[Stuck])
    tracking(a_study(1))
    tracking(a_study(2))
    began = time.monotonic()
    tracking.close(seconds=0.2)
    tracking.close()
    assert time.monotonic() - began < 3 and "did not finish in time" in tracking.notes[0] and len(tracking.notes) == 1
    never.set()


def test_a_picture_or_a_measurement_that_fails_is_left_out(tmp_path):
    def fails(*about):
        raise ValueError("no window")

    config = TrackingConfig(log_interval=1, visualization_interval=1)
    with Tracking(tmp_path, config, SPACE, measure=fails, picture=fails, foresee=lambda step: None, also=[Told]) as tracking:
        for i in range(4):
            tracking(a_step(i))
            tracking(a_study(i + 1))
    assert len(tracking.notes) == 2 and all("left out from here on: no window (ValueError)" in note for note in tracking.notes)
    assert len(lines(tmp_path / "metrics.jsonl")) == 4


def test_measurements_become_plain_numbers(tmp_path):
    measured = {"predictor/attn/apa_mean": np.float32(0.5), "predictor/counterfactual/asg": torch.tensor(0.25), "uwr/x": 1, "word": "high"}
    with Tracking(tmp_path, TrackingConfig(visualization_interval=2), SPACE, measure=lambda: measured) as tracking:
        tracking(a_study(1))
        for i in range(5):
            tracking(a_step(i))
    told = {"predictor/attn/apa_mean": 0.5, "predictor/counterfactual/asg": 0.25, "uwr/x": 1, "word": "high"}
    assert lines(tmp_path / "metrics.jsonl") == [{"step": step, "training_step": 1, **told} for step in (2, 4)]


@pytest.mark.parametrize("settings", [{"log_interval": 0}, {"visualization_interval": -1}, {"rerun": Path("life.mp4")}])
def test_settings_that_cannot_work_are_refused(settings):
    with pytest.raises(ConfigurationError, match="give"):
        replace(TrackingConfig(), **settings)


def test_the_missions_constructor_writes_metrics_where_it_saves(tmp_path):
    with AutoencoderLatentPredictorWorldModel(small_dot(), tmp_path, tracking=TrackingConfig(log_interval=2), **SMALL) as mind:
        mind.main_loop(max_steps=4)
    assert [line["training_step"] for line in lines(tmp_path / "metrics.jsonl")][:2] == [2, 4]
    assert json.loads((tmp_path / "settings.json").read_text())["selector"] == "uncertainty"
    with AutoencoderLatentPredictorWorldModel(small_dot(), tmp_path, tracking=TrackingConfig(log_interval=2), **SMALL) as mind:
        mind.main_loop(max_steps=4)
    updates = [line["training_step"] for line in lines(tmp_path / "metrics.jsonl")]
    assert updates == sorted(set(updates)) and len(updates) >= 5, "it goes on in the same file"


def test_training_offline_is_tracked_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed in range(2):
        recorded(Path("saved/sessions/toroidal_dot"), small_dot(seed), steps=12, seed=seed)
    flags = ["all", "--patch-size", "8", "--batch-size", "2", "--validate-every", "2", "--validation-windows", "2", "--log-interval", "2"]
    train([*flags, "--steps", "3"])
    path = Path("saved/cards/toroidal_dot/offline/metrics.jsonl")
    assert [(line["training_step"], "validation/skill" in line) for line in lines(path)] == [(2, False), (2, True), (3, True)]
    train([*flags, "--steps", "6", "--visualization-interval", "50"])
    assert [line["training_step"] for line in lines(path)] == [2, 2, 3, 4, 5, 6, 6]
    settings = json.loads(path.with_name("settings.json").read_text())
    assert settings["schedule.kind"] == "cosine" and settings["batch_size"] == 2 and settings["robot_type"] == "toroidal_dot"


# The terminal


def shown(terminal: Terminal) -> str:
    console = Console(file=io.StringIO(), width=110, force_terminal=False)
    console.print(terminal.panel())
    return console.file.getvalue()


def test_the_panel_says_how_far_how_well_and_why():
    terminal = Terminal("dot", SPACE, steps=100, console=Console(file=io.StringIO()))
    for i in range(30):
        terminal(a_study(i + 1), i / 30)
        terminal(a_step(i), i / 30)
    text = shown(terminal)
    assert "30 steps" in text and "0.97" in text and "move x 30" in text and "least sure of its outcome" in text and "0.70" in text
    assert "▁" in text and "▇" in text


def test_without_a_terminal_there_are_plain_lines(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("motorbabble.tracking.terminal.time.monotonic", lambda: now[0])
    out = io.StringIO()
    with Terminal("dot", SPACE, steps=100, console=Console(file=out, width=120)) as terminal:
        for i in range(30):
            now[0] += 1.0
            terminal(a_study(i + 1), 0.5)
    said = out.getvalue().splitlines()
    assert len(said) == 3 and all("prediction skill 0.50" in line for line in said)


def test_labels_are_shown_as_they_are():
    space = ActionSpace.discrete([{"action": 0}, {"action": 1}], labels=("[left]", "[/right]"))
    terminal = Terminal("dot", space, steps=10, console=Console(file=io.StringIO()))
    terminal(a_study(1), 0.5)
    terminal(a_step(0), 0.5)
    assert "[/right] x 1" in shown(terminal)


def test_sparklines_fit_and_rise():
    assert sparkline([], 10) == ""
    assert sparkline([0.0, 0.5, 1.0], 10) == "▁▅█"
    line = sparkline([i / 1000 for i in range(1000)], 40)
    assert len(line) == 40 and list(line) == sorted(line)
    assert sparkline([-3.0], 10) == "▁"
