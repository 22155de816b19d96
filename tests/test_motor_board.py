"""A motor board over HTTP: what it is told, what it may answer, and the one of docs/webcam.md, which stops by itself."""

import re
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from test_documents import ROOT, blocks
from test_webcam import SMALL, Turning

from motorbabble.commands import feed
from motorbabble.errors import ConfigurationError, RobotError, RobotLost
from motorbabble.life import live
from motorbabble.robots import motor_board
from motorbabble.robots.motor_board import MotorBoard
from motorbabble.robots.webcam import WebcamConfig, WebcamRobot
from motorbabble.selectors import RandomSelector


class Answers(BaseHTTPRequestHandler):
    """A board that answers as `how` says, and remembers what it was told."""

    def do_POST(self):
        self.server.told.append(self.path)
        how = self.server.how
        left, right = re.findall(r"(?:left|right)=(-?[\d.]+)", self.path)
        body, status = f'{{"left": {left}, "right": {right}}}', 200
        if self.path.startswith("/drive?left=0&right=0&seconds=0") and self.server.kind_to_zero:
            how = ""
        if how == "500":
            status = 500
        elif how == "redirect":
            status = 302
        elif how == "slow":
            self.server.over.wait(10)
        elif how == "html":
            body = "<html>Welcome to my router</html>"
        elif how == "faster":
            body = '{"left": 1, "right": 1}'
        elif how == "one faster":
            body = f'{{"left": {left}, "right": 1}}'
        elif how == "nan":
            body = '{"left": NaN, "right": 0}'
        elif how == "word":
            body = '{"left": true, "right": "0"}'
        elif how == "huge":
            body = " " * 10**6 + body
        elif how == "nested":
            body = "[" * 4000
        if how == "drips":
            for _ in range(100):
                self.wfile.write(b"H")
                if self.server.over.wait(0.1):
                    return
        self.send_response(status)
        if how == "redirect":
            self.send_header("Location", self.server.elsewhere)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(OSError):  # whoever asked has gone
            self.wfile.write(body.encode())

    def log_message(self, *words):
        pass


@pytest.fixture
def board():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.daemon_threads = True
    server.handle_error = lambda request, address: None
    server.told, server.how, server.kind_to_zero, server.over = [], "", False, threading.Event()
    server.url = f"http://127.0.0.1:{server.server_port}"
    server.elsewhere = server.url + "/drive?left=0&right=0&seconds=9"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()


def driven(board, eye=Turning, **settings):
    return WebcamRobot(WebcamConfig(board=board.url, **SMALL, **settings), opens=eye)


def test_a_board_is_told_each_action_with_its_end_and_then_to_stand(board):
    with driven(board) as robot:
        assert "stops by itself" in robot.describe() and robot.action_space.labels == ("stay", "left", "right")
        assert robot.execute_action(robot.action_space.actions[1]) == {"motor_left": -0.4, "motor_right": 0.4, "duration": 0.02}
        zero = "/drive?left=0&right=0&seconds=0"
        assert board.told == [zero, "/drive?left=-0.4&right=0.4&seconds=0.02", zero]
    assert set(board.told[3:]) == {zero}


@pytest.mark.parametrize("kind_to_zero", [False, True], ids=["at once", "later"])
@pytest.mark.parametrize(
    ("how", "kind", "says"),
    [
        ("500", RobotError, "status 500"),
        ("redirect", RobotError, "another address"),
        ("slow", RobotLost, "did not answer within 1.2 s"),
        ("drips", RobotLost, "did not answer within 1.2 s"),
        ("html", RobotError, "instead of its two speeds"),
        ("faster", RobotError, "drives at 1 and 1 instead of"),
        ("one faster", RobotError, "and 1 instead of"),
        ("nan", RobotError, "instead of its two speeds"),
        ("word", RobotError, "instead of its two speeds"),
        ("huge", RobotError, "instead of its two speeds"),
        ("nested", RobotError, "instead of its two speeds"),
    ],
)
def test_a_board_that_answers_nonsense_is_told_in_a_sentence(board, how, kind, says, kind_to_zero):
    board.how, board.kind_to_zero = how, kind_to_zero
    began = time.monotonic()
    with pytest.raises(kind) as error:
        robot = driven(board)
        began = time.monotonic()
        robot.execute_action(robot.action_space.actions[2])
    assert time.monotonic() - began < 3 and says in str(error.value) and ";" in str(error.value) and "\n" not in str(error.value)
    assert not any("seconds=9" in path for path in board.told), "no redirect is followed"
    if kind_to_zero:
        assert board.told[-1] == "/drive?left=0&right=0&seconds=0", "it was told to stop"
        robot.cleanup()


def test_a_board_that_hangs_for_good_holds_nobody_up(board):
    robot = driven(board)
    board.how = "slow"
    began = time.monotonic()
    with pytest.raises(RobotLost, match=r"did not answer within 1\.2 s"), robot:
        list(live(robot, RandomSelector()))
    assert time.monotonic() - began < 3, "the stops after it wait no longer than they must"
    assert board.told[-1] == "/drive?left=0&right=0&seconds=0"


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://board.invalid", "http://[::1]:9/motors", "https://127.0.0.1:9"])
def test_nobody_there(url):
    began = time.monotonic()
    with pytest.raises(RobotLost, match="cannot be reached"):
        MotorBoard(url)
    assert time.monotonic() - began < 3


def test_a_name_that_is_looked_up_for_ever_is_given_up(monkeypatch):
    monkeypatch.setattr(motor_board, "ANSWERS", 0.2)
    monkeypatch.setattr("socket.getaddrinfo", lambda *words, **more: time.sleep(1))
    began = time.monotonic()
    with pytest.raises(RobotLost, match=r"did not answer within 0\.2 s"):
        MotorBoard("http://board.local")
    assert time.monotonic() - began < 0.8


@pytest.mark.parametrize(
    "url",
    [
        "192.168.1.5",
        "ftp://board",
        "file:///etc/passwd",
        "http://",
        "http://me:secret@board",
        "http://board/?x=1",
        "http://board:99999",
        "http://[::",
    ],
)
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(ConfigurationError, match="give http://ADDRESS"):
        WebcamRobot(WebcamConfig(board=url), opens=Turning)


def test_a_stop_from_elsewhere_ends_an_action_and_zero_is_sent(board):
    robot = driven(board)
    robot = WebcamRobot(WebcamConfig(board=board.url, size=32, duration=1), opens=Turning)
    acts = threading.Timer(0.2, robot.stop)
    acts.start()
    began = time.monotonic()
    with pytest.raises(RobotError, match="stopped"):
        robot.execute_action(robot.action_space.actions[1])
    assert time.monotonic() - began < 0.6 and board.told[-1] == "/drive?left=0&right=0&seconds=0"
    count = len(board.told)
    with pytest.raises(RobotError, match="stopped"):
        robot.execute_action(robot.action_space.actions[1])
    assert len(board.told) == count, "nothing is sent after a stop"
    acts.join()
    board.how = "500"
    robot.stop()
    robot.cleanup()


def test_ctrl_c_in_an_action_sends_zero(board, monkeypatch):
    with driven(board) as robot:
        monkeypatch.setattr(robot._stopped, "wait", lambda seconds: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            robot.execute_action(robot.action_space.actions[1])
        assert board.told[-1] == "/drive?left=0&right=0&seconds=0"


@contextmanager
def documented(tmp_path, **changes):
    """The board of docs/webcam.md, as its reader would start it, but for its port and `changes`: its address, and what it says, with the time."""
    (code,) = (block for block in blocks((ROOT / "docs" / "webcam.md").read_text()) if "import socket" in block)
    assert code.count("8000") == 1
    file = tmp_path / "board.py"
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as free:
        port = free.server_port
    for old, new in {"8000": str(port), **changes}.items():
        assert old in code
        code = code.replace(old, new)
    file.write_text(code)
    process = subprocess.Popen([sys.executable, "-u", str(file)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "motors 0 0\n"
    said: list = []
    reads = threading.Thread(target=lambda: said.extend((time.monotonic(), line.strip()) for line in process.stdout), daemon=True)
    reads.start()
    deadline = time.monotonic() + 5
    while True:
        try:
            MotorBoard(f"http://127.0.0.1:{port}")
            break
        except RobotLost:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    try:
        yield f"http://127.0.0.1:{port}", said
    finally:
        process.kill()
        process.wait()
        reads.join()
        process.stdout.close()


def heard(said, line, seconds=2.0):
    """Waits until the board said it last."""
    deadline = time.monotonic() + seconds
    while not said or said[-1][1] != line:
        assert time.monotonic() < deadline, f"{line}, not {said[-1:]}"
        time.sleep(0.01)
    return said[-1][0]


def test_the_documented_board_drives_a_robot_and_stops_by_itself(tmp_path):
    with documented(tmp_path) as (url, said):
        with WebcamRobot(WebcamConfig(board=url, **SMALL), opens=Turning) as robot:
            for action in robot.action_space.actions:
                robot.execute_action(action)
        heard(said, "motors 0 0")
        assert {"motors -0.4 0.4", "motors 0.4 -0.4"} < {line for _, line in said}
        robot.board.drive(0.3, 0.3, 0.3)  # and then nobody says another word
        moved, stood = heard(said, "motors 0.3 0.3"), heard(said, "motors 0 0")
        assert 0.2 < stood - moved < 0.8


def test_a_board_without_its_clock_would_be_noticed(tmp_path):
    with documented(tmp_path, **{"server.settimeout(seconds or None)": "server.settimeout(None)"}) as (url, said):
        MotorBoard(url).drive(0.3, 0.3, 0.3)
        heard(said, "motors 0.3 0.3")
        with pytest.raises(AssertionError):
            heard(said, "motors 0 0", 1.0)


def test_the_documented_board_takes_nothing_but_commands(tmp_path):
    with documented(tmp_path) as (url, said):
        board = MotorBoard(url)
        with pytest.raises(RobotError, match=r"drives at 0\.6 and -0\.6 instead of 1 and -1"):
            board.drive(1, -1, 0.2)
        no_commands = ("left=nan&right=0&seconds=1", "left=2&right=0&seconds=1", "left=0.3&right=0.3", "left=0.3&right=0.3&seconds=-1", "=&=&", "")
        for words in no_commands:
            board.drive(0.3, 0.3, 1.0)
            heard(said, "motors 0.3 0.3")
            status, _ = board.send(f"/drive?{words}") if words else from_a_web_page(url)
            assert status == 400, words
            heard(said, "motors 0 0", 0.8)
        board.drive(0.3, 0.3, 30.0)
        heard(said, "motors 0.3 0.3")
        heard(said, "motors 0 0", 1.5)  # longer than a second it never drives


def test_a_board_that_looks_for_the_header_anywhere_would_be_noticed(tmp_path):
    with documented(tmp_path, **{'"\\r\\nx-motorbabble: drive" not in head': '"x-motorbabble: drive" not in request.lower()'}) as (url, _):
        assert from_a_web_page(url)[0] == 200


def from_a_web_page(url):
    """In somebody's browser: it may write what it likes, but for the header."""
    parts = urllib.parse.urlsplit(url)
    words = b"\r\nx-motorbabble: drive"
    head = f"POST /drive?left=0.3&right=0.3&seconds=1 HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: {len(words)}\r\n\r\n".encode()
    with socket.create_connection((parts.hostname, parts.port), 1.0) as connection:
        connection.sendall(head + words)  # at once, as a browser may
        answer = connection.recv(1024)
    return int(answer.split()[1]), answer


def test_a_feed_moves_nothing(board, monkeypatch):
    monkeypatch.setattr("motorbabble.robots.webcam.OpenCVEye", lambda source: Turning())
    feed.feed(["webcam", "--robot.board", board.url, "--robot.size", "24", "--headless", "--seconds", "0.2"])
    assert not board.told
