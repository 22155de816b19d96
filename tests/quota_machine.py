"""The exam of the quota: several writers, people and accidents work in one folder, and a model says what may be gone.

`run_quota_operations(count, seed)` is the whole of it, for tests, soak and benchmark; `QuotaMachine` lets hypothesis look for
shorter ways to break it; `run_quota_processes` does it with real processes. The model never asks the code under test.
"""

import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from motorbabble.disk import Disk
from motorbabble.errors import QuotaExceeded, RecordingError
from motorbabble.experience import ActionSpace, Choice, Observation, Step
from motorbabble.recording import quota
from motorbabble.recording.shelf import Shelf
from motorbabble.recording.writer import RecordingWriter

SPACE = ActionSpace.discrete([{"add": 1}, {"add": 2}], labels=("one", "two"))
DAY = 86_400 * 10**9
MOST_LIVE, MOST_SESSIONS = 4, 14


class Quick(Disk):
    """Nothing here is about power cuts."""

    def sync(self, file: int) -> None:
        pass

    def sync_folder(self, path: Path) -> None:
        pass


def step(index: int, pixels: int = 40) -> Step:
    """Noise, so that frames take blocks."""
    image = np.random.default_rng(index).integers(0, 256, (pixels, pixels, 3), np.uint8)
    action = {"add": 1.0 + index % 2}
    return Step(index, Observation(image, sequence=index), action, action, Choice(action), time.time_ns(), time.time_ns(), time.monotonic_ns())


def crash(writer: RecordingWriter) -> None:
    """The process dies: nothing more is written, and the kernel drops its lock."""
    writer._closed = True
    writer._wake.set()
    writer._thread.join()
    for file in (*writer._finished, *writer._files):
        os.close(file)
    writer._lock.release()


def begin(root: Path, name: str | None = None, steps: int = 2, **settings) -> RecordingWriter:
    writer = RecordingWriter.create(root, "counting", SPACE, name=name, disk=Quick(), sync_seconds=3600, **settings)
    for number in range(steps):
        writer.record(step(number))
    return writer


def closed(root: Path, *names: str, steps: int = 2) -> Shelf:
    for name in names:
        begin(root, name, steps).close()
    return Shelf(root, Quick())


def names_in(root: Path) -> list[str]:
    return [entry.name for entry in Shelf(root).list()]


class Dying(Quick):
    """The process is killed at its n-th operation, before or after it."""

    def __init__(self, operation: int, after: bool):
        self.left, self.after = operation, after

    def _count(self, act, *given):
        self.left -= 1
        if self.left == 0 and not self.after:
            raise Killed
        answer = act(*given)
        if self.left == 0:
            raise Killed
        return answer

    def sync_folder(self, path):
        return self._count(super().sync_folder, path)

    def create(self, path):
        return self._count(super().create, path)

    def write(self, file, data):
        return self._count(super().write, file, data)

    def rename(self, old, new):
        return self._count(super().rename, old, new)

    def remove(self, path):
        return self._count(super().remove, path)

    def remove_folder(self, path):
        return self._count(super().remove_folder, path)


class Killed(BaseException):
    pass


class World:
    """One robot type's folder, and what must be true of it."""

    def __init__(self, folder: Path):
        self.root, self.outside = folder / "counting", folder / "outside"
        self.root.mkdir(parents=True)
        self.outside.mkdir()
        self.shelf = Shelf(self.root, Quick())
        self.writers: dict[str, RecordingWriter] = {}
        self.created: dict[str, int] = {}  # every session there should be
        self.pins: dict[str, set[str]] = {}
        self.spoiled: set[str] = set()  # holds something foreign, or nobody can read what it is
        self.lockless: set[str] = set()  # not closed, and its lock's file is gone
        self.foreign: dict[Path, bytes] = {}
        self.links: dict[Path, str] = {}
        self.clock, self.quota, self.serial = 0, 150_000, 0
        self.violations: list[str] = []
        self._foreign(self.outside / "letter.txt")
        self._foreign(self.outside / "frames_shard_000.pack")

    OPERATIONS = (
        *("create", "create", "create", "create", "write", "write", "close", "close", "close", "crash", "reopen", "enforce", "enforce", "enforce"),
        *("pin", "pin", "unpin", "link_in", "link_out", "hard_link", "foreign_file", "foreign_folder", "foreign_beside"),
        *("spoil_metadata", "lose_lock", "tidy_up", "tidy_up", "tidy_up", "tidy_up", "jump", "change_quota", "change_quota", "touch"),
    )

    def do(self, operation: str, pick: int) -> None:
        """One operation; `pick` decides on whom."""
        getattr(self, operation)(pick)

    # What may happen

    def create(self, pick: int) -> None:
        if len(self.writers) == MOST_LIVE:
            self.close(pick)
        if len(self.created) >= MOST_SESSIONS:
            return
        now = time.time_ns() + self.clock
        with patch("time.time_ns", lambda: now):
            writer = RecordingWriter.create(self.root, "counting", SPACE, disk=Quick(), sync_seconds=3600)
        self.writers[writer.folder.name] = writer
        self.created[writer.folder.name] = now
        self._record(writer, pick % 3)

    def write(self, pick: int) -> None:
        if name := _one(self.writers, pick):
            self._record(self.writers[name], 1 + pick % 7)

    def close(self, pick: int) -> None:
        if name := _one(self.writers, pick):
            self.writers.pop(name).close()
            self.lockless.discard(name)

    def crash(self, pick: int) -> None:
        if name := _one(self.writers, pick):
            crash(self.writers.pop(name))

    def reopen(self, pick: int) -> None:
        if len(self.writers) < MOST_LIVE and (name := _one(self.created.keys() - self.writers.keys() - self.spoiled - self.lockless, pick)):
            self.writers[name] = RecordingWriter.reopen(self.root / name, disk=Quick(), sync_seconds=3600)

    def pin(self, pick: int) -> None:
        if name := _one(self.created, pick):
            owner = ("person", "checkpoint-dot.v2")[pick % 2]
            self.shelf.pin(name, owner, "for later")
            self.pins.setdefault(name, set()).add(owner)

    def unpin(self, pick: int) -> None:
        if name := _one(self.pins, pick):
            self.shelf.unpin(name, owner := sorted(self.pins[name])[0])
            self.pins[name].discard(owner)
            if not self.pins[name]:
                del self.pins[name]

    def link_in(self, pick: int) -> None:
        """A link inside a session that leads out."""
        if name := _one(self.created.keys() - self.writers.keys(), pick):
            link = self.root / name / ("elsewhere", "frames_shard_900.pack", "pinned_by_nobody.txt")[pick % 3]
            if not os.path.lexists(link):
                link.symlink_to(self.outside if pick % 2 else self.outside / "letter.txt")
                self.links[link] = os.readlink(link)
                self.spoiled.add(name)

    def link_out(self, pick: int) -> None:
        """What looks like a session is a link to one elsewhere."""
        target, link = self.outside / f"session_far_{pick % 3}", self.root / f"session_link_{pick % 3}"
        if (name := _one(self.created.keys() - self.writers.keys() - self.spoiled, pick)) and not target.exists():
            shutil.copytree(self.root / name, target)
            for path in target.iterdir():
                self.foreign[path] = path.read_bytes()
            link.symlink_to(target)
            self.links[link] = os.readlink(link)

    def hard_link(self, pick: int) -> None:
        """A name the format knows whose bytes also have a name elsewhere: ours may go, theirs stays."""
        if name := _one(self.created.keys() - self.writers.keys(), pick):
            link = self.root / name / "frames_shard_901.pack"
            if not link.exists():
                os.link(self.outside / "frames_shard_000.pack", link)

    def foreign_file(self, pick: int) -> None:
        if name := _one(self.created, pick):
            self._foreign(self.root / name / ("notes.txt", "frames_shard_1.pack", "session_meta.json~", ".hidden", "frame.png")[pick % 5])
            self.spoiled.add(name)

    def foreign_folder(self, pick: int) -> None:
        if name := _one(self.created, pick):
            folder = self.root / name / ("frames", "frames_shard_902.pack")[pick % 2]
            folder.mkdir(exist_ok=True)
            self._foreign(folder / "frame_000001.jpg")
            self.spoiled.add(name)

    def foreign_beside(self, pick: int) -> None:
        folder = self.root / ("session_of_photos", ".trash-mine", "not a name")[pick % 3]
        folder.mkdir(exist_ok=True)
        self._foreign(folder / "photo.jpg")
        self._foreign(self.root / "list.txt")

    def spoil_metadata(self, pick: int) -> None:
        if pick % 4 == 0 and (name := _one(self.created.keys() - self.writers.keys(), pick)):
            path = self.root / name / "session_meta.json"
            if pick % 8 == 0 or not path.exists():
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(path.read_bytes()[:-30] + b"x" * 30)
            self.spoiled.add(name)

    def lose_lock(self, pick: int) -> None:
        """Without its lock nobody can tell whether a session that says `live` is being written."""
        if pick % 4 == 0 and (name := _one(self.writers, pick)):
            (self.root / name / "session.lock").unlink(missing_ok=True)
            self.lockless.add(name)

    def tidy_up(self, pick: int) -> None:
        """Somebody deletes a spoiled session by hand, so that there is room for others."""
        if name := _one(self.spoiled - self.writers.keys(), pick):
            shutil.rmtree(self.root / name)
            self._forget(name)
            self.pins.pop(name, None)

    def jump(self, pick: int) -> None:
        self.clock += DAY if pick % 2 else -DAY

    def change_quota(self, pick: int) -> None:
        self.quota = (1, 60_000, 150_000, 150_000, 300_000, 600_000)[pick % 6]

    def touch(self, pick: int) -> None:
        if name := _one(self.created, pick):
            when = 10**9 + pick * 10**6
            for path in (*(self.root / name).iterdir(), self.root / name):
                if not path.is_symlink():
                    os.utime(path, (when, when))

    # The exam

    def enforce(self, pick: int) -> None:
        sizes = {name: self._size(name) for name in self.created}
        before = {name: _bytes_in(self.root / name) for name in self.created}
        kept = self.writers.keys() | self.pins.keys() | self.spoiled | self.lockless
        eligible = sorted(self.created.keys() - kept, key=lambda name: self.created[name])
        left, due = sum(sizes.values()), []
        while left > self.quota and eligible:
            due.append(eligible.pop(0))
            left -= sizes[due[-1]]
        exceeded = False
        try:
            quota.enforce(self.root, self.quota, Quick())
        except QuotaExceeded:
            exceeded = True
        gone = {name for name in self.created if not (self.root / name).is_dir()}
        self._expect(exceeded == (left > self.quota), f"with {left} of {self.quota} bytes left, QuotaExceeded was {exceeded}")
        self._expect(not (lost := gone & self.writers.keys()), f"live: {lost} removed")
        self._expect(not (lost := gone & self.pins.keys()), f"pinned: {lost} removed")
        self._expect(not (lost := gone & (self.spoiled | self.lockless)), f"spoiled: {lost} removed")
        self._expect(gone == set(due), f"{sorted(gone)} were removed, the oldest that could go were {due}")
        self._expect(all(_bytes_in(self.root / name) == before[name] for name in self.created.keys() - gone), "a session that stayed was changed")
        for path, data in self.foreign.items():
            self._expect(path.is_file() and path.read_bytes() == data, f"foreign: {path} removed or changed")
        for link, target in self.links.items():
            self._expect(link.is_symlink() and os.readlink(link) == target, f"link: {link} removed")
        hidden = {path.name for path in self.root.iterdir() if path.name.startswith((".trash-", ".new-"))}
        self._expect(hidden <= {".trash-mine"}, f"left behind: {hidden}")
        listed = {entry.name for entry in self.shelf.list() if not entry.is_link}
        self._expect(listed == {name for name in self.created.keys() - gone if _looks_whole(self.root / name)}, f"listed: {listed}")
        for name in gone:
            if name in self.writers:
                crash(self.writers.pop(name))
            self._forget(name)
            self.pins.pop(name, None)

    def end(self) -> None:
        for writer in self.writers.values():
            crash(writer)
        self.writers.clear()

    # Parts

    def _expect(self, true: bool, otherwise: str) -> None:
        if not true:
            self.violations.append(otherwise)

    def _record(self, writer: RecordingWriter, steps: int) -> None:
        for _ in range(steps):
            writer.record(step(self.serial))
            self.serial += 1

    def _foreign(self, path: Path) -> None:
        self.serial += 1
        self.foreign.setdefault(path, b"mine %d " % self.serial * 500)
        path.write_bytes(self.foreign[path])

    def _size(self, name: str) -> int:
        """As du would say, without what is not ours."""
        folder = self.root / name
        ours = [p for p in folder.iterdir() if not p.is_symlink() and not p.is_dir() and p not in self.foreign]
        return sum(path.lstat().st_blocks * 512 for path in (folder, *ours)) if _looks_whole(folder) else 0

    def _forget(self, name: str) -> None:
        del self.created[name]
        self.spoiled.discard(name)
        self.lockless.discard(name)
        inside = self.root / name
        self.foreign = {path: data for path, data in self.foreign.items() if inside not in path.parents}
        self.links = {path: target for path, target in self.links.items() if inside not in path.parents}


def _looks_whole(folder: Path) -> bool:
    return (folder / "session_meta.json").is_file() or (folder / "events_shard_000.jsonl").is_file()


def _one(names: "dict | set", pick: int) -> str | None:
    return sorted(names)[pick % len(names)] if names else None


def _bytes_in(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run_quota_operations(count: int, seed: int, folder: Path | None = None, most_violations: int = 20) -> dict:
    """`count` random operations; `violations` lists each broken promise, `removed` counts sessions that went."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        world, made, done = World(Path(place)), 0, 0
        try:
            for _ in range(count):
                done += 1
                there = set(world.created)
                world.do(chance.choice(World.OPERATIONS), chance.randrange(10**6))
                made += len(world.created.keys() - there)
                if len(world.violations) >= most_violations:
                    break
        finally:
            world.end()
        return {"operations": done, "seed": seed, "sessions": made, "removed": made - len(world.created), "violations": world.violations}


class QuotaMachine(RuleBasedStateMachine):
    """The same operations, in the order hypothesis likes."""

    def __init__(self):
        super().__init__()
        self.place = tempfile.TemporaryDirectory()
        self.world = World(Path(self.place.name))

    @rule(operation=st.sampled_from(World.OPERATIONS), pick=st.integers(0, 999))
    def anything(self, operation: str, pick: int):
        self.world.do(operation, pick)
        assert not self.world.violations

    def teardown(self):
        self.world.end()
        self.place.cleanup()


# Real processes


def run_quota_processes(count: int, seed: int, processes: int = 4, max_bytes: int = 300_000) -> dict:
    """`count` operations in each of several processes that share a folder; each checks what it holds dear."""
    with tempfile.TemporaryDirectory() as place:
        (root := Path(place) / "counting").mkdir()
        context = get_context("spawn")
        with context.Pool(processes) as pool:
            found = pool.starmap(_one_process, [(str(root), count, seed + number, max_bytes) for number in range(processes)])
        lost = [violation for violations, _ in found for violation in violations]
        return {"operations": count * processes, "seed": seed, "removed": sum(removed for _, removed in found), "violations": lost}


def _one_process(root: str, count: int, seed: int, max_bytes: int) -> tuple[list[str], int]:
    chance, shelf = random.Random(seed), Shelf(root, Quick())
    writers: dict[str, RecordingWriter] = {}
    dear: dict[str, int] = {}  # session -> bytes of its lines it must at least hold; it is live, pinned, or holds notes
    idle: set[str] = set()
    lost: list[str] = []
    removed = 0

    def create() -> None:
        writer = RecordingWriter.create(root, "counting", SPACE, disk=Quick(), sync_seconds=3600)
        writers[writer.folder.name] = writer
        dear[writer.folder.name] = 0

    def write() -> None:
        if name := _one(writers, chance.randrange(99)):
            for number in range(3):
                writers[name].record(step(number))
            dear[name] = (shelf.root / name / "events_shard_000.jsonl").stat().st_size

    def close() -> None:
        if name := _one(writers, chance.randrange(99)):
            del dear[name]
            idle.add(name)
            crash(writers.pop(name)) if chance.random() < 0.3 else writers.pop(name).close()

    def keep() -> None:
        """Pin it, or drop a note beside it: whoever succeeded may rely on it."""
        if name := _one(idle, chance.randrange(99)):
            idle.discard(name)
            try:
                if chance.random() < 0.6:
                    shelf.pin(name, f"process-{seed}")
                else:
                    (shelf.root / name / "notes.txt").write_text("mine")
            except (RecordingError, FileNotFoundError):
                return  # it was gone before
            dear[name] = 1

    def release() -> None:
        name = _one(dear.keys() - writers.keys(), chance.randrange(99))
        if name and not (shelf.root / name / "notes.txt").exists() and (shelf.root / name).is_dir():
            del dear[name]
            shelf.unpin(name, f"process-{seed}")
        elif name:
            (shelf.root / name / "notes.txt").unlink(missing_ok=True)
            dear.pop(name)

    def enforce() -> None:
        nonlocal removed
        try:
            removed += len(quota.enforce(root, max_bytes, Quick()).removed)
        except QuotaExceeded:
            if len(dear) > 3:
                release()

    operations: list[Callable[[], None]] = [create, write, write, close, keep, release, enforce, enforce]
    for _ in range(count):
        chance.choice(operations)()
        if len(writers) > 2:
            close()
        for name, size in dear.items():
            lines = shelf.root / name / "events_shard_000.jsonl"
            # A session that somebody else is about to put back, since notes came to it, is away for an instant.
            if not _exists_soon(lines) or lines.stat().st_size < size:
                lost.append(f"{name} was lost though it was {'live' if name in writers else 'kept'}")
    for writer in writers.values():
        crash(writer)
    return lost, removed


def _exists_soon(path: Path) -> bool:
    for _ in range(100):
        if path.exists():
            return True
        time.sleep(0.01)
    return False
