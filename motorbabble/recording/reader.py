"""RecordingReader: a session read back exactly, or refused by name. It never writes, and may read beside a live writer.

Decisions: a moment is found by its number through its shard's header, so opening reads only the first line of each shard and
the lines of the last; lines are verified when their shard is first touched, bytes and pixels when a frame is asked for.
Nothing read from the files is ever used as a path.
"""

import base64
import io
import json
import os
import stat
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from motorbabble.errors import ActionError, RecordingError, SessionDamaged
from motorbabble.experience import Action, ActionSpace, Choice, Ending, Observation, Step, Window
from motorbabble.recording.format import (
    META,
    MOMENTS_PER_SHARD,
    Place,
    SessionMeta,
    array_from,
    check_version,
    crc_of,
    decoded,
    events_file,
    frames_file,
    is_whole,
    number_of,
    shards_in,
)

SHARDS_KEPT = 32  # parsed ones; a shard's lines are about half a megabyte
_TO_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class OutOfReach(SessionDamaged):
    """Something is there but cannot be read now. Readers pass over it; nothing may be cut away because of it."""


@dataclass(frozen=True)
class Moment:
    """One verified line; docs/session-format.md explains each member. Its frame has not been read yet."""

    moment: int
    kind: str  # step or ending
    episode: int
    sequence: int
    captured_ns: int
    frame: Place
    encoded: Place | None = None
    state: Mapping[str, Any] = field(default_factory=dict)
    index: int = -1
    requested: Action = field(default_factory=dict)
    executed: Action = field(default_factory=dict)
    started_ns: int = 0
    ended_ns: int = 0
    monotonic_ns: int = 0
    scores: Mapping[str, float | None] = field(default_factory=dict)
    why: str = ""
    gate: str = ""
    updates: int = 0

    @property
    def is_step(self) -> bool:
        return self.kind == "step"

    @classmethod
    def of(cls, line: bytes) -> "Moment":
        try:
            content = json.loads(line)
            del content["crc"]
            frame, encoded = Place.from_json(content.pop("frame")), content.pop("encoded", None)
            if content["kind"] not in ("step", "ending") or any(type(value) is not _KINDS[name] for name, value in content.items()):
                raise TypeError("a member of another kind")
            for stored in content.get("state", {}).values():
                _place_in(stored)
            return cls(**content, frame=frame, encoded=None if encoded is None else Place.from_json(encoded))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise SessionDamaged(f"a line is whole but says nothing this program knows ({error}); it was not written by it") from None


_KINDS = {part.name: part.type if part.type in (int, str) else dict for part in fields(Moment)}


class RecordingReader:
    """One session. `len` counts its moments; RecordingError when `folder` holds none, SessionDamaged where one is not what was written."""

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise RecordingError(f"there is no session at {self.folder}; list them with babble sessions list")
        self.meta, self.remade = meta_of(self.folder)
        self._parsed: OrderedDict[int, Shard] = OrderedDict()
        self._numbers = shards_in(self.folder)
        self._firsts = self._first_moments()
        last = next((shard for number in reversed(self._numbers) if (shard := self._shard(number)).newest is not None), None)
        self._moments = 0 if last is None or last.newest is None else last.newest + 1

    @property
    def name(self) -> str:
        return self.meta.session

    @property
    def robot_type(self) -> str:
        return self.meta.robot_type

    @property
    def action_space(self) -> ActionSpace:
        return self.meta.action_space

    def __len__(self) -> int:
        return self._moments

    def moment(self, number: int) -> Moment:
        """What is known of a moment without its frame."""
        line = self._line(number)
        with self._naming("the line", number):
            return Moment.of(line)

    def readable(self) -> list[int]:
        """Numbers of all moments whose line is whole."""
        return [number for shard in self._numbers for number in self._shard(shard).lines if number < len(self)]

    def damaged(self) -> list[int]:
        """Numbers of moments whose line is lost or damaged, those cut from a closed session's end included. Frames are not looked at."""
        whole = set(self.readable())
        promised = max(len(self), self.meta.moments or 0)
        return [number for number in range(promised) if number not in whole]

    def image(self, number: int) -> np.ndarray:
        """(H, W, 3) uint8, exactly as it was recorded."""
        return self._image(self.moment(number))

    def observation(self, number: int) -> Observation:
        return self._observation(self.moment(number))

    def event(self, number: int) -> Step | Ending:
        """The moment as `live` yielded it."""
        moment = self.moment(number)
        seen = self._observation(moment)
        if not moment.is_step:
            return Ending(seen)
        scores = {name: float("nan") if value is None else value for name, value in moment.scores.items()}
        choice = Choice(moment.requested, scores, moment.why)
        return Step(moment.index, seen, moment.requested, moment.executed, choice, moment.started_ns, moment.ended_ns, moment.monotonic_ns)

    def events(self) -> Iterator[Step | Ending]:
        """Every moment that can be read, in order."""
        for number in self.readable():
            try:
                yield self.event(number)
            except SessionDamaged:
                continue

    @cached_property
    def stretches(self) -> list[range]:
        """Moments that follow each other without a gap, in one episode: no window may leave its stretch. Damage ends one."""
        found: list[range] = []
        start, before = 0, None
        for number in self.readable():
            moment = self.moment(number)
            if before is None or not _joined(before, moment):
                if before is not None:
                    found.append(range(start, before.moment + 1))
                start = number
            before = moment
        return found + ([range(start, before.moment + 1)] if before is not None else [])

    def encoded_action(self, number: int) -> np.ndarray:
        """(C,) float32: the action that was really executed from this moment."""
        moment = self.moment(number)
        if not moment.is_step:
            raise RecordingError(f"moment {number} of {self.name} is an ending, from which nothing was done; ask for a step")
        try:
            return self.action_space.encode(moment.executed)
        except (ActionError, OverflowError) as error:
            raise SessionDamaged(f"moment {number} of {self.name}: {error}") from None

    def window(self, first: int, length: int) -> Window:
        """`length` frames from moment `first` on; the caller keeps to one of `stretches`."""
        numbers = range(first, first + length)
        actions = [self.encoded_action(number) for number in numbers[:-1]]
        stacked = np.stack(actions) if actions else np.zeros((0, self.action_space.size), np.float32)
        return Window(np.stack([self.image(number) for number in numbers]), stacked)

    def follows(self, number: int) -> bool:
        """Whether moment `number` came of what was done in the one before it: neither is lost, and both are of one episode."""
        try:
            return number > 0 and _joined(self.moment(number - 1), self.moment(number))
        except RecordingError:
            return False

    def window_ending_in(self, number: int, most: int) -> Window:
        """Up to `most` frames, moment `number` the newest: fewer behind the beginning of a stretch, or one that cannot be read."""
        images, actions = [self.image(number)], []
        while len(images) < most and self.follows(number):
            number -= 1
            try:
                action, image = self.encoded_action(number), self.image(number)
            except SessionDamaged:
                break
            if image.shape != images[0].shape:
                break
            actions.append(action)
            images.append(image)
        stacked = np.stack(actions[::-1]) if actions else np.zeros((0, self.action_space.size), np.float32)
        return Window(np.stack(images[::-1]), stacked)

    # Parts

    def _first_moments(self) -> list[int]:
        firsts = [first if (first := first_moment(self.folder, number)) is not None else self._shard(number).oldest for number in self._numbers]
        for place in reversed(range(len(firsts))):  # a shard of which nothing is left begins where the next one does
            if firsts[place] is None:
                firsts[place] = firsts[place + 1] if place + 1 < len(firsts) else 2**62
        return [int(first or 0) for first in firsts]

    def _shard(self, number: int) -> "Shard":
        shard = self._parsed.pop(number, None) or Shard(self.folder, number)
        self._parsed[number] = shard  # at the end; several threads may read at once, and then at worst parse one twice
        if len(self._parsed) > SHARDS_KEPT:
            self._parsed.popitem(last=False)
        return shard

    def _home(self, number: int) -> "Shard":
        place = bisect_right(self._firsts, number) - 1
        if (0 <= number < len(self) and place < 0) or len(self) <= number < (self.meta.moments or 0):
            raise self._damage(number)
        if not 0 <= number < len(self):
            raise RecordingError(f"session {self.name} has no moment {number}; it holds {len(self)}, counted from 0")
        return self._shard(self._numbers[place])

    def _line(self, number: int) -> bytes:
        home = self._home(number)
        line = home.line(number, self._firsts[bisect_right(self._firsts, number) - 1])
        if line is None:
            raise self._damage(number)
        return line

    def _damage(self, number: int) -> SessionDamaged:
        return SessionDamaged(f"moment {number} of {self.name} is lost or damaged; babble sessions check {self.name} lists all that are")

    def _image(self, moment: Moment) -> np.ndarray:
        place = moment.frame
        with self._naming("the frame", moment.moment):
            image = decoded(self._home(moment.moment).read(place))
        if image.shape != place.shape or crc_of(image) != place.pixels:
            raise SessionDamaged(f"the frame of moment {moment.moment} of {self.name} decodes to other pixels than were recorded; it is refused")
        return image

    def _observation(self, moment: Moment) -> Observation:
        shard, image = self._home(moment.moment), self._image(moment)
        with self._naming("what was sensed", moment.moment):
            own = shard.read(moment.frame) if moment.frame.codec == "jpeg" else shard.read(moment.encoded) if moment.encoded else None
            state = {name: shard.array(stored) for name, stored in moment.state.items()}
        return Observation(image, own, moment.captured_ns, moment.sequence, moment.episode, not moment.is_step, state)

    @contextmanager
    def _naming(self, part: str, number: int) -> Iterator[None]:
        try:
            yield
        except SessionDamaged as damage:
            raise SessionDamaged(f"{part} of moment {number} of {self.name} cannot be read: {damage}") from None


class Shard:
    """The lines of one shard, verified, and its pack."""

    def __init__(self, folder: Path, number: int):
        self.folder, self.number = folder, number
        self.trouble: OutOfReach | None = None
        self._written = self._all().split(b"\n")[:-1]  # what follows the last newline is torn

    @cached_property
    def lines(self) -> dict[int, bytes]:
        """Moment -> its line, of all that are whole."""
        return {moment: line for moment, (line, _) in self._verified_lines.items()}

    @cached_property
    def ends(self) -> dict[int, int]:
        """Moment -> where its line ends in the file."""
        return {moment: end for moment, (_, end) in self._verified_lines.items()}

    def line(self, moment: int, first: int) -> bytes | None:
        """The line of one moment, where `first` is the shard's first; only if it is not where it belongs are all of them looked at."""
        place = moment - first + 1  # behind the header
        if 0 < place < len(self._written) and number_of(line := self._written[place]) == moment and is_whole(line):
            return line
        return self.lines.get(moment)

    @cached_property
    def _verified_lines(self) -> dict[int, tuple[bytes, int]]:
        found: dict[int, tuple[bytes, int]] = {}
        at = 0
        for line in self._written:
            at += len(line) + 1
            if not (whole := is_whole(line)):  # a damaged newline joins two lines; the second may be whole
                line = line[max(line.rfind(b'{"moment":'), 0) :]
                whole = is_whole(line)
            moment = number_of(line) if whole else None
            if moment is not None and moment < (self.number + 1) * MOMENTS_PER_SHARD and moment not in found:
                found[moment] = line, at
        return found

    def _all(self) -> bytes:
        try:
            return _bytes_of(self.folder / events_file(self.number))
        except SessionDamaged as damage:
            self.trouble = damage if isinstance(damage, OutOfReach) else None
            return b""

    @property
    def newest(self) -> int | None:
        return max(self.lines, default=None)

    @property
    def oldest(self) -> int | None:
        return min(self.lines, default=None)

    def read(self, place: Place) -> bytes:
        """The bytes at a place, verified."""
        with _opened(self.folder / frames_file(self.number)) as file:
            size = os.fstat(file.fileno()).st_size
            if place.at + place.bytes > size:
                raise SessionDamaged(f"{frames_file(self.number)} ends at {size}, before the {place.bytes} bytes at {place.at}")
            file.seek(place.at)
            data = file.read(place.bytes)
        if len(data) != place.bytes or crc_of(data) != place.crc:
            raise SessionDamaged(f"the {place.bytes} bytes at {place.at} of {frames_file(self.number)} are not what was written")
        return data

    def array(self, stored: Mapping[str, Any]) -> np.ndarray:
        place = _place_in(stored)
        return array_from(stored["dtype"], stored["shape"], base64.b64decode(stored["base64"]) if place is None else self.read(place))

    def verified(self, number: int) -> int | None:
        """Where the pack may end after this moment, when every byte its line speaks of is there; else None."""
        try:
            moment = Moment.of(self.lines[number])
            places = [moment.frame, *([moment.encoded] if moment.encoded else [])]
            places += [place for stored in moment.state.values() if (place := _place_in(stored)) is not None]
            for place in places:
                self.read(place)
        except OutOfReach:
            raise
        except SessionDamaged:
            return None
        return max(place.at + place.bytes for place in places)

    def verified_end(self) -> tuple[int | None, int, int]:
        """The last moment that is whole, and where the lines and the pack end behind it; (None, 0, 0) when none is."""
        for number in sorted(self.lines, reverse=True):
            if (pack_end := self.verified(number)) is not None:
                return number, self.ends[number], pack_end
        return None, 0, 0


def _joined(before: Moment, now: Moment) -> bool:
    """Whether `now` came of what was done in `before`."""
    return before.is_step and before.moment + 1 == now.moment and before.episode == now.episode


def meta_of(folder: Path) -> tuple[SessionMeta, bool]:
    """A session's metadata, and whether it had to be made anew from a shard's header. The folder's name is the session's."""
    try:
        meta, remade = SessionMeta.from_bytes(_bytes_of(folder / META)), False
    except SessionDamaged as damage:
        headers = (header_of(folder, number) for number in shards_in(folder))
        header = next((header for header in headers if header is not None), None)
        if header is None:
            raise SessionDamaged(f"{folder} holds nothing that can be read as a session: {damage}") from None
        check_version(header["header"])
        meta, remade = SessionMeta.from_json(header["session"]), True
    return replace(meta, session=folder.name), remade


def header_of(folder: Path, number: int) -> dict | None:
    """A shard's first line, or None when it is not whole."""
    try:
        with _opened(folder / events_file(number)) as file:
            line = file.readline(2**22)
        header = json.loads(line) if number_of(line, b"header") is not None and is_whole(line[:-1]) else {}
    except (SessionDamaged, ValueError, RecursionError):
        return None
    return header if type(header.get("first_moment")) is int and type(header.get("session")) is dict else None


def first_moment(folder: Path, number: int) -> int | None:
    header = header_of(folder, number)
    return None if header is None else header["first_moment"]


def _place_in(stored: Any) -> Place | None:
    """Where an array lies in the pack; None when it stands in the line. TypeError or KeyError for what is no array."""
    if type(stored["dtype"]) is not str or type(stored["shape"]) is not list:
        raise TypeError("an array without type or shape")
    return None if type(stored.get("base64")) is str else Place.from_json({name: stored[name] for name in ("at", "bytes", "codec", "crc")})


@contextmanager
def _opened(path: Path) -> Iterator[io.BufferedReader]:
    """A plain file to read, never a link and never a pipe that lets us wait; its errors become ours."""
    try:
        file = os.open(path, _TO_READ)
    except FileNotFoundError:
        raise SessionDamaged(f"{path.name} is missing") from None
    except OSError as error:
        raise OutOfReach(f"{path.name} cannot be opened: {error.strerror}") from None
    try:
        with open(file, "rb") as opened:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise OutOfReach(f"{path.name} is no plain file; put the recorded one back")
            yield opened
    except OSError as error:
        raise OutOfReach(f"{path.name} cannot be read: {error.strerror}") from None


def _bytes_of(path: Path) -> bytes:
    with _opened(path) as file:
        return file.read()
