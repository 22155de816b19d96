"""The health check: whatever is wrong with a session is found and named, and what is right is not complained about."""

import json
import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from counting import Counting
from quota_machine import Quick, crash

from motorbabble.errors import RecordingError, SessionDamaged
from motorbabble.experience import ActionSpace, Channel, Choice, Ending, Observation, Step
from motorbabble.life import live
from motorbabble.recording import health
from motorbabble.recording.format import to_line
from motorbabble.recording.health import balance, check, repair
from motorbabble.recording.reader import RecordingReader, Shard
from motorbabble.recording.writer import RecordingWriter
from motorbabble.selectors import RandomSelector

SPACE = Counting().action_space
ONE, TWO = {"add": 1.0}, {"add": 2.0}
SECOND = 10**9


def begin(root: Path, space: ActionSpace = SPACE) -> RecordingWriter:
    return RecordingWriter.create(root, "counting", space, name="session", disk=Quick(), sync_seconds=3600)


def counted(root: Path, steps: int = 12, **settings) -> Path:
    """A closed session of the counting robot."""
    with begin(root) as writer, Counting(size=16, **settings) as robot:
        robot.count = 1  # its frame of 0 is all black
        for event in live(robot, RandomSelector(3), steps=steps):
            assert isinstance(event, Step)
            writer.record(event)
        writer.close(robot.get_observation())
    return writer.folder


def at(number: int, shade: int | None = None, **given) -> Step:
    """Step `number` of a robot that steps ten times a second and never shows the same picture twice."""
    image = np.full((8, 8, 3), number % 200 + 1 if shade is None else shade, np.uint8)
    began = 10**18 + number * SECOND // 10
    seen = Observation(image, captured_ns=began - 1, sequence=number)
    step = Step(number, seen, TWO, TWO, Choice(TWO), began, began + SECOND // 100, number * SECOND // 10 + 1)
    sight = {key: given.pop(key) for key in ("captured_ns", "sequence", "episode") if key in given}
    return replace(step, observation=replace(seen, **sight), **given)


def lived(root: Path, steps: list[Step], space: ActionSpace = SPACE) -> Path:
    with begin(root, space) as writer:
        for step in steps:
            writer.record(step)
    return writer.folder


def damage(path: Path, at_byte: int) -> None:
    data = bytearray(path.read_bytes())
    data[at_byte] ^= 0x10
    path.write_bytes(data)


# What is right


@pytest.mark.parametrize("episode_steps", [None, 4])
def test_a_sound_session_is_intact(tmp_path, episode_steps):
    folder = counted(tmp_path, episode_steps=episode_steps)
    found = check(folder)
    assert (found.state, found.moments, found.steps, found.exit_code) == ("closed", 13, 12, 0)
    for fault in ("damaged", "damaged_headers", "sequence_gaps", "duplicates", "backwards", "frozen", "black"):
        assert getattr(found, fault) == (), fault
    assert not found.other_executed and not found.torn_bytes and not found.metadata_lost
    reader = RecordingReader(folder)
    executed = [reader.moment(number).executed["add"] for number in range(12)]
    assert found.actions == {label: (executed.count(value), executed.count(value) / 12) for label, value in (("one", 1), ("two", 2))}
    assert balance(reader) == found.actions
    assert found.sentences()[0] == "Intact: 13 moments, exactly as written."


def test_rates_are_those_of_the_clock(tmp_path):
    found = check(lived(tmp_path, [at(number) for number in range(21)]))
    assert found.steps_per_second == pytest.approx(10) and found.seconds == pytest.approx(2.01)
    assert found.bytes_per_moment == pytest.approx(sum(p.stat().st_size for p in (tmp_path / "session").glob("*shard*")) / 21)
    assert found.exit_code == 0 and "10.0 per second" in found.sentences()[-1]


def test_progress_is_told(tmp_path):
    told = []
    check(counted(tmp_path), progress=lambda done, of: told.append((done, of)))
    assert told == [(number, 13) for number in range(1, 14)]


def test_an_empty_session_is_intact_and_what_is_none_is_refused(tmp_path):
    begin(tmp_path).close()
    found = check(tmp_path / "session")
    assert (found.moments, found.exit_code, found.steps) == (0, 0, 0) and found.sentences()
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "nowhere"):
        with pytest.raises(RecordingError):
            check(folder)


# Damage


def test_every_damaged_moment_is_named(tmp_path):
    """Bits flip anywhere in lines and pack: the check names exactly those that a reader refuses or no longer returns as they were."""
    chance = random.Random(5)
    for trial in range(40):
        folder = counted(tmp_path / str(trial), steps=8)
        was = {number: RecordingReader(folder).event(number) for number in range(9)}
        name = ("events_shard_000.jsonl", "frames_shard_000.pack")[trial % 2]
        for _ in range(chance.choice((1, 1, 3))):
            damage(folder / name, chance.randrange((folder / name).stat().st_size))
        reader, found = RecordingReader(folder), check(folder)
        readable = {number for number in was if _reads(reader, number)}
        assert found.damaged == tuple(sorted(was.keys() - readable)), trial
        for number in readable:
            assert np.array_equal(reader.image(number), was[number].observation.image)
        assert found.moments == 9 and found.exit_code == (0 if found.is_intact else 5 if readable else 1)
        assert found.is_intact == (not found.damaged and not found.damaged_headers)
        assert not found.is_intact, "a flipped bit is always somewhere"


def _reads(reader: RecordingReader, number: int) -> bool:
    try:
        reader.event(number)
    except SessionDamaged:
        return False
    return True


def test_a_check_that_reads_no_frames_would_be_noticed(tmp_path):
    """The control of the test above."""
    folder = counted(tmp_path, steps=8)
    damage(folder / "frames_shard_000.pack", 10)
    assert check(folder).damaged_frames == (0,)
    with patch.object(RecordingReader, "observation", lambda self, number: Observation(np.ones((1, 1, 3), np.uint8))):
        assert check(folder).damaged == ()


def test_a_damaged_state_is_damage(tmp_path):
    step = at(0)
    long = replace(step.observation, state={"scan": np.arange(1000, dtype=np.float64)})
    folder = lived(tmp_path, [replace(step, observation=long), at(1)])
    pack = (folder / "frames_shard_000.pack").read_bytes()
    damage(folder / "frames_shard_000.pack", pack.index(np.arange(3, 8, dtype=np.float64).tobytes()))
    assert check(folder).damaged_frames == (0,)


def test_what_a_closed_session_lost_at_its_end_is_damage(tmp_path):
    folder = counted(tmp_path)
    lines = folder / "events_shard_000.jsonl"
    lines.write_bytes(b"".join(lines.read_bytes().splitlines(keepends=True)[:-3]))
    found = check(folder)
    assert found.damaged_lines == (10, 11, 12) and found.exit_code == 5
    assert found.sentences()[0] == "3 of 13 moments damaged and skipped by readers: 10 to 12."


def test_lost_metadata_and_headers_are_named(tmp_path):
    folder = counted(tmp_path)
    (folder / "session_meta.json").write_text("{}")
    found = check(folder)
    assert found.metadata_lost and found.exit_code == 5 and found.damaged == ()
    folder = counted(tmp_path / "other")
    damage(folder / "events_shard_000.jsonl", 12)
    found = check(folder)
    assert found.damaged_headers == (0,) and found.damaged == () and found.exit_code == 5


def test_nothing_readable_is_exit_code_1(tmp_path):
    folder = counted(tmp_path)
    (folder / "events_shard_000.jsonl").write_bytes(b"\0" * 5000)
    found = check(folder)
    assert found.exit_code == 1 and len(found.damaged) == found.moments == 13


def test_a_whole_line_that_says_nonsense_is_damage(tmp_path):
    folder = counted(tmp_path, steps=3)
    lines = folder / "events_shard_000.jsonl"
    kept = lines.read_bytes().splitlines(keepends=True)
    for nonsense in ({"moment": 1}, {"moment": 1, "frame": 3}, {**json.loads(kept[2]), "state": [1]}, {**json.loads(kept[2]), "surprise": 1}):
        nonsense.pop("crc", None)
        lines.write_bytes(b"".join([*kept[:2], to_line(nonsense), *kept[3:]]))
        assert check(folder).damaged_frames == (1,), nonsense


# A torn end


def cut_short(root: Path, torn: bytes = b'{"moment":4,"kind":') -> Path:
    writer = begin(root)
    for number in range(4):
        writer.record(at(number))
    crash(writer)
    with open(writer.folder / "events_shard_000.jsonl", "ab") as lines, open(writer.folder / "frames_shard_000.pack", "ab") as pack:
        lines.write(torn)
        pack.write(b"half a frame")
    return writer.folder


def test_a_torn_end_is_no_loss_and_can_be_cut(tmp_path):
    folder = cut_short(tmp_path)
    found = check(folder)
    assert (found.state, found.moments, found.exit_code) == ("cut short", 4, 0)
    assert found.torn_bytes == len(b'{"moment":4,"kind":') + len(b"half a frame")
    assert any("--repair" in sentence for sentence in found.sentences())
    assert repair(folder).moments == 4
    found = check(folder)
    assert (found.state, found.torn_bytes, found.moments) == ("recovered", 0, 4)


def test_a_torn_end_in_a_closed_session_is_not_what_was_written(tmp_path):
    folder = counted(tmp_path)
    with open(folder / "events_shard_000.jsonl", "ab") as lines:
        lines.write(b"torn")
    assert check(folder).exit_code == 5 and check(folder).torn_bytes == 4


def test_a_shard_just_begun_is_no_torn_end(tmp_path):
    with patch("motorbabble.recording.writer.MOMENTS_PER_SHARD", 4):
        writer = begin(tmp_path)
        for number in range(4):
            writer.record(at(number))
        writer._begin_shard(1)
        crash(writer)
    assert check(writer.folder).torn_bytes == 0


def test_nobody_repairs_beside_a_writer(tmp_path):
    with begin(tmp_path) as writer:
        writer.record(at(0))
        assert check(writer.folder).state == "live"
        with pytest.raises(RecordingError, match="being recorded"):
            repair(writer.folder)
        writer.record(at(1))


def test_a_repair_that_would_leave_nothing_is_refused(tmp_path):
    folder = counted(tmp_path)
    (folder / "frames_shard_000.pack").write_bytes(b"")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(SessionDamaged, match="leave nothing"):
        repair(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert check(folder).exit_code == 1


# What the robot did wrong


def test_pauses_are_found_by_the_clock_that_never_jumps(tmp_path):
    def times(number: int) -> int:
        return number * SECOND // 10 + (3 * SECOND if number > 7 else 0)

    steps = [replace(at(number), monotonic_ns=times(number) + 1) for number in range(20)]
    jumped = [replace(step, started_ns=step.started_ns + 86_400 * SECOND * (step.index > 12)) for step in steps]
    found = check(lived(tmp_path, jumped))
    assert [(pause.after, round(pause.seconds, 3)) for pause in found.time_gaps] == [(7, 3.1)]
    assert any("3.1 s after moment 7" in sentence for sentence in found.sentences())


def test_skipped_frames_and_steps_are_found(tmp_path):
    """A camera three times as fast as its robot skips two frames each time, which is no gap."""
    fast = [at(number, sequence=3 * number + 100 * (number > 6)) for number in range(12)]
    assert check(lived(tmp_path / "fast", fast)).sequence_gaps == (6,)
    one = [at(number, sequence=number + (number > 4)) for number in range(12)]
    assert check(lived(tmp_path / "one", one)).sequence_gaps == (4,)
    lost = [at(number, index=number + 5 * (number > 8)) for number in range(12)]
    assert check(lived(tmp_path / "lost", lost)).sequence_gaps == (8,)
    mute = [at(number, sequence=0) for number in range(12)]
    assert check(lived(tmp_path / "mute", mute)).sequence_gaps == ()


def test_frames_handed_out_twice_and_backwards_are_found(tmp_path):
    steps = [at(number) for number in range(8)]
    steps[3] = replace(steps[3], observation=steps[2].observation)
    steps[6] = replace(steps[6], observation=replace(steps[6].observation, captured_ns=5))
    found = check(lived(tmp_path, steps))
    assert found.duplicates == (3,) and found.backwards == (6,)
    assert found.exit_code == 0, "the recording is faithful"


@pytest.mark.parametrize(
    ("still", "rests", "found"),
    [
        (range(3, 8), (), ((3, 7),)),
        (range(3, 7), (), ()),
        (range(3, 8), (4,), ()),
        (range(3, 9), (4,), ((3, 8),)),
        (range(0, 12), (), ((0, 11),)),
        (range(7, 12), (11,), ((7, 11),)),
    ],
)
def test_a_picture_that_stands_still_while_the_robot_acts(tmp_path, still, rests, found):
    """Five identical frames with four actions between them; where it rested, nothing need change."""
    steps = [at(number, shade=250 if number in still else None) for number in range(12)]
    steps = [replace(step, requested=ONE, executed=ONE) if step.index in rests else step for step in steps]
    assert check(lived(tmp_path, steps)).frozen == found


def test_standing_still_ends_with_an_episode(tmp_path):
    steps = [at(number, shade=250, episode=number // 4) for number in range(12)]
    assert check(lived(tmp_path, steps)).frozen == ()


def test_two_pictures_that_stand_still(tmp_path):
    steps = [at(number, shade=(9, 7)[number // 6]) for number in range(12)]
    assert check(lived(tmp_path, steps)).frozen == ((0, 5), (6, 11))


def test_black_frames_are_found(tmp_path):
    assert check(lived(tmp_path, [at(number, shade=0 if number in (2, 3, 6) else None) for number in range(8)])).black == (2, 3, 6)


def test_other_actions_than_asked_for_are_counted(tmp_path):
    steps = [replace(at(number), executed=ONE) if number % 3 == 0 else at(number) for number in range(9)]
    found = check(lived(tmp_path, steps))
    assert found.other_executed == 3 and found.actions == {"two": (6, 6 / 9), "one": (3, 3 / 9)}


def test_a_box_is_balanced_by_thirds(tmp_path):
    space = ActionSpace.box([Channel("left", -1, 1), Channel("seconds", 0.2, 0.2)], {"left": 0.0, "seconds": 0.2})
    actions = [{"left": value, "seconds": 0.2} for value in (-1.0, -0.9, 0.0, 0.1, 0.2, 0.9)]
    found = check(lived(tmp_path, [replace(at(n), requested=action, executed=action) for n, action in enumerate(actions)], space))
    assert {label: count for label, (count, _) in found.actions.items()} == {"left middle": 3, "left low": 2, "left high": 1}


def test_an_ending_has_no_action(tmp_path):
    with begin(tmp_path) as writer:
        writer.record(at(0))
        writer.record(Ending(at(1).observation))
        writer.record(at(2, episode=1))
    found = check(writer.folder)
    assert (found.moments, found.steps) == (3, 2) and found.other_executed == 0


def test_long_sessions_take_little_memory(tmp_path):
    """What is kept of a moment is under a kilobyte, however much its line says."""
    import tracemalloc

    steps = [replace(at(number), choice=Choice(TWO, {f"{label}": 0.5 for label in range(50)}, "because " * 50)) for number in range(150)]
    folder = lived(tmp_path, steps)
    found = health._Found(SPACE)
    reader = RecordingReader(folder)
    found.look(reader, 0)
    tracemalloc.start()
    for number in range(1, 150):
        found.look(reader, number)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept / 149 < 1000


def test_a_shard_is_read_once_per_check(tmp_path):
    """A check of a long session goes through it, not back and forth."""
    with patch("motorbabble.recording.writer.MOMENTS_PER_SHARD", 5):
        folder = counted(tmp_path, steps=40)
    seen, real = [], Shard.__init__
    with patch.object(Shard, "__init__", lambda self, folder, number: seen.append(number) or real(self, folder, number)):
        assert check(folder).moments == 41
    assert len(seen) <= 9 + 1, seen
    assert all(number in seen for number in range(9))


def test_sentences_are_sentences(tmp_path):
    steps = [at(number, shade=0 if number < 6 else None, sequence=number * (1 + 9 * (number > 9))) for number in range(14)]
    steps[8] = replace(steps[8], observation=steps[7].observation, executed=ONE)
    folder = lived(tmp_path, steps)
    damage(folder / "frames_shard_000.pack", (folder / "frames_shard_000.pack").stat().st_size - 5)
    said = check(folder).sentences()
    assert len(said) >= 7 and all(sentence[0].isupper() or sentence[0].isdigit() for sentence in said)
    assert all(sentence.endswith(".") and "\n" not in sentence for sentence in said)
    assert all(before != after for before, after in pairwise(said))
