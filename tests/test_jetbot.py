"""Our side of a JetBot: the exam, the plain server, old RPyC, and everything a server can answer that is no picture."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from exams import ROBOT_RULES
from jetbot_faults import ORIGINAL, ROOT, SERVER, Server
from jetbot_pythons import old_python
from jetbot_sentence import in_a_sentence

from motorbabble.errors import ActionError, ConfigurationError, RobotError, RobotLost
from motorbabble.life import live
from motorbabble.robots.jetbot import FakeJetBot, JetBotConfig, JetBotInterface, decoded, jetbot, server_file
from motorbabble.robots.rpyc_link import Link


class PlainJetBot(JetBotInterface):
    """With a server that has the two plain calls and nothing else."""

    def __init__(self, python: str = sys.executable):
        self.server = Server(Path(tempfile.mkdtemp()), python=python, file=ORIGINAL)
        super().__init__("127.0.0.1", self.server.port)

    def cleanup(self):
        super().cleanup()
        self.server.close()


@pytest.mark.parametrize("rule", ROBOT_RULES, ids=lambda rule: rule.__name__)
def test_with_a_plain_server_it_keeps_the_rule(rule):
    rule(PlainJetBot)


@contextmanager
def running(folder, python=sys.executable, *flags):
    with Server(folder, *flags, python=python) as server, JetBotInterface("127.0.0.1", server.port) as robot:
        yield server, robot


def test_what_it_can_do():
    with FakeJetBot() as robot:
        assert [dict(action) for action in robot.action_space.actions] == [
            {"motor_left": 0.0, "motor_right": speed, "duration": 0.2} for speed in (0.0, 0.12)
        ]
        assert robot.action_space.label(robot.action_space.actions[1]) == "forward" and robot.action_space.rest["motor_right"] == 0.0
        for beyond in (-0.12, 0.13, 1.0, float("nan")):
            with pytest.raises(ActionError):
                robot.execute_action({"motor_left": 0.0, "motor_right": beyond, "duration": 0.2})


def ramp(values):
    """The right motor's values from its first movement on, and when, in seconds."""
    first = next(i for i, value in enumerate(values) if any(value[1:]))
    return [round(right, 3) for _, _, right in values[first:]], [when - values[first][0] for when, *_ in values[first:]]


def test_an_action_rises_lasts_and_falls(folder):
    with running(folder) as (server, robot):
        begun = time.monotonic()
        assert robot.execute_action(robot.action_space.actions[1]) == robot.action_space.actions[1]
        assert 0.24 < time.monotonic() - begun < 0.5 and not server.is_moving(), "it waits until the wheel stands"
        values, moments = ramp(server.values())
        assert values == [0.03, 0.06, 0.09, 0.12, 0.09, 0.06, 0.03, 0.0]
        assert moments[4] == pytest.approx(0.2, abs=0.02), "timed on the robot"
        assert not any(left for _, left, _ in server.values())


def test_what_it_sees_follows_what_it_did(folder):
    with running(folder) as (_, robot):
        before = robot.get_observation()
        assert before.image.shape == (224, 224, 3) and before.encoded and np.array_equal(decoded(before.encoded), before.image)
        robot.execute_action(robot.action_space.actions[0])
        same = robot.get_observation()
        assert np.array_equal(same.image, before.image) and same.captured_ns > before.captured_ns and same.sequence == 1
        robot.execute_action(robot.action_space.actions[1])
        turned = robot.get_observation()
        assert np.abs(turned.image[:, :200].astype(int) - before.image[:, 24:][:, :200]).mean() < 1.0, "it turns by 24 pixels"
        assert abs(time.time_ns() - turned.captured_ns) < 1e9


def test_the_plain_server_is_used_and_what_it_cannot_is_said(folder):
    with PlainJetBot() as robot:
        assert not robot.remote.leased and "the wheels may turn on" in robot.describe() and "jetbot_server.py" in robot.describe()
        assert robot.execute_action(robot.action_space.actions[1]) == robot.action_space.actions[1]
        values, moments = ramp(robot.server.values())
        assert values == [0.03, 0.06, 0.09, 0.12, 0.09, 0.06, 0.03, 0.0]
        assert moments[4] == pytest.approx(0.2, abs=0.1)
    with FakeJetBot() as robot:
        assert "stops by itself" in robot.describe()


@pytest.mark.parametrize("plain", [False, True], ids=["our server", "plain server"])
def test_it_works_with_what_an_old_jetbot_has(folder, plain):
    python = old_python()
    with PlainJetBot(python) if plain else running(folder, python) as it:
        robot = it if plain else it[1]
        assert robot.remote.motors.legacy is True, "rpyc before 6 was recognised"
        first = robot.get_observation()
        assert robot.execute_action(robot.action_space.actions[1]) == robot.action_space.actions[1]
        assert not np.array_equal(robot.get_observation().image, first.image)


def test_a_life_with_it(folder):
    with running(folder) as (_, robot):
        steps = list(live(robot, lambda situation: situation.action_space.actions[situation.step % 2], steps=4))
        assert [step.executed["motor_right"] for step in steps] == [0.0, 0.12, 0.0, 0.12]


def test_a_longer_action_is_renewed(folder, monkeypatch):
    with running(folder) as (server, robot):
        assert robot._leased(0.0, 0.1, 0.5) == (0.0, 0.1)
        _, moments = ramp(server.values())
        assert moments[-1] == pytest.approx(0.545, abs=0.03)
        monkeypatch.setattr(robot.remote, "renew", lambda lease: True)  # none arrives
        with pytest.raises(RobotError, match="heard too late"):
            robot._leased(0.0, 0.1, 0.5)


def test_stop_from_another_thread_ends_an_action(folder):
    with running(folder) as (server, robot):
        failed = []

        def acts():
            try:
                robot._leased(0.0, 0.12, 3.0)
            except RobotError as error:
                failed.append(error)

        thread = threading.Thread(target=acts)
        thread.start()
        server.wait_until_moving()
        asked = time.monotonic()
        robot.stop()
        assert server.stopped_after(asked) < 0.05
        thread.join(2)
        assert "stopped" in str(failed[0])


def test_the_emergency_stop_outlives_a_client(folder):
    with Server(folder) as server:
        with JetBotInterface("127.0.0.1", server.port) as robot:
            robot.remote.emergency_stop()
            with pytest.raises(RobotError, match="emergency stop is pressed"):
                robot.execute_action(robot.action_space.actions[1])
        with JetBotInterface("127.0.0.1", server.port) as robot:
            with pytest.raises(RobotError, match="emergency stop is pressed"):
                robot.execute_action(robot.action_space.actions[1])
            robot.remote.rearm()
            robot.execute_action(robot.action_space.actions[1])


def test_a_clock_that_was_set_is_measured_again(folder):
    with running(folder) as (_, robot):
        robot.remote._ahead += 30.0  # as after a long sleep of this computer
        robot.execute_action(robot.action_space.actions[1])


# A link that fails


@pytest.mark.parametrize("plain", [False, True], ids=["our server", "plain server"])
@pytest.mark.parametrize("end", ["kill", "freeze"])
def test_a_lost_link_is_final(folder, end, plain):
    with Server(folder, file=ORIGINAL if plain else SERVER) as server:
        robot = JetBotInterface("127.0.0.1", server.port)
        robot.get_observation()
        os.kill(server.front, signal.SIGKILL if end == "kill" else signal.SIGSTOP)
        lost = in_a_sentence(lambda: robot.execute_action(robot.action_space.actions[1]), "did not answer", kind=RobotLost)
        assert lost.exit_code == 3
        begun = time.monotonic()
        for act in (robot.get_observation, lambda: robot.execute_action(robot.action_space.actions[0])):
            assert str(in_a_sentence(act, kind=RobotLost)) == str(lost), "a connection that failed is not used again"
        robot.stop()
        robot.cleanup()
        assert time.monotonic() - begun < 1.0, "nor waited for"


def test_a_lost_robot_ends_a_life_that_is_kept(folder):
    import motorbabble
    from motorbabble.learning.checkpoint import newest_in
    from motorbabble.memory import MemoryConfig
    from motorbabble.recording.reader import RecordingReader

    memory = MemoryConfig(folder / "checkpoints" / "jetbot" / "one", folder / "sessions")
    with running(folder) as (server, robot):
        run = motorbabble.learn(robot, steps=50, seed=0, image_size=(32, 32), patch_size=8, memory=memory)
        done = []
        with pytest.raises(RobotLost, match="did not answer") as lost:
            for event in run:
                if isinstance(event, motorbabble.Step):
                    done.append(event)
                    if len(done) == 3:
                        os.kill(server.front, signal.SIGKILL)
        assert lost.value.exit_code == 3 and len(done) == 3
    assert newest_in(folder / "checkpoints" / "jetbot") == "one", "what was learned was saved"
    (meta,) = (folder / "sessions").glob("*/session_meta.json")
    reader = RecordingReader(meta.parent)
    assert len(reader) >= 3 and reader.meta.state == "closed" and not reader.damaged(), "and the session is whole"


def test_a_link_that_dies_while_it_acts_stops_the_plain_robot_by_another(folder):
    with PlainJetBot() as robot:
        threading.Timer(0.1, robot.remote.motors._socket.shutdown, [socket.SHUT_RDWR]).start()
        in_a_sentence(lambda: robot.execute_action(robot.action_space.actions[1]), "did not answer set_motors", kind=RobotLost)
        time.sleep(0.1)
        assert not robot.server.is_moving()


def test_a_frozen_camera_is_noticed_by_its_age(folder):
    with running(folder) as (server, robot):
        robot.get_observation()
        Path(f"{server.latch}.hang").touch()
        time.sleep(0.3)
        in_a_sentence(lambda: robot.execute_action(robot.action_space.actions[1]), "blind")
        time.sleep(0.3)
        in_a_sentence(robot.get_observation, "no new picture")


def test_nobody_there():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    in_a_sentence(lambda: JetBotInterface("127.0.0.1", port), "nobody answers", "connection refused", kind=RobotLost)
    in_a_sentence(lambda: JetBotInterface("no such host.invalid", port), "nobody answers", kind=RobotLost)


def test_a_host_that_cannot_be_reached():
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:  # whose queue is full: like cables that are cut
        waiting = []
        for _ in range(4):
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(full.getsockname())
        time.sleep(0.05)
        in_a_sentence(lambda: JetBotInterface("127.0.0.1", full.getsockname()[1]), "nobody answers", "no answer in time", kind=RobotLost)
        for one in waiting:
            one.close()


def test_settings(tmp_path):
    for port in (0, 70000):
        with pytest.raises(ConfigurationError, match="18861"):
            JetBotConfig(port=port)
    (tmp_path / "token").write_text(" word\n")
    assert JetBotConfig(token_file=tmp_path / "token").token() == "word"
    with pytest.raises(ConfigurationError, match="cannot be read"):
        JetBotConfig(token_file=tmp_path / "none").token()
    with jetbot(JetBotConfig(fake=True), seed=1) as robot:
        assert robot.robot_type == "jetbot_fake"
    assert server_file().is_file()


def test_a_server_that_allows_too_little_is_refused(folder):
    with Server(folder, "--limit", "0.1") as server, pytest.raises(ConfigurationError, match=r"--limit 0\.12"):
        JetBotInterface("127.0.0.1", server.port)


def test_a_stand_in_ends_with_who_started_it(folder):
    code = "import os; from motorbabble.robots.jetbot import FakeJetBot; robot = FakeJetBot(); print(robot.process.pid, flush=True); os._exit(1)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, cwd=ROOT)
    late = time.monotonic() + 3
    while Path(f"/proc/{int(done.stdout)}/stat").exists() and Path(f"/proc/{int(done.stdout)}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < late
        time.sleep(0.02)


def test_without_rpyc_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "rpyc", None)
    monkeypatch.setitem(sys.modules, "rpyc.core", None)
    for act in (lambda: Link("127.0.0.1", 1), FakeJetBot):
        with pytest.raises(ConfigurationError, match=r"motorbabble\[jetbot\]"):
            act()
