"""Sessions that a stranger made, or that are something else: only our own errors come, soon, and what is whole is still read."""

import base64
import json
import os
import shutil
import struct
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from durability import NAME, SPACE, Stepped, event_of, recorded, same, short_shards
from hypothesis import given, settings
from hypothesis import strategies as st
from kills import killed

from motorbabble.errors import FrameError, MotorbabbleError, SessionDamaged
from motorbabble.experience import Ending, Step
from motorbabble.recording import writer as writing
from motorbabble.recording.format import META, _checksum, decoded, events_file, frames_file, is_whole, to_line
from motorbabble.recording.reader import RecordingReader
from motorbabble.recording.writer import RecordingWriter

RNG = np.random.default_rng(0)


# Hostile files


def test_a_frame_larger_than_any_camera_is_refused_before_it_is_written(folder, monkeypatch):
    monkeypatch.setattr(writing, "MOST_PIXELS", 50)
    with Stepped.create(folder, "counting", SPACE, name=NAME) as writer, pytest.raises(FrameError, match="50 pixels"):
        writer.record(event_of(0))


def png_bomb() -> bytes:
    """Says it is 60,000 pixels wide and high, in a few hundred bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10**5))) + chunk(b"IEND", b"")


def test_a_picture_that_unpacks_to_gigabytes_is_not_unpacked():
    began = time.monotonic()
    with pytest.raises(SessionDamaged):
        decoded(png_bomb())
    with pytest.raises(SessionDamaged, match="9000 x 9000"):
        decoded(png_bomb().replace(struct.pack(">II", 60_000, 60_000), struct.pack(">II", 9000, 9000)).replace(*_crc_of_9000()))
    assert time.monotonic() - began < 5


def _crc_of_9000() -> tuple[bytes, bytes]:
    kind_and_data = [b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0) for side in (60_000, 9000)]
    old, new = (struct.pack(">I", zlib.crc32(data)) for data in kind_and_data)
    return old, new


def forged(session: Path, change: Callable[[dict], Any], line: int = 2, shard: int = 0) -> None:
    """Change a line's content and give it the CRC it needs: rot cannot do this, a stranger can."""
    path = session / events_file(shard)
    lines = path.read_bytes().splitlines(keepends=True)
    content = json.loads(lines[line])
    content.pop("crc")
    change(content)
    body = json.dumps(content, separators=(",", ":")).encode()[:-1]
    lines[line] = body + b',"crc":"%08x"}\n' % zlib.crc32(body)
    path.write_bytes(b"".join(lines))


def everything(session: Path) -> list[Step | Ending]:
    """Ask a reader all it can be asked; only our own errors may come."""
    try:
        reader = RecordingReader(session)
        for ask in (reader.readable, reader.damaged, lambda: reader.stretches, lambda: list(reader.events())):
            try:
                ask()
            except MotorbabbleError:
                continue
        for number in range(4):
            for look in (reader.moment, reader.image, reader.observation, reader.event, reader.encoded_action):
                try:
                    look(number)
                except MotorbabbleError:
                    continue
        return list(reader.events())
    except MotorbabbleError:
        return []


FORGERIES: dict[str, Callable[[dict], Any]] = {
    "a place far outside": lambda line: line["frame"].update(at=2**62, bytes=2**62),
    "a negative place": lambda line: line["frame"].update(at=-1),
    "a huge length": lambda line: line["frame"].update(bytes=0xFFFFFFFF),
    "a place that is text": lambda line: line["frame"].update(at="0"),
    "another shape": lambda line: line["frame"].update(shape=[10**9, 10**9, 3]),
    "objects": lambda line: line["state"].update(evil={"dtype": "|O", "shape": [1], "base64": "AAAAAAAAAAA="}),
    "objects in a struct": lambda line: line["state"].update(evil={"dtype": "O,O", "shape": [1], "base64": "AAAAAAAAAAAAAAAAAAAAAA=="}),
    "no such type": lambda line: line["state"].update(evil={"dtype": "f17", "shape": [1], "base64": ""}),
    "a type that is code": lambda line: line["state"].update(evil={"dtype": "(__import__('os'),)", "shape": [1], "base64": ""}),
    "a gigantic shape": lambda line: line["state"].update(evil={"dtype": "<f8", "shape": [2**40], "base64": "AAAAAAAAAAA="}),
    "no base64": lambda line: line["state"].update(evil={"dtype": "<f8", "shape": [1], "base64": "?"}),
    "a state that is none": lambda line: line.update(state=[1]),
    "a codec that is a path": lambda line: line["frame"].update(codec="../../secret.png"),
    "an unknown member": lambda line: line.update(extra=1),
    "no frame": lambda line: line.pop("frame"),
    "a kind nobody knows": lambda line: line.update(kind="dream"),
    "an action it does not have": lambda line: line.update(executed={"add": 9.0}),
    "an action beyond floats": lambda line: line.update(executed={"add": 10**400}),
    "a number beyond all": lambda line: line.update(moment=10**15 - 1),
    "deep nesting": lambda line: line.update(why=[[[[]]]]),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_line_is_refused_and_its_neighbours_are_not(folder, name):
    recorded(folder, *(event_of(number) for number in range(4)))
    forged(folder / NAME, FORGERIES[name])
    began = time.monotonic()
    found = everything(folder / NAME)
    for number in (0, 2, 3):
        assert any(same(event, event_of(number)) for event in found)
    assert time.monotonic() - began < 5
    if name not in ("a codec that is a path", "an action it does not have", "an action beyond floats"):
        assert len(found) == 3, "it is not returned"
    RecordingWriter.reopen(folder / NAME).close()


@settings(max_examples=80, deadline=None)
@given(
    path=st.lists(
        st.sampled_from(["frame", "state", "encoded", "count", "map", "shape", "at", "executed", "scores", "moment", "why", "dtype"]), max_size=3
    ),
    value=st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), lambda x: st.lists(x, max_size=2)),
)
def test_only_our_own_errors_come_from_a_forged_line(path, value):
    from crashes import scratch

    def change(line: dict) -> None:
        at: Any = line
        for key in path[:-1]:
            at = at[key] if isinstance(at, dict) and isinstance(at.get(key), dict) else at
        at[path[-1] if path else "kind"] = value

    with scratch() as place:
        recorded(Path(place), *(event_of(number) for number in (1, 2, 3)))
        forged(Path(place) / NAME, change)
        assert len(everything(Path(place) / NAME)) >= 2


@pytest.mark.parametrize("change", [{"first_moment": "x"}, {"first_moment": 10**12}, {"session": 5}, {"header": "1"}, {"header": None}])
@pytest.mark.parametrize("with_metadata", [True, False])
def test_a_forged_header_is_survived(folder, change, with_metadata):
    recorded(folder, *(event_of(number) for number in range(3)))
    forged(folder / NAME, lambda line: line.update(change), line=0)
    if not with_metadata:
        (folder / NAME / META).unlink()
    found = everything(folder / NAME)
    assert len(found) == 3 or not with_metadata or change == {"first_moment": 10**12}


@pytest.mark.parametrize(
    "change", [{"moments": "5"}, {"continues": [1]}, {"about": 3}, {"action_space": {"channels": 1}}, {"created_ns": None}, {"state": 1}]
)
def test_forged_metadata_is_replaced_by_the_header(folder, change):
    recorded(folder, *(event_of(number) for number in range(3)))
    path = folder / NAME / META
    content = {**json.loads(path.read_bytes()), **change}
    content.pop("checksum")
    path.write_bytes(json.dumps({**content, "checksum": _checksum(content)}).encode())
    assert RecordingReader(folder / NAME).remade and len(everything(folder / NAME)) == 3


@pytest.mark.parametrize("name", [META, events_file(1), frames_file(1)])
@pytest.mark.parametrize("what", ["link", "dangling link", "folder", "pipe", "zeros", "noise", "nothing", "gone"])
def test_a_file_that_is_something_else_costs_only_its_own_moments(folder, name, what):
    with short_shards(3):
        recorded(folder, *(event_of(number) for number in range(9)))
    path = folder / NAME / name
    elsewhere = folder / "elsewhere"
    shutil.move(path, elsewhere)
    {
        "link": lambda: path.symlink_to(elsewhere),
        "dangling link": lambda: path.symlink_to(folder / "nowhere"),
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "zeros": lambda: path.write_bytes(bytes(5000)),
        "noise": lambda: path.write_bytes(RNG.bytes(5000)),
        "nothing": path.touch,
        "gone": lambda: None,
    }[what]()
    left = [number for number in range(9) if name == META or number not in (3, 4, 5)]
    found = everything(folder / NAME)
    assert len(found) == len(left) and all(same(event, event_of(number)) for number, event in zip(left, found, strict=True))
    if name == events_file(1):
        assert RecordingReader(folder / NAME).damaged() == [3, 4, 5]


def test_nothing_is_ever_unpickled(folder):
    """An audit hook sees every lookup an unpickler makes. Hooks stay for good, so a child process has it."""
    recorded(folder, *(event_of(number) for number in range(4)))
    import pickle

    bomb = pickle.dumps(Path)
    cases = [
        lambda line, kind=kind: line["state"].update(e={"dtype": kind, "shape": [1], "base64": base64.b64encode(bomb).decode()})
        for kind in ("|O", "O")
    ]

    def work(say: Callable[[int], None]) -> None:
        seen: list[str] = []
        sys.addaudithook(lambda event, arguments: seen.append(event) if event == "pickle.find_class" else None)
        pickle.loads(bomb)
        say(len(seen))  # the hook works
        seen.clear()
        for number, change in enumerate([*FORGERIES.values(), *cases]):
            copy = shutil.copytree(folder / NAME, folder / f"copy{number}")
            forged(copy, change)
            everything(copy)
        for name in (META, events_file(0), frames_file(0)):
            copy = shutil.copytree(folder / NAME, folder / f"copy-{name}")
            (copy / name).write_bytes(bomb)
            everything(copy)
        say(len(seen))

    assert killed(work).acknowledged == [1, 0]


def test_a_line_of_thirty_megabytes_does_not_take_long(folder):
    recorded(folder, *(event_of(number) for number in range(3)))
    path = folder / NAME / events_file(0)
    path.write_bytes(path.read_bytes() + b'{"moment":3,' + b" " * 3 * 10**7 + b"\n")
    began = time.monotonic()
    assert len(everything(folder / NAME)) == 3
    assert time.monotonic() - began < 5


def test_a_line_is_whole_only_with_its_own_crc():
    line = to_line({"moment": 3, "why": "ü"})[:-1]
    assert is_whole(line) and not is_whole(line[:-1]) and not is_whole(line + b"\n") and not is_whole(b"") and not is_whole(line.upper())
    with pytest.raises(ValueError):
        to_line({"moment": float("nan")})
