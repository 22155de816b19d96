"""Videos, through PyAV: written with every frame at its own time, read back and counted before anybody may rely on them.

Decisions: H.264 where the library was built with it, else AV1; constant frame rate; no B-frames, so that the first frame is at time 0 and
naive seeking finds the right one; an odd edge is doubled, since 4:2:0 needs even sizes. Videos are lossy: sessions are not.
"""

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from motorbabble.errors import ConfigurationError, RecordingError
from motorbabble.exchange.extras import extra
from motorbabble.recording.format import MOST_PIXELS

_CODECS = {"libx264": {"crf": "18", "preset": "veryfast", "bf": "0"}, "libsvtav1": {"crf": "24", "preset": "10"}}
PIXELS = "yuv420p"


def codec() -> str:
    """The encoder this build of PyAV has."""
    found = next((name for name in _CODECS if name in extra("av.codec").codecs_available), None)
    if found is None:
        raise ConfigurationError("this build of av can encode neither H.264 nor AV1; pip install --force-reinstall motorbabble[export]")
    return found


def even(size: int) -> int:
    return size + size % 2


class VideoWriter:
    """One MP4 being written; `close` reads it back and raises RecordingError unless it holds exactly the frames that were added."""

    def __init__(self, path: Path, fps: int, height: int, width: int, keyframe_every: int):
        self.path, self.fps, self.frames, self.bytes = path, fps, 0, 0
        self._av, name = extra("av"), codec()
        self._container: Any = self._av.open(str(path), "w", format="mp4", options={"movflags": "faststart"})
        self._stream = self._container.add_stream(name, rate=fps, options={**_CODECS[name], "g": str(keyframe_every)})
        self._stream.height, self._stream.width, self._stream.pix_fmt = even(height), even(width), PIXELS

    def add(self, image: np.ndarray) -> None:
        """(H, W, 3) uint8, one frame later than the one before."""
        height, width = image.shape[:2]
        padded = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), format="rgb24")
        frame.pts, frame.time_base = self.frames, Fraction(1, self.fps)
        self._mux(frame)
        self.frames += 1

    def close(self) -> None:
        self._mux(None)
        self._container.close()
        found = sum(1 for _ in frames_of(self.path, self.fps))
        if found != self.frames:
            raise RecordingError(f"{self.path.name} holds {found} frames, but {self.frames} were written; the export is given up, try it again")

    def abandon(self) -> None:
        with contextlib.suppress(Exception):  # a container without a frame cannot even be closed; whatever it was, another error is travelling
            self._container.close()

    def _mux(self, frame: Any) -> None:
        packets = self._stream.encode(frame)
        self.bytes += sum(packet.size for packet in packets)
        self._container.mux(packets)


def frames_of(path: Path, fps: int) -> Iterator[np.ndarray]:
    """Every frame of a video, (H, W, 3) uint8, in order; RecordingError where one is not at its time, for then some are missing."""
    av = extra("av")
    try:
        with av.open(str(path)) as container:
            stream = _stream_of(container, path)
            for number, frame in enumerate(container.decode(stream)):
                at = None if frame.pts is None else float(frame.pts * stream.time_base)
                if at is None or abs(at * fps - number) > 0.25:
                    raise RecordingError(
                        f"frame {number} of {path} is at {at} s, not at {number / fps:.3f} s; frames are missing, or the rate varies"
                    )
                yield frame.to_ndarray(format="rgb24")
    except av.FFmpegError as error:
        raise RecordingError(f"{path} cannot be decoded: {error}; it is damaged, or no video") from None


def frame_count(path: Path) -> int:
    """How many frames a video says it has, without decoding them."""
    av = extra("av")
    try:
        with av.open(str(path)) as container:
            return sum(1 for packet in container.demux(_stream_of(container, path)) if packet.size)
    except (av.FFmpegError, OSError) as error:
        raise RecordingError(f"{path} cannot be read as a video: {error}") from None


def _stream_of(container: Any, path: Path) -> Any:
    if not container.streams.video:
        raise RecordingError(f"{path} holds no video; it is something else, or damaged")
    stream = container.streams.video[0]
    if stream.codec_context.width * stream.codec_context.height > MOST_PIXELS:
        raise RecordingError(f"{path} claims {stream.codec_context.width} x {stream.codec_context.height} pixels; it was not decoded")
    return stream
