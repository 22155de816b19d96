"""WebcamRobot: any camera, and whatever moves it or what it sees. A person does the actions, or a small motor board that is told over HTTP.

A person is asked for each action, may say what they did instead, or end it; what they say is what was executed. A board is told each action with
its duration, stops by itself, and then has to say that it stands. A picture belongs to the moment after the action. `--robot.fake`: a drawn room
that turns, seen and driven through the same code, without camera and board.
"""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from PIL import Image, ImageDraw

from motorbabble.errors import ConfigurationError, EndOfSession, RobotError
from motorbabble.experience import Action, ActionSpace, Observation
from motorbabble.robots.camera import EXPOSED, Camera, Eye, OpenCVEye
from motorbabble.robots.interface import RobotInterface
from motorbabble.robots.motor_board import MotorBoard, Send


@dataclass(frozen=True)
class WebcamConfig:
    camera: str = "0"  # its number; or a device, a stream's address, a video's file
    size: int = 224  # pixels, both sides: the middle of the picture, a square
    board: str = ""  # http://ADDRESS of a motor board (docs/webcam.md); empty: a person is asked to do each action
    actions: tuple[str, ...] = ("stay:0:0", "left:-0.4:0.4", "right:0.4:-0.4")  # NAME for a person, NAME:LEFT:RIGHT for a board, speeds from -1 to 1
    duration: float = 0.25  # seconds of an action of the board
    wait: float = 2.5  # seconds for the camera's first picture
    repeats: bool = False  # pictures may repeat to the bit, as a screen's or a video's do; a real camera that does is frozen
    fake: bool = False  # no camera, no board: a drawn room that turns

    def __post_init__(self):
        if self.size < 8:
            raise ConfigurationError(f"size is {self.size}; give at least 8 pixels, and a multiple of the model's patch")
        if not 0 < self.duration <= 1 or not 0 < self.wait < 3600:
            raise ConfigurationError(
                f"duration is {self.duration} and wait {self.wait}; an action of the board lasts up to 1 s, and a camera is waited for more than 0 s"
            )
        names = [text.partition(":")[0].strip().lower() for text in self.actions]
        if len(names) < 2 or len(set(names)) < len(names) or not all(names) or "stop" in names or any(map(str.isdecimal, names)):
            raise ConfigurationError(
                f"the actions are {', '.join(self.actions) or 'none'}; give two or more, each with a name of its own, which is not stop and no number"
            )
        if self.board or self.fake:
            self.space()

    def space(self) -> ActionSpace:
        """For a person names, the first one being rest; for a board two speeds and a duration."""
        labels = [text.partition(":")[0].strip() for text in self.actions]
        if not (self.board or self.fake):
            return ActionSpace.discrete([{"action": i} for i in range(len(labels))], ordered=False, labels=labels)
        actions = []
        for text in self.actions:
            try:
                left, right = map(float, text.split(":")[1:])
            except ValueError:
                left = right = math.nan
            if not (abs(left) <= 1 and abs(right) <= 1):  # NaN is neither
                raise ConfigurationError(f"action {text!r} says no speeds; for a board give NAME:LEFT:RIGHT, two numbers from -1 to 1")
            actions.append({"motor_left": left, "motor_right": right, "duration": self.duration})
        rest = min(range(len(actions)), key=lambda i: abs(actions[i]["motor_left"]) + abs(actions[i]["motor_right"]))
        return ActionSpace.discrete(actions, rest, labels=labels, units={"duration": "s"})


class WebcamRobot(RobotInterface):
    """A camera with somebody or something that acts. Once stopped it stays stopped, with RobotError for every further action.

    ask, say: like `input` and `print`, for the person. opens, send: the seams to camera and board. EndOfSession when the person has had enough.
    """

    robot_type = "webcam"

    def __init__(
        self,
        config: WebcamConfig = WebcamConfig(),
        seed: int = 0,
        ask: Callable[[str], str] = input,
        say: Callable[[str], Any] = print,
        opens: Callable[[], Eye] | None = None,
        send: Send | None = None,
    ):
        self.config, self.ask, self.say = config, ask, say
        self._actions, self._stopped = config.space(), threading.Event()
        self._sequence, self._after = 0, 0
        if config.fake:
            self.robot_type = "webcam_fake"
            room = DrawnRoom(seed, config.size)
            opens, send = opens or (lambda: room), send or room.send
        self.board = MotorBoard(config.board or "the drawn room", send) if config.board or config.fake else None
        self.camera = Camera(f"camera {config.camera}", opens or (lambda: OpenCVEye(config.camera)), config.wait, config.repeats or config.fake)

    @property
    def action_space(self) -> ActionSpace:
        return self._actions

    def get_observation(self) -> Observation:
        """A picture of after the last action. `sequence` counts actions."""
        image, captured = self.camera.newest(self._after)
        return Observation(square(image, self.config.size), captured_ns=captured, sequence=self._sequence)

    def execute_action(self, action: Action) -> Action:
        plain = self._actions.check(action)
        self._must_not_be_stopped(plain)
        done = self._driven(plain) if self.board else self._asked(plain)
        self._after = self.camera.number + EXPOSED
        self._sequence += 1
        return done

    def stop(self) -> None:
        self._stopped.set()
        if self.board:
            self.board.halt()

    def cleanup(self) -> None:
        if not self._stopped.is_set():
            self.stop()
        self.camera.close()

    def describe(self) -> str:
        if self.config.fake:
            return f"{super().describe()} Neither camera nor motors are real: it is a drawn room that turns."
        who = f"The board at {self.config.board} moves it, and stops by itself." if self.board else "You do its actions, and say so with Enter."
        return f"{super().describe()} {who}"

    def _driven(self, action: Action) -> Action:
        assert self.board
        try:
            self.board.drive(action["motor_left"], action["motor_right"], action["duration"])
            self._stopped.wait(action["duration"])
            self.board.drive(0.0, 0.0, 0.0)
        except BaseException:  # Ctrl+C too
            self.board.halt()
            raise
        self._must_not_be_stopped(action)
        return action

    def _asked(self, action: Action) -> Action:
        """What the person did."""
        labels = [label.lower() for label in self._actions.labels]
        question = f"Do this now: {self._actions.label(action)}. Then press Enter; or type what you did instead, or stop: "
        while True:
            try:
                answer = self.ask(question).strip().lower()
            except EOFError:
                answer = "stop"
            self._must_not_be_stopped(action)
            if answer == "stop":
                raise EndOfSession("the person who does the actions has had enough; start again to go on")
            if not answer:
                return action
            if answer in labels:
                return (self._actions.actions or ())[labels.index(answer)]
            self.say(f"{answer[:40]!r} is none of its actions, which are {', '.join(self._actions.labels)}.")

    def _must_not_be_stopped(self, action: Action) -> None:
        if self._stopped.is_set():
            raise RobotError(f"the robot was stopped, so {dict(action)} is not done; make a new robot to go on")


class DrawnRoom:
    """A room that is not there, as an eye and as a motor board: it turns while its motors run at different speeds, for as long as they were told."""

    TURNS = 200.0  # pixels a second at full difference of speeds, in a picture 224 wide

    def __init__(self, seed: int, size: int, rate: float = 60.0):
        self.size, self.pause = size, 1 / rate
        self.wall = drawn_wall(seed, size)
        self._at, self._speed, self._begun, self._seconds = 0.0, 0.0, time.monotonic(), 0.0
        self._lock = threading.Lock()

    def read(self) -> np.ndarray:
        time.sleep(self.pause)
        columns = (np.arange(self.size) + round(self.angle())) % self.wall.shape[1]
        return self.wall[:, columns]

    def release(self) -> None:
        pass

    def angle(self) -> float:
        """Pixels of the wall that it has turned to the right so far."""
        with self._lock:
            return self._at + self._speed * min(time.monotonic() - self._begun, self._seconds)

    def send(self, command: str) -> tuple[int, bytes]:
        left, right, seconds = (float(value[0]) for value in parse_qs(urlsplit(command).query).values())
        turned = self.angle()
        with self._lock:
            self._at, self._speed = turned, (left - right) / 2 * self.TURNS * self.size / 224
            self._begun, self._seconds = time.monotonic(), seconds
        return 200, f'{{"left": {left}, "right": {right}}}'.encode()


def drawn_wall(seed: int, size: int) -> np.ndarray:
    """(size, 3 * size, 3) uint8: furniture before a wall, all around."""
    rng = np.random.default_rng(seed)
    width = 3 * size
    picture = Image.new("RGB", (width, size), (96, 104, 118))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, size * 3 // 4, width, size), fill=(70, 52, 40))
    for i in range(9):
        x, y = int((i + rng.uniform(0.2, 0.8)) * width / 9), int(rng.uniform(0.2, 0.75) * size)
        half, high = int(rng.uniform(0.05, 0.12) * size), int(rng.uniform(0.05, 0.2) * size)
        color = tuple(int(value) for value in rng.integers(40, 256, 3))
        (draw.ellipse if i % 3 == 1 else draw.rectangle)((x - half, y - high, x + half, y + high), fill=color)
    return np.asarray(picture)


def square(image: np.ndarray, size: int) -> np.ndarray:
    """The middle of a picture, (size, size, 3), by averaging areas; always a new array."""
    height, width, _ = image.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    middle = image[top : top + side, left : left + side]
    return middle.copy() if side == size else np.asarray(Image.fromarray(middle).resize((size, size), Image.Resampling.BOX)).copy()
