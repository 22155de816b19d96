"""The quota: when one robot type's sessions take more of the disk than they may, the oldest that nobody needs goes.

Decisions: what cannot be shown to be ours and unneeded stays. One enforcer at a time holds the root's lock; pins take it
too, so that none is lost in a race. Everything is asked again once the session's own lock is held. A removal is a rename,
a sync, then deletions by name, so a killed one never shows half a session, and the next enforcer finishes it. Age is
`created_ns` of the metadata: an mtime only says who touched a file last. Foreign files are neither counted nor removed.
"""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from motorbabble.disk import Disk
from motorbabble.errors import ConfigurationError, QuotaExceeded, RecordingError
from motorbabble.recording.contents import Contents, Known, created_ns_of, is_held, look_into, read_small, scan, taken
from motorbabble.recording.format import LOCK, META, SessionMeta

MAX_BYTES = 10 * 10**9  # per robot type
ROOT_LOCK, TRASH = ".quota.lock", ".trash-"
PATIENCE_SECONDS = 30.0  # for another enforcer to end
ABANDONED_SECONDS = 3600.0  # a creator needs milliseconds to fill its hidden folder
_NEW = re.compile(r"\.new-[0-9a-f]{12}")


class Removed(NamedTuple):
    name: str
    bytes: int


class Pruned(NamedTuple):
    removed: tuple[Removed, ...]  # oldest first; in a dry run, what would be
    used: int  # bytes that are left
    kept: dict[str, str]  # session -> why it may not go; filled only when there was something to remove


def enforce(root: Path | str, max_bytes: float = MAX_BYTES, disk: Disk | None = None, known: dict[str, Known] | None = None) -> Pruned:
    """Remove what may go until `root`, the folder of one robot type, holds `max_bytes` at most; QuotaExceeded when that cannot be reached.

    Give the same dict as `known` every time, empty at first, and only what changed is looked at.
    """
    root = Path(root)
    done = prune(root, max_bytes, disk=disk, known=known)
    if done.used > max_bytes:
        some = [f"{name} is {why}" for name, why in list(done.kept.items())[:3]]
        more = [f"{len(done.kept) - 3} more"] * (len(done.kept) > 3)
        raise QuotaExceeded(
            f"the sessions in {root} take {in_words(done.used)}, more than the {in_words(max_bytes)} they may, and nothing can be removed "
            f"({'; '.join(some + more) or 'there are none'}); unpin or delete some, see babble sessions list, or allow more"
        )
    return done


def prune(
    root: Path | str, max_bytes: float = MAX_BYTES, *, dry_run: bool = False, disk: Disk | None = None, known: dict[str, Known] | None = None
) -> Pruned:
    """As `enforce`, but never complains; `dry_run` only says what would go, and changes nothing."""
    root, disk = Path(root), disk or Disk()
    check_quota(max_bytes)
    if not root.is_dir():
        return Pruned((), 0, {})
    root = root.resolve()
    with nullcontext() if dry_run else only_enforcer(root):
        removed = _leftovers(root) if dry_run else _finish(root, disk)
        found = scan(root, known)
        used = sum(inside.bytes for inside in found.values()) + sum(left.bytes for left in _leftovers(root) if not dry_run)
        if used <= max_bytes:
            return Pruned(tuple(removed), used, {})
        kept = {name: why for name, inside in found.items() if (why := why_untouched(inside))}
        ages = {name: _age(root, name, known or {}) for name in found.keys() - kept.keys()}
        kept |= {name: "without readable metadata" for name, created in ages.items() if created is None}
        for _, name in sorted((created, name) for name, created in ages.items() if created is not None):
            if used <= max_bytes:
                break
            try:
                why = kept_because(root / name) if dry_run else _remove(root, name, disk)
            except OSError as error:
                why = f"not removable: {error.strerror or error}"
            if why:
                kept[name] = why
            else:
                removed.append(Removed(name, found[name].bytes))
                used -= found[name].bytes
    return Pruned(tuple(removed), used, kept)


def check_quota(max_bytes: float) -> None:
    """ConfigurationError for what is no positive, finite number of bytes."""
    if not isinstance(max_bytes, int | float) or not 0 < max_bytes < float("inf"):
        raise ConfigurationError(f"the quota is {max_bytes!r} bytes; give a positive number, or record nothing with --no-record")


@contextmanager
def only_enforcer(root: Path) -> Iterator[None]:
    """Hold the root's lock: nobody else removes or pins a session meanwhile."""
    lock = FileLock(root / ROOT_LOCK, thread_local=False)
    try:
        lock.acquire(timeout=PATIENCE_SECONDS, poll_interval=0.01)
    except Timeout:
        raise RecordingError(f"another process has been tidying {root} for {PATIENCE_SECONDS:.0f} s; end it, or wait and try again") from None
    try:
        yield
    finally:
        lock.release()


def kept_because(folder: Path) -> str:
    """Why the quota may not remove this session, in a few words; "" when it may."""
    inside = look_into(folder)
    return why_untouched(inside) or _why_unsure(folder, inside) or ("live" if is_held(folder) else "")


def why_untouched(inside: Contents) -> str:
    """What can be told at sight."""
    return inside.foreign or (f"pinned by {', '.join(inside.pins)}" if inside.pins else "")


def _why_unsure(folder: Path, inside: Contents) -> str:
    try:
        meta = SessionMeta.from_bytes(read_small(folder / META))
    except (OSError, RecordingError):
        return "without readable metadata"
    # Whoever records holds a lock; were its file deleted, nobody could tell.
    return "" if meta.state == "closed" or LOCK in inside.names else f"{meta.state}, but without its lock"


def in_words(size: float) -> str:
    """Bytes for people: 1.5 GB."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit * 0.9995:
            return f"{size / unit:.3g} {name}"
    return f"{size:.0f} bytes"


# Removing


def _remove(root: Path, name: str, disk: Disk) -> str:
    """Remove one session; "" when it is gone, else why it is not."""
    folder, trash = root / name, root / (TRASH + name)
    if why := why_untouched(inside := look_into(folder)) or _why_unsure(folder, inside):
        return why
    if os.path.lexists(trash):
        return "behind an unfinished removal of the same name"
    lock = taken(folder)
    if lock is None:
        return "live"
    try:
        if why := why_untouched(inside := look_into(folder)) or _why_unsure(folder, inside):  # it may have changed before the lock was ours
            return why
        disk.rename(folder, trash)
        disk.sync_folder(root)  # before the first deletion: after a power cut no half session has its old name
        if why := why_untouched(inside := look_into(trash)):  # somebody put something there in that instant
            disk.rename(trash, folder)
            return why
        _delete(trash, inside, disk)
    finally:
        lock.release()
    return ""


def _delete(folder: Path, inside: Contents, disk: Disk) -> None:
    """Files by names we know, the lock last, then the folder, which fails when something else has come."""
    for name in sorted(inside.names, key=lambda name: (name == LOCK, name)):
        disk.remove(folder / name)
    disk.remove_folder(folder)


def _finish(root: Path, disk: Disk) -> list[Removed]:
    """Delete what a killed removal or creator left, unless somebody holds it."""
    done = []
    for left in _leftovers(root):
        folder = root / left.name
        inside = look_into(folder)
        lock = None
        try:
            lock = taken(folder) if LOCK in inside.names else None
            if not why_untouched(inside) and (lock or LOCK not in inside.names):
                _delete(folder, inside, disk)
                done.append(left)
        except OSError:  # the next enforcer tries again; until then its bytes are counted
            continue
        finally:
            if lock:
                lock.release()
    return done


def _leftovers(root: Path) -> list[Removed]:
    """Hidden folders that a killed removal left, or long ago a killed creator."""
    found = []
    with os.scandir(root) as entries:
        for entry in entries:
            is_left = entry.name.startswith(TRASH) or (_NEW.fullmatch(entry.name) and _is_abandoned(entry.path))
            if is_left and entry.is_dir(follow_symlinks=False) and not why_untouched(inside := look_into(entry.path)):
                found.append(Removed(entry.name, inside.bytes))
    return found


def _is_abandoned(folder: str) -> bool:
    try:
        return time.time() - os.lstat(folder).st_mtime > ABANDONED_SECONDS
    except OSError:  # its creator has just given it its name
        return False


def _age(root: Path, name: str, known: dict[str, Known]) -> int | None:
    return known[name].created_ns if name in known else created_ns_of(os.path.join(root, name))
