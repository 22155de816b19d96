"""The one seam to the disk: what its composed operations promise, operation by operation."""

import errno
import os
import stat
from pathlib import Path

import pytest
from disks import TraceDisk, WatchedDisk

from motorbabble.disk import Disk


class Sips(Disk):
    """Takes three bytes at a time, as a kernel may."""

    def write(self, file: int, data: bytes | memoryview) -> int:
        return super().write(file, data[:3])


class Synced(WatchedDisk):
    """Notes what each sync made last, by its size then."""

    def __init__(self):
        super().__init__()
        self.noted: list[tuple[str, str, int]] = []

    def met(self, op):
        size = op.path.stat().st_size if op.what == "sync" else 0
        self.noted.append((op.what, op.path.name, size))


def open_files() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def test_a_new_file_is_new_and_only_appended_to(tmp_path):
    file = Disk().create(tmp_path / "a")
    Disk().append(file, b"one")
    os.lseek(file, 0, os.SEEK_SET)
    Disk().append(file, b"two")
    Disk().close(file)
    assert (tmp_path / "a").read_bytes() == b"onetwo"
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) & 0o777 in (0o644, 0o640, 0o600), "nobody else writes it"
    with pytest.raises(FileExistsError):
        Disk().create(tmp_path / "a")
    with pytest.raises(OSError):
        os.write(file, b"closed")


def test_links_are_not_followed(tmp_path):
    (tmp_path / "real").write_bytes(b"12345")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OSError):
        Disk().create(tmp_path / "dangling")
    with pytest.raises(OSError) as caught:
        Disk().truncate(tmp_path / "link", 1)
    assert caught.value.errno == errno.ELOOP
    assert (tmp_path / "real").read_bytes() == b"12345" and not (tmp_path / "nowhere").exists()


def test_children_inherit_no_file(tmp_path):
    file = Disk().create(tmp_path / "a")
    assert not os.get_inheritable(file)
    Disk().close(file)


@pytest.mark.parametrize("size", [0, 1, 3, 10])
def test_a_short_write_is_completed(tmp_path, size):
    data = bytes(range(size))
    Sips().write_new(tmp_path / "a", data)
    assert (tmp_path / "a").read_bytes() == data


def test_a_new_file_is_synced_whole_and_closed(tmp_path):
    disk, before = Synced(), open_files()
    disk.write_new(tmp_path / "a", b"12345")
    assert disk.noted == [("create", "a", 0), ("write", "a", 0), ("sync", "a", 5), ("close", "a", 0)]
    assert open_files() == before


def test_a_file_that_cannot_be_written_is_closed(tmp_path):
    class Full(Disk):
        def write(self, file, data):
            raise OSError(errno.ENOSPC, "full")

    before = open_files()
    with pytest.raises(OSError):
        Full().write_new(tmp_path / "a", b"12345")
    assert open_files() == before


def test_a_file_is_replaced_by_one_that_lasts(tmp_path):
    disk = TraceDisk()
    disk.write_whole(tmp_path / "a", b"old")
    disk.ops.clear()
    disk.write_whole(tmp_path / "a", b"new and longer")
    assert (tmp_path / "a").read_bytes() == b"new and longer"
    assert [op.what for op in disk.ops] == ["create", "write", "sync", "rename", "sync_folder"], "synced before it has the name"
    assert disk.ops[3].path.name.startswith(".a.") and disk.ops[3].data == tmp_path / "a" and disk.ops[4].path == tmp_path
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_a_killed_replacement_left_is_not_in_the_way(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / f".a.{os.getpid()}.new").write_bytes(b"torn, and longer than what comes")
    Disk().write_whole(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new" and len(list(tmp_path.iterdir())) == 1


def test_a_replacement_that_fails_leaves_the_old(tmp_path):
    class Broken(Disk):
        def sync(self, file):
            raise OSError(errno.EIO, "broken")

    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(OSError):
        Broken().write_whole(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"


def test_a_file_is_cut_and_synced(tmp_path):
    class Counts(Disk):
        sizes: list[int] = []  # noqa: RUF012

        def sync(self, file):
            self.sizes.append(os.fstat(file).st_size)
            super().sync(file)

    (tmp_path / "a").write_bytes(b"12345")
    disk, before = Counts(), open_files()
    disk.truncate(tmp_path / "a", 2)
    assert (tmp_path / "a").read_bytes() == b"12" and disk.sizes == [2] and open_files() == before
    with pytest.raises(FileNotFoundError):
        disk.truncate(tmp_path / "none", 0)
    assert not (tmp_path / "none").exists()


def test_a_folders_names_are_synced_and_it_is_closed(tmp_path):
    synced: list[bool] = []

    class Counts(Disk):
        def sync(self, file):
            synced.append(stat.S_ISDIR(os.fstat(file).st_mode))
            super().sync(file)

    before = open_files()
    Counts().sync_folder(tmp_path)
    assert synced == [True] and open_files() == before
    (tmp_path / "a").touch()
    with pytest.raises(NotADirectoryError):
        Counts().sync_folder(tmp_path / "a")


def test_every_missing_folder_lasts_before_what_lies_in_it(tmp_path):
    disk = TraceDisk()
    disk.make_folders(tmp_path / "a" / "b" / "c")
    disk.make_folders(tmp_path / "a" / "b" / "c")
    a, b = tmp_path / "a", tmp_path / "a" / "b"
    assert [(op.what, op.path) for op in disk.ops] == [
        ("make_folder", a),
        ("sync_folder", tmp_path),
        ("make_folder", b),
        ("sync_folder", a),
        ("make_folder", b / "c"),
        ("sync_folder", b),
    ]
    assert (b / "c").is_dir()


def test_another_process_may_be_quicker(tmp_path):
    class Late(Disk):
        def make_folder(self, path: Path):
            os.mkdir(path)
            super().make_folder(path)

    Late().make_folders(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_a_folder_is_made_once_and_removed_only_when_empty(tmp_path):
    disk, folder = Disk(), tmp_path / "a"
    disk.make_folder(folder)
    with pytest.raises(FileExistsError):
        disk.make_folder(folder)
    disk.write_new(folder / "b", b"")
    with pytest.raises(OSError):
        disk.remove_folder(folder)
    disk.remove(folder / "b")
    disk.remove_folder(folder)
    assert not folder.exists()
    with pytest.raises(FileNotFoundError):
        disk.remove(folder / "b")


def test_a_rename_replaces_a_file(tmp_path):
    (tmp_path / "a").write_bytes(b"new")
    (tmp_path / "b").write_bytes(b"old")
    Disk().rename(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"new" and not (tmp_path / "a").exists()
