"""The robot's side of a JetBot as processes: its motors stop whatever happens, and strangers reach nothing."""

import json
import math
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
import rpyc
from jetbot_clock import check_board, host
from jetbot_faults import FAULTS, FURTHER, LATEST, ORIGINAL, SERVER, Server, trial, trials
from jetbot_pythons import old_python

from motorbabble.errors import RobotError, RobotLost
from motorbabble.robots.rpyc_link import CallFailed, Link

# Stops, of real processes


@pytest.mark.parametrize("fault", [*FAULTS, *FURTHER], ids=lambda fault: fault.name)
def test_the_motors_stop(fault, folder):
    lasted = trials(fault, folder, 3 if fault in FAULTS else 1)
    assert max(lasted) <= LATEST, lasted


@pytest.mark.soak
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_motors_stop_every_time(fault, folder):
    lasted = trials(fault, folder, 20)
    assert max(lasted) <= LATEST, lasted


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.original], ids=lambda fault: fault.name)
def test_the_faults_are_noticed_in_the_original_design(fault, folder):
    with Server(folder, file=ORIGINAL) as server:
        assert trial(fault, server, driver="plain")[0] == math.inf


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.name in ("client frozen", "motor owner kill -9")], ids=lambda fault: fault.name)
def test_the_motors_stop_on_an_old_python(fault, folder):
    assert max(trials(fault, folder, 1, python=old_python())) <= LATEST


def test_a_plain_client_is_stopped_as_well(folder):
    frozen = next(fault for fault in FAULTS if fault.name == "client frozen")
    with Server(folder) as server:
        assert trial(frozen, server, driver="plain")[0] <= LATEST


def test_zero_stops_what_somebody_left_behind(folder):
    latch = folder / "latch"
    latch.write_bytes(struct.pack("=ddd", 1.0, 0.3, 0.3))
    assert subprocess.run([sys.executable, SERVER, "--fake", "--latch", latch, "--zero"], timeout=10).returncode == 0
    assert latch.read_bytes()[-16:] == bytes(16)


def test_the_server_begins_and_ends_at_zero(folder):
    with Server(folder) as server:
        assert server.values()[0][1:] == (0.0, 0.0)
        link = Link("127.0.0.1", server.port)
        link.call("set_motors", 0.1, 0.1)
        server.process.terminate()
        assert server.process.wait(3) == 0 and server.values()[-1][1:] == (0.0, 0.0)
        link.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill -9", "SIGTERM"])
def test_in_a_container_process_1_outlives_the_supervisor(folder, number):
    """The end of process 1 is the end of all others at once, also of a motor owner who had not noticed yet."""
    container = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if shutil.which("unshare") is None or subprocess.run([*container, "true"], capture_output=True).returncode:
        pytest.skip("NOT TRIED as process 1 of a container: this machine lets nobody make one (unshare --pid)")
    latch = folder / "latch"
    command = [*container, sys.executable, str(SERVER), "--fake", "--latch", str(latch), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        told = process.stdout.readline()
        assert "processes 2 3 4" in told, "its process 1 is another one"
        supervisor = child_of(child_of(process.pid))
        link = Link("127.0.0.1", int(told.split(":")[1].split(",")[0]))
        link.call("set_motors", 0.0, 0.1)
        os.kill(supervisor, number)
        assert process.wait(5) == (1 if number == signal.SIGKILL else 0)
        link.close()
    assert latch.read_bytes()[-16:] == bytes(16)


def child_of(process):
    return int(Path(f"/proc/{process}/task/{process}/children").read_text().split()[0])


# One driver, anybody's stop


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("jetbot")) as running:
        yield running


@pytest.fixture
def link(server):
    link = Link("127.0.0.1", server.port)
    link.call("rearm")
    yield link
    link.close()


def test_one_drives_and_anybody_stops(server, link):
    other = Link("127.0.0.1", server.port)
    link.call("drive", 0.0, 0.12, 3.0, time.monotonic())
    with pytest.raises(CallFailed, match="another client drives"):
        other.call("set_motors", 0.1, 0.1)
    with pytest.raises(CallFailed, match="another client drives"):
        other.call("drive", 0.0, 0.1, 0.2, time.monotonic())
    server.wait_until_moving()
    other.call("emergency_stop")
    assert not server.is_moving()
    with pytest.raises(CallFailed, match="rearm"):
        link.call("set_motors", 0.1, 0.1)
    other.call("rearm")
    assert link.call("set_motors", 0.1, 0.1) is True
    other.call("set_motors", 0.0, 0.0)
    assert not server.is_moving(), "zero is a stop, whoever says it"
    link.close()
    time.sleep(0.1)
    assert other.call("set_motors", 0.05, 0.0) is True, "who leaves lets go of the wheel"
    other.close()


def test_an_action_is_renewed_while_it_lasts_and_tells_how_it_ended(server, link):
    lease = link.call("drive", 0.0, 0.12, 1.0, time.monotonic())[0]
    assert link.call("renew", lease, time.monotonic()) is True and link.call("motion", lease)[0] == "moving"
    link.call("halt")
    assert link.call("renew", lease, time.monotonic()) is False and link.call("motion", lease)[0] == "stopped"
    assert link.call("motion", lease + 1)[0] == "unknown" and not server.is_moving()


@pytest.mark.parametrize("wrong", ["fast", None, b"x", math.nan, math.inf, -math.inf, True, 10**400, (1, 2)], ids=repr)
def test_a_speed_is_a_number(server, link, wrong):
    for values in ((wrong, 0.1), (0.1, wrong)):
        with pytest.raises(RobotError):
            link.call("set_motors", *values)
    with pytest.raises(RobotError):
        link.call("drive", 0.1, 0.1, wrong, time.monotonic())
    assert not server.is_moving()


def test_too_fast_is_clamped_and_too_late_is_refused(server, link):
    assert link.call("drive", -9.0, 9.0, 0.2, time.monotonic())[1:3] == (-0.25, 0.25)
    for sent in (time.monotonic() - 1.0, time.monotonic() + 1.0):
        with pytest.raises(CallFailed, match=r"sent -?1.0\d s before") as late:
            link.call("drive", 0.1, 0.1, 0.2, sent)
        assert late.value.kind == "TimeoutError"
    time.sleep(0.3)
    check_board(server.values())


def test_what_waited_in_a_silent_link_moves_nothing_when_it_comes(server, link):
    about = json.loads(link.call("info"))
    with pytest.raises(CallFailed, match="nothing moved"):
        link.call("drive", 0.1, 0.1, 0.2, about["now"] - 10.0)
    assert not server.is_moving()


def test_pictures_are_new_and_turn_with_the_wheel(server, link):
    number, captured, now, jpeg = link.call("get_frame", 0.0)
    assert jpeg[:2] == b"\xff\xd8" and 0 <= now - captured <= 0.5
    asked = time.monotonic()
    later, taken, *_ = link.call("get_frame", asked)
    assert taken > asked and later > number
    link.call("drive", 0.0, 0.12, 0.2, time.monotonic())
    time.sleep(0.3)
    assert link.call("get_frame", time.monotonic())[3] != jpeg


def test_a_camera_that_hangs_is_an_error_and_not_an_old_picture(folder):
    with Server(folder) as server:
        link = Link("127.0.0.1", server.port, timeout=1.5)
        Path(f"{server.latch}.hang").touch()
        time.sleep(0.6)
        for call in (("get_camera_frame",), ("get_frame", 0.0)):
            with pytest.raises(CallFailed, match="no new picture"):
                link.call(*call)
        with pytest.raises(CallFailed, match="blind"):
            link.call("set_motors", 0.1, 0.1)
        Path(f"{server.latch}.hang").unlink()
        time.sleep(0.1)
        assert link.call("set_motors", 0.1, 0.1) is True
        link.close()


# Strangers


def test_an_ordinary_client_can_use_it(server):
    connection = rpyc.connect("127.0.0.1", server.port)
    assert isinstance(connection.root.get_camera_frame(), str) and connection.root.set_motors(0.05, 0.0) is True
    connection.close()


def test_a_rogue_client_reaches_only_the_listed_calls(server):
    connection = rpyc.connect("127.0.0.1", server.port)
    root, reached = connection.root, set()
    names = {*dir(object), "NAMES", "on_connect", "on_disconnect", "_rpyc_getattr", "_connect", "__dict__", "__globals__", "__func__", "__self__"}
    names |= {"get_service_name", "exposed_body", "body", "orders", "__subclasses__", "__builtins__", "__code__", "__closure__", "__module__"}
    connection._config["sync_request_timeout"] = 5
    for name in sorted(names):
        with suppress(AttributeError):
            connection.sync_request(rpyc.core.consts.HANDLE_GETATTR, root, name)
            reached.add(name)
        call = root.get_camera_frame
        with suppress(AttributeError):
            connection.sync_request(rpyc.core.consts.HANDLE_GETATTR, call, name)
            reached.add(f"call.{name}")
    for name in ("set_motors", "exposed_set_motors", "new"):
        with pytest.raises(AttributeError):
            connection.sync_request(rpyc.core.consts.HANDLE_SETATTR, root, name, 1)
        with pytest.raises(AttributeError):
            connection.sync_request(rpyc.core.consts.HANDLE_DELATTR, root, name)
    with pytest.raises((ValueError, TypeError, AttributeError)):
        connection.sync_request(rpyc.core.consts.HANDLE_PICKLE, root, 2)
    assert reached == set()

    class Pretender(float):
        def __array__(self, *_):
            raise AssertionError("it was asked for more than its value")

    with pytest.raises(ValueError, match="a number is needed"):
        root.set_motors(Pretender(0.1), 0.1)
    connection.close()


@pytest.mark.parametrize(
    "flood", [struct.pack("!LB", 2**32 - 1, 0) + b"x" * 1000, None, b"GET / HTTP/1.0\r\n\r\n", b"\0"], ids=["4 GB", "bomb", "web", "slow"]
)
def test_floods_do_no_harm(server, flood):
    def memory():
        return int(Path(f"/proc/{server.front}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    bomb = zlib.compress(bytes(2**26))
    before = memory()
    with socket.create_connection(("127.0.0.1", server.port)) as stranger:
        stranger.sendall(flood or struct.pack("!LB", len(bomb), 1) + bomb + b"\n")
        time.sleep(0.2)
        link = Link("127.0.0.1", server.port)
        assert json.loads(link.call("info"))["protocol"] == 1
        link.close()
    assert memory() - before < 64 * 2**20


def test_a_network_needs_a_token(folder):
    refused = subprocess.run([sys.executable, SERVER, "--fake", "--host", "0.0.0.0"], capture_output=True, text=True, timeout=10)
    assert refused.returncode == 2 and "--token-file" in refused.stderr


def test_a_token_keeps_strangers_out_whom_it_lets_stop(folder):
    (folder / "token").write_text("a long random word\n")
    with Server(folder, "--host", "0.0.0.0", "--token-file", str(folder / "token")) as server:
        ours = Link("127.0.0.1", server.port, "a long random word")
        assert ours.call("set_motors", 0.1, 0.1) is True
        with pytest.raises(RobotLost, match="did not take the token"):
            Link("127.0.0.1", server.port, "another word")
        with pytest.raises(RobotLost, match="asks for a token"):
            Link("127.0.0.1", server.port)
        with socket.create_connection(("127.0.0.1", server.port), 2) as stranger:
            stranger.recv(200)
            stranger.sendall(b"stop\n")
            assert stranger.recv(200) == b""
        with pytest.raises(CallFailed, match="emergency stop"):
            ours.call("set_motors", 0.1, 0.1)
        ours.call("rearm")
        assert ours.call("set_motors", 0.1, 0.1) is True
        ours.close()


def test_a_token_nobody_asks_for_is_said(server):
    with pytest.raises(RobotLost, match="did not take the token"):
        Link("127.0.0.1", server.port, "a word")


def test_too_many_clients_are_turned_away(folder):
    with Server(folder) as server:
        links = [Link("127.0.0.1", server.port, legacy=False) for _ in range(host.CLIENTS)]
        with pytest.raises(RobotLost):
            Link("127.0.0.1", server.port, legacy=False)
        assert links[0].call("set_motors", 0.0, 0.0) is True
        for link in links:
            link.close()


def test_commands_from_many_threads_are_answered_one_by_one(server, link):
    failed = []

    def drives():
        try:
            for _ in range(50):
                assert link.call("set_motors", 0.1, -0.1) is True
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=drives) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    link.call("halt")
    check_board(server.values())
