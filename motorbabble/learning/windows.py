"""SessionWindows: windows drawn from sessions on disk, shuffled, read ahead; and which part of the sessions is kept for the exam.

Decisions: the order of an epoch is a function of seed and epoch alone, so a position in it is one number and resuming is
exact; a window with a damaged frame gives its place to the one behind it, and the frames are counted; decoded frames stay
in a bounded memory, and a thread reads the next batches while the model learns from this one.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Collection, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from motorbabble.errors import ConfigurationError, RecordingError, SessionDamaged
from motorbabble.experience import ActionSpace, Window
from motorbabble.recording.reader import RecordingReader
from motorbabble.world_models.base import resized

ONE_IN = 5  # sessions, or parts of the only session, kept for validation
READ_AHEAD = 3  # batches


@dataclass(frozen=True)
class Part:
    """Some stretches of one session, or all of them: no window leaves a stretch."""

    reader: RecordingReader
    stretches: tuple[range, ...]

    @classmethod
    def whole(cls, reader: RecordingReader) -> "Part":
        return cls(reader, tuple(reader.stretches))

    def starts(self, length: int) -> list[int]:
        """Where windows of `length` frames may begin."""
        return [first for stretch in self.stretches for first in range(stretch.start, stretch.stop - length + 1)]


def hold_out(
    readers: Sequence[RecordingReader], length: int, learned: Collection[str] = (), held_out: Collection[str] = ()
) -> tuple[list[Part], list[Part], str]:
    """What to learn from, what to be tested on, and a sentence that says which: every fifth session, the oldest first, at least one.

    `learned` and `held_out` are names of earlier times: what was learned from is never tested on, what was held out stays so.
    Sessions without a window of `length` frames do not count. A single session gives its last fifth: whole stretches if it can.
    ConfigurationError when nothing can be kept apart.
    """
    parts = [part for part in map(Part.whole, sorted(readers, key=lambda r: (r.meta.created_ns, r.name))) if part.starts(length)]
    if not parts:
        raise ConfigurationError(f"none of {len(readers)} sessions holds {length} frames in a row of one episode; record longer ones")
    if len(parts) == 1:
        if parts[0].reader.name in held_out and parts[0].reader.name not in learned:
            raise ConfigurationError(f"{parts[0].reader.name} was held out before, so nothing is left to learn from; add sessions, or use --fresh")
        return _last_fifth(parts[0], length)
    new = [i for i, part in enumerate(parts) if part.reader.name not in {*learned, *held_out}]
    held = [i for i, part in enumerate(parts) if part.reader.name in held_out and part.reader.name not in learned]
    held = sorted([*held, *new[ONE_IN - 1 :: ONE_IN]]) or new[-1:]
    if not held or len(held) == len(parts):
        raise ConfigurationError(
            f"of {len(parts)} sessions {len(held)} were held out before and the others learned from, so none is left for the exam or for learning; "
            "add sessions, or begin anew with --fresh"
        )
    names = ", ".join(parts[i].reader.name for i in held[:3]) + (", ..." if len(held) > 3 else "")
    said = f"{len(parts) - len(held)} sessions to learn from; {len(held)} held out for validation: {names}"
    return [part for i, part in enumerate(parts) if i not in held], [parts[i] for i in held], said


def _last_fifth(part: Part, length: int) -> tuple[list[Part], list[Part], str]:
    moments = sum(map(len, part.stretches))
    wanted = max(length, moments // ONE_IN)
    learned, kept = list(part.stretches), list[range]()
    while learned and ((missing := wanted - sum(map(len, kept))) > 0 or not Part(part.reader, tuple(kept)).starts(length)):
        last, missing = learned.pop(), max(missing, length)
        if len(last) >= 2 * missing:  # too much of what there is to learn from: a part of it will do
            learned.append(range(last.start, last.stop - missing))
            last = range(last.stop - missing, last.stop)
        kept.insert(0, last)
    parts = Part(part.reader, tuple(learned)), Part(part.reader, tuple(kept))
    if not all(part.starts(length) for part in parts):
        raise ConfigurationError(
            f"session {part.reader.name} is too short to keep a fifth of its {moments} moments for validation; give more sessions"
        )
    said = f"one session only, so its last {sum(map(len, kept))} of {moments} moments are held out; a second session would be the better exam"
    return [parts[0]], [parts[1]], said


class SessionWindows:
    """All windows of `length` frames in some parts of sessions, which must be of one robot type, action space and frame size.

    `memory_mb`: of decoded frames kept. `image_size` (height, width): what frames are resized to, as at a model's door. Frames that
    could not be read are in `damaged`: (session, moment). ConfigurationError, with both values, when sessions do not fit together.
    Used by one thread at a time, which while `batches` runs is its own.
    """

    def __init__(self, parts: Sequence[Part], length: int, seed: int = 0, memory_mb: float = 1024.0, image_size: tuple[int, int] | None = None):
        if length < 1 or not memory_mb >= 0:
            raise ConfigurationError(f"windows of {length} frames and {memory_mb} MB of memory cannot work; a window has 1 frame or more")
        self.parts, self.length, self.seed = list(parts), length, seed
        starts = [np.array([(i, first) for first in part.starts(length)], np.int64).reshape(-1, 2) for i, part in enumerate(parts)]
        self._starts = np.concatenate(starts) if starts else np.zeros((0, 2), np.int64)
        if not len(self._starts):
            raise ConfigurationError(f"the sessions hold no {length} frames in a row of one episode; record longer ones")
        self._recorded = _agreed(self.parts)
        self.image_shape = image_size or self._recorded
        self.robot_type, self.action_space = parts[0].reader.robot_type, parts[0].reader.action_space
        self.sources = [[part.reader.name, len(rows)] for part, rows in zip(parts, starts, strict=True)]  # which, with how many windows
        self.damaged: set[tuple[str, int]] = set()
        self._frames: OrderedDict[tuple[str, int], np.ndarray] = OrderedDict()
        self._most_bytes, self._bytes = memory_mb * 2**20, 0
        self._order = lru_cache(2)(lambda epoch: np.random.default_rng([seed, epoch]).permutation(len(self._starts)))

    def __len__(self) -> int:
        return len(self._starts)

    def place(self, position: int) -> tuple[str, int]:
        """Which session, and its moment where the window begins, stand at `position`, counted from 0 through all epochs."""
        part, first = self._starts[self._order(position // len(self))[position % len(self)]]
        return self.parts[part].reader.name, int(first)

    def at(self, position: int) -> Window:
        """The window at `position` of the shuffled order; where it is damaged, the next one behind it that is not."""
        for further in range(position, position + len(self)):
            window = self._window(int(self._order(further // len(self))[further % len(self)]))
            if window is not None:
                return window
        raise RecordingError(
            f"none of {len(self)} windows can be read, {len(self.damaged)} frames are damaged; check them with babble sessions check"
        )

    def batches(self, position: int, size: int, rank: int = 0, processes: int = 1) -> Generator[list[Window]]:
        """Without end, from `position` on: this process's share of each next `size` windows. Close the generator to end its thread."""
        if size % processes:
            raise ConfigurationError(f"a batch of {size} windows cannot be shared evenly by {processes} processes; choose a multiple of {processes}")
        share = size // processes
        stop = threading.Event()

        def read(start: int) -> list[Window]:
            return [] if stop.is_set() else [self.at(start + i) for i in range(share)]

        with ThreadPoolExecutor(1, "read-ahead") as pool:
            first = position + rank * share
            coming = deque(pool.submit(read, first + i * size) for i in range(READ_AHEAD))
            try:
                while True:
                    ready = coming.popleft().result()
                    first += size
                    coming.append(pool.submit(read, first + (READ_AHEAD - 1) * size))
                    yield ready
            finally:
                stop.set()

    def spread(self, count: int) -> list[Window]:
        """Up to `count` windows, spread evenly over all, in order; damaged ones left out."""
        picked = np.unique(np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(int))
        return [window for i in picked if (window := self._window(int(i))) is not None]

    def background(self, most: int = 256) -> np.ndarray:
        """The mean frame (H, W, 3), 0 to 255, of up to `most` frames, spread evenly over all."""
        moments = [(part, number) for part in self.parts for stretch in part.stretches for number in stretch]
        picked = np.unique(np.linspace(0, len(moments) - 1, min(most, len(moments))).round().astype(int))
        frames = (self._frame(*moments[i]) for i in picked)
        whole = [frame for frame in frames if frame is not None]
        if not whole:
            raise RecordingError(f"none of {len(picked)} frames can be read; check the sessions with babble sessions check")
        return np.stack(whole).mean(0, dtype=np.float64)

    # Parts

    def _window(self, index: int) -> Window | None:
        part, first = self.parts[self._starts[index, 0]], int(self._starts[index, 1])
        numbers = range(first, first + self.length)
        frames = [frame for number in numbers if (frame := self._frame(part, number)) is not None]
        if len(frames) < self.length:
            return None
        try:
            actions = [part.reader.encoded_action(number) for number in numbers[:-1]]
            return Window(np.stack(frames), np.stack(actions) if actions else np.zeros((0, self.action_space.size), np.float32))
        except SessionDamaged:
            self.damaged.add((part.reader.name, first))
            return None

    def _frame(self, part: Part, number: int) -> np.ndarray | None:
        key = (part.reader.name, number)
        if key in self.damaged:
            return None
        if key in self._frames:
            self._frames.move_to_end(key)
            return self._frames[key]
        try:
            frame = part.reader.image(number)
        except SessionDamaged:
            self.damaged.add(key)
            return None
        if frame.shape[:2] != self._recorded:
            raise ConfigurationError(
                f"{_size(self._recorded)} pixels at first, but {_size(frame.shape)} at moment {number} of {key[0]}; leave it out"
            )
        if self.image_shape != self._recorded:
            frame = resized(frame, self.image_shape)
        self._frames[key] = frame
        self._bytes += frame.nbytes
        while self._bytes > self._most_bytes:
            self._bytes -= self._frames.popitem(last=False)[1].nbytes
        return frame


def _agreed(parts: Sequence[Part]) -> tuple[int, int]:
    """Height and width of all frames; ConfigurationError where robot types, action spaces or sizes differ."""
    first = parts[0].reader
    size = _first_size(parts[0])
    for part in parts[1:]:
        other = part.reader
        if other.robot_type != first.robot_type:
            raise ConfigurationError(
                f"{first.name} was recorded by {first.robot_type}, {other.name} by {other.robot_type}; train on one type of robot at a time"
            )
        if other.action_space.fingerprint != first.action_space.fingerprint:
            raise ConfigurationError(
                f"{first.name} has the actions {_told(first.action_space)}, {other.name} has {_told(other.action_space)}; "
                "train on sessions of one action space"
            )
        if (its := _first_size(part)) != size:
            raise ConfigurationError(
                f"frames of {first.name} are {_size(size)}, those of {other.name} {_size(its)}; train on one frame size at a time"
            )
    return size


def _told(space: ActionSpace) -> str:
    ranges = ", ".join(f"{channel.name} {channel.low:g} to {channel.high:g}" for channel in space.channels)
    return f"{space} with {ranges}"  # equal lists may be scaled by other ranges


def _first_size(part: Part) -> tuple[int, int]:
    height, width, *_ = part.reader.moment(part.stretches[0].start).frame.shape
    return height, width


def _size(shape: Sequence[int]) -> str:
    return f"{shape[0]} x {shape[1]}"
