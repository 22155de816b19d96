"""The session format's smallest parts: metadata, lines, frames. docs/session-format.md says what each means.

Decisions: a line carries its own CRC, bytes in the pack carry theirs, and a frame also that of its pixels; only
PNG and the robot's own JPEG are ever decoded, with a limit on their size, so that a hostile file stays small.
"""

import base64
import hashlib
import io
import json
import math
import re
import secrets
import time
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from motorbabble.errors import RecordingError, SessionDamaged
from motorbabble.experience import ActionSpace

FORMAT = 1
MOMENTS_PER_SHARD = 1000
META, LOCK, PIN = "session_meta.json", "session.lock", "pinned_by_"
INLINE = 1024  # bytes of an array that may stand in a line; longer ones go into the pack
MOST_PIXELS = 64 * 2**20
PLAIN_KINDS = "biufcSUmM"  # of numpy's: numbers, text and times, which are their bytes
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_NUMBER = re.compile(rb'\{"(moment|header)":(\d{1,15}),')
_OURS = re.compile(
    rf"{re.escape(META)}|{re.escape(LOCK)}|{PIN}[A-Za-z0-9._-]+|events_shard_\d{{3,}}\.jsonl|frames_shard_\d{{3,}}\.pack"
    rf"|\.{re.escape(META)}\.\d+\.new"
)


def events_file(shard: int) -> str:
    return f"events_shard_{shard:03d}.jsonl"


def frames_file(shard: int) -> str:
    return f"frames_shard_{shard:03d}.pack"


def is_ours(name: str) -> bool:
    """Whether the format knows a file of this name in a session's folder."""
    return _OURS.fullmatch(name) is not None


def check_name(name: str) -> str:
    """A session's name, which names a folder; RecordingError for what could lead elsewhere."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise RecordingError(f"{name!r} is no session name; use letters, digits, '.', '_' and '-', at most 100, beginning with a letter or digit")
    return name


def new_name(now_ns: int | None = None) -> str:
    began = time.gmtime((now_ns or time.time_ns()) / 1e9)
    return f"session_{time.strftime('%Y%m%d_%H%M%S', began)}_{secrets.token_hex(3)}"


# Metadata


@dataclass(frozen=True)
class Continues:
    """The session of the same run before this one. `unbroken`: the world stood still in between, so windows may cross."""

    session: str
    first_index: int  # number of this session's first step in the run
    unbroken: bool


@dataclass(frozen=True)
class SessionMeta:
    session: str
    robot_type: str
    action_space: ActionSpace
    created_ns: int
    state: str = "live"  # live, closed, recovered
    moments: int | None = None  # None while live
    ended_ns: int | None = None
    continues: Continues | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    def ended(self, state: str, moments: int) -> "SessionMeta":
        return replace(self, state=state, moments=moments, ended_ns=time.time_ns())

    def to_json(self) -> dict:
        return {
            "format": FORMAT,
            **{name: getattr(self, name) for name in ("session", "robot_type", "created_ns", "state", "moments", "ended_ns")},
            "action_space": self.action_space.to_json(),
            "continues": None if self.continues is None else asdict(self.continues),
            "about": dict(self.about),
        }

    def to_bytes(self) -> bytes:
        content = self.to_json()
        return json.dumps({**content, "checksum": _checksum(content)}, indent=1).encode() + b"\n"

    @classmethod
    def from_json(cls, data: Mapping) -> "SessionMeta":
        check_version(data.get("format"))
        names = ("session", "robot_type", "created_ns", "state", "moments", "ended_ns", "about")
        try:
            continues = None if data["continues"] is None else Continues(**data["continues"])
            counts = (data["moments"], data["ended_ns"], continues and continues.first_index)
            texts = [data[name] for name in ("session", "robot_type", "state")] + ([continues.session] if continues else [])
            if type(data["created_ns"]) is not int or any(type(count) not in (int, type(None)) for count in counts):
                raise TypeError("a number")
            if any(type(text) is not str for text in texts) or type(data["about"]) is not dict:
                raise TypeError("a name")
            return cls(**{name: data[name] for name in names}, action_space=ActionSpace.from_json(data["action_space"]), continues=continues)
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            raise SessionDamaged(f"the session's metadata lacks or misstates {error}; check it with babble sessions check") from None

    @classmethod
    def from_bytes(cls, data: bytes) -> "SessionMeta":
        try:
            content = json.loads(data)
            checksum = content.pop("checksum")
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
            raise SessionDamaged(f"{META} cannot be read; check the session with babble sessions check") from None
        check_version(content.get("format"))
        if checksum != _checksum(content):
            raise SessionDamaged(f"{META} is not what was written: its checksum differs; check the session with babble sessions check")
        return cls.from_json(content)


def check_version(version: Any) -> None:
    if isinstance(version, int) and version > FORMAT:
        raise RecordingError(f"the session was written in format {version}, this program knows {FORMAT}; use a newer motorbabble")
    if version != FORMAT:
        raise SessionDamaged(f"the session's format is {version!r}, which never existed; check it with babble sessions check")


def _checksum(content: Mapping) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


# Lines


def to_line(content: Mapping) -> bytes:
    """One line of JSON that carries its own CRC, newline included."""
    body = json.dumps(content, separators=(",", ":"), allow_nan=False).encode()[:-1]
    return body + b',"crc":"%08x"}\n' % zlib.crc32(body)


def is_whole(line: bytes) -> bool:
    """Whether a line, without its newline, is what was written."""
    body, comma, crc = line[:-18], line[-18:-10], line[-10:]
    return comma == b',"crc":"' and crc == b'%08x"}' % zlib.crc32(body)


def number_of(line: bytes, key: bytes = b"moment") -> int | None:
    """The number a line begins with, {"moment":12, without parsing the rest; None for other lines."""
    match = _NUMBER.match(line)
    return int(match[2]) if match and match[1] == key else None


def finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {str(name): float(value) if math.isfinite(value) else None for name, value in values.items()}


# Frames and arrays


Data = bytes  # by another name, since a place has a member `bytes`


@dataclass(frozen=True)
class Place:
    """Where bytes lie in a shard's pack, and what they must be."""

    at: int
    bytes: int
    codec: str
    crc: str
    shape: tuple[int, ...] = ()
    pixels: str = ""

    @classmethod
    def of(cls, at: int, data: "Data", codec: str) -> "Place":
        return cls(at, len(data), codec, crc_of(data))

    def to_json(self) -> dict:
        return {name: value for name, value in asdict(self).items() if value not in ((), "")}

    @classmethod
    def from_json(cls, data: Any) -> "Place":
        """TypeError or KeyError for anything that is no place."""
        place = cls(
            **{name: data[name] for name in ("at", "bytes", "codec", "crc")}, shape=tuple(data.get("shape", ())), pixels=data.get("pixels", "")
        )
        if any(type(number) is not int or number < 0 for number in (place.at, place.bytes, *place.shape)):
            raise TypeError("a place whose offset, length or shape is not counted")
        return place


def crc_of(data: Any) -> str:  # bytes, or an array
    return f"{zlib.crc32(memoryview(data)):08x}"


def to_png(image: np.ndarray) -> bytes:
    """Lossless. Level 1 with run lengths: smaller than level 1 alone on flat and on textured frames, and as fast."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1, compress_type=3)
    return buffer.getvalue()


def decoded(data: bytes) -> np.ndarray:
    """(H, W, 3) uint8 from PNG or JPEG bytes; SessionDamaged for anything else, and for what is larger than any camera's frame."""
    from PIL import Image

    try:  # warnings are left alone: they can only be caught for the whole process, and several threads read frames
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise SessionDamaged(f"a frame claims {picture.width} x {picture.height} pixels, more than {MOST_PIXELS}; it was not decoded")
            return np.array(picture.convert("RGB"))
    except SessionDamaged:
        raise
    except Exception as error:  # decoders raise whatever they like on hostile bytes
        raise SessionDamaged(f"a frame of {len(data)} bytes cannot be decoded ({error}); it was not written by this program") from None


def array_to_json(value: np.ndarray) -> dict:
    plain = np.ascontiguousarray(value)
    plain = plain.astype(plain.dtype.newbyteorder("<"), copy=False)
    return {"dtype": plain.dtype.str, "shape": list(value.shape), "base64": base64.b64encode(plain.tobytes()).decode()}


def array_from(dtype: str, shape: Any, data: bytes) -> np.ndarray:
    """An array from its bytes; SessionDamaged for anything but numbers, text and times: objects would need unpickling."""
    try:
        kind = np.dtype(str(dtype))
        if kind.kind not in PLAIN_KINDS:
            raise SessionDamaged(f"an array of type {dtype!r} holds no plain numbers; it was not written by this program")
        return np.frombuffer(data, kind).reshape(shape).copy()
    except (TypeError, ValueError, ArithmeticError, SyntaxError) as error:
        raise SessionDamaged(f"{len(data)} bytes are no array of type {dtype!r} and shape {shape!r} ({error}); they were not written so") from None


def shards_in(folder: Path, what: str = r"events_shard_(\d{3,})\.jsonl") -> list[int]:
    """Numbers of the shards whose lines are here, or those of other files."""
    found = (re.fullmatch(what, path.name) for path in folder.iterdir())
    return sorted(int(match[1]) for match in found if match)


def packs_in(folder: Path) -> list[int]:
    """Numbers of the shards whose frames are here; one that a kill left alone has no lines yet."""
    return shards_in(folder, r"frames_shard_(\d{3,})\.pack")
