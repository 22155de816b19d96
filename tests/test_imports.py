"""Imports: what others recorded becomes sessions in which every action lies between the frames it lay between, and hostile folders stay outside."""

import io
import json
import os
import shutil
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from counting import Counting, read, write
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from motorbabble.errors import RecordingError
from motorbabble.exchange import from_original
from motorbabble.exchange.exports import export_session
from motorbabble.exchange.imports import import_original
from motorbabble.experience import Choice, Observation, Step
from motorbabble.recording.format import decoded
from motorbabble.recording.reader import RecordingReader
from motorbabble.recording.writer import RecordingWriter

BEGAN = 1_760_000_000.25
ACTIONS = [{"add": 1}, {"add": 2}]


def jpeg(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def write_original(folder: Path, events: list, shard_size: int = 1000, **meta) -> Path:
    """A session as the original writes it: `events` are frames (arrays), JPEG bytes or actions; None is a step that was lost."""
    (folder / "frames").mkdir(parents=True)
    lines: list[str] = []
    for number, event in enumerate(events):
        if event is None:
            continue
        if isinstance(event, dict):
            kind, data = "action", event
        else:
            kind, data = "observation", {"frame_path": f"frames/frame_{number:06d}.jpg"}
            (folder / data["frame_path"]).write_bytes(event if isinstance(event, bytes) else jpeg(event))
        lines.append(json.dumps({"step": number, "type": kind, "data": data, "timestamp": BEGAN + number / 8}))
    for shard in range(-(-len(lines) // shard_size)):
        chosen = lines[shard * shard_size : (shard + 1) * shard_size]
        (folder / f"events_shard_{shard:03d}.jsonl").write_text("".join(line + "\n" for line in chosen))
    told = {
        "session_name": folder.name,
        "start_time": "2025-10-18T12:00:00",
        "action_space": ACTIONS,
        "robot_type": "CountingRobot",
        "shard_size": 1000,
    }
    (folder / "session_meta.json").write_text(json.dumps({**told, **meta}, indent=2))
    return folder


def lived(actions: list[int], first: int = 0) -> list:
    """Frames and actions, one after the other, of a robot that counts."""
    count, last, events = first, 0, []
    for action in actions:
        events += [write(count, last), {"add": action}]
        count, last = count + action, action
    return [*events, write(count, last)]


def check_alignment(reader: RecordingReader) -> int:
    """In every stretch the count rises by the action that lies between; answers how many transitions there are."""
    transitions = 0
    for stretch in reader.stretches:
        for number, following in pairwise(stretch):
            (count, _), (next_count, last) = read(reader.image(number)), read(reader.image(following))
            assert next_count - count == last == reader.moment(number).executed["add"], f"moments {number} and {following}"
            transitions += 1
    return transitions


def only(root: Path) -> RecordingReader:
    (folder,) = [path for path in root.glob("*/*") if not path.name.startswith(".")]
    return RecordingReader(folder)


# The original's sessions


def test_a_session_comes_over_whole(tmp_path):
    source, said = write_original(tmp_path / "session_20251018_120000", lived([1, 2, 2, 1] * 5), shard_size=7), []
    assert import_original(source, tmp_path / "root", tell=said.append) == "session_20251018_120000" and not said
    reader = RecordingReader(tmp_path / "root" / "counting" / "session_20251018_120000")
    assert len(reader) == 21 and check_alignment(reader) == 20 and reader.meta.state == "closed" and reader.robot_type == "counting"
    assert reader.action_space.fingerprint == Counting().action_space.fingerprint
    for number in range(21):
        moment, observation = reader.moment(number), reader.observation(number)
        assert observation.encoded == (source / f"frames/frame_{2 * number:06d}.jpg").read_bytes(), "the very bytes"
        assert moment.captured_ns == 1_760_000_000_250_000_000 + number * 250_000_000 and moment.sequence == 2 * number and moment.episode == 0
        if moment.is_step:
            assert (moment.started_ns, moment.ended_ns) == (moment.captured_ns + 125_000_000, moment.captured_ns + 250_000_000)
    assert reader.moment(20).kind == "ending"
    origin = reader.meta.about["imported_from"]
    assert origin["folder"] == str(source) and origin["format"] == "original" and origin["start_time"] == "2025-10-18T12:00:00"
    pictures = export_session([reader.folder], tmp_path / "pictures", "png")
    for number in range(21):
        assert np.array_equal(decoded((pictures / f"frame_{number:06d}.png").read_bytes()), decoded(reader.observation(number).encoded or b""))


def test_looking_again_at_the_same_is_one_look_and_at_another_is_a_new_episode(tmp_path):
    frames = [write(5, 0), write(7, 2), write(8, 1)]
    same = write_original(tmp_path / "same", [frames[0], frames[0], frames[0], {"add": 2}, frames[1], frames[1], {"add": 1}, frames[2]])
    import_original(same, tmp_path / "a")
    assert len(only(tmp_path / "a")) == 3 and check_alignment(only(tmp_path / "a")) == 2
    assert only(tmp_path / "a").moment(0).sequence == 2, "the look the action was chosen from"
    moved = write_original(tmp_path / "moved", [frames[0], {"add": 2}, frames[1], write(30, 1), {"add": 1}, write(31, 1)])
    said: list[str] = []
    import_original(moved, tmp_path / "b", tell=said.append)
    reader = only(tmp_path / "b")
    assert [(reader.moment(n).kind, reader.moment(n).episode) for n in range(4)] == [("step", 0), ("ending", 0), ("step", 1), ("ending", 1)]
    assert check_alignment(reader) == 2 and "not followed by an action" in said[0]


@pytest.mark.parametrize("lost", ["the frame file", "the frame's line", "the action's line", "the frame's content"])
def test_what_is_lost_is_named_and_drops_its_transitions_only(tmp_path, lost):
    events = lived([1, 2, 1, 2, 2])
    if lost == "the frame's line":
        events[4] = None
    if lost == "the action's line":
        events[5] = None
    if lost == "the frame's content":
        events[4] = b"\xff\xd8 no picture"
    source, said = write_original(tmp_path / "s", events), []
    if lost == "the frame file":
        (source / "frames/frame_000004.jpg").unlink()
    import_original(source, tmp_path / "root", tell=said.append)
    reader = only(tmp_path / "root")
    assert check_alignment(reader) == (4 if lost == "the action's line" else 3)
    expected = {"the frame file": "1 frames are missing: events 4", "the frame's content": "1 frames cannot be read: events 4"}
    expected |= {"the frame's line": "1 events follow others that are lost: events 5", "the action's line": "events 6"}
    assert any(expected[lost] in sentence for sentence in said)


FAULTS = st.lists(st.tuples(st.integers(0, 40), st.sampled_from(["drop", "missing", "broken", "again", "jump", "twice"])), max_size=6)


def damaged_original(folder: Path, actions: list[int], faults: list[tuple[int, str]]) -> Path:
    """A recording to which much has happened; its frames still say what was done before each."""
    events, count, last = [], 0, 0
    happens = dict(faults)
    for action in actions:
        events += [write(count, last), {"add": action}]
        count, last = count + action, action
        if happens.get(len(events)) == "again":  # looked twice, and something else moved in between
            events.append(write(count, last))
            count, last = count + 50, 0
        if happens.get(len(events)) == "twice":  # acted twice without a look
            events.append({"add": 1})
            count, last = count + action + 1, 1
        if happens.get(len(events)) == "jump":  # what came next was never written
            events += [None, None]
            count, last = count + 3, 1
    events.append(write(count, last))
    source = write_original(folder, [None if happens.get(number) == "drop" else event for number, event in enumerate(events)], shard_size=9)
    for number, fault in faults:
        frame = source / f"frames/frame_{number:06d}.jpg"
        if fault == "missing" and frame.exists():
            frame.unlink()
        shard = source / f"events_shard_{number % 3:03d}.jsonl"
        if fault == "broken" and shard.exists():
            lines = shard.read_text().splitlines()
            lines[number % len(lines)] = lines[number % len(lines)][:20]
            shard.write_text("\n".join(lines) + "\n")
    return source


@settings(max_examples=40, deadline=None, derandomize=True)
@given(actions=st.lists(st.integers(1, 2), min_size=3, max_size=14), faults=FAULTS)
def test_no_damage_misaligns(tmp_path_factory, actions, faults):
    folder = tmp_path_factory.mktemp("damaged")
    source = damaged_original(folder / "s", actions, faults)
    try:
        import_original(source, folder / "root", tell=lambda sentence: None)
    except RecordingError as error:
        assert "nothing was imported" in str(error)
    else:
        check_alignment(only(folder / "root"))
    shutil.rmtree(folder)


def test_an_import_that_joins_over_gaps_is_found_out(tmp_path, monkeypatch):
    right = from_original._events
    monkeypatch.setattr(from_original, "_events", lambda *args: (event for event in right(*args) if event.frame or event.action is not None))
    source = write_original(tmp_path / "s", [event if number not in (5, 6) else None for number, event in enumerate(lived([1, 2, 1, 2, 2]))])
    import_original(source, tmp_path / "root", tell=lambda sentence: None)
    with pytest.raises(AssertionError, match="moments"):
        check_alignment(only(tmp_path / "root"))


def test_a_torn_last_line_is_forgiven_and_said(tmp_path):
    source, said = write_original(tmp_path / "s", lived([1, 2])), []
    with open(source / "events_shard_000.jsonl", "a") as file:
        file.write('{"step": 5, "type": "act')
    import_original(source, tmp_path / "root", tell=said.append)
    assert len(only(tmp_path / "root")) == 3 and said == ["the last line is torn, and was left out"]


def test_actions_off_the_list_are_dropped_with_their_transition(tmp_path):
    events = lived([1, 2, 1])
    events[3] = {"add": 7.5}  # typed by hand
    said: list[str] = []
    import_original(write_original(tmp_path / "s", events), tmp_path / "root", tell=said.append)
    assert check_alignment(only(tmp_path / "root")) == 2 and "action space: events 3" in said[0]


@pytest.mark.parametrize(
    "path",
    [
        "../outside.jpg",
        "/etc/passwd",
        "frames/../../outside.jpg",
        "..\\outside.jpg",
        "C:\\outside.jpg",
        "",
        "frames/a\0.jpg",
        "frames/\ud800.jpg",
        "a" * 5000,
    ],
)
def test_a_path_that_leaves_the_session_is_refused(tmp_path, path):
    (tmp_path / "outside.jpg").write_bytes(jpeg(write(1, 1)))
    source = write_original(tmp_path / "s", lived([1, 2]))
    lines = (source / "events_shard_000.jsonl").read_text().splitlines()
    lines[2] = json.dumps({**json.loads(lines[2]), "data": {"frame_path": path}})
    (source / "events_shard_000.jsonl").write_text("\n".join(lines))
    if path:
        with pytest.raises(RecordingError, match="leaves the session"):
            import_original(source, tmp_path / "root")
        assert not [path for path in (tmp_path / "root").rglob("*") if path.is_file()]
    else:
        import_original(source, tmp_path / "root", tell=lambda sentence: None)
        assert check_alignment(only(tmp_path / "root")) == 0


@pytest.mark.parametrize("linked", ["frames/frame_000002.jpg", "frames", "events_shard_000.jsonl", "session_meta.json"])
def test_links_are_refused(tmp_path, linked):
    source = write_original(tmp_path / "s", lived([1, 2]))
    (source / linked).rename(tmp_path / "elsewhere")
    (source / linked).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RecordingError, match="is a link"):
        import_original(source, tmp_path / "root")
    assert not [path for path in (tmp_path / "root").rglob("*") if path.is_file()]


def bomb() -> bytes:
    """A PNG of a few bytes that says it is 60,000 pixels wide and high."""
    header = b"IHDR" + (60_000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    return b"\x89PNG\r\n\x1a\n\0\0\0\x0d" + header + zlib.crc32(header).to_bytes(4, "big")


@pytest.mark.parametrize("giant", ["file", "pixels", "pipe", "line", "nesting", "number", "time"])
def test_what_is_too_large_or_endless_is_not_read(tmp_path, giant):
    source, said = write_original(tmp_path / "s", lived([1, 2, 1])), []
    frame, shard = source / "frames/frame_000002.jpg", source / "events_shard_000.jsonl"
    lines = shard.read_text().splitlines()
    if giant == "file":
        os.truncate(frame, 2**40)
    elif giant == "pixels":
        frame.write_bytes(bomb())
    elif giant == "pipe":
        frame.unlink()
        os.mkfifo(frame)
    else:
        spoilt = {"line": "x" * 3 * 2**20, "nesting": "[" * 200_000, "number": lines[2].replace(": 2,", f": {'9' * 6000},", 1)}
        lines[2] = {**spoilt, "time": lines[2].replace(str(BEGAN + 0.25), "1e300")}[giant]
        shard.write_text("\n".join(lines) + "\n")
    import_original(source, tmp_path / "root", tell=said.append)
    assert check_alignment(only(tmp_path / "root")) == 1 and any("cannot be read" in sentence for sentence in said)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"action_space": None}, "actions have no meaning"),
        ({"action_space": []}, "actions have no meaning"),
        ({"action_space": [{"a": 1}, {"b": 1}]}, "actions have no meaning"),
        ({"action_space": [{"a": "1e999"}]}, "actions have no meaning"),
        ({"action_space": [1, 2]}, "actions have no meaning"),
        ({"robot_type": "../../home"}, "--robot"),
        ({"robot_type": None}, "--robot"),
        ({"format": 1, "checksum": "x"}, "of this program already"),
    ],
)
def test_metadata_that_cannot_be_used_is_said(tmp_path, change, says):
    with pytest.raises(RecordingError, match=says):
        import_original(write_original(tmp_path / "s", lived([1]), **change), tmp_path / "root")
    assert not (tmp_path / "root").exists()


def test_no_session_is_said(tmp_path):
    with pytest.raises(RecordingError, match="there is no folder"):
        import_original(tmp_path / "nowhere", tmp_path / "root")
    with pytest.raises(RecordingError, match=r"holds no session_meta\.json"):
        import_original(tmp_path, tmp_path / "root")
    source = write_original(tmp_path / "s", lived([1]))
    (source / "events_shard_001.jsonl").mkdir()
    with pytest.raises(RecordingError, match="cannot be opened"):
        import_original(source, tmp_path / "root")
    (source / "session_meta.json").write_text('{"torn": ')
    with pytest.raises(RecordingError, match="cannot be read"):
        import_original(source, tmp_path / "root")
    shutil.rmtree(source)
    with pytest.raises(RecordingError, match="nothing was imported"):
        import_original(write_original(tmp_path / "s", [{"add": 1}]), tmp_path / "root")
    assert not list((tmp_path / "root").rglob("session_meta.json"))


@pytest.mark.parametrize(
    ("named", "kind"), [("ToroidalDotRobot", "toroidal_dot"), ("JetBotInterface", "jetbot"), ("Arm", "arm"), ("ReplayRobot", "replay")]
)
def test_robot_types_are_made_from_class_names(tmp_path, named, kind):
    source = write_original(tmp_path / "s", lived([1]), robot_type=named)
    import_original(source, tmp_path / "root")
    assert only(tmp_path / "root").robot_type == kind and (tmp_path / "root" / kind).is_dir()
    import_original(source, tmp_path / "other", "mine")
    assert (tmp_path / "other" / "mine" / "s").is_dir()


def test_the_dots_actions_are_our_dots(tmp_path):
    from motorbabble.robots.toroidal_dot import ToroidalDotRobot

    source = write_original(
        tmp_path / "s", [write(0, 0), {"action": 1}, write(1, 1)], robot_type="ToroidalDotRobot", action_space=[{"action": 0}, {"action": 1}]
    )
    import_original(source, tmp_path / "root")
    assert only(tmp_path / "root").action_space.fingerprint == ToroidalDotRobot().action_space.fingerprint


def test_an_import_is_done_once_and_a_killed_one_again(tmp_path):
    source = write_original(tmp_path / "s", lived([1, 2]))
    aside = tmp_path / "root" / "counting" / ".importing-s"
    (aside / "s").mkdir(parents=True)
    (aside / "s" / "frames_shard_000.pack").write_bytes(b"half")
    (aside / "motorbabble.lock").touch()
    import_original(source, tmp_path / "root")
    assert not aside.exists() and len(only(tmp_path / "root")) == 3
    with pytest.raises(RecordingError, match="already there"):
        import_original(source, tmp_path / "root")


def test_an_imported_session_can_be_recorded_on(tmp_path):
    import_original(write_original(tmp_path / "s", lived([1, 2])), tmp_path / "root")
    folder = only(tmp_path / "root").folder
    one = {"add": 1.0}
    with RecordingWriter.reopen(folder) as writer:
        writer.record(Step(2, Observation(write(9, 0)), one, one, Choice(one), 1, 2))
    assert check_alignment(RecordingReader(folder)) == 2 and len(RecordingReader(folder)) == 4
