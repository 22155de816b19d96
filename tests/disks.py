"""Disks that fail, interrupt, kill, wait or remember: put one wherever a `Disk` is asked for.

Every primitive operation counts, from 1, also those inside a composed one (`write_new` is create, write, sync and close), so
that "the n-th operation, for every n" leaves nothing out.
"""

import errno
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

from motorbabble.disk import Disk

ERRORS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "EROFS": errno.EROFS, "EMFILE": errno.EMFILE}
SHORT = "short write"  # some of the bytes, then ENOSPC


class Op(NamedTuple):
    """One thing that happened to the disk. `data`: bytes written, new name, or new size."""

    what: str
    path: Path
    data: Any = None


class WatchedDisk(Disk):
    """Calls `met` before each primitive operation, and knows which file a descriptor means."""

    def __init__(self):
        self.count = 0
        self.names: dict[int, Path] = {}
        self._counting = threading.Lock()

    def met(self, op: Op) -> None:
        """For subclasses. An exception here is the operation's."""

    def _next(self, op: Op) -> None:
        with self._counting:
            self.count += 1
            self.met(op)

    def create(self, path: Path) -> int:
        self._next(Op("create", path))
        file = super().create(path)
        self.names[file] = path
        return file

    def write(self, file: int, data: bytes | memoryview) -> int:
        self._next(Op("write", self.names[file], bytes(data)))
        return super().write(file, data)

    def sync(self, file: int) -> None:
        self._next(Op("sync", self.names[file]))
        super().sync(file)

    def close(self, file: int) -> None:
        self._next(Op("close", self.names[file]))
        super().close(file)

    def sync_folder(self, path: Path) -> None:
        self._next(Op("sync_folder", path))
        Disk().sync_folder(path)

    def make_folder(self, path: Path) -> None:
        self._next(Op("make_folder", path))
        super().make_folder(path)

    def rename(self, old: Path, new: Path) -> None:
        self._next(Op("rename", old, new))
        super().rename(old, new)
        self.names = {file: new / name.relative_to(old) if name.is_relative_to(old) else name for file, name in self.names.items()}

    def truncate(self, path: Path, size: int) -> None:
        """Cutting and syncing are two operations: a kill may come in between."""
        self._next(Op("truncate", path, size))
        os.truncate(path, size)
        self._next(Op("sync", path))

    def remove(self, path: Path) -> None:
        self._next(Op("remove", path))
        super().remove(path)

    def remove_folder(self, path: Path) -> None:
        self._next(Op("remove_folder", path))
        super().remove_folder(path)


class FaultDisk(WatchedDisk):
    """Operation number `n` fails with `error` (a name in ERRORS, or SHORT); with `for_good` all later ones but `close` do too. n = 0 only counts."""

    def __init__(self, n: int, error: str, for_good: bool = False):
        super().__init__()
        self.n, self.error, self.for_good = n, error, for_good
        self.failed_at: float | None = None  # monotonic seconds of the first failure
        self.failed: Op | None = None
        self._shortened = False

    def met(self, op: Op) -> None:
        first = self.n + self._shortened  # of a short write, the rest is what fails
        if self.n and (self.count == first or (self.for_good and self.count > first and op.what != "close")):
            self.failed_at, self.failed = self.failed_at or time.monotonic(), self.failed or op
            number = ERRORS.get(self.error, errno.ENOSPC)
            raise OSError(number, os.strerror(number), str(op.path))

    def write(self, file: int, data: bytes | memoryview) -> int:
        if self.error == SHORT and self.count + 1 == self.n and len(data) > 1:
            self.count, self._shortened = self.count + 1, True
            return Disk.write(self, file, data[: len(data) // 2])
        return super().write(file, data)


class InterruptDisk(WatchedDisk):
    """KeyboardInterrupt, as Ctrl+C raises it, before operation `n`, or after it."""

    def __init__(self, n: int, after: bool = False):
        super().__init__()
        self.n, self.after = n, after

    def met(self, op: Op) -> None:
        if self.count == self.n and not self.after:
            raise KeyboardInterrupt

    def write(self, file: int, data: bytes | memoryview) -> int:
        taken = super().write(file, data)
        if self.count == self.n and self.after:
            raise KeyboardInterrupt
        return taken


class KillDisk(WatchedDisk):
    """SIGKILL before operation `n`; a write is done by half first when `torn`. n = 0 only counts."""

    def __init__(self, n: int, torn: bool = False):
        super().__init__()
        self.n, self.torn = n, torn

    def met(self, op: Op) -> None:
        if self.count == self.n:
            os.kill(os.getpid(), signal.SIGKILL)

    def write(self, file: int, data: bytes | memoryview) -> int:
        if self.torn and self.count + 1 == self.n:
            Disk.write(self, file, data[: len(data) // 2])
        return super().write(file, data)


class SlowDisk(Disk):
    """A card that takes its time to sync."""

    def __init__(self, seconds: float):
        self.seconds, self.syncs = seconds, 0

    def sync(self, file: int) -> None:
        self.syncs += 1
        time.sleep(self.seconds)


class TraceDisk(WatchedDisk):
    """Remembers every operation and note, in order, with the time; does not wait for syncs. tests/crashes.py builds crash states from it."""

    def __init__(self):
        super().__init__()
        self.ops: list[Op] = []
        self.times: list[float] = []

    def met(self, op: Op) -> None:
        if op.what != "close":
            self.ops.append(op)
            self.times.append(time.monotonic())

    def note(self, what: str, data: Any = None) -> None:
        """Something that is no operation: a moment was acknowledged, a pass of syncs is over."""
        self.met(Op(what, Path(), data))

    def sync(self, file: int) -> None:
        self._next(Op("sync", self.names[file]))

    def sync_folder(self, path: Path) -> None:
        self._next(Op("sync_folder", path))
