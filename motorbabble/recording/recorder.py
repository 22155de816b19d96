"""Recorder: a consumer of `live` that writes each step down before anybody else hears of it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from motorbabble.disk import Disk
from motorbabble.experience import ActionSpace, Ending, Event, Observation, Step, Study
from motorbabble.recording.format import Continues
from motorbabble.recording.quota import MAX_BYTES, enforce
from motorbabble.recording.writer import RecordingWriter


class Recorder:
    """Feed it every event of a life. `stop` is called when writing fails, before the error travels: give it robot.stop.

    `root`: the folder of the robot type's sessions. Keeps all of them together under `quota` bytes of disk by removing old
    ones (docs/session-format.md says which); QuotaExceeded when that cannot be done.
    """

    def __init__(
        self,
        root: Path | str,
        robot_type: str,
        action_space: ActionSpace,
        *,
        stop: Callable[[], None] | None = None,
        quota: float = MAX_BYTES,
        continues: Continues | None = None,
        about: Mapping[str, Any] | None = None,
        name: str | None = None,
        disk: Disk | None = None,
    ):
        root, known = Path(root), {}
        enforce(root, quota, known=known)
        self.writer = RecordingWriter.create(
            root,
            robot_type,
            action_space,
            name=name,
            continues=continues,
            about=about,
            disk=disk,
            on_failure=stop,
            tidy=lambda: enforce(root, quota, known=known),
        )
        self._gate, self._updates = "", 0

    @property
    def session(self) -> str:
        """The session's name."""
        return self.writer.meta.session

    def __call__(self, event: Event) -> None:
        """RecordingError when it could not be written; the robot was stopped then."""
        if isinstance(event, Study):
            self._gate, self._updates = event.gate, event.update
        elif isinstance(event, Step | Ending):
            self.writer.record(event, gate=self._gate, updates=self._updates)

    def close(self, last: Observation | None = None) -> None:
        """Write the newest frame, from which nothing was done, and close the session."""
        self.writer.close(last)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info) -> None:
        self.close()
