"""babble feed: a camera to look at, nothing moves. In a window, closed by q or Ctrl+C; or, headless, in numbers: rate, age, latency."""

import importlib
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from motorbabble.commands.flags import parse, words_and_flags
from motorbabble.errors import ConfigurationError
from motorbabble.experience import Observation
from motorbabble.life import look
from motorbabble.recipes import robot_from
from motorbabble.robots.interface import RobotInterface
from motorbabble.robots.jetbot import JetBotConfig
from motorbabble.robots.webcam import WebcamConfig

PAUSE = 0.033  # seconds between two looks, about thirty a second at most


@dataclass(frozen=True)
class Feed:
    """The live camera; nothing moves."""

    robot: JetBotConfig | WebcamConfig
    headless: bool = False  # no window: rate, age and latency once a second
    seconds: float | None = None  # how long; None: until q or Ctrl+C

    def __post_init__(self):
        if self.seconds is not None and not self.seconds > 0:
            raise ConfigurationError(f"seconds is {self.seconds}; give more than 0, or none at all")


TITLES = {"jetbot": "JetBot Live Feed", "webcam": "Webcam Live Feed"}
ROBOTS = {"jetbot": JetBotConfig(), "webcam": WebcamConfig()}


def feed(arguments: Sequence[str]) -> None:
    words, flags = words_and_flags(arguments)
    if not words and {"-h", "--help"} & set(flags):
        words = ["jetbot"]
    if len(words) != 1 or words[0] not in ROBOTS:
        raise ConfigurationError(
            f"{' '.join(['babble feed', *arguments])} is not a command; use babble feed jetbot [--robot.ip ADDRESS] [--headless], "
            "or babble feed webcam [--robot.camera NUMBER] [--headless]"
        )
    chosen: Feed = parse(Feed(ROBOTS[words[0]]), flags, f"babble feed {words[0]}")
    config = replace(chosen.robot, board="") if isinstance(chosen.robot, WebcamConfig) else chosen.robot  # nothing moves
    show, close = (lambda seen: True), (lambda: None)
    if not chosen.headless:
        show, close = window(TITLES[words[0]])
    try:
        with robot_from(config, seed=0) as robot:
            watch(robot, show, chosen.headless, chosen.seconds)
    finally:
        close()


def watch(robot: RobotInterface, show: Callable[[Observation], bool], tells: bool, seconds: float | None) -> None:
    """Look again and again, until `show` answers False. Pictures are counted once each, by when they were taken."""
    begun = told = time.monotonic()
    took, ages, pictures = [], [], set()
    while seconds is None or time.monotonic() - begun < seconds:
        asked = time.monotonic()
        seen = look(robot)
        took.append(time.monotonic() - asked)
        ages.append(max(0.0, time.time_ns() - seen.captured_ns) / 1e9)
        pictures.add(seen.captured_ns)
        if not show(seen):
            return
        if tells and (now := time.monotonic()) - told >= 1.0:
            rate, age, latency = len(pictures) / (now - told), statistics.median(ages), statistics.median(took)
            print(f"{rate:5.1f} pictures/s   age {1e3 * age:4.0f} ms   latency {1e3 * latency:4.0f} ms", flush=True)
            told, took, ages, pictures = now, [], [], set()
        time.sleep(max(0.0, asked + PAUSE - time.monotonic()))


def window(title: str) -> tuple[Callable[[Observation], bool], Callable[[], None]]:
    """How a picture is shown, which answers False once q was pressed or the window closed, and how it ends."""
    try:
        cv2: Any = importlib.import_module("cv2")
    except ImportError as missing:
        raise ConfigurationError("a window needs OpenCV; pip install 'motorbabble[live]', or use --headless") from missing

    def show(seen: Observation) -> bool:
        cv2.imshow(title, seen.image[..., ::-1])  # it takes BGR
        return cv2.waitKey(1) & 0xFF != ord("q") and cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) >= 1

    try:
        cv2.namedWindow(title)
    except cv2.error as error:
        raise ConfigurationError("OpenCV can open no window here; use --headless, or a computer with a screen") from error
    return show, cv2.destroyAllWindows
