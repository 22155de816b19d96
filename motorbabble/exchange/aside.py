"""What is written over minutes appears all at once: made in a folder aside, then renamed into place.

A killed process leaves the folder aside, which the next one throws away and begins anew; a living one holds its lock. Nothing that
is already there is ever replaced, and a folder aside without our lock file is somebody else's and stays.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from motorbabble.errors import RecordingError

_LOCK = "motorbabble.lock"


@contextmanager
def made_aside(target: Path, aside: Path) -> Iterator[Path]:
    """Make `aside / target.name` within this context; it then becomes `target`. RecordingError when there is one, or somebody is making it."""
    check_absent(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    if aside.is_symlink() or (aside.exists() and any(aside.iterdir()) and not (aside / _LOCK).is_file()):
        raise RecordingError(f"{aside} is in the way, and was not made by this program; move it, or give another target")
    aside.mkdir(exist_ok=True)
    lock = FileLock(aside / _LOCK, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise RecordingError(f"{target.name} is being made by another process; wait until it ends, or give another target") from None
    try:
        _empty(aside)
        yield aside
        if hasattr(os, "sync"):  # one call for all the files: they last before their name does
            os.sync()
        check_absent(target)
        os.rename(aside / target.name, target)
    finally:
        _empty(aside)
        with contextlib.suppress(OSError):  # while we hold it, so that nobody's new folder goes; Windows removes no locked file, and keeps it
            os.unlink(aside / _LOCK)
            os.rmdir(aside)
        lock.release()


def check_absent(target: Path) -> None:
    if target.exists() or target.is_symlink():
        raise RecordingError(f"{target} is already there, and nothing is ever replaced; give another name, or remove it first")


def _empty(aside: Path) -> None:
    for path in aside.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != _LOCK:
            path.unlink()
