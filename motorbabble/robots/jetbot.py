"""JetBotInterface: an NVIDIA JetBot over RPyC. It turns its right wheel or does not, for 0.2 s, and looks through its camera.

The stop is decided on the robot: robot_host/jetbot_server.py is told each action with its duration, times it, and stands still 250 ms after the
last word it heard, whatever became of us. With any other server that has the two plain calls, `get_camera_frame()` and `set_motors(left, right)`, we
time the action and ramp the speeds from here, and `describe` says what is then missing. Camera and motors have a connection each, so that no
picture delays a stop. A link that failed once is not used again: the robot is lost, and says so every time.
"""

import base64
import binascii
import io
import json
import os
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from motorbabble.errors import ConfigurationError, FrameError, MotorbabbleError, RobotError, RobotLost
from motorbabble.experience import Action, ActionSpace, Observation
from motorbabble.robots.interface import RobotInterface
from motorbabble.robots.rpyc_link import CallFailed, Link

PORT = 18861
PROTOCOL = 1  # of the leased calls
SPEED = 0.12  # of 1: enough to turn, gentle to the gearbox
DURATION = 0.2  # seconds
STEPS, STEP = 4, 0.015  # values of a ramp, seconds between two
HELD = 0.2  # seconds that the robot keeps a speed without hearing of us
RENEWED = 0.08  # seconds between two words while an action lasts longer
ANSWERS = 0.8  # seconds for a motor command
LOOKS = 1.2  # seconds for a picture, of which the robot may wait 0.5 for a new one
STARTS = 2.5  # seconds for the first picture of a plain server, which may have to start its camera
TRIES = 3  # at a command that was too long on its way
NEAREST = 0.1  # seconds there and back at most for an answer that tells the robot's clock
GAUGED = 5.0  # seconds from one question about the battery to the next
FROZEN = 10  # equal pictures in a row, each after a movement, that no real camera gives
LARGEST = 2048  # pixels of a side


@dataclass(frozen=True)
class JetBotConfig:
    ip: str = "127.0.0.1"  # of the robot; this machine, where an SSH tunnel leads to it
    port: int = PORT
    token_file: Path | None = None  # with the secret that the robot's server was started with; None: the variable JETBOT_TOKEN, if any
    fake: bool = False  # no robot: start a stand-in on this machine, a drawn room that turns

    def __post_init__(self):
        if not 0 < self.port < 65536:
            raise ConfigurationError(f"port is {self.port}; give 1 to 65535, {PORT} unless the server was told another")

    def token(self) -> str:
        try:
            return self.token_file.read_text().strip() if self.token_file else os.environ.get("JETBOT_TOKEN", "")
        except OSError as error:
            raise ConfigurationError(f"the token cannot be read from {self.token_file} ({error.strerror}); give a file that holds it") from error


class RemoteJetBot:
    """A JetBot's calls, without a robot's manners: pictures and speeds. RobotLost when it cannot be reached, or no longer."""

    def __init__(self, ip_address: str, port: int = PORT, token: str = ""):
        self._ahead, self._looked = 0.0, False  # by how much the robot's clock is ahead of ours
        self.motors = Link(ip_address, port, token, ANSWERS)
        try:
            self.about = self._about(self.motors)
            self.leased = self.about.get("protocol") == PROTOCOL  # it times actions itself, and stops by itself
            if self.leased:
                self._timed(lambda: json.loads(self.motors.call("info"))["now"])
            self.camera = Link(ip_address, port, token, LOOKS, legacy=self.motors.legacy)
        except BaseException:
            self.motors.close()
            raise

    def get_frame(self) -> np.ndarray:
        """The newest picture, (H, W, 3) uint8 RGB."""
        return decoded(self.look()[0])

    def look(self, after: float = 0.0) -> tuple[bytes, int, int]:
        """A picture as JPEG, its number, and when it was taken (time.time_ns). `after`, on the robot's clock: it is newer than that."""
        if not self.leased:
            text = self.camera.call("get_camera_frame", timeout=LOOKS if self._looked else STARTS)
            self._looked = True
            return from_base64(text), 0, time.time_ns()
        answer = self.camera.call("get_frame", after)
        if not (type(answer) is tuple and [type(part) for part in answer] == [int, float, float, bytes]):
            raise RobotError(f"get_frame answered {answer!r:.60}; restart the robot's server, or install the one that belongs to this version")
        number, captured, now, jpeg = answer
        return jpeg, number, time.time_ns() - int(max(0.0, now - captured) * 1e9)

    def battery(self) -> float | None:
        """Its charge, from 0 to 1; None where its server does not know."""
        told = self._about(self.camera).get("battery") if self.leased else None
        if not isinstance(told, int | float) or isinstance(told, bool) or not 0 <= told <= 1:  # nor NaN
            return None
        return float(told)

    def set_motors(self, left: float, right: float) -> Any:
        """Speeds from -1 to 1, at once. What keeps them and for how long is the server's business: ours stops after 250 ms."""
        return self.motors.call("set_motors", float(left), float(right))

    def drive(self, left: float, right: float, seconds: float) -> tuple[int, float, float]:
        """Begin an action that the robot times itself: its number, and the speeds after clamping."""
        for attempt in range(TRIES):
            try:
                answer = self._timed(lambda: self.motors.call("drive", left, right, seconds, self.clock()), last=True)
            except CallFailed as error:
                if error.kind != "TimeoutError" or attempt == TRIES - 1:
                    raise
                self._timed(lambda: json.loads(self.motors.call("info"))["now"], always=True)
                continue
            return answer[:3]
        raise AssertionError

    def renew(self, lease: int) -> bool:
        return bool(self.motors.call("renew", lease, self.clock()))

    def motion(self, lease: int) -> tuple[str, float]:
        """What became of an action ("moving", "done", "cut short", "stopped", "unknown"), and the robot's clock."""
        answer = self.motors.call("motion", lease)
        return str(answer[0]), float(answer[1])

    def halt(self) -> None:
        """Speeds to zero now, by whatever way is open."""
        try:
            self.motors.call("halt") if self.leased else self.set_motors(0.0, 0.0)
        except RobotLost:
            if not self.leased:  # else it has stopped by itself
                last = Link(self.motors.host, self.motors.port, timeout=ANSWERS, legacy=self.motors.legacy)
                last.call("set_motors", 0.0, 0.0)
                last.close()

    def emergency_stop(self) -> None:
        """Nothing moves, whoever drives, until `rearm`."""
        self.motors.call("emergency_stop")

    def rearm(self) -> None:
        self.motors.call("rearm")

    def clock(self) -> float:
        """The robot's clock now, in seconds, as reckoned here."""
        return time.monotonic() + self._ahead

    def cleanup(self) -> None:
        """Stop, and close both connections."""
        with suppress(MotorbabbleError):
            if not self.motors.closed:
                self.halt()
        self.motors.close()
        self.camera.close()

    def _about(self, link: Link) -> dict[str, Any]:
        """What its server says of itself; nothing, where it has only the two plain calls."""
        try:
            told = json.loads(link.call("info"))
            return told if isinstance(told, dict) else {}
        except (CallFailed, ValueError, TypeError):
            return {}

    def _timed(self, ask: Callable[[], Any], last: bool = False, always: bool = False) -> Any:
        """An answer that holds the robot's clock: ours is compared with it, where the way was short."""
        asked = time.monotonic()
        answer = ask()
        arrived = time.monotonic()
        now = answer[-1] if last else answer
        if type(now) is float and (always or not self._ahead or arrived - asked < NEAREST):
            self._ahead = now - (asked + arrived) / 2
        return answer


class JetBotInterface(RobotInterface):
    """A JetBot as a robot: two actions, "stop" and "forward" of the right wheel, each 0.2 s.

    A camera that shows nothing new, or no picture, is a RobotError; a link that fails a RobotLost, for good. Either way the motors are stopped first.
    """

    robot_type = "jetbot"

    def __init__(self, ip: str, port: int = PORT, token: str = ""):
        self.remote = RemoteJetBot(ip, port, token)
        limit = self.remote.about.get("limit", 1.0)
        if not isinstance(limit, int | float) or limit < SPEED:
            self.remote.cleanup()
            raise ConfigurationError(f"the robot's server allows speeds up to {limit}, moving forward needs {SPEED}; start it with --limit {SPEED}")
        self._actions = ActionSpace.discrete(
            [{"motor_left": 0.0, "motor_right": speed, "duration": DURATION} for speed in (0.0, SPEED)],
            units={"duration": "s"},
            labels=("stop", "forward"),
        )
        self._stopped, self._lost = threading.Event(), ""
        self._sequence = 0
        self._acted_until = 0.0  # on the robot's clock
        self._last: tuple[int, int] = (-1, 0)  # number of the newest picture, and when it was taken
        self._shape: tuple[int, ...] = ()
        self._jpeg, self._moved, self._equal = b"", False, 0
        self._gauged, self._charge = -GAUGED, None  # when its battery was asked for, and the answer

    @property
    def action_space(self) -> ActionSpace:
        return self._actions

    def get_observation(self) -> Observation:
        """A picture taken after the last action ended. `sequence` counts actions. `state["battery"]`: (1,) float32, 0 to 1, where it is known."""
        self._must_be_there()
        try:
            jpeg, number, captured = self.remote.look(self._acted_until)
            image = decoded(jpeg)
            self._must_be_alive(jpeg, image)
            charge = self._battery()
        except (RobotError, FrameError) as error:
            raise self._failed(error) from error
        if number and number == self._last[0]:
            captured = self._last[1]
        self._last = (number, max(captured, self._last[1]))
        return Observation(image, jpeg, self._last[1], self._sequence, state={} if charge is None else {"battery": np.array([charge], np.float32)})

    def execute_action(self, action: Action) -> Action:
        plain = self._actions.check(action)
        self._must_be_there()
        if self._stopped.is_set():
            raise RobotError(f"action {plain} came after the robot was stopped; make a new robot to go on")
        speeds = (plain["motor_left"], plain["motor_right"])
        try:
            left, right = (self._leased if self.remote.leased else self._ramped)(*speeds, plain["duration"])
        except RobotError as error:
            raise self._failed(error) from error
        except BaseException:  # Ctrl+C
            self._halt()
            raise
        self._sequence += 1
        self._moved = any(speeds)
        return {"motor_left": left, "motor_right": right, "duration": plain["duration"]}

    def stop(self) -> None:
        self._stopped.set()
        if not self._lost:  # which was its last word
            self._halt()

    def cleanup(self) -> None:
        self.stop()
        self.remote.cleanup()

    def describe(self) -> str:
        about = self.remote.about
        if self.remote.leased:
            kind = "Its stand-in" if about.get("fake") else "It"
            return f"{super().describe()} {kind} stops by itself, {about.get('lease')} s after the last word from us at the latest."
        return (
            f"{super().describe()} Its server has only the two plain calls: if this program, the link or the server dies, the wheels may turn on, "
            "actions are as long as the network lets them be, and nobody knows how old a picture is; install robot_host/jetbot_server.py on it."
        )

    # Parts

    def _leased(self, left: float, right: float, seconds: float) -> tuple[float, float]:
        """The robot times the action; we say once more, while it lasts, that we are there."""
        lease, left, right = self.remote.drive(left, right, seconds)
        begun = heard = time.monotonic()
        over = begun + seconds + (STEPS - 1) * STEP
        while (now := time.monotonic()) < over:
            if begun + seconds > heard + HELD and now >= heard + RENEWED:
                self.remote.renew(lease)
                heard = now
            if self._stopped.wait(min(over - now, RENEWED)):
                raise RobotError("the robot was stopped during an action; make a new robot to go on")
        while (outcome := self.remote.motion(lease))[0] == "moving" and time.monotonic() < over + HELD:
            time.sleep(0.003)
        if outcome[0] != "done":
            why = {"cut short": "we were heard too late", "stopped": "somebody stopped it", "unknown": "somebody else drives"}
            raise RobotError(
                f"the action of {seconds:g} s did not end by itself: {why.get(outcome[0], outcome[0])}; look at the robot, then try again"
            )
        self._acted_until = outcome[1]
        return left, right

    def _ramped(self, left: float, right: float, seconds: float) -> tuple[float, float]:
        """Four values up, four down, 15 ms each, as the plain server needs it; whoever called stops it where that fails."""
        for step in range(1, STEPS + 1):
            self._set(left * step / STEPS, right * step / STEPS, STEP)
        if self._stopped.wait(max(0.0, seconds - STEPS * STEP)):
            raise RobotError("the robot was stopped during an action; make a new robot to go on")
        for step in range(STEPS - 1, 0, -1):
            self._set(left * step / STEPS, right * step / STEPS, STEP)
        self.remote.halt()
        return left, right

    def _set(self, left: float, right: float, seconds: float) -> None:
        if self._stopped.is_set():
            raise RobotError("the robot was stopped during an action; make a new robot to go on")
        self.remote.set_motors(left, right)
        time.sleep(seconds)

    def _battery(self) -> float | None:
        if time.monotonic() >= self._gauged + GAUGED:
            self._charge, self._gauged = self.remote.battery(), time.monotonic()
        return self._charge

    def _must_be_there(self) -> None:
        if self._lost:
            raise RobotLost(self._lost)

    def _must_be_alive(self, jpeg: bytes, image: np.ndarray) -> None:
        if self._shape and image.shape != self._shape:
            before, now = (f"{shape[1]} x {shape[0]}" for shape in (self._shape, image.shape))
            raise RobotError(f"the camera's picture is {now}, the ones before were {before}; restart the robot's server")
        self._shape = image.shape
        if self.remote.leased:
            return  # its pictures have an age
        if jpeg != self._jpeg:
            self._equal = 0
        elif self._moved:
            self._equal += 1
        self._jpeg, self._moved = jpeg, False
        if self._equal >= FROZEN:
            raise RobotError(f"the camera shows the same picture after {self._equal} movements; restart the robot's server, and nvargus-daemon on it")

    def _failed(self, error: MotorbabbleError) -> MotorbabbleError:
        """Whatever failed: the motors first, then the sentence; a lost link is remembered."""
        if isinstance(error, RobotLost):
            self._lost = str(error)
        self._halt()
        return error if isinstance(error, RobotError) and not isinstance(error, CallFailed) else RobotError(f"the robot says: {error}")

    def _halt(self) -> None:
        with suppress(MotorbabbleError):  # it may not hear us; with our server it then stands still by now
            self.remote.halt()


class FakeJetBot(JetBotInterface):
    """A JetBot on this machine that is not there: the same server, started as a process of its own, with a drawn room for a camera."""

    robot_type = "jetbot_fake"

    def __init__(self, seed: int = 0):
        command = [sys.executable, str(server_file()), "--fake", "--port", "0", "--seed", str(seed)]
        try:
            import rpyc  # noqa: F401 - the server's; here for the sentence
        except ImportError as missing:
            raise ConfigurationError("a JetBot, and its stand-in, need rpyc, which is not installed; pip install 'motorbabble[jetbot]'") from missing
        quiet = {"stdin": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": {**os.environ, "JETBOT_TOKEN": ""}}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True, **quiet)  # Ctrl+C is ours, then its
        try:
            assert self.process.stdout
            told = self.process.stdout.readline()
            if " at 127.0.0.1:" not in told:
                raise RobotError(f"the stand-in for a JetBot did not start; try it alone: {' '.join(command)}")
            super().__init__("127.0.0.1", int(told.split(":")[1].split(",")[0]))
        except BaseException:
            self._end()
            raise

    def cleanup(self) -> None:
        super().cleanup()
        self._end()

    def _end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()


def jetbot(config: JetBotConfig, seed: int = 0) -> JetBotInterface:
    """The robot that a config means."""
    return FakeJetBot(seed) if config.fake else JetBotInterface(config.ip, config.port, config.token())


def server_file() -> Path:
    """robot_host/jetbot_server.py: in a checkout beside the package, in an installation among its data."""
    places = [Path(__file__).parents[2] / "robot_host", Path(sysconfig.get_path("data")) / "share" / "motorbabble"]
    for place in places:
        if (place / "jetbot_server.py").is_file():
            return place / "jetbot_server.py"
    raise ConfigurationError(f"jetbot_server.py is neither in {places[0]} nor in {places[1]}; install motorbabble again")


def from_base64(text: Any) -> bytes:
    """What `get_camera_frame` answers, as JPEG bytes."""
    if type(text) not in (str, bytes):
        raise RobotError(f"get_camera_frame answered {text!r:.40} instead of text; restart the robot's server, and look whether its camera works")
    try:
        jpeg = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RobotError(f"get_camera_frame answered text that is no base64 ({error}); check which server runs on the robot") from error
    if not jpeg:
        raise RobotError("get_camera_frame answered an empty picture; restart the robot's server, and look whether its camera works")
    return jpeg


def decoded(jpeg: bytes) -> np.ndarray:
    """(H, W, 3) uint8 RGB; RobotError for anything but a JPEG of sensible size."""
    try:
        with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as picture:
            if max(picture.size) > LARGEST:
                raise RobotError(
                    f"the camera's picture is {picture.size[0]} x {picture.size[1]}, a side longer than {LARGEST}; check the robot's server"
                )
            return np.array(picture.convert("RGB"))
    except RobotError:
        raise
    except Exception as error:  # Pillow raises many kinds
        raise RobotError(
            f"the robot's picture of {len(jpeg)} bytes is no whole JPEG; restart its server, and look whether its camera works"
        ) from error
