"""docs/session-format.md, sentence by sentence: what goes into a session comes out, and what is no session is refused."""

import base64
import json
import os
import re
import time
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from counting import Counting, read, write
from disks import TraceDisk
from durability import NAME, SPACE, Stepped, event_of, jpeg_of, recorded, same, short_shards

from motorbabble.errors import FrameError, RecordingError, SessionDamaged
from motorbabble.experience import ActionSpace, Channel, Choice, Ending, Observation, Step
from motorbabble.life import live
from motorbabble.recording import reader as reading
from motorbabble.recording.format import META, Continues, decoded, events_file, frames_file, is_ours, new_name, to_line
from motorbabble.recording.reader import RecordingReader
from motorbabble.recording.writer import RecordingWriter
from motorbabble.robots.toroidal_dot import ToroidalDotRobot
from motorbabble.selectors import RandomSelector

RNG = np.random.default_rng(0)


def step(seen: Observation, **other: Any) -> Step:
    return replace(event_of(0), observation=seen, **other)


def lines_of(folder: Path, shard: int = 0) -> list[dict]:
    return [json.loads(line) for line in (folder / NAME / events_file(shard)).read_bytes().splitlines()]


# What comes back

IMAGES = {
    "noise": RNG.integers(0, 256, (20, 20, 3), np.uint8),
    "black": np.zeros((32, 32, 3), np.uint8),
    "white": np.full((32, 32, 3), 255, np.uint8),
    "one pixel": np.array([[[1, 2, 3]]], np.uint8),
    "wide": RNG.integers(0, 256, (3, 77, 3), np.uint8),
    "high": RNG.integers(0, 256, (77, 1, 3), np.uint8),
    "not contiguous": RNG.integers(0, 256, (40, 40, 6), np.uint8)[::2, ::-1, ::2],
    "read-only": np.broadcast_to(np.uint8(7), (5, 5, 3)),
}


@pytest.mark.parametrize("name", IMAGES)
def test_a_frame_comes_back_to_the_bit(folder, name):
    image = recorded(folder, step(Observation(IMAGES[name]))).image(0)
    assert image.dtype == np.uint8 and image.flags.writeable and np.array_equal(image, IMAGES[name])


def test_a_life_comes_back_to_the_bit(folder):
    """A thousand moments of every kind: this is what replay gives a model to see."""
    events = [event_of(number) for number in range(1000)]
    reader = recorded(folder, *events)
    assert all(same(a, b) for a, b in zip(reader.events(), events, strict=True))
    assert all(same(reader.event(number), events[number]) for number in RNG.permutation(1000)[:50].tolist())


def test_the_robots_own_jpeg_is_kept_verbatim(folder):
    encoded = jpeg_of(IMAGES["noise"])
    reader = recorded(folder, step(Observation(decoded(encoded), encoded)))
    assert reader.observation(0).encoded == encoded and np.array_equal(reader.image(0), decoded(encoded))
    assert encoded in (folder / NAME / frames_file(0)).read_bytes()
    assert reader.moment(0).frame.codec == "jpeg" and reader.moment(0).encoded is None
    assert (folder / NAME / frames_file(0)).stat().st_size == len(encoded)


@pytest.mark.parametrize("encoded", [jpeg_of(IMAGES["white"]), b"\xff\xd8 no picture", b"something else", b""])
def test_bytes_that_are_not_the_frame_are_kept_beside_it(folder, encoded):
    reader = recorded(folder, step(Observation(IMAGES["noise"], encoded)), step(Observation(IMAGES["wide"])))
    assert reader.observation(0).encoded == encoded and np.array_equal(reader.image(0), IMAGES["noise"])
    assert reader.moment(0).frame.codec == "png" and np.array_equal(reader.image(1), IMAGES["wide"]) and reader.observation(1).encoded is None


STATES = {
    **{kind: RNG.integers(0, 2, (3, 2)).astype(kind) for kind in ("?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")},
    **{kind: RNG.normal(size=(2, 1, 4)).astype(kind) for kind in ("f2", "f4", "f8", "c8", "c16")},
    "not finite": np.array([np.nan, np.inf, -np.inf, -0.0]),
    "words": np.array(["a", "längere Wörter 🤖"]),
    "bytes": np.array([b"a", b"bcd"]),
    "time": np.array(["2026-01-02T03:04:05.678901234"], "M8[ns]"),
    "span": np.array([5], "m8[s]"),
    "scalar": np.array(7.5),
    "empty": np.zeros((0, 4), np.float32),
    "strided": np.arange(20)[::3],
    "inline": np.arange(1024, dtype=np.uint8),
    "in the pack": np.arange(1025, dtype=np.uint8),
    "large": RNG.normal(size=(100, 100)),
}


@pytest.mark.parametrize("name", STATES)
def test_a_state_comes_back_with_its_type_and_shape(folder, name):
    value = STATES[name]
    back = recorded(folder, step(Observation(IMAGES["black"], state={"it": value, "other": np.ones(2)}))).observation(0).state
    assert set(back) == {"it", "other"} and back["it"].dtype == value.dtype and back["it"].shape == value.shape
    assert back["it"].tobytes() == value.tobytes() and back["other"].tolist() == [1, 1]


def test_large_states_lie_in_the_pack_and_small_ones_in_the_line_and_none_in_both(folder):
    recorded(folder, step(Observation(IMAGES["black"], state={"small": STATES["inline"], "large": STATES["in the pack"]})))
    state = lines_of(folder)[1]["state"]
    assert set(state["small"]) == {"dtype", "shape", "base64"}
    assert set(state["large"]) == {"dtype", "shape", "at", "bytes", "codec", "crc"} and state["large"]["bytes"] == 1025
    assert base64.b64decode(state["small"]["base64"]) == STATES["inline"].tobytes()


def test_a_big_endian_state_is_stored_little_endian(folder):
    back = recorded(folder, step(Observation(IMAGES["black"], state={"it": np.array([1.5, 2], ">f4")}))).observation(0).state["it"]
    assert back.dtype.str == "<f4" and back.tolist() == [1.5, 2]


@pytest.mark.parametrize("value", [np.array([{}]), None, np.zeros(2, [("x", "f4"), ("y", "i4")]), [object()]])
def test_a_state_that_is_no_array_of_numbers_is_refused_and_recording_goes_on(folder, value):
    with Stepped.create(folder, "counting", SPACE, name=NAME) as writer:
        with pytest.raises(FrameError, match="'it'"):
            writer.record(step(Observation(IMAGES["black"], state={"it": value})))
        writer.record(event_of(0))
    assert same(RecordingReader(folder / NAME).event(0), event_of(0))


def test_numbers_and_words_come_back_exactly(folder):
    now = time.time_ns()
    events = [
        step(Observation(IMAGES["black"], captured_ns=now, sequence=2**40, episode=3), started_ns=now + 1, ended_ns=now + 2, monotonic_ns=2**62),
        step(Observation(IMAGES["black"]), choice=Choice({"add": 1.0}, {"a": float("nan"), "b": 0.1 + 0.2, "c": -1e-300}, 'so "it" is\n🤖 \udcff')),
        step(Observation(IMAGES["black"]), requested={"add": 1.0}, executed={"add": 2.0}, index=10**12),
    ]
    reader = recorded(folder, *events)
    for number, event in enumerate(events):
        assert same(reader.event(number), replace(event, choice=replace(event.choice, action=event.requested)))
    assert lines_of(folder)[2]["scores"] == {"a": None, "b": 0.1 + 0.2, "c": -1e-300}


def test_the_gate_and_the_models_version_are_with_the_step(folder):
    with Stepped.create(folder, "counting", SPACE, name=NAME) as writer:
        writer.record(event_of(0))
        writer.record(event_of(1), gate="passed", updates=17)
        writer.close(event_of(2).observation)
    moments = [RecordingReader(folder / NAME).moment(number) for number in range(3)]
    assert [(moment.kind, moment.gate, moment.updates) for moment in moments] == [("step", "", 0), ("step", "passed", 17), ("ending", "", 0)]


def test_the_counting_robot_from_life_to_disk_and_back(folder):
    robot = Counting(episode_steps=7)
    with robot, RecordingWriter.create(folder, robot.robot_type, robot.action_space, name=NAME) as writer:
        lived = [event for event in live(robot, RandomSelector(3), steps=40) if isinstance(event, Step | Ending)]
        for event in lived:
            writer.record(event)
        writer.close(robot.get_observation())
    reader = RecordingReader(folder / NAME)
    assert all(same(a, b) for a, b in zip(reader.events(), [*lived, Ending(robot.get_observation())], strict=True))
    assert [len(stretch) for stretch in reader.stretches] == [7, 7, 7, 7, 7, 6]
    for stretch in reader.stretches:
        window = reader.window(stretch.start, len(stretch))
        counts = [read(image) for image in window.images]
        for action, (before, _), (after, last) in zip(window.actions, counts, counts[1:], strict=False):
            assert after == before + last and np.array_equal(action, SPACE.encode({"add": last}))


# Where things lie


def test_a_new_pair_of_files_every_thousand_moments(folder):
    frame = Observation(IMAGES["one pixel"])
    reader = recorded(folder, *(step(frame, index=number) for number in range(2001)))
    files = {path.name for path in (folder / NAME).iterdir()}
    assert files == {META, "session.lock"} | {name for shard in range(3) for name in (events_file(shard), frames_file(shard))}
    headers = [lines_of(folder, shard)[0] for shard in range(3)]
    assert [(header["header"], header["shard"], header["first_moment"]) for header in headers] == [(1, 0, 0), (1, 1, 1000), (1, 2, 2000)]
    assert [len(lines_of(folder, shard)) for shard in range(3)] == [1001, 1001, 2]
    assert [event.index for event in reader.events() if isinstance(event, Step)] == list(range(2001)) and reader.damaged() == []
    assert all(is_ours(name) for name in files) and not is_ours("events_shard_000.jsonl.bak") and not is_ours("notes.txt")


def test_every_line_carries_its_crc_and_speaks_of_its_bytes(folder):
    recorded(folder, *(event_of(number) for number in range(12)))
    pack = (folder / NAME / frames_file(0)).read_bytes()
    for line in (folder / NAME / events_file(0)).read_bytes().splitlines():
        body, crc = line[:-18], json.loads(line)["crc"]
        assert line[-18:-10] == b',"crc":"' and crc == f"{zlib.crc32(body):08x}" and line.isascii()
    end = 0
    for moment in lines_of(folder)[1:]:
        assert next(iter(moment)) == "moment" and list(moment)[-1] == "crc"
        stored = [moment["frame"], *([moment["encoded"]] if "encoded" in moment else []), *(s for s in moment["state"].values() if "at" in s)]
        for place in stored:
            assert place["at"] == end and place["crc"] == f"{zlib.crc32(pack[end : end + place['bytes']]):08x}", "frames lie end to end"
            end += place["bytes"]
        image = write(moment["moment"], moment["moment"] % 3, 8)
        assert moment["frame"]["shape"] == [8, 8, 3] and (
            moment["frame"]["codec"] == "jpeg" or moment["frame"]["pixels"] == f"{zlib.crc32(image.tobytes()):08x}"
        )
    assert end == len(pack)


def test_a_moment_is_its_bytes_then_its_line_and_nothing_else(folder):
    disk = TraceDisk()
    with Stepped.create(folder, "counting", SPACE, name=NAME, disk=disk) as writer:
        begun = len(disk.ops)
        writer.record(event_of(2))
        assert [(op.what, op.path.name) for op in disk.ops[begun:]] == [("write", frames_file(0)), ("write", events_file(0))]
        writer._turn()
        assert [(op.what, op.path.name) for op in disk.ops[begun + 2 :]] == [
            ("sync", frames_file(0)),
            ("sync", events_file(0)),
            ("sync_folder", NAME),
        ]
        writer._turn()
        assert len(disk.ops) == begun + 5, "nothing changed, so nothing is synced"


def test_any_moment_is_found_without_reading_the_others(folder, monkeypatch):
    with short_shards(10):
        reader = recorded(folder, *(event_of(number) for number in range(95)))
    opened: list[str] = []
    honest = reading._opened
    monkeypatch.setattr(reading, "_opened", lambda path: opened.append(path.name) or honest(path))
    reader = RecordingReader(folder / NAME)
    assert sorted(opened) == sorted([META, *map(events_file, range(10)), events_file(9)]), "a header each, and the lines of the last"
    opened.clear()
    assert same(reader.event(42), event_of(42)) and set(opened) == {events_file(4), frames_file(4)}
    opened.clear()
    reader.image(44)
    assert opened == [frames_file(4)], "its lines are known by now"


def test_only_so_many_shards_are_kept_in_mind(folder, monkeypatch):
    monkeypatch.setattr(reading, "SHARDS_KEPT", 3)
    with short_shards(2):
        reader = recorded(folder, *(event_of(number) for number in range(20)))
    assert all(same(reader.event(number), event_of(number)) for number in (0, 19, 7, 3, 12, 0, 19))
    assert len(reader._parsed) == 3


def test_a_moment_that_never_was_is_refused(folder):
    reader = recorded(folder, event_of(0))
    for number in (-1, 1, 10**6):
        with pytest.raises(RecordingError, match=f"no moment {number}; it holds 1"):
            reader.image(number)


# Metadata, states and names


def test_metadata_says_who_when_and_which_actions(folder):
    began, about = time.time_ns(), {"recipe": "x", "depths": {2: [1, 2], 10: (3,)}}
    before = Continues("session_before", 12, True)
    with RecordingWriter.create(folder, "counting", SPACE, about=about, continues=before) as writer:
        live_meta = RecordingReader(writer.folder).meta
        writer.record(event_of(0))
    meta = RecordingReader(writer.folder).meta
    assert re.fullmatch(r"session_\d{8}_\d{6}_[0-9a-f]{6}", meta.session) and writer.folder == folder / meta.session
    assert (live_meta.state, live_meta.moments, live_meta.ended_ns) == ("live", None, None)
    assert (meta.state, meta.moments, meta.robot_type, meta.continues) == ("closed", 1, "counting", before)
    assert meta.action_space == SPACE and meta.about == {"recipe": "x", "depths": {"2": [1, 2], "10": [3]}}
    assert meta.ended_ns and began <= meta.created_ns <= meta.ended_ns <= time.time_ns()
    written = json.loads((writer.folder / META).read_bytes())
    assert written["format"] == 1 and set(written) == {*meta.to_json(), "checksum"}
    assert not RecordingReader(writer.folder).remade


def test_a_box_of_actions_comes_back(folder):
    space = ActionSpace.box([Channel("speed", -1, 1, "m/s"), Channel("turn", 0, 3)], {"speed": 0, "turn": 0})
    with Stepped.create(folder, "wheels", space, name=NAME) as writer:
        writer.record(step(Observation(IMAGES["black"]), executed={"speed": 0.1, "turn": 0.7}))
    reader = RecordingReader(folder / NAME)
    assert reader.action_space == space and np.allclose(reader.encoded_action(0), space.encode({"speed": 0.1, "turn": 0.7}))
    assert (reader.name, reader.robot_type) == (NAME, "wheels")


def test_lost_metadata_is_made_from_a_header(folder):
    before = recorded(folder, *(event_of(number) for number in range(3)), continues=Continues("a", 3, False), about={"x": 1}).meta
    (folder / NAME / META).unlink()
    reader = RecordingReader(folder / NAME)
    assert reader.remade and len(reader) == 3 and same(reader.event(2), event_of(2))
    assert reader.meta == replace(before, state="live", moments=None, ended_ns=None)


def test_a_renamed_session_has_its_folders_name(folder):
    recorded(folder, event_of(0))
    (folder / NAME).rename(folder / "other")
    assert RecordingReader(folder / "other").name == "other"


@pytest.mark.parametrize("what", [META, "header", "version 0"])
def test_a_newer_or_unknown_version_is_refused(folder, what):
    recorded(folder, event_of(0))
    path = folder / NAME / META
    if what == "header":
        path.unlink()
        lines = (folder / NAME / events_file(0)).read_bytes().splitlines()
        header = {**json.loads(lines[0]), "header": 2}
        header.pop("crc")
        (folder / NAME / events_file(0)).write_bytes(to_line(header))
    else:
        path.write_bytes(path.read_bytes().replace(b'"format": 1', b'"format": 2' if what == META else b'"format": 0'))
    if what == "version 0":  # not newer: damage, so that the header's copy is taken
        assert RecordingReader(folder / NAME).remade
        return
    with pytest.raises(RecordingError, match="newer motorbabble") as refused:
        RecordingReader(folder / NAME)
    assert not isinstance(refused.value, SessionDamaged)
    with pytest.raises(RecordingError, match="newer motorbabble"):
        RecordingWriter.reopen(folder / NAME)
    assert (folder / NAME / events_file(0)).stat().st_size, "nothing was cut"


@pytest.mark.parametrize(
    "name", ["../x", "", ".", "..", "a/b", "a\\b", "a\x00b", "a" * 101, "a" * 300, "ro🤖bot", "end ", " begin", ".hidden", "-x", "a\n"]
)
def test_a_name_that_could_lead_elsewhere_is_refused(tmp_path, name):
    with pytest.raises(RecordingError, match="no session name"):
        RecordingWriter.create(tmp_path / "root", "counting", SPACE, name=name)
    assert list(tmp_path.iterdir()) == []


def test_names_are_the_date_and_a_draw():
    assert len({new_name(10**18) for _ in range(50)}) > 40
    assert new_name(10**18).startswith("session_20010909_014640_")


def test_the_same_name_twice_is_refused_and_nothing_is_touched(folder):
    recorded(folder, event_of(0))
    before = (folder / NAME / META).read_bytes()
    with pytest.raises(RecordingError, match=f"already a session {NAME}"):
        RecordingWriter.create(folder, "counting", SPACE, name=NAME)
    assert (folder / NAME / META).read_bytes() == before and [path.name for path in folder.iterdir()] == [NAME]


def test_the_same_name_in_the_same_instant_is_refused_too(folder, monkeypatch):
    recorded(folder, event_of(0))
    monkeypatch.setattr(Path, "exists", lambda path, **more: False)
    with pytest.raises(RecordingError, match=f"already a session {NAME}"):
        RecordingWriter.create(folder, "counting", SPACE, name=NAME)
    assert len(RecordingReader(folder / NAME)) == 1 and [path.name for path in folder.iterdir()] == [NAME]


def test_fifty_processes_at_once_never_share_a_session(folder):
    """Half of them want a name of their own, half the same."""
    children, (ready, go) = [], os.pipe()
    for child in range(50):
        pid = os.fork()
        if pid == 0:
            status = 3
            try:
                os.close(go)
                os.read(ready, 1)  # until the parent closes it
                with RecordingWriter.create(folder, "counting", SPACE, name=None if child % 2 else "wanted") as writer:
                    writer.record(event_of(child))
                    time.sleep(0.05)
                    writer.record(event_of(child))
                status = 0
            except RecordingError as error:
                status = 1 if "already a session wanted" in str(error) else 2
            finally:
                os._exit(status)
        children.append(pid)
    os.close(ready)
    os.close(go)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    assert statuses[1::2] == [0] * 25 and sorted(statuses[0::2]) == [0] + [1] * 24
    sessions = sorted(folder.iterdir())
    assert len(sessions) == 26
    for session in sessions:
        events = list(RecordingReader(session).events())
        assert len(events) == 2 and same(events[0], events[1])


# What it costs


def test_a_dots_frame_is_small_and_quick(folder):
    """224 x 224 as it is recorded in `live`; the figures asked for are measured by benchmarks/memory.py."""
    with ToroidalDotRobot(seed=0) as robot, RecordingWriter.create(folder, robot.robot_type, robot.action_space, name=NAME) as writer:
        seconds = []
        for event in live(robot, RandomSelector(0), steps=60):
            assert isinstance(event, Step)
            began = time.thread_time()
            writer.record(event)
            seconds.append(time.thread_time() - began)
    assert sorted(seconds)[30] < 0.01
    assert (folder / NAME / frames_file(0)).stat().st_size < 60 * 3000
