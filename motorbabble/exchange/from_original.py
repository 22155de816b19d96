"""Sessions of the code this project grew out of: session_meta.json, events_shard_NNN.jsonl, frames/frame_NNNNNN.jpg.

Decisions: an action belongs to the look right before it and shows its outcome in the look right after it, by the number every
event carries. Wherever that is not so (a look without an action, an action without a look, a frame or a line that cannot be read, a
number left out) the look before becomes an ending and the episode rises: a transition is dropped, never guessed. Looks that repeat the very same
bytes are one look, since that code looked again at every gradient step. Nothing outside the folder is opened, and no link followed.
"""

import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from motorbabble.errors import ActionError, ConfigurationError, RecordingError, SessionDamaged
from motorbabble.exchange.aside import made_aside
from motorbabble.exchange.episodes import in_words
from motorbabble.experience import Action, ActionSpace, Choice, Ending, Observation, Step
from motorbabble.recording.format import check_name, decoded, new_name
from motorbabble.recording.writer import RecordingWriter

META = "session_meta.json"
MOST_META, MOST_LINE, MOST_FRAME = 4 * 2**20, 2**20, 64 * 2**20  # bytes; theirs have a few hundred, a hundred, and twenty thousand
_ROBOT_TYPES = {"JetBotInterface": "jetbot"}  # the others' names are made from their classes'


class Event(NamedTuple):
    """A verified line: a look when `frame` names its file, an action when `action` is given; a gap when neither."""

    number: int
    at_ns: int = 0
    frame: str = ""
    action: Action | None = None


Notes = dict[str, list[int]]  # what was wrong -> numbers of the events


def import_original(source: Path, root: Path, robot_type: str | None = None, tell: Callable[[str], None] = print) -> str:
    """Copy such a session to `root`/<robot type>/<name>, and answer its name; `root` holds the sessions of all robot types.

    `robot_type` is made from the name of the robot's class unless given. `tell` hears, in sentences, what could not be used. Raises
    RecordingError when there is no such session, it leads outside its folder, nothing in it can be read, or it was imported before.
    """
    source, root = Path(source), Path(root)
    meta = _meta(source)
    space = _action_space(meta)
    kind = robot_type or _robot_type(meta.get("robot_type"))
    name = _name(meta.get("session_name"))
    target = root / check_name(kind) / name
    notes: Notes = {}
    with made_aside(target, target.with_name(f".importing-{name}")) as aside:
        told = {key: str(meta[key])[:200] for key in ("session_name", "robot_type", "start_time", "end_time", "total_steps") if key in meta}
        about = {"imported_from": {"format": "original", "folder": str(source.absolute()), **told}}
        with RecordingWriter.create(aside, kind, space, name=name, about=about) as writer:
            for moment in _moments(source, space, notes):
                writer.record(moment)
        if not writer.moments:
            raise RecordingError(f"no frame of {source} can be read: {'; '.join(_sentences(notes)) or 'it holds no event'}; nothing was imported")
    for sentence in _sentences(notes):
        tell(sentence)
    return name


def _moments(source: Path, space: ActionSpace, notes: Notes) -> Iterator[Step | Ending]:
    """Steps and endings, from events: `seen` is the newest look of which it is not yet known what became of it, `done` the action after it."""
    seen: Observation | None = None
    done: Event | None = None
    shape: tuple[int, ...] | None = None
    episode = index = 0

    def ended() -> Iterator[Ending]:
        nonlocal seen, done, episode
        if seen is not None:
            yield Ending(seen)
            episode += 1
        seen = done = None

    for event in _events(source, space, notes):
        if event.action is not None:
            if seen is None:
                notes.setdefault("actions without a frame before them were left out", []).append(event.number)
            elif done is not None:
                notes.setdefault("actions followed an action, so the frames between are unknown", []).append(event.number)
                yield from ended()
            else:
                done = event
            continue
        look = _look(source, event, episode, shape, notes) if event.frame else None
        if look is None:
            yield from ended()
            continue
        shape = look.image.shape
        if seen is not None and done is not None and done.action is not None:
            why = "imported: recorded before it was done"
            yield Step(index, seen, done.action, done.action, Choice(done.action, why=why), done.at_ns, look.captured_ns)
            index += 1
        elif seen is not None and _bytes_of(seen) != _bytes_of(look):
            notes.setdefault("frames were not followed by an action", []).append(seen.sequence)
            yield from ended()
            look = replace(look, episode=episode)
        seen, done = look, None
    yield from ended()


def _look(source: Path, event: Event, episode: int, shape: tuple[int, ...] | None, notes: Notes) -> Observation | None:
    """The frame of a look, or None, with the reason noted."""
    path = _inside(source, event.frame)
    try:
        data = _read(path, MOST_FRAME)
        image = decoded(data)
    except FileNotFoundError:
        notes.setdefault("frames are missing", []).append(event.number)
        return None
    except (SessionDamaged, OSError):
        notes.setdefault("frames cannot be read", []).append(event.number)
        return None
    if shape is not None and image.shape != shape:
        notes.setdefault(f"frames are not {shape[1]} x {shape[0]} as the first one is", []).append(event.number)
        return None
    return Observation(image, data if data[:2] == b"\xff\xd8" else None, event.at_ns, event.number, episode)


def _bytes_of(look: Observation) -> bytes:
    return look.encoded or look.image.tobytes()


# Reading their files


def _events(source: Path, space: ActionSpace, notes: Notes) -> Iterator[Event]:
    """Every event in order, with a gap wherever some are lost."""
    before: int | None = None
    shards = sorted((int(match[1]), path.name) for path in source.iterdir() if (match := re.fullmatch(r"events_shard_(\d{1,9})\.jsonl", path.name)))
    for place, (_, name) in enumerate(shards):
        for line, is_last in _lines(_inside(source, name)):
            event = _event(line, space, notes)
            if event is None and is_last and place == len(shards) - 1:
                notes["the last line is torn, and was left out"] = []
                return
            if event is not None and before is not None and event.number <= before:
                notes.setdefault("lines repeat older events, and were left out", []).append(event.number)
                event = None
            elif event is None:
                notes.setdefault("lines cannot be read", []).append(0 if before is None else before + 1)
            elif before is not None and event.number != before + 1:
                notes.setdefault("events follow others that are lost", []).append(event.number)
                yield Event(-1)
            yield event or Event(-1)
            before = event.number if event else before


def _event(line: bytes, space: ActionSpace, notes: Notes) -> Event | None:
    """A line's event; one that says nothing usable but has a number is a gap; None when the line cannot be read at all."""
    try:
        content = json.loads(line)
        number, kind, data, at = content["step"], content["type"], content["data"], float(content["timestamp"])
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return None
    if type(number) is not int or number < 0 or not isinstance(data, dict) or not 0 <= at < 9e9:  # which NaN is not, either
        return None
    if kind == "observation" and isinstance(data.get("frame_path"), str):
        return Event(number, _nanoseconds(at), frame=data["frame_path"])
    if kind != "action":
        return None
    try:
        return Event(number, _nanoseconds(at), action=space.check(data))
    except (ActionError, OverflowError):
        notes.setdefault("actions are none of the session's action space", []).append(number)
        return Event(number)


def _nanoseconds(seconds: float) -> int:
    """Exactly: a float of this size times a thousand million would be rounded to hundreds of them."""
    whole, part = divmod(seconds, 1)
    return int(whole) * 10**9 + round(part * 1e9)


def _lines(path: Path) -> Iterator[tuple[bytes, bool]]:
    """Lines, each with whether it is the file's last."""
    try:
        file = _opened(path)
    except OSError as error:
        raise RecordingError(f"{path} cannot be opened: {error.strerror}; nothing was imported") from None
    with file:
        line = _line(file)
        while line:
            following = _line(file)
            yield line, not following
            line = following


def _line(file: Any) -> bytes:
    """The next line; one longer than any of theirs is skipped, and cannot be read."""
    line = file.readline(MOST_LINE)
    if len(line) < MOST_LINE or line.endswith(b"\n"):
        return line
    while (more := file.readline(MOST_LINE)) and not more.endswith(b"\n"):
        pass
    return b"too long\n"


def _meta(source: Path) -> dict[str, Any]:
    if not source.is_dir():
        raise RecordingError(f"there is no folder {source}; give the folder of one session")
    try:
        meta = json.loads(_read(_inside(source, META), MOST_META))
    except FileNotFoundError:
        raise RecordingError(f"{source} holds no {META}, so it is no session of the original; give the folder of one session") from None
    except (OSError, ValueError, RecursionError, SessionDamaged) as error:
        raise RecordingError(f"{source / META} cannot be read ({error}); without it the actions have no meaning, so nothing was imported") from None
    if not isinstance(meta, dict):
        raise RecordingError(f"{source / META} holds no metadata; nothing was imported")
    if "format" in meta and "checksum" in meta:
        raise RecordingError(f"{source} is a session of this program already; copy its folder, or use it where it is")
    return meta


def _action_space(meta: dict[str, Any]) -> ActionSpace:
    """Its list of actions; the one that does least, by its numbers, is rest."""
    actions = meta.get("action_space")
    try:
        if not isinstance(actions, list):
            raise ConfigurationError("it is no list")
        effort = [sum(abs(float(value)) for value in action.values()) for action in actions]
        return ActionSpace.discrete(actions, rest=effort.index(min(effort)) if effort else 0)
    except (ConfigurationError, AttributeError, TypeError, ValueError, OverflowError) as error:
        raise RecordingError(f"the action space in {META} cannot be used ({error}); without it the actions have no meaning") from None


def _robot_type(named: Any) -> str:
    """A slug from a class's name: ToroidalDotRobot becomes toroidal_dot."""
    if not isinstance(named, str) or not re.fullmatch(r"\w{1,80}", named, re.ASCII):
        raise RecordingError(f"{META} names the robot {named!r:.80}, of which no robot type can be made; give one with --robot")
    short = re.sub(r"(Robot)?(Interface)?$", "", named) or named
    return _ROBOT_TYPES.get(named) or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", short).lower().strip("_") or "robot"


def _name(named: Any) -> str:
    """Its own name, so that it cannot be imported twice; what a folder may not be called is left out."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", str(named or ""))[:100].lstrip("._-")
    return plain or new_name()


def _inside(source: Path, path: str) -> Path:
    """A path of the session's; RecordingError when it leads anywhere else, also through a link."""
    parts = PurePosixPath(path.replace("\\", "/")).parts
    strange = not path.isprintable() or len(path) > 255  # neither of which any of theirs is, nor any file system is glad of
    if not parts or strange or any(part in ("/", "..") or ":" in part for part in parts):
        raise RecordingError(f"{source} names the file {path!r:.120}, which leaves the session; it may be hostile, and nothing was imported")
    here = source
    for part in parts:
        here = here / part
        if here.is_symlink():
            raise RecordingError(f"{here} is a link, which may leave the session; it may be hostile, and nothing was imported")
    return here


def _opened(path: Path) -> Any:
    """A regular file's bytes; anything else, such as a pipe that never ends, is SessionDamaged."""

    def plainly(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))

    file = open(path, "rb", opener=plainly)  # noqa: SIM115 - the caller closes it
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise SessionDamaged(f"{path.name} is no plain file; it was not read")
    return file


def _read(path: Path, most: int) -> bytes:
    with _opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise SessionDamaged(f"{path.name} has {size} bytes, more than {most}; it was not read")
        return file.read(most)


def _sentences(notes: Notes) -> list[str]:
    return [f"{len(numbers)} {what}: events {in_words(numbers)}" if numbers else what for what, numbers in notes.items()]
