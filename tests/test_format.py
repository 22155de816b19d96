"""The session format's smallest parts keep to docs/session-format.md: names, metadata, lines, places, frames and arrays."""

import base64
import hashlib
import io
import json
import re
import struct
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from motorbabble.errors import RecordingError, SessionDamaged
from motorbabble.experience import ActionSpace
from motorbabble.recording import format as parts
from motorbabble.recording.format import Continues, Place, SessionMeta

SPACE = ActionSpace.discrete([{"add": 1}, {"add": 2}], labels=("one", "two"))
META = SessionMeta("s-1", "counting", SPACE, 1_700_000_000_000_000_000, continues=Continues("s-0", 7, True), about={"recipe": "nō", "n": [1, 2]})


# Names


def test_shards_are_named_as_the_document_says():
    assert [parts.events_file(0), parts.events_file(12), parts.events_file(1234)] == [f"events_shard_{n}.jsonl" for n in ("000", "012", "1234")]
    assert [parts.frames_file(0), parts.frames_file(12), parts.frames_file(1234)] == [f"frames_shard_{n}.pack" for n in ("000", "012", "1234")]


def test_shards_are_found_by_number_and_nothing_else_is(tmp_path):
    for name in ("events_shard_010.jsonl", "events_shard_1000.jsonl", "events_shard_002.jsonl", "frames_shard_003.pack", "frames_shard_001.pack"):
        (tmp_path / name).touch()
    for name in (
        "events_shard_04.jsonl",
        "events_shard_005.jsonl.bak",
        "a_events_shard_006.jsonl",
        "events_shard_00x.jsonl",
        "frames_shard_007.packs",
    ):
        (tmp_path / name).touch()
    assert parts.shards_in(tmp_path) == [2, 10, 1000]
    assert parts.packs_in(tmp_path) == [1, 3]


def test_the_format_knows_its_own_files():
    ours = ["session_meta.json", "session.lock", "pinned_by_me", "events_shard_000.jsonl", "frames_shard_1234.pack", ".session_meta.json.77.new"]
    others = ["session_meta_json", "session.lock2", "pinned_by_", "events_shard_00.jsonl", "frames_shard_000.pack.bak", "notes.txt", ".new", ""]
    assert all(map(parts.is_ours, ours)) and not any(map(parts.is_ours, others))


@pytest.mark.parametrize("name", ["a", "0", "A.b_c-1", "x" * 100])
def test_a_plain_name_is_a_name(name):
    assert parts.check_name(name) == name


@pytest.mark.parametrize("name", ["", "x" * 101, ".a", "-a", "_a", "a/b", "..", "a\n", "ä", "a b", None, 7, b"a"])
def test_a_name_that_could_lead_elsewhere_is_refused(name):
    with pytest.raises(RecordingError, match=re.escape(repr(name))):
        parts.check_name(name)


def test_a_new_name_tells_when_and_is_never_used_twice():
    assert re.fullmatch(r"session_20231114_221320_[0-9a-f]{6}", parts.new_name(1_700_000_000_500_000_000))
    assert len({parts.new_name(1) for _ in range(50)}) > 45
    before, name, after = time.time_ns(), parts.new_name(), time.time_ns()
    assert parts.new_name(before)[:-7] <= name[:-7] <= parts.new_name(after)[:-7]
    parts.check_name(parts.new_name())


# Metadata


def altered(**changes) -> bytes:
    """META's bytes with other members, and a checksum that is right."""
    content = {**META.to_json(), **changes}
    content = {name: value for name, value in content.items() if value is not ...}
    return json.dumps({**content, "checksum": checksum(content)}).encode()


def checksum(content: dict) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@pytest.mark.parametrize("meta", [META, META.ended("closed", 12), SessionMeta("s", "counting", SPACE, 1)])
def test_metadata_come_back_as_they_were(meta):
    assert SessionMeta.from_bytes(meta.to_bytes()) == meta
    assert SessionMeta.from_json(json.loads(json.dumps(meta.to_json()))) == meta


def test_metadata_are_what_the_document_says():
    data = META.to_bytes()
    content = json.loads(data)
    assert data.endswith(b"}\n") and data.count(b"\n ") >= 10, "a member a line, for people"
    assert content.pop("checksum") == checksum(content)
    known = {"format", "session", "robot_type", "action_space", "created_ns", "state", "moments", "ended_ns", "continues", "about"}
    assert set(content) == known
    assert (content["format"], content["state"], content["moments"], content["ended_ns"]) == (1, "live", None, None)
    assert content["continues"] == {"session": "s-0", "first_index": 7, "unbroken": True}
    assert content["action_space"] == SPACE.to_json()


def test_an_end_is_noted_with_its_time():
    before = time.time_ns()
    ended = META.ended("closed", 12)
    assert (ended.state, ended.moments) == ("closed", 12) and before <= (ended.ended_ns or 0) <= time.time_ns()
    assert ended.session == META.session and META.state == "live"


def test_one_changed_byte_of_metadata_is_damage():
    data = META.to_bytes()
    for at in range(len(data) - 1):
        spoiled = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises(RecordingError):
            SessionMeta.from_bytes(spoiled)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"7", b"null", b"\xff\xfe\xff", b"[" * 100_000, b'{"checksum":1}'])
def test_what_is_no_metadata_is_damage(data):
    with pytest.raises(SessionDamaged, match=r"babble sessions check"):
        SessionMeta.from_bytes(data)


@pytest.mark.parametrize("name", ["session", "robot_type", "action_space", "created_ns", "state", "moments", "ended_ns", "continues", "about"])
@pytest.mark.parametrize("value", [..., 1.5, ["x"], {"x": 1}, True])
def test_a_member_that_is_missing_or_another_kind_is_damage(name, value):
    if (name, value) == ("about", {"x": 1}):
        assert SessionMeta.from_bytes(altered(about=value)).about == value
        return
    with pytest.raises(SessionDamaged, match=r"lacks or misstates"):
        SessionMeta.from_bytes(altered(**{name: value}))


@pytest.mark.parametrize(
    "continues", [{"session": 7, "first_index": 1, "unbroken": True}, {"session": "s", "first_index": 1.0, "unbroken": True}, {"session": "s"}]
)
def test_what_it_continues_must_be_told_whole(continues):
    with pytest.raises(SessionDamaged, match=r"lacks or misstates"):
        SessionMeta.from_bytes(altered(continues=continues))


def test_a_newer_format_is_not_damage_but_refused_with_both_versions():
    with pytest.raises(RecordingError, match=r"format 2, this program knows 1") as caught:
        SessionMeta.from_bytes(altered(format=2))
    assert not isinstance(caught.value, SessionDamaged)
    assert parts.check_version(1) is None


def test_a_newer_format_may_count_its_checksum_otherwise():
    with pytest.raises(RecordingError, match=r"use a newer"):
        SessionMeta.from_bytes(json.dumps({"format": 3, "checksum": "otherwise"}).encode())


@pytest.mark.parametrize("version", [0, -1, "1", "2", None, 1.5, ...])
def test_a_format_that_never_existed_is_damage(version):
    with pytest.raises(SessionDamaged, match=r"never existed"):
        SessionMeta.from_bytes(altered(format=version))


# Lines


def test_a_line_carries_the_crc_of_what_stands_before_it():
    line = parts.to_line({"moment": 3, "why": "nō"})
    body = b'{"moment":3,"why":"n\\u014d"'
    assert line == body + b',"crc":"%08x"}\n' % zlib.crc32(body)
    assert json.loads(line)["why"] == "nō"


def test_any_flipped_bit_of_a_line_is_found():
    line = parts.to_line({"moment": 3, "kind": "step", "why": "because"})[:-1]
    assert parts.is_whole(line)
    for bit in range(8 * len(line)):
        spoiled = bytearray(line)
        spoiled[bit // 8] ^= 1 << bit % 8
        assert not parts.is_whole(bytes(spoiled))
    assert not any(parts.is_whole(line[:end]) for end in range(len(line)))


def test_a_crc_with_leading_zeros_keeps_them():
    contents = ({"moment": number} for number in range(10_000))
    line = next(line for line in map(parts.to_line, contents) if b'"crc":"00' in line)
    assert parts.is_whole(line[:-1])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_line_holds_no_number_that_json_lacks(value):
    with pytest.raises(ValueError):
        parts.to_line({"moment": 1, "score": value})
    assert parts.finite({"a": value, "b": 2, 3: np.float32(0.5)}) == {"a": None, "b": 2.0, "3": 0.5}  # type: ignore[dict-item]
    assert type(parts.finite({"b": 2})["b"]) is float


def test_the_number_of_a_line_is_read_without_parsing():
    assert parts.number_of(b'{"moment":12,"kind"') == 12
    assert parts.number_of(b'{"moment":0,"a":"}') == 0
    assert parts.number_of(b'{"header":1,"shard":4,', b"header") == 1
    for line in (
        b'{"header":1,',
        b'{"moment":-1,',
        b'{"moment":"1",',
        b'{"moment":,',
        b'{"moment":1.5,',
        b'x{"moment":1,',
        b"",
        b'{"moment":',
        b"12,",
    ):
        assert parts.number_of(line) is None
    assert parts.number_of(b'{"moment":%s,' % (b"9" * 15)) == 10**15 - 1
    assert parts.number_of(b'{"moment":%s,' % (b"9" * 16)) is None, "no moment has so many digits, and Python refuses 5,000"


# Places


def test_a_place_comes_back_and_says_only_what_is_so():
    place = Place.of(7, b"abc", "raw")
    assert place == Place(7, 3, "raw", f"{zlib.crc32(b'abc'):08x}")
    assert place.to_json() == {"at": 7, "bytes": 3, "codec": "raw", "crc": "352441c2"}
    framed = Place(0, 3, "png", "00000001", (4, 5, 3), "0000000a")
    assert framed.to_json()["shape"] == (4, 5, 3)
    for each in (place, framed):
        assert Place.from_json(json.loads(json.dumps(each.to_json()))) == each


def test_a_place_at_the_very_beginning_keeps_its_offset():
    assert Place.of(0, b"", "raw").to_json() == {"at": 0, "bytes": 0, "codec": "raw", "crc": "00000000"}


@pytest.mark.parametrize("change", [{"at": -1}, {"bytes": -1}, {"at": 1.0}, {"bytes": "3"}, {"at": True}, {"shape": [4, -1, 3]}, {"shape": [4.0]}])
def test_a_place_counts_in_whole_numbers(change):
    with pytest.raises(TypeError):
        Place.from_json({"at": 7, "bytes": 3, "codec": "raw", "crc": "00000000", **change})


@pytest.mark.parametrize("name", ["at", "bytes", "codec", "crc"])
def test_a_place_lacks_nothing(name):
    whole = {"at": 7, "bytes": 3, "codec": "raw", "crc": "00000000"}
    with pytest.raises(KeyError):
        Place.from_json({key: value for key, value in whole.items() if key != name})


def test_a_crc_is_of_the_bytes_of_an_array_too():
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert parts.crc_of(image) == parts.crc_of(image.tobytes()) == f"{zlib.crc32(image.tobytes()):08x}"
    assert len(parts.crc_of(b"")) == 8


# Frames


def in_format(kind: str, image: np.ndarray, mode: str = "RGB", **settings) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).convert(mode).save(buffer, kind, **settings)
    return buffer.getvalue()


@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 7, 3), (64, 48, 3)])
def test_a_frame_survives_png(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    data = parts.to_png(image)
    assert data.startswith(b"\x89PNG") and np.array_equal(parts.decoded(data), image)


def test_png_is_small_for_what_simulated_worlds_look_like():
    flat = np.zeros((224, 224, 3), np.uint8)
    flat[90:110, 100:120] = 255
    assert len(parts.to_png(flat)) < 3000


@pytest.mark.parametrize(("kind", "mode"), [("PNG", "RGBA"), ("PNG", "L"), ("PNG", "P"), ("JPEG", "RGB"), ("JPEG", "L")])
def test_a_decoded_frame_is_always_rgb(kind, mode):
    image = np.full((6, 4, 3), 100, np.uint8)
    found = parts.decoded(in_format(kind, image, mode))
    assert found.shape == (6, 4, 3) and found.dtype == np.uint8 and abs(found.astype(int) - 100).max() <= 3


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_no_other_decoder_is_ever_run(kind):
    with pytest.raises(SessionDamaged, match=r"cannot be decoded"):
        parts.decoded(in_format(kind, np.zeros((4, 4, 3), np.uint8)))


def test_bytes_that_are_no_picture_are_damage():
    whole = parts.to_png(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8))
    for data in (b"", b"\x89PNG", whole[: len(whole) // 2], whole[:-30]):
        with pytest.raises(SessionDamaged, match=f"{len(data)} bytes cannot be decoded"):
            parts.decoded(data)


def test_frames_are_decoded_in_several_threads_and_warnings_stay_what_they_were():
    """What catches warnings does so for the whole process, and threads that take turns in it leave it changed."""
    data, before = parts.to_png(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)), list(warnings.filters)
    with ThreadPoolExecutor(4) as threads:
        assert all(found.shape == (64, 64, 3) for found in threads.map(parts.decoded, [data] * 400))
    assert warnings.filters == before


def test_a_picture_larger_than_any_camera_is_not_decoded(monkeypatch):
    monkeypatch.setattr(parts, "MOST_PIXELS", 12)
    assert parts.decoded(parts.to_png(np.zeros((3, 4, 3), np.uint8))).shape == (3, 4, 3)
    with pytest.raises(SessionDamaged, match=r"claims 5 x 3 pixels, more than 12"):
        parts.decoded(parts.to_png(np.zeros((3, 5, 3), np.uint8)))


def test_a_bomb_costs_no_memory():
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    with pytest.raises(SessionDamaged):
        parts.decoded(b"\x89PNG\r\n\x1a\n" + chunk)


# Arrays


ARRAYS = [
    np.array([True, False]),
    np.arange(6, dtype=np.int16).reshape(2, 3),
    np.arange(3, dtype=">u4"),
    np.linspace(0, 1, 12, dtype=np.float32).reshape(2, 2, 3)[:, ::-1],
    np.array(2.5),
    np.array([1 + 2j]),
    np.array(["ab", "nō"]),
    np.array([b"ab"]),
    np.array(["2026-01-01"], "datetime64[ns]"),
    np.array([5], "timedelta64[ms]"),
    np.zeros((0, 4), np.float64),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype.str}{array.shape}")
def test_an_array_comes_back_to_the_bit(array):
    told = json.loads(json.dumps(parts.array_to_json(array)))
    assert set(told) == {"dtype", "shape", "base64"} and not told["dtype"].startswith(">")
    found = parts.array_from(told["dtype"], told["shape"], base64.b64decode(told["base64"]))
    assert found.shape == array.shape and found.dtype == array.dtype.newbyteorder("<") and np.array_equal(found, array)
    assert found.flags.writeable, "whoever reads it may work in it"


def test_an_array_is_stored_little_endian_and_in_rows():
    told = parts.array_to_json(np.array([[1, 2], [3, 4]], ">u2").T)
    assert told == {"dtype": "<u2", "shape": [2, 2], "base64": base64.b64encode(struct.pack("<4H", 1, 3, 2, 4)).decode()}


@pytest.mark.parametrize("dtype", ["O", "|O", "V8", "object", "i4,O"])
def test_an_array_that_would_need_unpickling_is_refused(dtype):
    with pytest.raises(SessionDamaged, match=r"no plain numbers"):
        parts.array_from(dtype, [1], bytes(16))


@pytest.mark.parametrize(
    ("dtype", "shape", "size"),
    [
        ("<i4", [3], 8),
        ("<i4", [2], 7),
        ("<i4", [-1, 0], 8),
        ("nonsense", [2], 8),
        ("<i4", "x", 8),
        (None, [1], 9),
        ("<f4(", [1], 4),
    ],
)
def test_bytes_that_are_no_such_array_are_damage(dtype, shape, size):
    with pytest.raises(SessionDamaged):
        parts.array_from(dtype, shape, bytes(size))
