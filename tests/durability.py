"""The experiments behind the recording's promises: each does something terrible many times and counts what was lost.

tests/test_durability.py runs them in small, on our writer and on broken ones, which they must notice; benchmarks/memory.py
runs them whole. A moment is made from its number alone (`event_of`), so whatever is read back can be compared with what was written.
"""

import contextlib
import functools
import io
import random
import re
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from counting import Counting, write
from crashes import Crash, Model, crashes_of, scratch
from disks import ERRORS, SHORT, FaultDisk, KillDisk, TraceDisk
from kills import Acknowledge, killed, random_instants

from motorbabble.errors import RecordingError, SessionDamaged
from motorbabble.experience import Choice, Ending, Observation, Step
from motorbabble.recording import reader as reading
from motorbabble.recording import writer as writing
from motorbabble.recording.format import decoded, events_file
from motorbabble.recording.reader import RecordingReader
from motorbabble.recording.writer import RecordingWriter

SPACE = Counting().action_space
NAME = "life"
EVERY_S = 0.1  # of simulated time, between two moments; a pass of syncs every 0.5 s


class Noticed(Exception):
    """What was sought has been found; the rest of the experiment would tell no more."""


@dataclass
class Findings:
    """What an experiment counted, and a sentence for each thing that should not have been. Noticed at the first that is `sought`."""

    sought: str | None = None
    trials: int = 0
    complaints: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def blame(self, what: str, sentence: str, times: int = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + times
        self.complaints.append(sentence)
        if what == self.sought:
            raise Noticed(f"{what}: {sentence}")

    def __getitem__(self, what: str) -> int:
        return self.counts.get(what, 0)


def assert_clean(found: Findings) -> None:
    assert not found.complaints, f"{found.counts} in {found.trials} trials:\n" + "\n".join(found.complaints[:10])


def assert_notices(what: str, experiment: Callable[..., Findings], *given: Any, **more: Any) -> None:
    """Broken as it is, the experiment finds it out."""
    with contextlib.suppress(Noticed):
        found = experiment(*given, **more, found=Findings(sought=what))
        raise AssertionError(f"{found.trials} trials did not notice that moments are {what}: {found.counts}")


# Moments


@functools.lru_cache(1024)
def event_of(number: int) -> Step:
    """Moment `number` of every life here: a frame that says so, in PNG or JPEG, with states of both sizes."""
    image, encoded = write(number, number % 3, 8), None
    if number % 4 == 1:
        encoded = jpeg_of(image)
        image = decoded(encoded) if number % 8 == 1 else image  # else the bytes do not decode to the frame, and both are kept
    state: dict[str, np.ndarray] = {"count": np.array([number], np.int64)}
    if number % 5 == 2:
        state["map"] = np.arange(300, dtype=np.float32) + number
    seen = Observation(image, encoded, 1_700_000_000_000_000_000 + number, number, number // 6, state=state)
    action = {"add": float(1 + number % 2)}
    scores = {"one": number / 7, "two": float("nan")}
    return Step(number, seen, action, action, Choice(action, scores, f"nō. {number}"), number * 10**9 + 1, number * 10**9 + 2, number + 3)


def jpeg_of(image: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def same(a: Step | Ending, b: Step | Ending, episode: bool = True) -> bool:
    """Whether two events are equal to the last bit. After a reopening episodes are counted on: then do not compare them."""
    return type(a) is type(b) and _plain(a, episode) == _plain(b, episode)


def _plain(event: Step | Ending, episode: bool) -> list[Any]:
    seen = event.observation
    image = (seen.image.shape, seen.image.tobytes(), seen.encoded, seen.captured_ns, seen.sequence, episode and seen.episode)
    state = [(name, value.dtype.str, value.shape, value.tobytes()) for name, value in sorted(seen.state.items())]
    if isinstance(event, Ending):
        return [image, state]
    times = (event.index, event.started_ns, event.ended_ns, event.monotonic_ns)
    scores = sorted((name, repr(float(score))) for name, score in event.choice.scores.items())
    return [image, state, times, dict(event.requested), dict(event.executed), dict(event.choice.action), scores, event.choice.why]


class Stepped(RecordingWriter):
    """Syncs when told, so that a trace is the same each time."""

    def _keep_synced(self, seconds: float) -> None:
        pass

    def _turn(self) -> None:
        super()._turn()
        if self._tidying.ident is not None:
            self._tidying.join()


def recorded(folder: Path, *events: Step | Ending, name: str = NAME, **settings: Any) -> RecordingReader:
    """A closed session of these events."""
    with Stepped.create(folder, "counting", SPACE, name=name, **settings) as writer:
        assert [writer.record(event) for event in events] == list(range(len(events)))
    return RecordingReader(folder / name)


@contextlib.contextmanager
def short_shards(moments: int):
    """Shards of so many moments, so that small sessions have several."""
    usual, writing.MOMENTS_PER_SHARD = writing.MOMENTS_PER_SHARD, moments
    try:
        yield
    finally:
        writing.MOMENTS_PER_SHARD = usual


def examined(folder: Path, acknowledged: Iterable[int], found: Findings, whole: bool = True) -> list[int]:
    """Read all of a session as whoever comes next would. `whole`: nothing may be damaged. Answers the numbers that were read."""
    try:
        reader = RecordingReader(folder)
        numbers = reader.readable()
    except RecordingError as error:
        found.blame("unreadable", f"{folder.name} cannot be opened: {error}")
        return []
    read = []
    for number in numbers:
        try:
            event = reader.event(number)
        except SessionDamaged as damage:
            if whole:
                found.blame("unreadable", f"moment {number} is listed but cannot be read: {damage}")
            continue
        if isinstance(event, Step) and not same(event, event_of(number), episode=False):
            found.blame("wrong", f"moment {number} is not what was written")
        read.append(number)
    if lost := sorted(set(acknowledged) - set(read)):
        found.blame("lost", f"of {folder.name} moments {lost[:5]} were promised and are lost", len(lost))
    if whole and reader.damaged():
        found.blame("unreadable", f"moments {reader.damaged()[:5]} are damaged though nothing was")
    return read


# Kills


def kill_recordings(
    count: int, seed: int, root: Path, writer: type[RecordingWriter] = RecordingWriter, longest: float = 0.06, found: Findings | None = None
) -> Findings:
    """SIGKILL at random instants; each session is killed, reopened as it is and killed again, five times, creation and reopening included."""
    found = found or Findings()
    acknowledged: set[int] = set()
    folder = root / NAME
    for trial, instant in enumerate(random_instants(count, longest, seed)):
        if trial % 5 == 0:
            folder, acknowledged = root / f"{NAME}{trial // 5}", set()
        life = killed(lambda say, folder=folder: _endless(folder, writer, say), instant)
        acknowledged |= {number for number in life.acknowledged if number >= 0}
        if folder.exists() or life.acknowledged:
            examined(folder, acknowledged, found)
        found.trials += 1
    return found


def _endless(folder: Path, writer: type[RecordingWriter], say: Acknowledge) -> None:
    writing.MOMENTS_PER_SHARD = 20  # of this child, which ends here
    recording = opened(folder, writer)
    say(-1)
    while True:
        say(recording.record(event_of(recording.moments)))


def opened(folder: Path, writer: type[RecordingWriter], **settings: Any) -> RecordingWriter:
    if folder.exists():
        return writer.reopen(folder, **settings)
    return writer.create(folder.parent, "counting", SPACE, name=folder.name, **settings)


def kill_each_operation(
    root: Path,
    writer: type[RecordingWriter] = Stepped,
    disk: Callable[..., Any] = KillDisk,
    torn: bool = False,
    found: Findings | None = None,
) -> Findings:
    """SIGKILL before each operation of a life with two shards, and of its reopening after a kill; `torn`: half a write was done."""
    found, n, finished = found or Findings(), 0, False
    while not finished:
        n += 1
        folder = root / f"{NAME}{n}"
        life = killed(lambda say, folder=folder, n=n: _short(folder, writer, disk(n, torn), say))
        acknowledged, finished = set(life.acknowledged), not life.killed
        for again in range(1, 12, 3) if folder.exists() else ():  # the reopening is killed too, further on each time
            killed(lambda say, folder=folder, again=again: _short(folder, writer, disk(again, torn), say))
            examined(folder, acknowledged, found)
        if folder.exists() or acknowledged:
            examined(folder, acknowledged, found)
            with _reopened(folder, found) as recording:
                acknowledged.add(recording.record(event_of(recording.moments)))
            examined(folder, acknowledged, found)
        found.trials += 1
    return found


def _short(folder: Path, writer: type[RecordingWriter], disk: Any, say: Acknowledge) -> None:
    writing.MOMENTS_PER_SHARD = 4
    with opened(folder, writer, disk=disk) as recording:
        for number in range(recording.moments, recording.moments + 6):
            recording.record(event_of(number))
            say(number)
            if number % 3 == 2:
                recording._turn()


@contextlib.contextmanager
def _reopened(folder: Path, found: Findings):
    try:
        recording = RecordingWriter.reopen(folder)
    except RecordingError as error:
        found.blame("unreadable", f"{folder.name} cannot be reopened without repair: {error}")
        recording = RecordingWriter.create(folder.parent, "counting", SPACE)  # so that the experiment goes on
    with recording:
        yield recording


# Failing operations


class Stoppable(Counting):
    """Counts its stops."""

    def __init__(self):
        super().__init__()
        self.stops = 0

    def stop(self) -> None:
        self.stops += 1
        super().stop()


def fail_each_operation(
    root: Path,
    errors: Iterable[str] = (*ERRORS, SHORT),
    writer: type[RecordingWriter] = Stepped,
    for_good: Iterable[bool] = (False, True),
    reopening: Iterable[bool] = (False, True),
    found: Findings | None = None,
) -> Findings:
    """Operation n fails, for every n: creating, recording over three shards, syncing, closing; or the same of a session that was cut short."""
    found = found or Findings()
    for error in errors:
        for lasting in for_good:
            for again in reopening:
                n, met = 0, True
                while met:
                    n += 1
                    shutil.rmtree(root / NAME, ignore_errors=True)
                    met = _fails(root / NAME, FaultDisk(n, error, lasting), writer, again, found)
                    found.trials += met
    return found


def _fails(folder: Path, disk: FaultDisk, writer: type[RecordingWriter], again: bool, found: Findings) -> bool:
    """One life on a disk that fails; answers whether it did."""
    robot, raised, acknowledged = Stoppable(), [], set()
    blame = f"{disk.error}{' for good' if disk.for_good else ''} at operation {disk.n}{' of a reopened session' if again else ''}"
    with short_shards(4):
        if again:
            acknowledged |= _cut_short(folder)
        before, recording = set(acknowledged), None
        try:
            recording = opened(folder, writer, disk=disk, on_failure=robot.stop)
            try:
                for number in range(recording.moments, recording.moments + 9):
                    if disk.failed and disk.failed.what == "write":
                        found.blame("swallowed", f"{blame}: went on recording after {disk.failed}")
                    acknowledged.add(recording.record(event_of(number)))
                    if number % 3 == 2:
                        recording._turn()
            finally:
                recording.close()
        except RecordingError as error:
            raised.append(error)
    if disk.failed is None:
        return False
    if not raised and disk.failed.what != "close":  # what was synced needs no closing
        found.blame("swallowed", f"{blame}: {disk.failed.what} of {disk.failed.path.name} failed and nothing was raised")
    if raised and not (disk.failed_at and time.monotonic() - disk.failed_at < 1.0):
        found.blame("late", f"{blame}: the error came too late")
    if raised and not ("to " + str(folder.parent.parent) in str(raised[0]) and str(raised[0]).count(";") == 1):
        found.blame("unclear", f"{blame}: the error does not say where and what to do: {raised[0]}")
    if robot.stops != (1 if raised and recording is not None else 0):
        found.blame("stops", f"{blame}: the robot was stopped {robot.stops} times")
    if folder.exists() or acknowledged != before:
        examined(folder, acknowledged, found)
        with _reopened(folder, found) as next_one:
            acknowledged.add(next_one.record(event_of(next_one.moments)))
        examined(folder, acknowledged, found)
    return True


def _cut_short(folder: Path) -> set[int]:
    """A session as a power cut may leave it: with a torn line, bytes that no line speaks of, and a shard that was just begun."""
    with Stepped.create(folder.parent, "counting", SPACE, name=folder.name) as recording:
        numbers = {recording.record(event_of(number)) for number in range(6)}
    with (folder / events_file(1)).open("ab") as lines:
        lines.write(b'{"moment":6,"ki')
    with (folder / "frames_shard_001.pack").open("ab") as pack:
        pack.write(b"\x89PNG torn")
    (folder / "frames_shard_002.pack").write_bytes(b"")
    return numbers


# Bytes that rot


def rot(folder: Path, flips: int, truncations: int, seed: int, moments: int = 40, found: Findings | None = None) -> Findings:
    """Flip a bit, or cut a file, anywhere in a closed session; read it all; put it back."""
    found, rng = found or Findings(), random.Random(seed)
    with short_shards(15), Stepped.create(folder, "counting", SPACE, name=NAME) as recording:
        for number in range(moments):
            recording.record(event_of(number))
    session = folder / NAME
    intact = RecordingReader(session)
    events = [intact.event(number) for number in range(moments)]
    files = [path for path in sorted(session.iterdir()) if path.stat().st_size]
    extents = _extents(intact)
    sizes = [path.stat().st_size for path in files]
    for trial in range(flips + truncations):
        path = rng.choices(files, sizes)[0] if trial % 4 else rng.choice(files)
        good = path.read_bytes()
        at = rng.randrange(len(good))
        path.write_bytes(good[:at] + bytes([good[at] ^ 1 << rng.randrange(8)]) + good[at + 1 :] if trial < flips else good[:at])
        end = at + 1 if trial < flips else len(good)
        hit = {number for number in range(moments) if any(name == path.name and a < end and at < b for name, a, b in extents[number])}
        _read_rotten(session, events, hit, f"byte {at} of {path.name}", found)
        path.write_bytes(good)
        found.trials += 1
    return found


def _read_rotten(session: Path, events: list[Step | Ending], hit: set[int], where: str, found: Findings) -> None:
    try:
        reader = RecordingReader(session)
    except RecordingError as error:
        found.blame("unreadable", f"{where}: {error}")
        return
    named = set(reader.damaged())
    for number, event in enumerate(events):
        try:
            read = reader.event(number)
        except SessionDamaged as damage:
            if number not in hit:
                found.blame("lost", f"{where}: moment {number} was not touched, yet: {damage}")
            if f"moment {number} of {NAME}" not in str(damage):
                found.blame("unnamed", f"{where}: {damage}")
            continue
        except RecordingError as error:  # of a session that lost its end and its count
            if number not in hit or reader.meta.state == "closed":
                found.blame("lost", f"{where}: {error}")
            continue
        if not same(read, event):
            found.blame("wrong", f"{where}: moment {number} came back as something else")
        if number in hit:
            found.blame("wrong", f"{where}: moment {number} was damaged and returned")
        if number in named:
            found.blame("unnamed", f"{where}: moment {number} is readable and named as damaged")


def _extents(reader: RecordingReader) -> list[list[tuple[str, int, int]]]:
    """Per moment: file, first byte and end of all that belongs to it. A line's newline is part of it."""
    found = []
    for number in range(len(reader)):
        shard, moment = reader._home(number), reader.moment(number)
        end = shard.ends[number]
        pack = f"frames_shard_{shard.number:03d}.pack"
        places = [moment.frame, *([moment.encoded] if moment.encoded else [])]
        in_pack = [(pack, place.at, place.at + place.bytes) for place in places]
        in_pack += [(pack, stored["at"], stored["at"] + stored["bytes"]) for stored in moment.state.values() if "at" in stored]
        found.append([(events_file(shard.number), end - len(shard.lines[number]) - 1, end), *in_pack])
    return found


# Power cuts


def power_cuts(
    most: int, seed: int, writer: type[RecordingWriter] = Stepped, disk: Callable[[], TraceDisk] = TraceDisk, found: Findings | None = None
) -> Findings:
    """Crash states of a life from its creation to its end, then of a reopened one; up to `most`. See tests/crashes.py."""
    found = found or Findings()
    with scratch() as place, short_shards(5), _decoding_once():
        base, built = Path(place) / "disk", Path(place) / "state"
        for again in (False, True):
            shutil.rmtree(base, ignore_errors=True)
            base.mkdir()
            if again:
                _cut_short(base / "sessions" / NAME)
            begin, trace = Model(base), disk()
            _traced_life(base / "sessions" / NAME, writer, trace)
            crashes = list(crashes_of(trace.ops, base, begin, max(8, most // 50), seed))
            share = min(len(crashes), most // 2)
            for crash in random.Random(seed).sample(crashes, share):
                _after_power_cut(crash.built(built), trace, crash, found)
            found.trials += share
    return found


@contextlib.contextmanager
def _decoding_once():
    """The same few frames are read thousands of times: equal bytes need be decoded only once."""
    reading.decoded = functools.lru_cache(1024)(decoded)
    try:
        yield
    finally:
        reading.decoded = decoded


def _traced_life(folder: Path, writer: type[RecordingWriter], trace: TraceDisk) -> None:
    recording = opened(folder, writer, disk=trace)
    for number in range(recording.moments):
        trace.note("recorded", number)
    trace.note("lasts", recording.moments)
    begun = recording.moments
    for number in range(begun, begun + 14):
        recording.record(event_of(number))
        trace.note("recorded", number)
        if number % 4 == 3:
            recording._turn()
            trace.note("lasts", number + 1)
    recording.close()
    trace.note("lasts", recording.moments)


def _gaps_end_with_a_shard(folder: Path, read: list[int]) -> bool:
    """The end of a shard may be lost while the next one's begin arrived; inside a shard the files' order keeps the moments'."""
    firsts = {int(line[1]) for line in (re.match(rb'.*?"first_moment":(\d+)', path.read_bytes()) for path in folder.glob("events*")) if line}
    return all(before + 1 == number or number in firsts for before, number in zip([-1, *read], read, strict=False))


def _after_power_cut(state: Path, trace: TraceDisk, crash: Crash, found: Findings) -> None:
    past = trace.ops[: crash.before]
    lasts = max((op.data for op in past if op.what == "lasts"), default=None)
    recorded = [op.data for op in past if op.what == "recorded"]
    aged = [number for number in recorded if (len(recorded) - 1 - number) * EVERY_S > 1.0]  # by the clock of the life
    promised = {*range(lasts or 0), *(aged if lasts is not None else ())}
    folder = state / "sessions" / NAME
    if not folder.is_dir():
        if lasts is not None:
            found.blame("unreadable", f"after operation {crash.before} the session is not there")
        return
    read = examined(folder, promised, found, whole=False)
    if crash.in_order and not _gaps_end_with_a_shard(folder, read):
        found.blame("gap", f"after operation {crash.before} {read} was read: a gap though no file has one")
    with _reopened(folder, found) as recording:
        new = recording.record(event_of(recording.moments))
    kept = examined(folder, {*read, new}, found, whole=crash.in_order and read == list(range(len(read))))
    if kept != [*read, new]:
        found.blame("gap", f"after operation {crash.before} {kept} was read after reopening, not {[*read, new]}")
