"""Every state a power cut may leave: built from a trace of operations, after SQLite's and ALICE's method.

The model is harsher than any file system of today. Only what was synced is sure. Of a file's other writes any number may
have arrived, the last of them torn or as zeros, whatever other files did; of a folder's other changes (names made, renamed,
removed) any subset. A file's sync keeps its bytes, not its name.
"""

import hashlib
import itertools
import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from disks import Op

TEARS = (1, 512, 4096)


def memory_folder() -> Path | None:
    """Where temporary files lie in memory, if there is such a place: crash states need no real disk."""
    place = Path("/dev/shm")
    return place if place.is_dir() else None


@dataclass
class File:
    begin: bytes = b""
    changes: list[bytes | int] = field(default_factory=list)  # bytes appended, or a size it was cut to
    synced: int = 0  # how many of the changes are sure

    def outcomes(self) -> list[tuple[bytes, bool]]:
        """All that may be found of it, fullest first, and whether those are its first bytes."""
        found = [(self._after(count), True) for count in range(len(self.changes), self.synced - 1, -1)]
        for count in range(self.synced, len(self.changes)):
            before, change = self._after(count), self.changes[count]
            if isinstance(change, bytes):
                found += [(before + change[:size], True) for size in (*TEARS, len(change) - 1) if 0 < size < len(change)]
                found.append((before + bytes(len(change)), False))
        return found

    def _after(self, count: int) -> bytes:
        content = self.begin
        for change in self.changes[:count]:
            content = content[:change] if isinstance(change, int) else content + change
        return content


@dataclass
class Folder:
    begin: dict[str, "File | Folder"] = field(default_factory=dict)
    changes: list[tuple[str, str, "File | Folder | None"]] = field(default_factory=list)  # name that goes, name that comes, what it is
    synced: int = 0

    def holds(self, arrived: Sequence[bool]) -> dict[str, "File | Folder"]:
        """Its names when all synced changes arrived, and those of the others that are told."""
        names = dict(self.begin)
        for (old, new, what), is_there in zip(self.changes, [True] * self.synced + list(arrived), strict=True):
            if is_there:
                names.pop(old, None)
                if what is not None:
                    names[new] = what
        return names


@dataclass(frozen=True)
class Crash:
    """A state, and the operations before it. `in_order`: each file holds the first of its bytes, so nothing is missing in the middle."""

    files: dict[str, bytes | None]  # path -> bytes; None: a folder
    before: int  # how many of the trace's operations had been begun
    in_order: bool

    def built(self, folder: Path) -> Path:
        """This state in an empty folder."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for path, content in self.files.items():
            if content is None:
                (folder / path).mkdir()
            else:
                (folder / path).write_bytes(content)
        return folder


class Model:
    """The disk as the operations so far leave it. Paths are told relative to `base`, which is sure to be there, with all it held before."""

    def __init__(self, base: Path):
        self.base, self.root = base, _as_found(base)

    def apply(self, op: Op) -> None:
        *above, name = op.path.relative_to(self.base).parts or ("",)
        if op.what == "sync_folder":
            folder = self._folder([*above, name] if name else [])
            folder.synced = len(folder.changes)
        elif op.what in ("create", "make_folder"):
            self._folder(above).changes.append(("", name, File() if op.what == "create" else Folder()))
        elif op.what == "rename":
            folder = self._folder(above)
            folder.changes.append((name, op.data.name, self._now(folder)[name]))
        elif op.what in ("remove", "remove_folder"):
            self._folder(above).changes.append((name, "", None))
        else:
            file = self._now(self._folder(above))[name]
            assert isinstance(file, File)
            if op.what == "sync":
                file.synced = len(file.changes)
            else:
                file.changes.append(op.data)  # write, truncate

    def crashes(self, before: int, most: int, rng: random.Random) -> Iterator[Crash]:
        """Up to `most` states a power cut may leave here: all, if they are few; else the extremes and drawn ones."""
        unsure = list(self._unsure(self.root))
        ranges = [file.outcomes() for file in unsure if isinstance(file, File)]
        flags = [len(folder.changes) - folder.synced for folder in unsure if isinstance(folder, Folder)]
        spaces = [range(len(outcomes)) for outcomes in ranges] + [range(2)] * sum(flags)
        total = 1
        for space in spaces:
            total *= len(space)
        if total <= most:
            chosen: Iterator[Sequence[int]] = itertools.product(*spaces)
        else:
            drawn = ([rng.choice(space) for space in spaces] for _ in range(most))
            chosen = itertools.islice(itertools.chain(_extremes(ranges, sum(flags)), drawn), most)
        for choice in chosen:
            outcomes = [found[pick] for found, pick in zip(ranges, choice, strict=False)]
            names = [not missing for missing in choice[len(ranges) :]]
            yield Crash(self._built(unsure, outcomes, names), before, all(whole for _, whole in outcomes))

    def least(self, path: str) -> bytes:
        """Bytes of this file that are sure to be there."""
        *above, name = Path(path).parts
        folder = self.root
        for part in above:
            inner = folder.holds([False] * (len(folder.changes) - folder.synced)).get(part)
            if not isinstance(inner, Folder):
                return b""
            folder = inner
        file = folder.holds([False] * (len(folder.changes) - folder.synced)).get(name)
        return min((content for content, _ in file.outcomes()), key=len) if isinstance(file, File) else b""

    def _built(self, unsure: list, outcomes: list, names: list[bool]) -> dict[str, bytes | None]:
        contents = dict(zip([id(file) for file in unsure if isinstance(file, File)], [content for content, _ in outcomes], strict=True))
        arrived, left = {}, list(names)
        for folder in (one for one in unsure if isinstance(one, Folder)):
            count = len(folder.changes) - folder.synced
            arrived[id(folder)], left = left[:count], left[count:]
        found: dict[str, bytes | None] = {}

        def walk(folder: Folder, path: str) -> None:
            for name, what in folder.holds(arrived.get(id(folder), [])).items():
                if isinstance(what, File):
                    found[path + name] = contents[id(what)] if id(what) in contents else what._after(len(what.changes))
                else:
                    found[path + name] = None
                    walk(what, f"{path}{name}/")

        walk(self.root, "")
        return found

    def _unsure(self, folder: Folder) -> Iterator[File | Folder]:
        """Everything that may be found there in more than one way, each once."""
        if len(folder.changes) > folder.synced:
            yield folder
        inside = list(folder.begin.values()) + [what for *_, what in folder.changes if what is not None]
        for what in {id(one): one for one in inside}.values():
            if isinstance(what, Folder):
                yield from self._unsure(what)
            elif len(what.changes) > what.synced:
                yield what

    def _folder(self, parts: Sequence[str]) -> Folder:
        folder = self.root
        for part in parts:
            inner = self._now(folder)[part]
            assert isinstance(inner, Folder)
            folder = inner
        return folder

    def _now(self, folder: Folder) -> dict[str, File | Folder]:
        return folder.holds([True] * (len(folder.changes) - folder.synced))


def crashes_of(ops: Sequence[Op], base: Path, begin: Model, most_each: int, seed: int) -> Iterator[Crash]:
    """Different states of all crashes during `ops`, up to `most_each` of them after each operation.

    What is not below `base` is a note: a promise was made, so that a state seen before has to be looked at again.
    """
    rng, seen, notes = random.Random(seed), set(), 0
    for before, op in enumerate(ops, 1):
        if op.path.is_relative_to(base):
            begin.apply(op)
        else:
            notes += 1
        for crash in begin.crashes(before, most_each, rng):
            essence = hashlib.sha256(repr((notes, sorted(crash.files.items()))).encode()).digest()
            if essence not in seen:
                seen.add(essence)
                yield crash


def scratch() -> tempfile.TemporaryDirectory:
    """A folder that is in memory where possible, and gone at the end of the `with`."""
    return tempfile.TemporaryDirectory(prefix="motorbabble-crash-", dir=memory_folder())


def _extremes(ranges: list, flags: int) -> Iterator[list[int]]:
    """Everything arrived; nothing did; of one file nothing, of all others everything; no name, but all bytes."""
    full, none = [0] * len(ranges), [_least(outcomes) for outcomes in ranges]
    yield full + [0] * flags
    yield none + [1] * flags
    yield full + [1] * flags
    yield none + [0] * flags
    for place in range(len(ranges)):
        yield full[:place] + [none[place]] + full[place + 1 :] + [0] * flags
    for flag in range(flags):
        yield full + [int(other == flag) for other in range(flags)]


def _least(outcomes: list[tuple[bytes, bool]]) -> int:
    return min(range(len(outcomes)), key=lambda place: len(outcomes[place][0]))


def _as_found(path: Path) -> Folder:
    inside = ((one.name, _as_found(one) if one.is_dir() else File(one.read_bytes())) for one in path.iterdir())
    return Folder(dict(inside))
