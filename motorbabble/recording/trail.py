"""Trail: where each moment of a life is recorded, over however many sessions it took.

A life counts its looks from 0. A segment says which of them are which moments of one session, so a memory is two
numbers and never a copy. Sessions of one life know each other by `about.life` and by what they continue.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from motorbabble.errors import RecordingError
from motorbabble.experience import Ending, Step
from motorbabble.recording.reader import RecordingReader, meta_of


@dataclass
class Segment:
    session: str
    first: int  # moment of the life ...
    local: int  # ... that is this moment of the session
    count: int = 0
    own: bool = True  # recorded by this life; otherwise replayed by it


class Trail:
    """`moments` counts those lived to their end. `root`: the folder of the sessions; `known`: readers that lie elsewhere."""

    def __init__(self, root: Path | None, known: Iterable[RecordingReader] = ()):
        self.root = root
        self.moments = 0
        self.segments: list[Segment] = []
        self._readers: dict[str, RecordingReader | None] = {reader.name: reader for reader in known}

    def add(self, session: str | None = None, local: int = 0, own: bool = True) -> None:
        """One more moment was lived: `local` of `session`, or recorded nowhere."""
        if session is not None:
            last = self.segments[-1] if self.segments else None
            if last is None or (last.session, last.first + last.count, last.local + last.count, last.own) != (session, self.moments, local, own):
                self.segments.append(last := Segment(session, self.moments, local, own=own))
            last.count += 1
        self.moments += 1

    def place(self, moment: int) -> tuple[str, int] | None:
        """The session and the moment in it; None when it was not recorded."""
        at = bisect_right(self.segments, moment, key=lambda segment: segment.first) - 1
        if at < 0 or moment >= self.segments[at].first + self.segments[at].count:
            return None
        return self.segments[at].session, self.segments[at].local + moment - self.segments[at].first

    def event(self, moment: int) -> Step | Ending:
        """What was lived; RecordingError when it cannot be read (any more)."""
        place = self.place(moment)
        reader = self._reader(place[0]) if place else None
        if place is None or reader is None:
            raise RecordingError(f"moment {moment} is recorded nowhere")
        return reader.event(place[1])

    def newest_steps(self, most: int, done: int) -> Iterator[tuple[int, Step]]:
        """(moment, Step) backwards from the newest, `most` moments at most; the newest step was number `done` - 1."""
        for moment in range(self.moments - 1, max(-1, self.moments - 1 - most), -1):
            try:
                event = self.event(moment)
            except RecordingError:
                if self.place(moment) is None:
                    return
                done -= self._was_step(moment)
                continue
            if isinstance(event, Step):
                done -= 1
                yield moment, Step(done, *list(vars(event).values())[1:])

    def _was_step(self, moment: int) -> bool:
        """Of a moment whose frame cannot be read; where nothing is left of it, a step is likelier than an ending."""
        place = self.place(moment)
        reader = self._reader(place[0]) if place else None
        try:
            return reader is None or place is None or reader.moment(place[1]).is_step
        except RecordingError:
            return True

    def sessions(self, since: int = 0) -> list[str]:
        """Names of those that hold moments from `since` on, oldest first."""
        return list(dict.fromkeys(segment.session for segment in self.segments if segment.first + segment.count > since))

    def tail(self, life: str) -> tuple[list[RecordingReader], int]:
        """What this life recorded behind this trail: readers, and the moment of the first one to begin at."""
        if self.root is None or not self.root.is_dir():
            return [], 0
        last = next((segment for segment in reversed(self.segments) if segment.own), None)
        found, first = [], 0
        if last and (reader := self._reader(last.session)) and len(reader) > last.local + last.count:
            found, first = [reader], last.local + last.count
        before = last.session if last else None
        successors = {meta.continues.session if meta.continues else None: meta.session for meta in _sessions_of(self.root, life)}
        while (name := successors.pop(before, None)) is not None:
            if (reader := self._reader(name)) and len(reader):
                found.append(reader)
            before = name
        return found, first

    def is_followed_by(self, reader: RecordingReader, number: int) -> bool:
        """Whether that moment of a session came right after the newest of this trail, in the same world, and can be read."""
        last = self.segments[-1] if self.segments else None
        if last and last.own and last.first + last.count == self.moments and last.session == reader.name:
            follows = number == last.local + last.count
        else:
            follows = number == 0 and reader.meta.about.get("moment") == self.moments
        try:
            reader.observation(number)
        except RecordingError:
            return False
        return follows

    def reaches_end_of(self, session: str) -> bool:
        """Whether the newest moment lived is the last from which something was done in that session."""
        reader, place = self._reader(session), self.place(self.moments - 1)
        if reader is None or place is None or place[0] != session or place[1] >= len(reader):
            return False
        try:
            return not any(reader.moment(number).is_step for number in range(place[1] + 1, len(reader)))
        except RecordingError:
            return False

    def newest_session(self, life: str) -> str | None:
        """The last session of this life, whether or not this trail reaches it."""
        metas = _sessions_of(self.root, life) if self.root else []
        continued = {meta.continues.session for meta in metas if meta.continues}
        last = [meta for meta in metas if meta.session not in continued]
        return max(last, key=lambda meta: meta.created_ns).session if last else None

    def to_json(self) -> dict:
        return {"moments": self.moments, "segments": [asdict(segment) for segment in self.segments]}

    def load(self, data: Mapping) -> None:
        self.moments, self.segments = data["moments"], [Segment(**segment) for segment in data["segments"]]

    def _reader(self, session: str) -> RecordingReader | None:
        if self._readers.get(session) is None:
            try:
                self._readers[session] = RecordingReader(self.root / session) if self.root else None
            except RecordingError:
                self._readers[session] = None
        return self._readers[session]


def _sessions_of(root: Path, life: str) -> list:
    if not root.is_dir():
        return []
    found = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.is_symlink() and not path.name.startswith(".")):
        try:
            meta = meta_of(folder)[0]
        except RecordingError:
            continue
        if meta.about.get("life") == life:
            found.append(meta)
    return sorted(found, key=lambda meta: meta.created_ns)
