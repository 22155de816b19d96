"""The scripts in examples/, each run as a person without a robot would, with as few steps as it takes."""

import os
import re
import runpy
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from jetbot_faults import Server

from motorbabble.recording.reader import RecordingReader
from motorbabble.recording.shelf import find_sessions

EXAMPLES = Path(__file__).parent.parent / "examples"
QUICK = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg", "JETBOT_TOKEN": "", "PYTHONWARNINGS": "error"}


def command(script: str, *flags: str) -> list[str]:
    return [sys.executable, str(EXAMPLES / script), *flags]


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a script as `python` does, in this process, which has imported everything long ago; tells what it says.

    Nobody sits at the keyboard, unless there are `answers`; an example leaves nothing on stderr.
    """
    monkeypatch.setenv("JETBOT_TOKEN", "")

    def script(folder: Path, name: str, *flags: str, answers: str = "", code: int = 0) -> str:
        monkeypatch.chdir(folder)
        monkeypatch.setattr("sys.argv", [str(EXAMPLES / name), *flags])
        monkeypatch.setattr("sys.stdin", StringIO(answers))
        capsys.readouterr()
        ended: Any = 0
        try:
            runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        except SystemExit as end:
            ended = end.code or 0
        told = capsys.readouterr()
        assert ended == code, told.out + told.err
        assert code or not told.err, told.err
        return told.out + told.err

    return script


def recorded(folder: Path, robot_type: str) -> list[RecordingReader]:
    return [RecordingReader(session) for session in find_sessions([f"{robot_type}/all"], folder / "saved" / "sessions")]


@contextmanager
def started(folder: Path, script: str, *flags: str, **more: str):
    process = subprocess.Popen(
        command(script, *flags), cwd=folder, env={**QUICK, **more}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_the_live_feed_tells_of_a_stand_in(tmp_path, run):
    told = run(tmp_path, "jetbot_remote_client.py", "--fake", "--headless", "--seconds", "1.5")
    assert "pictures/s" in told and "stand-in" in told


def test_a_jetbot_learns_and_goes_on_where_it_was(tmp_path, run):
    assert "Steps lived: 1." in run(tmp_path, "jetbot_world_model_example.py", "--fake", "--auto", "--steps", "1")
    told = run(tmp_path, "jetbot_world_model_example.py", "--fake", "--steps", "2", answers="forward\nnonsense\nstop\n")
    assert "It goes on where it was saved" in told and "'nonsense' is no action" in told and "Steps lived: 2." in told
    first, second = recorded(tmp_path, "jetbot_fake")
    assert second.event(0).executed["motor_right"] == 0.12 and first.event(0).index == 0


def test_ctrl_c_stops_a_jetbot_at_once(tmp_path):
    with Server(tmp_path) as server, started(tmp_path, "jetbot_world_model_example.py", "--port", str(server.port), "--auto") as process:
        server.wait_until_moving(60)
        pressed = time.monotonic()
        process.send_signal(signal.SIGINT)
        told, _ = process.communicate(timeout=60)
        assert process.returncode == 130 and "stopped by Ctrl+C" in told and "Traceback" not in told, told
        assert server.stopped_after(pressed) < 0.3


def test_without_a_robot_it_says_so_in_a_sentence(tmp_path, run):
    for script in ("jetbot_world_model_example.py", "jetbot_remote_client.py"):
        flags = ["--headless"] if "client" in script else []
        told = run(tmp_path, script, "--port", "9", *flags, code=3)
        assert told.startswith(f"{script}: nobody answers at 127.0.0.1:9") and told.count("\n") == 1


def test_the_main_loop_is_tried_without_a_robot(tmp_path, run):
    told = run(tmp_path, "autoencoder_latent_predictor_world_model.py", "--steps", "2", answers="\n4\n")
    assert "update 1: loss" in told and "step 1: a person chose it" in told
    assert (tmp_path / "saved/cards/stub/main_loop/view.png").is_file() and not (tmp_path / "saved/checkpoints").exists()


@pytest.mark.parametrize("flags", [[], ["--curious"]], ids=["always move", "curious"])
def test_the_dot_learns(tmp_path, flags, run):
    run(tmp_path, "toroidal_dot_world_model_example.py", "--steps", "2", *flags)
    (session,) = recorded(tmp_path, "toroidal_dot")
    assert flags or [session.event(i).executed["action"] for i in range(2)] == [1.0, 1.0]
    assert (tmp_path / "saved/checkpoints/toroidal_dot/example").is_dir()


def test_the_dot_acts_by_a_script_and_is_replayed(tmp_path, run):
    assert "there is no session" in run(tmp_path, "replay_session_example.py", code=1)
    flags = ("--sequence", "double_move", "--steps", "3", "--delay", "0", "--record", "--display")
    told = run(tmp_path, "toroidal_dot_runner_example.py", *flags)
    assert "count/move                      2" in told and (tmp_path / "saved/cards/toroidal_dot/runner/view.png").is_file()
    (session,) = recorded(tmp_path, "toroidal_dot")
    assert [event.executed["action"] for event in list(session.events())[:3]] == [1.0, 1.0, 0.0]
    told = run(tmp_path, "replay_session_example.py", "--filter-action", "action=0")
    assert "toroidal_dot: " in told and "steps lived: 1," in told and (tmp_path / "saved/checkpoints/toroidal_dot/replay").is_dir()


@pytest.mark.parametrize("script", ["session_explorer_gradio.py", "concat_world_model_explorer_gradio.py"])
def test_the_explorer_opens_on_this_machine(tmp_path, script):
    pytest.importorskip("gradio", reason="the explorer is opened where the extra explorer is installed")
    with started(tmp_path, script, "--port", "0", PYTHONUNBUFFERED="1", PYTHONWARNINGS="") as process:
        told = ""
        while "Open http://127.0.0.1:" not in told:
            line = process.stdout.readline()
            assert line, told
            told += line
        page = re.search(r"http://127\.0\.0\.1:\d+/", told)[0]
        assert "motorbabble" in patiently(page)
        process.send_signal(signal.SIGINT)
        told, _ = process.communicate(timeout=60)
        assert process.returncode == 130 and "Traceback" not in told, told


def patiently(page: str) -> str:
    """The page, as soon as it is served."""
    late = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(page, timeout=30) as answer:
                return answer.read().decode()
        except OSError:
            assert time.monotonic() < late, "it never answered"
            time.sleep(0.2)


def test_every_example_is_run_here_and_tells_what_to_expect():
    said = Path(__file__).read_text()
    for script in EXAMPLES.glob("*.py"):
        text = script.read_text()
        assert f'"{script.name}"' in said, f"{script.name} is not run in this file"
        assert text.startswith('"""') and f"python examples/{script.name}" in text.split('"""')[1] and f'sentences("{script.name}")' in text
