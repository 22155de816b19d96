"""Health: what a session is worth: what is damaged, what is missing, what a camera or a selector did wrong.

Decisions: damage is found by reading every frame, since nothing else finds it. Faults of the robot (a frozen or black picture, a
pause) are told but do not count as damage: the recording is faithful. Nothing is written here except by `repair`.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import NamedTuple

from motorbabble.disk import Disk
from motorbabble.errors import ActionError, SessionDamaged
from motorbabble.experience import Action, ActionSpace
from motorbabble.recording.format import events_file, frames_file, shards_in
from motorbabble.recording.reader import Moment, RecordingReader, Shard, header_of
from motorbabble.recording.recovery import Recovered, recover
from motorbabble.recording.shelf import state_of
from motorbabble.recording.writer import locked

GAP, SHORTEST_GAP = 10.0, 0.5  # a pause is this many medians long, and so many seconds
FROZEN = 5  # identical frames in a row, while the robot acted


@dataclass(frozen=True)
class Pause:
    after: int  # the moment before it
    seconds: float


@dataclass(frozen=True)
class Health:
    """What `check` found. Moments are named by their numbers, frozen stretches by their first and last."""

    state: str
    moments: int  # that there should be
    steps: int = 0
    damaged_lines: tuple[int, ...] = ()
    damaged_frames: tuple[int, ...] = ()
    damaged_headers: tuple[int, ...] = ()  # shards whose first line is lost
    metadata_lost: bool = False  # it was made anew from a shard
    torn_bytes: int = 0  # at the end, behind the last line and the last frame
    time_gaps: tuple[Pause, ...] = ()
    sequence_gaps: tuple[int, ...] = ()  # moments after which frames of the robot were skipped
    duplicates: tuple[int, ...] = ()  # moments that show the very frame of the one before
    backwards: tuple[int, ...] = ()  # moments whose frame was taken before that of the one before
    frozen: tuple[tuple[int, int], ...] = ()
    black: tuple[int, ...] = ()
    actions: dict[str, tuple[int, float]] = field(default_factory=dict)  # label -> how often it was executed, and its share
    other_executed: int = 0  # steps in which the robot did something else than was asked for
    seconds: float = 0.0  # from the first action's start to the last one's end, by the wall clock
    steps_per_second: float = 0.0  # of a typical step: one over the median interval
    bytes_per_moment: float = 0.0

    @property
    def damaged(self) -> tuple[int, ...]:
        return tuple(sorted({*self.damaged_lines, *self.damaged_frames}))

    @property
    def is_intact(self) -> bool:
        torn = self.torn_bytes if self.state == "closed" else 0  # where nobody closed it, a torn end is no loss
        return not (self.damaged or self.damaged_headers or self.metadata_lost or torn)

    @property
    def exit_code(self) -> int:
        """0: intact; 5: damaged, but something can be read; 1: nothing can."""
        return 0 if self.is_intact else 5 if len(self.damaged) < self.moments else 1

    def sentences(self) -> list[str]:
        """For people, the worst first."""
        return [*self._damage(), *self._faults(), *self._facts()]

    def _damage(self) -> Iterator[str]:
        if self.damaged:
            yield f"{len(self.damaged)} of {_many(self.moments, 'moment')} damaged and skipped by readers: {_spans(self.damaged)}."
        if self.damaged_lines and self.damaged_frames:
            yield f"Of {len(self.damaged_lines)} the line is lost, of {len(self.damaged_frames)} the frame or state."
        if self.metadata_lost:
            yield "session_meta.json is lost; what it said was taken from a shard."
        if self.damaged_headers:
            yield f"The first line of shard {_spans(self.damaged_headers)} is damaged; its moments are still found."
        if self.torn_bytes:
            yield f"{_many(self.torn_bytes, 'byte')} at the end never finished, and ignored; --repair cuts them off."
        if self.is_intact:
            yield f"Intact: {_many(self.moments, 'moment')}, exactly as written."

    def _faults(self) -> Iterator[str]:
        if self.frozen:
            where = ", ".join(f"{first} to {last}" for first, last in self.frozen[:5])
            yield f"The picture stood still while the robot acted, {_times(len(self.frozen))}: moments {where}{_more(self.frozen, 5)}."
        if self.black:
            yield f"{_many(len(self.black), 'frame')} all black: {_spans(self.black)}."
        if self.duplicates:
            yield f"{_many(len(self.duplicates), 'frame')} handed out a second time: {_spans(self.duplicates)}."
        if self.backwards:
            yield f"The camera's clock or count went back at {_spans(self.backwards)}."
        if self.sequence_gaps:
            yield f"Frames or steps are missing after {_spans(self.sequence_gaps)}."
        if self.time_gaps:
            longest = max(self.time_gaps, key=lambda pause: pause.seconds)
            yield f"It paused {_times(len(self.time_gaps))}, longest for {longest.seconds:.1f} s after moment {longest.after}."
        if self.other_executed:
            yield f"In {self.other_executed} of {_many(self.steps, 'step')} the robot did something else than was asked for."

    def _facts(self) -> Iterator[str]:
        yield f"The session is {self.state}."
        if self.steps:
            shares = ", ".join(f"{label} {share:.0%}" for label, (_, share) in list(self.actions.items())[:8])
            yield f"{_many(self.steps, 'step')} in {self.seconds:.1f} s, typically {self.steps_per_second:.1f} per second; executed: {shares}."


def check(folder: Path | str, progress: Callable[[int, int], None] | None = None) -> Health:
    """Read all of a session. `progress` hears how many moments are done, of how many. RecordingError when there is no session at all."""
    reader = RecordingReader(folder)
    whole, lost, shards = reader.readable(), reader.damaged(), shards_in(reader.folder)
    found = _Found(reader.action_space)
    for done, number in enumerate(whole, 1):
        found.look(reader, number)
        if progress:
            progress(done, len(whole))
    steps = [look for look in found.looks if look.is_step]
    intervals = list(found.intervals())
    pace = median(seconds for _, seconds in intervals) if intervals else 0.0
    return Health(
        state=state_of(reader.folder, reader.meta),
        moments=len(whole) + len(lost),
        steps=len(steps),
        damaged_lines=tuple(lost),
        damaged_frames=tuple(found.damaged),
        damaged_headers=tuple(number for number in shards if _header(reader.folder, number) is None),
        metadata_lost=reader.remade,
        torn_bytes=_torn_bytes(reader.folder, shards),
        time_gaps=tuple(Pause(after, seconds) for after, seconds in intervals if seconds > max(GAP * pace, SHORTEST_GAP)),
        sequence_gaps=tuple(found.sequence_gaps()),
        duplicates=tuple(now.moment for before, now in found.neighbours() if _is_same_look(before, now)),
        backwards=tuple(now.moment for before, now in found.neighbours() if now.captured_ns < before.captured_ns or now.sequence < before.sequence),
        frozen=tuple(found.frozen()),
        black=tuple(found.black),
        actions=_shares([look.label for look in steps], reader.action_space),
        other_executed=sum(look.other for look in steps),
        seconds=max(steps[-1].ended_ns - steps[0].started_ns, 0) / 1e9 if steps else 0.0,
        steps_per_second=1 / pace if pace else 0.0,
        bytes_per_moment=sum(path.stat().st_size for path in _files(reader.folder, shards)) / len(whole) if whole else 0.0,
    )


def repair(folder: Path | str, disk: Disk | None = None) -> Recovered:
    """Cut what is torn at the end. RecordingError beside a live writer, SessionDamaged when nothing would be left."""
    folder = Path(folder)
    RecordingReader(folder)  # says so when there is no session, before a lock is made there
    lock = locked(folder)
    try:
        reader = RecordingReader(folder)
        if (len(reader) or reader.meta.moments) and not any(Shard(folder, number).verified_end()[0] is not None for number in shards_in(folder)):
            raise SessionDamaged(f"nothing in {folder} can be verified, so a repair would leave nothing; it was not touched")
        return recover(folder, disk or Disk())
    finally:
        lock.release()


def balance(reader: RecordingReader) -> dict[str, tuple[int, float]]:
    """Label -> how often the action was executed, and its share; most often first, what never was with 0. Frames are not read."""
    moments = (_Look.of(moment, reader.action_space) for number in reader.readable() if (moment := _moment(reader, number)))
    return _shares([look.label for look in moments if look.is_step], reader.action_space)


def _moment(reader: RecordingReader, number: int) -> Moment | None:
    try:
        return reader.moment(number)
    except SessionDamaged:
        return None


def _shares(labels: list[str], space: ActionSpace) -> dict[str, tuple[int, float]]:
    counts = Counter({space.label(action): 0 for action in space.actions or ()})
    counts.update(labels)
    return {label: (count, count / max(len(labels), 1)) for label, count in counts.most_common()}


class _Look(NamedTuple):
    """What is kept of a moment; its whole line would take much memory a hundred thousand times."""

    moment: int
    is_step: bool
    episode: int
    sequence: int
    captured_ns: int
    step: int  # in the run that lived it
    picture: tuple
    label: str
    acted: bool
    other: bool
    started_ns: int
    ended_ns: int
    monotonic_ns: int

    @classmethod
    def of(cls, moment: Moment, space: ActionSpace) -> "_Look":
        label = _label(moment.executed, space) if moment.is_step else ""
        acted, other = moment.is_step and moment.executed != space.rest, moment.requested != moment.executed
        picture, clocks = (moment.frame.pixels, moment.frame.shape), (moment.started_ns, moment.ended_ns, moment.monotonic_ns)
        said = (moment.moment, moment.is_step, moment.episode, moment.sequence, moment.captured_ns, moment.index)
        return cls(*said, picture, label, acted, other, *clocks)


class _Found:
    """What reading moment after moment gathers."""

    def __init__(self, space: ActionSpace):
        self.space = space
        self.looks: list[_Look] = []
        self.damaged: list[int] = []
        self.black: list[int] = []

    def look(self, reader: RecordingReader, number: int) -> None:
        try:
            self.looks.append(_Look.of(reader.moment(number), self.space))
            if not reader.observation(number).image.any():
                self.black.append(number)
        except Exception:  # SessionDamaged; and a whole line that a stranger wrote may say anything
            self.damaged.append(number)

    def neighbours(self) -> Iterator[tuple[_Look, _Look]]:
        """Pairs between which nothing is lost, of one episode."""
        for before, now in pairwise(self.looks):
            if before.is_step and before.moment + 1 == now.moment and before.episode == now.episode:
                yield before, now

    def intervals(self) -> Iterator[tuple[int, float]]:
        """(moment, seconds until the next step began)."""
        for before, now in self.neighbours():
            if now.is_step:
                span = now.monotonic_ns - before.monotonic_ns
                if span <= 0:  # that clock begins anew when the computer does
                    span = max(now.started_ns - before.started_ns, 0)
                yield before.moment, span / 1e9

    def sequence_gaps(self) -> Iterator[int]:
        """A camera faster than its robot skips frames all the time: only many more than it usually skips are a gap."""
        rises = [now.sequence - before.sequence for before, now in self.neighbours()]
        usual = median(rises) if rises else 0
        most = GAP * usual if usual > 1 else 1
        for rise, (before, now) in zip(rises, self.neighbours(), strict=True):
            if rise > most or (now.is_step and now.step > before.step + 1):
                yield before.moment

    def frozen(self) -> Iterator[tuple[int, int]]:
        """First and last moment of FROZEN or more identical frames, between which the robot acted as often."""
        first, last, acted = -1, -1, 0
        for before, now in self.neighbours():
            if before.picture != now.picture:
                continue
            if last != before.moment:
                if acted >= FROZEN - 1:
                    yield first, last
                first, acted = before.moment, 0
            last, acted = now.moment, acted + before.acted
        if acted >= FROZEN - 1:
            yield first, last


def _is_same_look(before: _Look, now: _Look) -> bool:
    """The same frame handed out twice: by the camera's own clock, or else count, where it has any, and by its pixels."""
    said = now.captured_ns == before.captured_ns if now.captured_ns else now.sequence == before.sequence
    return said and bool(now.captured_ns or now.sequence) and now.picture == before.picture


def _label(action: Action, space: ActionSpace) -> str:
    """A discrete action's own label; of a box, whose values hardly ever repeat, the third of each range."""
    try:
        if space.actions is not None:
            return space.label(action)
        places = [(c.name, c.scaled(space.check(action)[c.name])) for c in space.channels if c.low != c.high]
        return ", ".join(f"{name} {'low' if at < -1 / 3 else 'high' if at > 1 / 3 else 'middle'}" for name, at in places)
    except ActionError:
        return f"unknown {dict(action)}"


def _header(folder: Path, number: int) -> dict | None:
    try:
        return header_of(folder, number)
    except (SessionDamaged, ValueError):
        return None


def _files(folder: Path, shards: list[int]) -> list[Path]:
    named = [folder / name(number) for number in shards for name in (events_file, frames_file)]
    return [path for path in named if path.is_file() and not path.is_symlink()]


def _torn_bytes(folder: Path, shards: list[int]) -> int:
    """What recovery would cut off the last shard that holds a moment, and all behind it."""
    torn = 0
    for number in reversed(shards):
        shard = Shard(folder, number)
        newest, lines_end, pack_end = shard.verified_end()
        sizes = {path.name: path.stat().st_size for path in _files(folder, [number])}
        if newest is not None:
            ends = {events_file(number): lines_end, frames_file(number): pack_end}
            return torn + sum(max(size - ends[name], 0) for name, size in sizes.items())
        torn += sizes.get(frames_file(number), 0) + _behind_header(folder / events_file(number))
    return torn


def _behind_header(path: Path) -> int:
    """Bytes of a shard without any moment, behind its first line: an empty shard is a beginning, not a loss."""
    data = path.read_bytes()
    return len(data) - (data.find(b"\n") + 1)


def _spans(numbers: "tuple[int, ...]", most: int = 8) -> str:
    """1, 4 to 7, 9 ..."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    said = [str(first) if first == last else f"{first} to {last}" for first, last in spans[:most]]
    return ", ".join(said) + _more(spans, most)


def _more(things: "list | tuple", most: int) -> str:
    return f" and {len(things) - most} more" if len(things) > most else ""


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
