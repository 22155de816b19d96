"""The command line as a new user meets it: in a process of its own, where that is the point."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from motorbabble.cli import COMMANDS, main
from motorbabble.recording.reader import RecordingReader

ROOT = Path(__file__).parent.parent


def babble(*words: str, folder: Path = ROOT, timeout: float = 300) -> subprocess.CompletedProcess:
    settings = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error", "COLUMNS": "120"}
    return subprocess.run([sys.executable, "-m", "motorbabble", *words], cwd=folder, env=settings, capture_output=True, text=True, timeout=timeout)


def test_help_names_every_command_quickly():
    seconds = []
    for _ in range(3):
        began = time.monotonic()
        done = babble("--help")
        seconds.append(time.monotonic() - began)
        assert done.returncode == 0
    assert all(f"babble {name}" in done.stdout for name in COMMANDS)
    assert min(seconds) < 1.5, "far above the half second that benchmarks/speed.py measures on an idle machine"


def test_a_short_demo_ends_with_a_card(tmp_path, here):
    """`make demo`, shortened: learns, says what it learned, and leaves a page and its numbers."""
    done = here("demo", "--steps", "10", "--seconds", "600", "--exam-steps", "8", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    page = tmp_path / "toroidal_dot" / "dot-demo-seed0" / "card.html"
    assert str(page) in done.stdout.replace("\n", "")
    assert "8 steps it will not learn from" in done.stdout
    card = json.loads((page.parent / "card.json").read_text())
    assert card["trials"] == 7 and card["lived_steps"] == 10
    assert "<html" in page.read_text() and "http" not in page.read_text().replace("http://www.w3.org", "")
    lines = [json.loads(line) for line in (page.parent / "metrics.jsonl").read_text().splitlines()]
    assert lines and {"step", "training_step", "reconstruction_loss", "predictor_latent_loss", "predictor_lr"} <= set(lines[0])


def test_a_script_runs_without_learning_and_is_recorded(tmp_path, here):
    done = babble("run", "toroidal_dot_runner", "--steps", "6", "--sequence", "double_move", folder=tmp_path)
    assert done.returncode == 0 and "count/move" in done.stdout and "torch" not in done.stderr
    (session,) = (tmp_path / "saved" / "sessions" / "toroidal_dot").glob("session_*")
    assert len(RecordingReader(session)) == 7 and str(session.relative_to(tmp_path)) in done.stdout
    here("run", "toroidal_dot_runner", "--steps", "2", "--no-record")
    assert len(list(session.parent.glob("session_*"))) == 1


SMALL = ("--robot.image-size", "32", "--robot.dot-radius", "2", "--robot.move-pixels", "5", "--model.patch-size", "8", "--exam-steps", "6")


def test_a_life_is_killed_resumed_interrupted_replayed_and_looked_at(tmp_path, here):
    command = [sys.executable, "-m", "motorbabble", "run", "toroidal_dot_latent", *SMALL, "--steps", "4000", "--gate.max-updates", "1"]
    command = [word.replace("--gate", "--learner.gate") for word in command]
    settings = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error", "COLUMNS": "200"}
    sessions = tmp_path / "saved" / "sessions" / "toroidal_dot"

    def lived_and_ended(with_signal: int) -> subprocess.CompletedProcess:
        before = set(sessions.glob("session_*"))
        life = subprocess.Popen(command, cwd=tmp_path, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        until = time.monotonic() + 120
        while time.monotonic() < until and life.poll() is None:
            new = set(sessions.glob("session_*")) - before
            if new and len(RecordingReader(new.pop())) >= 4:
                break
            time.sleep(0.05)
        life.send_signal(with_signal)
        said, wrong = life.communicate(timeout=60)
        return subprocess.CompletedProcess(command, life.returncode, said, wrong)

    killed = lived_and_ended(signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    stopped = lived_and_ended(signal.SIGINT)
    assert stopped.returncode == 128 + signal.SIGINT and "Traceback" not in stopped.stderr, stopped.stderr
    assert "first learns from what was recorded after that" in stopped.stdout and "The robot is at rest" in stopped.stdout
    finished = here("run", "toroidal_dot_latent", *SMALL, "--steps", "2")
    assert finished.returncode == 0 and "It goes on where it was saved" in finished.stdout, finished.stderr
    readers = [RecordingReader(folder) for folder in sessions.glob("session_*")]
    lived = sum(reader.moment(number).is_step for reader in readers for number in range(len(reader)))
    listed = here("checkpoints", "list")
    assert "toroidal_dot_latent" in listed.stdout and f" {lived} " in listed.stdout, "every recorded step counts"
    shown = here("checkpoints", "show", "toroidal_dot_latent")
    assert shown.returncode == 0 and "whole" in shown.stdout and "autoencoder.width" in shown.stdout
    names = sorted(folder.name for folder in sessions.glob("session_*"))
    again = here("replay", *names, "--filter", "stay")
    assert again.returncode == 0 and "It goes on where it was saved" in again.stdout, again.stderr
    round_and_round = here("replay", names[0], "--loop", "--patience", "1", "--name", "loop", "--learner.schedule.learning-rate", "1e-9")
    assert round_and_round.returncode == 0 and "brought nothing more" in round_and_round.stdout, "nothing is learned at this rate, so it ends"
    other = here("run", "toroidal_dot_latent", *SMALL[:-2], "--model.preset", "base")
    assert other.returncode == 2 and "autoencoder.width: 128 there, 256 here" in other.stderr
    fresh = here("run", "toroidal_dot_latent", *SMALL, "--steps", "3", "--fresh")
    assert fresh.returncode == 0 and "is now" in fresh.stdout and "It starts from random weights" in fresh.stdout


def test_a_life_that_ends_by_the_clock_is_examined_all_the_same(here):
    done = here("run", "toroidal_dot_latent", *SMALL, "--seconds", "1", "--no-record")
    assert done.returncode == 0 and "card.html" in done.stdout.replace("\n", ""), done.stderr


def test_recipes_and_robots_are_listed(here):
    assert "bodies_latent" in here("recipes").stdout
    assert "stay, move" in here("robots").stdout
    checked = here("robots", "check").stdout
    assert checked.count("20 times") == checked.count(" sees ") - checked.count("tries it") >= 3  # what a person or a board has to act for


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ([], 2, ""),
        (["fly"], 2, "no command 'fly'"),
        (["run"], 2, ""),
        (["run", "nothing"], 2, "no recipe 'nothing'"),
        (["run", "toroidal_dot_latent", "--model.patch-size", "15"], 2, "patch size 15 does not divide"),
        (["run", "toroidal_dot_latent", "--steps", "0"], 2, "steps is 0"),
        (["run", "toroidal_dot_latent", "--steps", "-1"], 2, "steps is -1"),
        (["run", "toroidal_dot_runner", "--robot.dot-radius", "-1"], 2, "radius"),
        (["run", "toroidal_dot_runner", "--steps", "-3"], 2, "steps is -3"),
        (["run", "toroidal_dot_latent", "--exam-steps", "0"], 2, "exam_steps is 0"),
        (["run", "toroidal_dot_latent", "--out", "/dev/null/cards"], 1, "choose a folder that can be written"),
        (["robots", "fly"], 2, "babble robots list"),
        (["replay"], 2, "no session was named"),
        (["replay", "nothing_of_this_name"], 1, "no session"),
        (["checkpoints", "fly"], 2, "babble checkpoints list"),
        (["checkpoints", "show", "nothing"], 2, "no checkpoint 'nothing'"),
        (["run", "toroidal_dot_latent", "--name", "../x"], 1, "no session name"),
        (["run", "toroidal_dot_runner", "--max-disk-gb", "0"], 2, "--no-record"),
        (["demo", "--stepz", "3"], 2, "stepz"),
    ],
)
def test_mistakes_end_in_a_sentence_and_an_exit_code(words, code, says, here):
    done = here(*words)
    assert done.returncode == code, done.stderr
    assert says in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_a_world_is_chosen_by_its_seed(here):
    done = here("run", "bodies_latent", "--robot.seed", "2", "--steps", "1", "--exam-steps", "2", "--help")
    assert done.returncode == 0 and "--robot.seed" in done.stdout and "{" not in done.stdout.split("--robot.seed")[1][:20]


def test_debug_shows_where_it_happened(capsys):
    from motorbabble.errors import ConfigurationError

    with pytest.raises(ConfigurationError):
        main(["run", "nothing", "--debug"])
    with pytest.raises(SystemExit) as end:
        main(["run", "nothing"])
    assert end.value.code == 2


def test_every_recipe_lists_its_settings(capsys):
    from motorbabble.recipes import ABOUT, RECIPES

    assert set(ABOUT) == set(RECIPES)
    for name in RECIPES:
        with pytest.raises(SystemExit) as end:
            main(["run", name, "--help"])
        told = capsys.readouterr().out
        assert not end.value.code and "--seed" in told and "default" in told
