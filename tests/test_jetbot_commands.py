"""A JetBot on the command line, without one: run, feed, robots check."""

import os
import signal
import subprocess
import sys
import time
import types

import numpy as np
import pytest
from jetbot_faults import Server
from test_cli import ROOT

from motorbabble.commands import feed, robots
from motorbabble.errors import ConfigurationError, RobotError, RobotLost
from motorbabble.experience import Step
from motorbabble.learning.checkpoint import Checkpoints
from motorbabble.recording.reader import RecordingReader
from motorbabble.robots.jetbot import FakeJetBot


def test_a_stand_in_learns_is_recorded_and_gets_a_card(tmp_path, here):
    small = ("--model.image-size", "32", "32", "--model.patch-size", "8", "--steps", "4", "--exam-steps", "4")
    done = here("run", "jetbot_latent", "--robot.fake", *small)
    assert done.returncode == 0, done.stderr
    assert "stops by itself" in done.stdout and (tmp_path / "saved/cards/jetbot_fake/jetbot_latent-seed0/card.html").is_file()
    (session,) = (tmp_path / "saved" / "sessions" / "jetbot_fake").glob("session_*")
    assert len(RecordingReader(session)) == 5 and RecordingReader(session).action_space.label({"motor_left": 0, "motor_right": 0.12, "duration": 0.2})


def test_a_robot_that_is_lost_ends_the_run_with_exit_code_3(tmp_path):
    with Server(tmp_path) as server:
        words = ["run", "jetbot_runner", "--robot.port", str(server.port), "--steps", "500"]
        run = subprocess.Popen(
            [sys.executable, "-m", "motorbabble", *words],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        server.wait_until_moving(60)
        os.kill(server.front, signal.SIGKILL)
        _, said = run.communicate(timeout=30)
    assert run.returncode == 3 and said.count("\n") == 1 and "the robot at 127.0.0.1" in said
    (session,) = (tmp_path / "saved" / "sessions" / "jetbot").glob("session_*")
    assert RecordingReader(session).meta.state == "closed"


SMALL = ("--model.image-size", "32", "32", "--model.patch-size", "8")


def test_a_robot_that_is_lost_while_it_learns_loses_no_step(tmp_path, here):
    """kill -9 of its server in the middle: exit code 3, one sentence, a closed session, a save of the last step; the next run goes on from it."""
    checkpoints, sessions = tmp_path / "saved" / "checkpoints" / "jetbot" / "jetbot_latent", tmp_path / "saved" / "sessions" / "jetbot"
    words = ["run", "jetbot_latent", *SMALL, "--steps", "400"]
    with Server(tmp_path) as server:
        run = subprocess.Popen(
            [sys.executable, "-m", "motorbabble", *words, "--robot.port", str(server.port)],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        late = time.monotonic() + 120
        while len(server.values()) < 30:  # some actions
            assert time.monotonic() < late and run.poll() is None
            time.sleep(0.02)
        os.kill(server.front, signal.SIGKILL)
        _, said = run.communicate(timeout=60)
        assert server.stopped_after(time.monotonic()) == 0.0
    assert run.returncode == 3 and said.count("\n") == 1 and "the robot at 127.0.0.1" in said and "Traceback" not in said
    (session,) = sessions.glob("session_*")
    first, saved = RecordingReader(session), Checkpoints(checkpoints).load()
    assert saved and first.meta.state == "closed" and not first.damaged() and len(first) >= 3
    assert saved.state["run"]["steps_done"] == len(first), "saved at its last step"
    with Server(tmp_path) as server:
        again = here(*words[:-1], "2", "--exam-steps", "2", "--robot.port", str(server.port))
    assert again.returncode == 0, again.stderr
    assert f"updates and {len(first)} steps." in " ".join(again.stdout.split()), "and it does not live it again"
    (second,) = set(sessions.glob("session_*")) - {session}
    steps = [event.index for event in RecordingReader(second).events() if isinstance(event, Step)]
    assert steps == [len(first), len(first) + 1]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["run", "jetbot_latent", "--robot.port", "1"], 3, "nobody answers at 127.0.0.1:1"),
        (["run", "jetbot_latent", "--robot.port", "0"], 2, "18861"),
        (["feed"], 2, "babble feed jetbot"),
        (["feed", "toaster"], 2, "babble feed jetbot"),
        (["feed", "jetbot", "--headless", "--seconds", "-1"], 2, "seconds is -1"),
        (["feed", "jetbot", "--headless", "--robot.port", "1"], 3, "nobody answers"),
        (["robots", "check", "toaster"], 2, "no robot or recipe 'toaster'"),
        (["robots", "check", "jetbot", "--robot.port", "1"], 3, "nobody answers"),
    ],
)
def test_mistakes_end_in_a_sentence_and_an_exit_code(words, code, says, here):
    done = here(*words)
    assert done.returncode == code and says in done.stderr and "Traceback" not in done.stderr


def test_a_robot_is_checked_gently(capsys):
    robots.robots(["check", "jetbot", "--robot.fake"])
    said = capsys.readouterr().out
    assert all(
        part in said for part in ("wheels in the air", "a look", "age of a picture", "action forward", "stop, until it answered", "refuses to act")
    )
    robots.robots(["check", "stub"])
    assert "wheels in the air" not in capsys.readouterr().out, "a simulated robot has none"


def test_a_robot_that_does_not_stop_fails_the_check(monkeypatch, capsys):
    class Deaf(FakeJetBot):
        def stop(self):
            pass

    monkeypatch.setattr(robots, "robot_from", lambda config, seed: Deaf(seed))
    with pytest.raises(RobotError, match="acted after it was stopped"):
        robots.robots(["check", "jetbot"])


def test_a_feed_tells_rate_age_and_latency(capsys):
    feed.feed(["jetbot", "--robot.fake", "--headless", "--seconds", "2.2"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    rate, age = float(lines[0].split()[0]), float(lines[0].split("age")[1].split()[0])
    assert 5 < rate < 40 and age < 300


def fake_opencv(keys, shown):
    """As much of OpenCV as a window needs; q is pressed at last."""
    window = types.SimpleNamespace(error=RuntimeError, WND_PROP_VISIBLE=4, closed=0)
    window.namedWindow = lambda title: shown.append(title)
    window.imshow = lambda title, image: shown.append(image)
    window.waitKey = lambda ms: keys.pop(0)
    window.getWindowProperty = lambda title, what: 1.0
    window.destroyAllWindows = lambda: setattr(window, "closed", window.closed + 1)
    return window


def test_a_window_shows_the_picture_until_q(monkeypatch):
    shown: list = []
    window = fake_opencv([-1, ord("x"), ord("q")], shown)
    monkeypatch.setitem(sys.modules, "cv2", window)
    with FakeJetBot() as robot:
        expected = robot.get_observation().image
    feed.feed(["jetbot", "--robot.fake"])
    assert shown[0] == "JetBot Live Feed" and len(shown) == 4 and window.closed == 1
    assert np.array_equal(shown[1][..., ::-1], expected), "OpenCV takes BGR"


def test_without_a_window_it_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ConfigurationError, match="--headless"):
        feed.feed(["jetbot", "--robot.fake"])

    def refuses(title):
        raise RuntimeError("no display")

    window = fake_opencv([], [])
    window.namedWindow = refuses
    monkeypatch.setitem(sys.modules, "cv2", window)
    with pytest.raises(ConfigurationError, match="--headless"):
        feed.feed(["jetbot", "--robot.fake"])


def test_a_feed_ends_with_the_robot():
    class Gone(FakeJetBot):
        def get_observation(self):
            raise RobotLost("gone")

    with Gone() as robot, pytest.raises(RobotLost):
        feed.watch(robot, lambda seen: True, False, None)
