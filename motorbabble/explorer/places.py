"""Places: what may be looked at, by ids that stand on a list, and nothing else on the disk.

An id, "toroidal_dot/session_..." or "starter/toroidal_dot", is looked up in a fresh listing and never joined to a path, so a name that was
made up leads nowhere. What was opened is kept for the next question: readers by their folder, minds by their newest generation.
"""

from collections import OrderedDict
from pathlib import Path
from threading import Lock

from motorbabble.errors import CheckpointError, RecordingError
from motorbabble.learning.checkpoint import Checkpoints
from motorbabble.learning.state import mind_from
from motorbabble.recording.reader import RecordingReader
from motorbabble.recording.shelf import Entry, Shelf, shelves
from motorbabble.world_models.base import WorldModel

STARTER = "starter"  # what comes with the program, so that a first visit finds something
READERS, MINDS = 8, 4  # kept open


class Places:
    """Sessions and checkpoints below two folders, and what comes with the program."""

    def __init__(self, sessions: Path, checkpoints: Path, starter: Path | None = None):
        self.folder, self.checkpoint_folder = Path(sessions), Path(checkpoints)
        self.starter = Path(__file__).parent / STARTER if starter is None else starter
        self._readers: OrderedDict[tuple, RecordingReader] = OrderedDict()
        self._minds: OrderedDict[tuple, WorldModel] = OrderedDict()
        self._lock = Lock()

    # Sessions

    def sessions(self) -> list[tuple[str, Entry]]:
        """(id, entry) of every session of every robot, the newest first, those that come with the program last."""
        listed = [(f"{prefix}/{entry.name}", entry) for prefix, shelf in self._shelves() for entry in shelf.list() if not entry.is_link]
        return sorted(listed, key=lambda pair: (pair[0].startswith(f"{STARTER}/"), -pair[1].created_ns))

    def entry(self, session: str) -> Entry:
        """What the list says of it; RecordingError where it is on no list."""
        for prefix, shelf in self._shelves():
            for name in shelf.names():  # without looking into the others
                if f"{prefix}/{name}" == session and not (shelf.root / name).is_symlink():
                    return shelf.find(name)
        raise RecordingError(f"there is no session {_shown(session)} on the list; refresh it and choose one")

    def session(self, session: str) -> RecordingReader:
        """The reader of a session on the list. One that is still recorded grows."""
        entry = self.entry(session)
        key = (entry.folder, entry.bytes, entry.state)
        with self._lock:
            if key not in self._readers:
                self._readers[key] = RecordingReader(entry.folder)
                while len(self._readers) > READERS:
                    self._readers.popitem(last=False)
            self._readers.move_to_end(key)
            return self._readers[key]

    def _shelves(self) -> list[tuple[str, Shelf]]:
        """Of each kind of robot, with the first part of its sessions' ids; links are left out."""
        own = [(shelf.root.name, shelf) for shelf in shelves(self.folder) if not shelf.root.is_symlink()]
        return [*own, *((STARTER, shelf) for shelf in shelves(self.starter / "sessions"))]

    # Checkpoints

    def checkpoints(self, robot_type: str | None = None) -> list[str]:
        """Ids of the checkpoints there are, of one kind of robot or of all, the newest first, those that come with the program last."""
        own = [(f"{folder.parent.name}/{folder.name}", folder) for folder in _checkpoints_in(self.checkpoint_folder, robot_type)]
        own.sort(key=lambda pair: -max(pair[1].stat().st_mtime, 0))
        shipped = [f"{STARTER}/{folder.name}" for folder in _checkpoints_in(self.starter / "checkpoints", robot_type)]
        return [*(name for name, _ in own), *shipped]

    def checkpoint(self, checkpoint: str) -> Path:
        """The folder of a checkpoint on the list; CheckpointError where it is on no list."""
        for folder in _checkpoints_in(self.checkpoint_folder, None):
            if f"{folder.parent.name}/{folder.name}" == checkpoint:
                return folder
        for folder in _checkpoints_in(self.starter / "checkpoints", None):
            if f"{STARTER}/{folder.name}" == checkpoint:
                return folder
        raise CheckpointError(f"there is no checkpoint {_shown(checkpoint)} on the list; refresh it and choose one")

    def mind(self, checkpoint: str, reader: RecordingReader) -> WorldModel:
        """The model that acts, for looking only: nobody may train it. CheckpointMismatch where it knows other actions than the session's."""
        folder = self.checkpoint(checkpoint)
        saved = [Checkpoints(folder).path(generation) for generation in Checkpoints(folder).generations()[:1]]
        key = (*((path, path.stat().st_mtime_ns) for path in saved), reader.robot_type, str(reader.action_space))
        with self._lock:
            if key in self._minds:
                self._minds.move_to_end(key)
                return self._minds[key]
        model = mind_from(folder, reader.robot_type, reader.action_space)
        with self._lock:
            self._minds[key] = model
            while len(self._minds) > MINDS:
                self._minds.popitem(last=False)
        return model


def _checkpoints_in(root: Path, robot_type: str | None) -> list[Path]:
    """Folders with a generation in them; links are left out."""
    if not root.is_dir():
        return []
    kinds = [path for path in sorted(root.iterdir()) if path.is_dir() and not path.is_symlink() and robot_type in (None, path.name)]
    found = [path for kind in kinds for path in sorted(kind.iterdir()) if path.is_dir() and not path.is_symlink()]
    return [path for path in found if not path.name.startswith(".") and Checkpoints(path).generations()]


def _shown(name: object) -> str:
    return repr(name)[:80]
