"""Tape: all that one robot of a fleet has recorded, over however many sessions it took.

Decisions: a session says in its own words whose it is and which of the robot's moments is its first, so nothing else has to be kept, and whoever
was killed is found again from the recordings alone. A robot's moments are counted from 0: one look each, whether something was done from it or not.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from motorbabble.errors import RecordingError
from motorbabble.experience import Observation
from motorbabble.recording.format import SessionMeta
from motorbabble.recording.reader import RecordingReader, meta_of


class Tape:
    """`root`: the folder of the robot type's sessions; `fleet` and `robot`: whose they are. It is read anew each time it is asked."""

    def __init__(self, root: Path, fleet: str, robot: int):
        self.root, self.fleet, self.robot = root, fleet, robot

    def about(self, first: int) -> dict[str, Any]:
        """What a session must say of itself whose first moment is the robot's moment `first`."""
        return {"fleet": self.fleet, "robot": self.robot, "first": first}

    def sessions(self) -> list[SessionMeta]:
        """In the order they were lived."""
        found = []
        for folder in self.root.iterdir() if self.root.is_dir() else ():
            if folder.is_dir() and not folder.is_symlink() and not folder.name.startswith("."):
                try:
                    meta = meta_of(folder)[0]
                except RecordingError:
                    continue
                if (meta.about.get("fleet"), meta.about.get("robot")) == (self.fleet, self.robot):
                    found.append(meta)
        return sorted(found, key=lambda meta: (meta.about["first"], meta.created_ns))

    def extent(self) -> tuple[int, int]:
        """Moments and steps recorded so far, those of sessions that the quota has removed included."""
        moments = steps = 0
        for meta in self.sessions():
            reader = RecordingReader(self.root / meta.session)
            moments = max(moments, meta.about["first"] + len(reader))
            last = next((moment for number in reversed(reader.readable()) if (moment := reader.moment(number)).is_step), None)
            steps = max(steps, last.index + 1 if last else 0)
        return moments, steps

    def looks(self, first: int, end: int) -> Iterator[tuple[int, Observation | None, np.ndarray | None]]:
        """Moments `first` to `end` - 1, each with its look and the encoded action that led to it (None: nothing did).

        A look that cannot be read is None; those of sessions that are gone are left out.
        """
        for meta in self.sessions():
            begins = meta.about["first"]
            if begins >= end:
                return
            reader = RecordingReader(self.root / meta.session)
            if begins + len(reader) <= first:
                continue
            fresh = {stretch.start for stretch in reader.stretches}
            for number in range(max(0, first - begins), min(len(reader), end - begins)):
                try:
                    seen, led = reader.observation(number), None if number in fresh else reader.encoded_action(number - 1)
                except RecordingError:
                    seen = led = None
                yield begins + number, seen, led
