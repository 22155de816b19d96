"""Shelf: the sessions of one robot type, as people see them: what is there, what each is worth, who needs it.

Decisions: what a session says of itself is checked against its lock, since a process that was killed could not say so. A
session that cannot be read is shown with the reason and never hidden. A pin is a file in the session's folder, made and
removed under the same lock as the quota's removals, so that a pin that was acknowledged holds.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from motorbabble.disk import Disk
from motorbabble.errors import RecordingError
from motorbabble.recording.contents import Contents, created_ns_of, is_held, look_into, read_small, scan
from motorbabble.recording.format import META, PIN, SessionMeta, check_name
from motorbabble.recording.quota import MAX_BYTES, Pruned, enforce, kept_because, only_enforcer, prune
from motorbabble.recording.reader import RecordingReader, meta_of

SESSIONS = Path("saved/sessions")
PERSON = "person"  # who pins from the command line
_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


@dataclass(frozen=True)
class Entry:
    """One session on the shelf. `state`: live, closed, recovered, cut short or unreadable."""

    name: str
    folder: Path
    meta: SessionMeta | None  # None when unreadable; `why` then says why
    state: str
    bytes: int  # in blocks the disk really uses
    pins: dict[str, str] = field(default_factory=dict)  # owner -> what it wrote down
    why: str = ""
    is_link: bool = False  # shown, but neither counted nor ever removed

    @property
    def created_ns(self) -> int:
        return self.meta.created_ns if self.meta else 0


class Shelf:
    """The folder `saved/sessions/<robot_type>`. OSErrors of the disk travel on as they are."""

    def __init__(self, root: Path | str, disk: Disk | None = None):
        self.root, self.disk = Path(root), disk or Disk()

    def find(self, name: str) -> Entry:
        """One session by its name; RecordingError, with the nearest name, when there is none."""
        folder = self.root / check_name(name)
        inside = look_into(folder.resolve() if folder.is_symlink() else folder) if folder.is_dir() else None
        if inside is None or not inside.is_session:
            raise RecordingError(f"there is no session {name!r} in {self.root}; {_nearest(name, self.names())}")
        return self._entry(name, inside)

    def names(self) -> list[str]:
        """Without looking into any."""
        if not self.root.is_dir():
            return []
        return sorted(found.name for found in os.scandir(self.root) if found.is_dir() and not found.name.startswith("."))

    def usage(self) -> int:
        """Bytes of all sessions, in blocks the disk really uses."""
        return sum(inside.bytes for inside in scan(self.root).values()) if self.root.is_dir() else 0

    def why_kept(self, name: str) -> str:
        """Why the quota would not remove this session, in a few words; "" when it may."""
        return "a link" if (self.root / name).is_symlink() else kept_because(self.root / check_name(name))

    def pin(self, name: str, owner: str = PERSON, why: str = "") -> None:
        """From now on the quota leaves this session alone, until the same owner unpins it."""
        path = self._pin_path(name, owner)
        aside = path.with_name(path.name + ".new")  # counts as a pin already, so that a kill in between loses nothing
        with only_enforcer(self.root):
            if self.find(name).is_link:
                raise RecordingError(f"session {name} is a link to another place; pin it there")
            if os.path.lexists(aside):
                self.disk.remove(aside)
            self.disk.write_new(aside, why.encode())
            self.disk.rename(aside, path)
            self.disk.sync_folder(path.parent)

    def unpin(self, name: str, owner: str = PERSON) -> None:
        """Take this owner's pin away; RecordingError, naming whose pins there are, when it has none."""
        path = self._pin_path(name, owner)
        with only_enforcer(self.root):
            pins = self.find(name).pins
            if owner not in pins:
                raise RecordingError(f"session {name} is not pinned by {owner} (its pins: {', '.join(pins) or 'none'}); name one that is there")
            for pin in (path, path.with_name(path.name + ".new")):
                if os.path.lexists(pin):
                    self.disk.remove(pin)
            self.disk.sync_folder(path.parent)

    def prune(self, max_bytes: float = MAX_BYTES, dry_run: bool = False) -> Pruned:
        """Remove, or only name, the oldest sessions that nobody needs until `max_bytes` are enough."""
        return prune(self.root, max_bytes, dry_run=dry_run, disk=self.disk)

    def enforce(self, max_bytes: float = MAX_BYTES) -> Pruned:
        """As `prune`, but QuotaExceeded when it was not enough."""
        return enforce(self.root, max_bytes, self.disk)

    def list(self) -> "tuple[Entry, ...]":
        """All sessions, oldest first; those without readable metadata before all others."""
        if not self.root.is_dir():
            return ()
        found = scan(self.root)
        linked = [path for path in self.root.iterdir() if path.is_symlink() and path.is_dir() and not path.name.startswith(".")]
        found |= {path.name: inside for path in linked if (inside := look_into(path.resolve())).is_session}
        return tuple(sorted((self._entry(name, inside) for name, inside in found.items()), key=lambda entry: (entry.created_ns, entry.name)))

    # Parts

    def _pin_path(self, name: str, owner: str) -> Path:
        if not isinstance(owner, str) or not _OWNER.fullmatch(owner) or owner.endswith(".new"):
            raise RecordingError(f"{owner!r} cannot own a pin; use letters, digits, '.', '_' and '-', at most 200, not ending in '.new'")
        if not self.root.is_dir():
            raise RecordingError(f"there are no sessions in {self.root}; choose another folder with --sessions")
        return self.root / check_name(name) / (PIN + owner)

    def _entry(self, name: str, inside: Contents) -> Entry:
        folder = self.root / name
        pins = {owner: _note(folder, owner) for owner in inside.pins}
        try:
            meta = _meta(folder, inside)
            state, why = state_of(folder, meta), ""
        except (RecordingError, OSError) as error:
            meta, state, why = None, "unreadable", str(error)
        return Entry(name, folder, meta, state, inside.bytes, pins, why, folder.is_symlink())


def extent_of(entry: Entry) -> tuple[int | None, float | None]:
    """How many moments, and seconds from the session's beginning to its last; None where nobody can say."""
    meta = entry.meta
    if meta is None:
        return None, None
    if meta.state == "closed" and meta.moments is not None and meta.ended_ns is not None:
        return meta.moments, (meta.ended_ns - meta.created_ns) / 1e9
    try:
        reader = RecordingReader(entry.folder)
        last = reader.moment(len(reader) - 1) if len(reader) else None
    except RecordingError:
        return meta.moments, None
    ended = (last.ended_ns or last.captured_ns) if last else 0
    return len(reader), (ended - meta.created_ns) / 1e9 if ended else None


def duration(seconds: float | None) -> str:
    """12.3 s, 4:05 or 1:02:03; nothing where nobody can say."""
    if seconds is None or seconds < 0:  # a clock that was set back says nothing
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def state_of(folder: Path, meta: SessionMeta) -> str:
    """What is really so: `live` only while somebody holds the lock, `cut short` when nobody does and nobody closed it."""
    if meta.state == "closed" or (meta.state == "recovered" and meta.moments is not None):
        return meta.state
    return "live" if is_held(folder) else "cut short"


def shelves(sessions: Path | str = SESSIONS, disk: Disk | None = None) -> list[Shelf]:
    """One per robot type in `sessions`."""
    sessions = Path(sessions)
    if not sessions.is_dir():
        return []
    return [Shelf(path, disk) for path in sorted(sessions.iterdir()) if path.is_dir() and not path.name.startswith(".")]


def find_session(text: str | Path, sessions: Path | str = SESSIONS) -> Path:
    """The folder of a session, given as a path, `robot_type/name`, a bare name, `latest` or `robot_type/latest`.

    RecordingError, with the nearest name, when there is none, and when two robot types have one of that name.
    """
    text, sessions = str(text), Path(sessions)
    robot_type, slash, name = text.rpartition("/")
    among = [shelf for shelf in shelves(sessions) if not slash or shelf.root.name == robot_type]
    if name == "latest" and (among or not slash):
        return _latest(among, sessions)
    found = [shelf.root / name for shelf in among if name in shelf.names() and _is_session(shelf.root / name)]
    if len(found) > 1:
        raise RecordingError(f"there are {len(found)} sessions named {name!r}; say which: {', '.join(f'{f.parent.name}/{f.name}' for f in found)}")
    if found:
        return found[0]
    try:
        if _is_session(path := Path(text)):
            return path
    except (ValueError, OSError):  # a NUL, or longer than any path
        pass
    known = [f"{shelf.root.name}/{name}" if slash else name for shelf in shelves(sessions) for name in shelf.names()]
    raise RecordingError(f"there is no session {text!r} in {sessions}; {_nearest(text, known)}")


def find_sessions(texts: Iterable[str], sessions: Path | str = SESSIONS) -> list[Path]:
    """Folders, each once, of what `find_session` understands, and of `all` or `robot_type/all`: every one that can be read, oldest first."""
    found: list[Path] = []
    for text in texts:
        robot_type, _, last = text.rpartition("/")
        if last != "all":
            found.append(find_session(text, sessions))
            continue
        among = [shelf for shelf in shelves(Path(sessions)) if robot_type in ("", shelf.root.name)]
        entries = sorted((entry for shelf in among for entry in shelf.list() if entry.meta is not None), key=lambda entry: entry.created_ns)
        if not entries:
            raise RecordingError(f"there is no session in {Path(sessions) / robot_type}; record one with babble run, or choose another folder")
        found += [entry.folder for entry in entries]
    return list({folder.resolve(): folder for folder in found}.values())


def _latest(among: "list[Shelf]", sessions: Path) -> Path:
    """The newest one that holds, or may hold, a moment."""
    ages = {folder: created_ns_of(folder) for shelf in among for folder in (shelf.root / name for name in scan(shelf.root))}
    newest_first = sorted((when, folder.name, folder) for folder, when in ages.items() if when is not None)[::-1]
    for _, _, folder in newest_first:
        if not _is_empty(folder):
            return folder
    raise RecordingError(f"there is no session in {sessions} yet; record one with babble run, or choose another folder with --sessions")


def _is_empty(folder: Path) -> bool:
    try:
        return SessionMeta.from_bytes(read_small(folder / META)).moments == 0
    except (OSError, RecordingError):
        return True


def _is_session(path: Path) -> bool:
    return path.is_dir() and look_into(path.resolve()).is_session


def _meta(folder: Path, inside: Contents) -> SessionMeta:
    """Checked metadata; made anew from a shard's header when only that is left."""
    try:
        return SessionMeta.from_bytes(read_small(folder / META))
    except (RecordingError, OSError):
        if inside.foreign:  # a pipe or a link in the place of a file must not be opened
            raise
        return meta_of(folder)[0]


def _note(folder: Path, owner: str) -> str:
    try:
        return read_small(folder / (PIN + owner)).decode(errors="replace").strip()
    except OSError:
        return ""


def _nearest(name: str, names: "list[str]") -> str:
    near = get_close_matches(name, names, 1, 0.4)
    return f"did you mean {near[0]}?" if near else "list them with babble sessions list"
