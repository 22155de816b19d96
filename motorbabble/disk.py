"""The one seam to the disk: every byte that must survive is written through here.

A process kill spares what was handed to the kernel, so nothing is buffered; a power cut spares what was synced, in the
order it was synced. Tests put another Disk here that fails, tears or traces each operation. Errors are OSErrors.
"""

import os
from contextlib import suppress
from pathlib import Path

_NO_LINKS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class Disk:
    """Files are numbers (descriptors), opened for appending only."""

    def create(self, path: Path) -> int:
        """A new file; FileExistsError when there is one."""
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | _NO_LINKS, 0o644)

    def write(self, file: int, data: bytes | memoryview) -> int:
        """One call to the kernel; answers how many bytes it took."""
        return os.write(file, data)

    def append(self, file: int, data: bytes) -> None:
        """All of it, however many calls that takes."""
        left = memoryview(data)
        while left:
            left = left[self.write(file, left) :]

    def sync(self, file: int) -> None:
        os.fsync(file)

    def close(self, file: int) -> None:
        os.close(file)

    def sync_folder(self, path: Path) -> None:
        """Makes names created, renamed or removed in this folder last."""
        if os.name == "nt":  # Windows cannot open folders, and keeps names by itself
            return
        file = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        try:
            self.sync(file)
        finally:
            os.close(file)

    def make_folder(self, path: Path) -> None:
        """A new folder; FileExistsError when there is one."""
        os.mkdir(path)

    def make_folders(self, path: Path) -> None:
        """A folder and all it lies in, as far as they are missing; each name lasts."""
        if not path.is_dir():
            self.make_folders(path.parent)
            with suppress(FileExistsError):  # another process was quicker
                self.make_folder(path)
            self.sync_folder(path.parent)

    def rename(self, old: Path, new: Path) -> None:
        os.replace(old, new)

    def truncate(self, path: Path, size: int) -> None:
        """Cut a file to `size` bytes, and sync it."""
        file = os.open(path, os.O_WRONLY | _NO_LINKS)
        try:
            os.ftruncate(file, size)
            self.sync(file)
        finally:
            os.close(file)

    def remove(self, path: Path) -> None:
        os.unlink(path)

    def remove_folder(self, path: Path) -> None:
        """An empty one."""
        os.rmdir(path)

    def write_new(self, path: Path, data: bytes) -> None:
        """A new file with these bytes, synced; its name lasts once the folder is synced."""
        file = self.create(path)
        try:
            self.append(file, data)
            self.sync(file)
        finally:
            self.close(file)

    def write_whole(self, path: Path, data: bytes) -> None:
        """Replace a file: afterwards, and after any crash, it holds the old bytes or the new ones."""
        aside = path.with_name(f".{path.name}.{os.getpid()}.new")
        aside.unlink(missing_ok=True)  # what a killed process with our number left
        self.write_new(aside, data)
        self.rename(aside, path)
        self.sync_folder(path.parent)
