"""RecordingReader: a session read back exactly, or refused by name. It never writes, and may read beside a live writer.

Decisions: a moment is found by its number through its shard's header, so opening reads only the first line of each shard and
the lines of the last; lines are verified when their shard is first touched, bytes and pixels when a frame is asked for.
Nothing read from the files is ever used as a path.
"""

import base64
import json
import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from motorbabble.errors import ActionError, RecordingError, SessionDamaged
from motorbabble.experience import Action, ActionSpace, Choice, Ending, Observation, Step, Window
from motorbabble.recording.format import (
    META,
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
            encoded = content.pop("encoded", None)
            return cls(**{**content, "frame": Place.from_json(content["frame"]), "encoded": None if encoded is None else Place.from_json(encoded)})
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise SessionDamaged(f"a line is whole but says nothing this program knows ({error}); it was not written by it") from None


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
        return Moment.of(self._line(number))

    def readable(self) -> list[int]:
        """Numbers of all moments whose line is whole."""
        return [number for shard in self._numbers for number in self._shard(shard).lines]

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
            joined = before is not None and before.is_step and before.moment + 1 == number and before.episode == moment.episode
            if not joined:
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
        except ActionError as error:
            raise SessionDamaged(f"moment {number} of {self.name}: {error}") from None

    def window(self, first: int, length: int) -> Window:
        """`length` frames from moment `first` on; the caller keeps to one of `stretches`."""
        numbers = range(first, first + length)
        actions = [self.encoded_action(number) for number in numbers[:-1]]
        stacked = np.stack(actions) if actions else np.zeros((0, self.action_space.size), np.float32)
        return Window(np.stack([self.image(number) for number in numbers]), stacked)

    # Parts

    def _first_moments(self) -> list[int]:
        firsts = [first if (first := first_moment(self.folder, number)) is not None else self._shard(number).oldest for number in self._numbers]
        for place in reversed(range(len(firsts))):  # a shard of which nothing is left begins where the next one does
            if firsts[place] is None:
                firsts[place] = firsts[place + 1] if place + 1 < len(firsts) else 2**62
        return [int(first or 0) for first in firsts]

    def _shard(self, number: int) -> "Shard":
        if number not in self._parsed:
            self._parsed[number] = Shard(self.folder, number)
            if len(self._parsed) > SHARDS_KEPT:
                self._parsed.popitem(last=False)
        self._parsed.move_to_end(number)
        return self._parsed[number]

    def _home(self, number: int) -> "Shard":
        place = bisect_right(self._firsts, number) - 1
        if not 0 <= number < len(self) or place < 0:
            raise RecordingError(f"session {self.name} has no moment {number}; it holds {len(self)}, counted from 0")
        return self._shard(self._numbers[place])

    def _line(self, number: int) -> bytes:
        line = self._home(number).lines.get(number)
        if line is None:
            raise SessionDamaged(f"moment {number} of {self.name} is lost or damaged; babble sessions check {self.name} lists all that are")
        return line

    def _image(self, moment: Moment) -> np.ndarray:
        place = moment.frame
        try:
            image = decoded(self._home(moment.moment).read(place))
        except SessionDamaged as error:
            raise SessionDamaged(f"the frame of moment {moment.moment} of {self.name} cannot be read: {error}") from None
        if image.shape != place.shape or crc_of(image) != place.pixels:
            raise SessionDamaged(f"the frame of moment {moment.moment} of {self.name} decodes to other pixels than were recorded; it is refused")
        return image

    def _observation(self, moment: Moment) -> Observation:
        shard = self._home(moment.moment)
        own = shard.read(moment.frame) if moment.frame.codec == "jpeg" else shard.read(moment.encoded) if moment.encoded else None
        state = {name: shard.array(stored) for name, stored in moment.state.items()}
        image = self._image(moment)
        return Observation(image, own, moment.captured_ns, moment.sequence, moment.episode, not moment.is_step, state)


class Shard:
    """The lines of one shard, verified, and its pack."""

    def __init__(self, folder: Path, number: int):
        self.folder, self.number = folder, number
        self.lines: dict[int, bytes] = {}
        self.ends: dict[int, int] = {}  # moment -> where its line ends in the file
        at = 0
        for line in _bytes_of(folder / events_file(number)).split(b"\n")[:-1]:  # what follows the last newline is torn
            at += len(line) + 1
            if not is_whole(line):  # a damaged newline joins two lines; the second may be whole
                line = line[max(line.rfind(b'{"moment":'), 0) :]
            moment = number_of(line)
            if moment is not None and is_whole(line) and moment not in self.lines:
                self.lines[moment], self.ends[moment] = line, at

    @property
    def newest(self) -> int | None:
        return max(self.lines, default=None)

    @property
    def oldest(self) -> int | None:
        return min(self.lines, default=None)

    def read(self, place: Place) -> bytes:
        """The bytes at a place, verified."""
        try:
            file = os.open(self.folder / frames_file(self.number), os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise SessionDamaged(f"{frames_file(self.number)} cannot be opened: {error.strerror}") from None
        try:
            size = os.fstat(file).st_size
            if not 0 <= place.at <= place.at + place.bytes <= size:
                raise SessionDamaged(f"{frames_file(self.number)} ends at {size}, before the {place.bytes} bytes at {place.at}")
            os.lseek(file, place.at, os.SEEK_SET)
            data = os.read(file, place.bytes)
        finally:
            os.close(file)
        if len(data) != place.bytes or crc_of(data) != place.crc:
            raise SessionDamaged(f"the {place.bytes} bytes at {place.at} of {frames_file(self.number)} are not what was written")
        return data

    def array(self, stored: Mapping[str, Any]) -> np.ndarray:
        if "base64" in stored:
            return array_from(stored["dtype"], stored["shape"], base64.b64decode(stored["base64"]))
        return array_from(stored["dtype"], stored["shape"], self.read(_place_in(stored)))

    def verified(self, number: int) -> int | None:
        """Where the pack may end after this moment, when every byte its line speaks of is there; else None."""
        try:
            moment = Moment.of(self.lines[number])
            places = [moment.frame, *([moment.encoded] if moment.encoded else [])]
            places += [_place_in(stored) for stored in moment.state.values() if "base64" not in stored]
            for place in places:
                self.read(place)
        except SessionDamaged:
            return None
        return max(place.at + place.bytes for place in places)

    def verified_end(self) -> tuple[int | None, int, int]:
        """The last moment that is whole, and where the lines and the pack end behind it; (None, 0, 0) when none is."""
        for number in sorted(self.lines, reverse=True):
            if (pack_end := self.verified(number)) is not None:
                return number, self.ends[number], pack_end
        return None, 0, 0


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
    with _opened(folder / events_file(number)) as file:
        line = file.readline(2**22).removesuffix(b"\n")
    return json.loads(line) if number_of(line, b"header") is not None and is_whole(line) else None


def first_moment(folder: Path, number: int) -> int | None:
    header = header_of(folder, number)
    return None if header is None else int(header["first_moment"])


def _place_in(stored: Mapping[str, Any]) -> Place:
    return Place(stored["at"], stored["bytes"], stored["codec"], stored["crc"])


def _opened(path: Path) -> Any:
    def without_links(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NOFOLLOW", 0))

    try:
        return open(path, "rb", opener=without_links)
    except OSError as error:
        raise SessionDamaged(f"{path.name} cannot be opened: {error.strerror}") from None


def _bytes_of(path: Path) -> bytes:
    with _opened(path) as file:
        return file.read()
