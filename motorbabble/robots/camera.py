"""The newest picture of a camera, read in a thread of its own: none waits in a queue, and none is handed out that is old.

Only a picture that differs from the one before counts as a new one. A sensor has noise, so a camera that repeats a picture to the bit is
frozen; one that shows a single colour sees nothing. Both end, as an unplugged or silent one does, in RobotError after PATIENCE seconds.
"""

import importlib
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from motorbabble.errors import ConfigurationError, MotorbabbleError, RobotError, RobotLost
from motorbabble.experience import check_frame

PATIENCE = 2.0  # seconds without a new picture
FRESH = 0.5  # seconds after which a picture is old
EXPOSED = 2  # pictures to wait for after an action: the first one may have been exposed while it lasted
WARMS = 5  # pictures until the exposure of a camera that was just opened has settled a little
UNCOUNTED = 30.0  # pictures a second of a video that does not say


class Eye(Protocol):
    """The seam to a camera."""

    def read(self) -> np.ndarray | None:
        """The next picture, (H, W, 3) uint8 RGB, once there is one; None when there will be none."""
        ...

    def release(self) -> None: ...


class Camera:
    """An eye that is always looked through. `opens` gives it, or raises; `wait`: seconds for the first picture; `repeats`: equal pictures are fine.

    captured_ns, number: of the newest picture, and how many there were.
    """

    def __init__(self, name: str, opens: Callable[[], Eye], wait: float = 2.5, repeats: bool = False):
        self.name, self.opens, self.repeats = name, opens, repeats
        self.number, self.captured_ns = 0, 0
        self._image, self._at = np.zeros((1, 1, 3), np.uint8), -FRESH
        self._why, self._fault = "it gives none", None  # why there is no new picture; what ended the reading
        self._news, self._closing = threading.Condition(), threading.Event()
        self._thread = threading.Thread(target=self._reads, name="camera", daemon=True)
        self._thread.start()
        try:
            self.newest(WARMS, wait)
        except BaseException:
            self.close()
            raise

    def newest(self, number: int = 0, patience: float = PATIENCE) -> tuple[np.ndarray, int]:
        """A picture, and when it came (time.time_ns): number `number` or a later one, not older than FRESH."""
        with self._news:
            came = self._news.wait_for(lambda: self._fault or (self.number >= number and time.monotonic() - self._at < FRESH), patience)
            if self._fault:
                raise self._fault
            if not came:
                raise RobotError(
                    f"{self.name} has shown no new picture for {patience:g} s: {self._why}; "
                    "look at its cable and at what else uses it, then start again"
                )
            return self._image, self.captured_ns

    def close(self) -> None:
        self._closing.set()
        if self._thread is not threading.current_thread():
            self._thread.join(0.5)  # one that hangs is left behind

    def _reads(self) -> None:
        eye = None
        try:
            eye = self.opens()
            while not self._closing.is_set():
                image = eye.read()
                if image is None:
                    raise RobotLost(f"{self.name} gives no further picture; look whether it is still plugged in, then start again")
                self._take(check_frame(image))
        except MotorbabbleError as fault:
            self._ends(fault)
        except Exception as error:  # drivers raise anything
            self._ends(RobotLost(f"{self.name} failed ({' '.join(str(error).split())[:100]}); look whether it is still plugged in, then start again"))
        finally:
            if eye is not None:
                with suppress(Exception):
                    eye.release()

    def _take(self, image: np.ndarray) -> None:
        with self._news:
            if not (image[::4, ::4] != image[0, 0]).any():
                self._why = "it sees one colour and nothing else"
            elif not self.repeats and np.array_equal(image, self._image):
                self._why = "it repeats the last one to the bit"
            else:
                self._image, self._at, self.captured_ns = image, time.monotonic(), time.time_ns()
                self._why = "it gives none"
                self.number += 1
                self._news.notify_all()

    def _ends(self, fault: MotorbabbleError) -> None:
        with self._news:
            self._fault = fault
            self._news.notify_all()


class OpenCVEye:
    """A camera by its number, a device, a stream's address, or a video's file, which is shown at its own pace, again and again."""

    def __init__(self, source: str):
        cv2: Any = opencv()
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        with suppress(AttributeError):
            cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # we say it in a sentence
        self.rewinds, self.next = Path(source).is_file(), time.monotonic()
        self.capture, self.position = cv2.VideoCapture(int(source) if source.isdecimal() else source), cv2.CAP_PROP_POS_FRAMES
        if not self.capture.isOpened():
            self.capture.release()
            raise RobotLost(
                f"there is no camera {source!r} here, or another program has it; give --robot.camera a number from 0 on, a stream or a video"
            )
        self.capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        self.pause = 1 / (self.capture.get(cv2.CAP_PROP_FPS) or UNCOUNTED) if self.rewinds else 0.0

    def read(self) -> np.ndarray | None:
        good, image = self.capture.read()
        if not good and self.rewinds:
            self.capture.set(self.position, 0)
            good, image = self.capture.read()
        self.next = max(self.next + self.pause, time.monotonic() - self.pause)
        time.sleep(max(0.0, self.next - time.monotonic()))
        return np.ascontiguousarray(image[..., ::-1]) if good else None  # it gives BGR

    def release(self) -> None:
        self.capture.release()


def opencv() -> Any:
    try:
        return importlib.import_module("cv2")
    except ImportError as missing:
        raise ConfigurationError("a camera needs OpenCV, which is not installed; pip install 'motorbabble[live]'") from missing
