"""Census: what was done in each session, counted beside the pages, one session after the other, and kept.

Counting reads every line and no frame: five seconds for 100,000 moments, which no page may wait for.
"""

from collections import deque
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, Thread

from motorbabble.errors import RecordingError
from motorbabble.recording.health import balance
from motorbabble.recording.reader import RecordingReader
from motorbabble.recording.shelf import Entry


@dataclass(frozen=True)
class Count:
    """Of one session: label -> how often the action was executed, most often first; and how many moments' lines are lost."""

    actions: dict[str, int]
    lost: int = 0

    @property
    def steps(self) -> int:
        return sum(self.actions.values())


class Census:
    def __init__(self):
        self._lock = Lock()
        self._counted: dict[Path, tuple[tuple, Count]] = {}
        self._waiting: deque[tuple[Path, tuple]] = deque()
        self._thread: Thread | None = None

    def of(self, entry: Entry) -> Count | None:
        """None where it is not counted yet, which begins then; and while it is still recorded, or cannot be read."""
        if entry.meta is None or entry.state == "live":
            return None
        version = (entry.bytes, entry.state)
        with self._lock:
            known = self._counted.get(entry.folder)
            if known and known[0] == version:
                return known[1]
            if (entry.folder, version) not in self._waiting:
                self._waiting.append((entry.folder, version))
            if self._thread is None:
                self._thread = Thread(target=self._work, name="census", daemon=True)
                self._thread.start()
        return None

    @property
    def is_busy(self) -> bool:
        with self._lock:
            return self._thread is not None

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return
                folder, version = self._waiting[0]  # stays there meanwhile, so that nobody asks for it twice
            count = counted(folder)
            with self._lock:
                self._waiting.popleft()
                self._counted[folder] = version, count


def counted(folder: Path) -> Count:
    try:
        reader = RecordingReader(folder)
        return Count({label: times for label, (times, _) in balance(reader).items()}, len(reader.damaged()))
    except (RecordingError, OSError):  # it went meanwhile, or only its metadata is whole
        return Count({})
