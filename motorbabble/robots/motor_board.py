"""A motor board on the network. It is told each action over HTTP, with its duration, and stops by itself when that is over (docs/webcam.md).

    POST /drive?left=0.4&right=-0.4&seconds=0.25     with the header X-Motorbabble: drive
    {"left": 0.4, "right": -0.4}                     the speeds it drives at

Each command is a connection of its own, given up after ANSWERS seconds whatever hangs: name, connection or answer. Redirects are not followed.
"""

import http.client
import json
import math
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from motorbabble.errors import ConfigurationError, RobotError, RobotLost

ANSWERS = 1.2  # seconds
HALTS = 0.4  # seconds that a stop waits for its answer; it is sent all the same
LONGEST = 4096  # bytes of an answer
EXACT = 0.01  # of 1: how far speeds may be from those asked for
HEADERS = {"X-Motorbabble": "drive", "Connection": "close"}  # which no web page can send to it from somebody's browser
Send = Callable[[str], tuple[int, bytes]]  # "/drive?..." -> status and body of the answer


class MotorBoard:
    """Speeds of two motors, from -1 to 1. RobotLost where the board cannot be reached, RobotError where it answers anything but those speeds."""

    def __init__(self, url: str, send: Send | None = None):
        self.url = url
        self.send = send or over_http(url)
        self.drive(0.0, 0.0, 0.0)

    def drive(self, left: float, right: float, seconds: float) -> None:
        """Begin an action that the board ends by itself."""
        self._told(left, right, seconds, ANSWERS)

    def halt(self) -> None:
        """Zero, as well as that can be said; never raises. A board that does not hear it stops when its action is over."""
        with suppress(Exception):  # at the end of a program not even a thread may start
            self._told(0.0, 0.0, 0.0, HALTS)

    def _told(self, left: float, right: float, seconds: float, patience: float) -> None:
        try:
            status, body = within(patience, lambda: self.send(f"/drive?left={left:g}&right={right:g}&seconds={seconds:g}"))
        except (OSError, http.client.HTTPException, ValueError) as error:
            why = f"it did not answer within {patience:g} s" if isinstance(error, TimeoutError) else getattr(error, "strerror", None) or error
            why = " ".join(str(why).split())[:100]
            raise RobotLost(f"the motor board at {self.url} cannot be reached: {why}; look at its power, its network and its address") from error
        if 300 <= status < 400:
            raise RobotError(
                f"the motor board at {self.url} answered with another address (status {status}); give the board's own with --robot.board"
            )
        if status != 200:
            raise RobotError(
                f"the motor board at {self.url} answered with status {status}: {body[:60]!r}; look at what it prints, then start it again"
            )
        does = speeds(body)
        if does is None:
            raise RobotError(
                f"the motor board at {self.url} answered {body[:60]!r} instead of its two speeds; look whether it runs the server of docs/webcam.md"
            )
        if abs(does[0] - left) > EXACT or abs(does[1] - right) > EXACT:
            raise RobotError(
                f"the motor board at {self.url} drives at {does[0]:g} and {does[1]:g} instead of {left:g} and {right:g}; "
                "give --robot.actions within its limits"
            )


def over_http(url: str) -> Send:
    """How commands get to `url`: http or https, a host, perhaps a port and a path, and nothing else."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or "@" in parts.netloc:
        raise ConfigurationError(
            f"--robot.board is {url!r}; give http://ADDRESS or http://ADDRESS:PORT of the motor board, or nothing, and do the actions yourself"
        )
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection

    def send(command: str) -> tuple[int, bytes]:
        connection = kind(str(parts.hostname), port, timeout=ANSWERS)
        try:
            connection.request("POST", parts.path.rstrip("/") + command, headers=HEADERS)
            answer = connection.getresponse()
            return answer.status, answer.read(LONGEST)
        finally:
            connection.close()

    return send


def within(seconds: float, call: Callable[[], Any]) -> Any:
    """What `call` returns or raises, or TimeoutError; one that hangs is left behind in its thread."""
    outcome: list[tuple[Any, Exception | None]] = []

    def calls() -> None:
        try:
            outcome.append((call(), None))
        except Exception as error:
            outcome.append((None, error))

    thread = threading.Thread(target=calls, name="motor board", daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise TimeoutError
    answer, error = outcome[0]
    if error is not None:
        raise error
    return answer


def speeds(body: bytes) -> tuple[float, float] | None:
    """The two speeds of an answer, or None."""
    try:
        told = json.loads(body)
        left, right = told["left"], told["right"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if not all(type(speed) in (int, float) and math.isfinite(speed) for speed in (left, right)):
        return None
    return float(left), float(right)
