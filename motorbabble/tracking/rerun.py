"""Rerun: a life in one .rrd file, to be scrubbed through in its viewer. Only a file is written; no viewer, server or port is opened."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from motorbabble.errors import ConfigurationError
from motorbabble.exchange.extras import extra
from motorbabble.figures import fit, png_bytes
from motorbabble.tracking.metrics import Entry

LONGEST = 512  # pixels of a frame's longer side


def check_file(path: Path) -> None:
    """ConfigurationError, in a sentence, where this is no name for a recording or the library is missing."""
    if path.suffix != ".rrd" or path.is_dir():
        raise ConfigurationError(f"{path} is no name for a rerun recording; give a file that ends in .rrd")
    extra("rerun", "rerun")


class RerunTracker:
    """Metrics over steps and updates, what the robot sees, what it does and why, what it imagines. A file that is there is left alone."""

    wants_pictures = True

    def __init__(self, path: Path, settings: Mapping[str, Any], title: str = ""):
        rerun: Any = extra("rerun", "rerun")
        self._rerun = rerun
        path.parent.mkdir(parents=True, exist_ok=True)
        free, number = path, 1
        while free.exists():
            number += 1
            free = path.with_stem(f"{path.stem}-{number}")
        self.path, self._stream = free, rerun.RecordingStream(f"motorbabble {title}".strip())
        self._stream.save(free)
        self._stream.log("settings", rerun.TextDocument("\n".join(f"{name}: {value}" for name, value in settings.items())), static=True)
        self.notes = [f"Rerun writes {free}; `rerun {free}` opens it."]

    def log(self, entry: Entry) -> None:
        rerun, stream = self._rerun, self._stream
        stream.set_time("step", sequence=entry.step)
        stream.set_time("training_step", sequence=entry.update)
        for name, value in entry.values.items():
            shown = rerun.TextLog(value) if isinstance(value, str) else rerun.Scalars(float(value))
            stream.log(["metrics", *name.split("/")], shown)
        if entry.frame is not None:
            frame = fit(entry.frame, LONGEST) if max(entry.frame.shape[:2]) > LONGEST else entry.frame
            stream.log("now", rerun.EncodedImage(contents=png_bytes(frame), media_type="image/png"))
        if entry.action:
            stream.log("action", rerun.TextLog(entry.action))
        for name, picture in entry.pictures.items():
            stream.log(["pictures", name], rerun.EncodedImage(contents=png_bytes(picture), media_type="image/png"))

    def close(self) -> None:
        self._stream.flush()
        self._stream.disconnect()
