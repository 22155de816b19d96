"""What lies in the folders of one robot type, told by names, sizes and locks: what shelf and quota both stand on.

Decisions: nothing is followed that is a link, and nothing opened but metadata. Sizes are blocks the disk really uses, of files
that are ours; a foreign file is named, not counted. Looking at thousands of sessions costs system calls, so whoever looks
often keeps a dict of what is `Known`.
"""

import os
import re
import stat
import time
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from motorbabble.errors import RecordingError
from motorbabble.recording.format import LOCK, META, PIN, check_name, is_ours
from motorbabble.recording.writer import locked

MOST_META = 2**22  # bytes
# One space before a member: it is the metadata's own, not one of something inside `about`.
_CREATED = re.compile(rb'^ "created_ns": (-?\d{1,19}),?$', re.MULTILINE)
_CLOSED = re.compile(rb'^ "state": "closed",?$', re.MULTILINE)
_NO_LINKS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class Contents(NamedTuple):
    """What lies in a session's folder, as far as names and sizes tell."""

    bytes: int  # in blocks the disk really uses: the folder and the files that are ours
    names: tuple[str, ...]  # of the files that are ours
    pins: tuple[str, ...]  # who pinned it
    foreign: str  # one thing in it that is not ours, or why nothing in it may be touched; "" when there is none

    @property
    def is_session(self) -> bool:
        return META in self.names or any(name.startswith("events_shard_") for name in self.names)


class Known(NamedTuple):
    """What need not be looked at again while the folder's own entry stays as it was: a closed session's contents and age."""

    stamp: tuple[int, int, int]
    inside: Contents
    created_ns: int | None


def scan(root: Path, known: dict[str, Known] | None = None) -> dict[str, Contents]:
    """Every session in `root`, by name. Links, hidden folders and what does not look like a session are left out."""
    found, still, device = {}, {}, os.stat(root).st_dev
    with os.scandir(root) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False) or not _is_name(entry.name):
                continue
            stamp = _stamp(entry.path) if known is not None else None
            before = known.get(entry.name) if known is not None else None
            if before is None or before.stamp != stamp:
                inside = look_into(entry.path, device)
                if not inside.is_session:
                    continue
                found[entry.name] = inside
                before = _settled(entry.path, stamp, inside) if stamp else None
            if before is not None:
                found[entry.name], still[entry.name] = before.inside, before
    if known is not None:
        known.clear()
        known.update(still)
    return found


def _stamp(folder: str) -> tuple[int, int, int] | None:
    try:
        here = os.lstat(folder)
    except OSError:
        return None
    return here.st_ino, here.st_mtime_ns, here.st_ctime_ns


def _settled(folder: str, stamp: tuple[int, int, int], inside: Contents) -> Known | None:
    """What may be known for later: nobody can write a closed session before metadata is renamed into it, which gives it a new stamp."""
    if time.time_ns() - stamp[1] < 2 * 10**9:  # a stamp is as coarse as the file system's clock
        return None
    try:
        meta = read_small(os.path.join(folder, META))
    except OSError:
        return None
    return Known(stamp, inside, _created_in(meta)) if _CLOSED.search(meta) else None


def look_into(folder: Path | str, device: int | None = None) -> Contents:
    """OSErrors, such as of a folder that has just gone, are told as something foreign: such a folder is never touched."""
    total, names, pins, foreign = 0, [], [], ""
    try:
        here = os.lstat(folder)
        if not stat.S_ISDIR(here.st_mode):
            return Contents(0, (), (), "a link")
        if here.st_dev != (os.stat(os.path.dirname(folder)).st_dev if device is None else device):
            foreign = "on another disk"
        with os.scandir(folder) as entries:
            for entry in entries:
                found = entry.stat(follow_symlinks=False) if os.name != "nt" else os.lstat(entry.path)
                if not is_ours(entry.name) or not stat.S_ISREG(found.st_mode) or found.st_dev != here.st_dev:
                    foreign = foreign or f"holding {entry.name!r}, which is not ours"
                    continue
                names.append(entry.name)
                total += _blocks(found)
                if entry.name.startswith(PIN):
                    pins.append(entry.name.removeprefix(PIN).removesuffix(".new"))  # also one whose writing was cut short
    except OSError as error:
        return Contents(total, tuple(names), tuple(pins), foreign or f"unreadable: {error.strerror or error}")
    return Contents(total + _blocks(here), tuple(names), tuple(sorted(set(pins))), foreign)


def created_ns_of(folder: Path | str) -> int | None:
    """When the session was created, read quickly and without a check of the metadata; None when it does not say."""
    try:
        return _created_in(read_small(os.path.join(folder, META)))
    except OSError:
        return None


def _created_in(meta: bytes) -> int | None:
    found = _CREATED.search(meta)
    return int(found[1]) if found else None


def read_small(path: Path | str) -> bytes:
    """A file's bytes, at most MOST_META of them; OSError for a link. Pipes do not block."""
    file = os.open(path, _NO_LINKS)
    try:
        return os.read(file, min(os.fstat(file).st_size, MOST_META))
    finally:
        os.close(file)


def is_held(folder: Path) -> bool:
    """Whether somebody is recording this session now. Makes no file."""
    if not os.path.lexists(folder / LOCK):
        return False
    try:
        lock = taken(folder)
    except OSError as error:
        return isinstance(error, PermissionError)  # another user's; on a read-only disk nobody records
    if lock is not None:
        lock.release()
    return lock is None


def taken(folder: Path) -> FileLock | None:
    """The session's lock, held; None when it is somebody else's. Asked twice, since `is_held` holds each lock for an instant."""
    for pause in (0.002, 0.0):
        try:
            return locked(folder)
        except RecordingError:
            time.sleep(pause)
    return None


def _blocks(found: os.stat_result) -> int:
    blocks = getattr(found, "st_blocks", None)
    return blocks * 512 if blocks is not None else -(-found.st_size // 4096) * 4096


def _is_name(name: str) -> bool:
    try:
        return check_name(name) == name
    except RecordingError:
        return False
