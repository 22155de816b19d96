"""Watching a life: metrics to a file, and a panel that a person reads."""

import io
import json

import numpy as np
from rich.console import Console

from motorbabble.experience import ActionSpace, Choice, Observation, Step, Study
from motorbabble.tracking import JsonlTracker, Terminal, metrics_of, sparkline

SPACE = ActionSpace.discrete([{"action": 0}, {"action": 1}], labels=("stay", "move"))
LOSSES = {"total": 1.0, "reconstruction": 0.5, "patch": 0.4, "latent": 0.3, "action": 0.2, "fresh_error": 0.1, "reconstruction_skill": 0.7}


def a_step(index: int) -> Step:
    choice = Choice({"action": 1}, why="least sure of its outcome")
    return Step(index, Observation(np.zeros((4, 4, 3), np.uint8)), {"action": 1}, {"action": 1}, choice, 0, 1)


def a_study(update: int) -> Study:
    return Study(update, LOSSES, "passed", 0.5 * update, 4 * update)


def test_losses_go_by_the_missions_names():
    named = metrics_of(a_study(3))
    assert named["predictor_patch_loss"] == 0.4 and named["predictor_latent_loss"] == 0.3 and named["predictor_action_loss"] == 0.2
    assert named["reconstruction_loss"] == 0.5 and named["prediction_errors/level_0"] == 0.1 and named["predictor_training_loss"] == 1.0
    assert named["training_step"] == 3


def test_lines_are_throttled_and_there_at_once(tmp_path):
    with JsonlTracker(tmp_path / "deep" / "metrics.jsonl", log_interval=5) as tracker:
        for i in range(1, 13):
            tracker(a_study(i))
            tracker(a_step(i - 1))
        lines = [json.loads(line) for line in tracker.path.read_text().splitlines()]  # read before it is closed
    assert [line["training_step"] for line in lines] == [5, 10]
    assert [line["step"] for line in lines] == [4, 9]


def test_what_is_not_finite_is_null_and_always_logged(tmp_path):
    with JsonlTracker(tmp_path / "metrics.jsonl", log_interval=1000) as tracker:
        tracker(Study(3, {"total": float("nan")}, "diverged", 1.0))
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert line["predictor_training_loss"] is None and line["gate"] == "diverged"


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
    monkeypatch.setattr("motorbabble.tracking.time.monotonic", lambda: now[0])
    out = io.StringIO()
    with Terminal("dot", SPACE, steps=100, console=Console(file=out, width=120)) as terminal:
        for i in range(30):
            now[0] += 1.0
            terminal(a_study(i + 1), 0.5)
    lines = out.getvalue().splitlines()
    assert len(lines) == 3 and all("prediction skill 0.50" in line for line in lines)


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
