"""What `babble sessions check` says of a session: each finding in a sentence that names the right numbers, and nothing that was not found."""

from dataclasses import replace

import pytest
from quota_machine import begin, crash
from test_health import ONE, SECOND, SPACE, TWO, at, lived

from motorbabble.errors import RecordingError, SessionDamaged
from motorbabble.experience import ActionSpace, Channel, Ending
from motorbabble.recording import health
from motorbabble.recording.format import LOCK, events_file, frames_file
from motorbabble.recording.health import Health, Pause, balance, check, repair
from motorbabble.recording.reader import RecordingReader

SOUND = Health("closed", 12, 12, actions={"one": (9, 0.75), "two": (3, 0.25)}, seconds=1.25, steps_per_second=10.04)
FACTS = ["The session is closed.", "12 steps in 1.2 s, typically 10.0 per second; executed: one 75%, two 25%."]


def said(**found) -> list[str]:
    """The sentences of a session with these findings, without the facts that every one has."""
    sentences = replace(SOUND, **found).sentences()
    assert sentences[-2:] == FACTS
    return sentences[:-2]


def test_nothing_wrong_is_said_of_a_sound_session():
    assert said() == ["Intact: 12 moments, exactly as written."]
    assert Health("closed", 1).sentences() == ["Intact: 1 moment, exactly as written.", "The session is closed."]
    assert Health("closed", 12_345).sentences()[0] == "Intact: 12,345 moments, exactly as written."


def test_damage_is_counted_once_and_told_apart():
    assert said(damaged_lines=(3,)) == ["1 of 12 moments damaged and skipped by readers: 3."]
    assert said(damaged_frames=(3, 4)) == ["2 of 12 moments damaged and skipped by readers: 3 to 4."]
    assert said(damaged_lines=(7, 3), damaged_frames=(3, 4)) == [
        "3 of 12 moments damaged and skipped by readers: 3 to 4, 7.",
        "Of 2 the line is lost, of 2 the frame or state.",
    ]


def test_lost_metadata_headers_and_torn_ends_are_told():
    assert said(metadata_lost=True) == ["session_meta.json is lost; what it said was taken from a shard."]
    assert said(damaged_headers=(0, 2)) == ["The first line of shard 0, 2 is damaged; its moments are still found."]
    assert said(torn_bytes=1) == ["1 byte at the end never finished, and ignored; --repair cuts them off."]
    assert said(torn_bytes=2048) == ["2,048 bytes at the end never finished, and ignored; --repair cuts them off."]
    assert replace(SOUND, state="cut short", torn_bytes=5).sentences()[:2] == [
        "5 bytes at the end never finished, and ignored; --repair cuts them off.",
        "Intact: 12 moments, exactly as written.",
    ]


def test_faults_of_the_robot_are_told_after_intact():
    intact = "Intact: 12 moments, exactly as written."
    stood = "The picture stood still while the robot acted"
    assert said(frozen=((1, 6),)) == [intact, f"{stood}, once: moments 1 to 6."]
    assert said(frozen=((1, 6), (8, 12))) == [intact, f"{stood}, 2 times: moments 1 to 6, 8 to 12."]
    six = tuple((10 * n, 10 * n + 5) for n in range(6))
    assert said(frozen=six) == [intact, f"{stood}, 6 times: moments 0 to 5, 10 to 15, 20 to 25, 30 to 35, 40 to 45 and 1 more."]
    assert said(frozen=six[:5])[1].endswith("40 to 45.")
    assert said(black=(3,)) == [intact, "1 frame all black: 3."]
    assert said(black=(3, 4, 9)) == [intact, "3 frames all black: 3 to 4, 9."]
    assert said(duplicates=(5, 6)) == [intact, "2 frames handed out a second time: 5 to 6."]
    assert said(backwards=(5,)) == [intact, "The camera's clock or count went back at 5."]
    assert said(sequence_gaps=(5,)) == [intact, "Frames or steps are missing after 5."]
    assert said(time_gaps=(Pause(3, 1.25),)) == [intact, "It paused once, longest for 1.2 s after moment 3."]
    assert said(time_gaps=(Pause(3, 1.0), Pause(7, 9.0), Pause(9, 2.0))) == [intact, "It paused 3 times, longest for 9.0 s after moment 7."]
    assert said(other_executed=4) == [intact, "In 4 of 12 steps the robot did something else than was asked for."]


def test_long_lists_end_after_eight():
    odd = tuple(range(1, 16, 2))
    assert said(black=odd)[1].endswith(": 1, 3, 5, 7, 9, 11, 13, 15.")
    assert said(black=(*odd, 17, 18, 21))[1].endswith(": 1, 3, 5, 7, 9, 11, 13, 15 and 2 more.")
    actions = {f"a{n}": (1, 0.1) for n in range(10)}
    told = replace(SOUND, actions=actions).sentences()[-1]
    assert "a7 10%" in told and "a8" not in told


def test_the_exit_code_tells_damage_from_loss():
    assert SOUND.exit_code == 0 and replace(SOUND, damaged_frames=(1,)).exit_code == 5
    assert replace(SOUND, damaged_frames=tuple(range(11))).exit_code == 5 and replace(SOUND, damaged_lines=tuple(range(12))).exit_code == 1
    for fault in ({"damaged_headers": (0,)}, {"metadata_lost": True}, {"torn_bytes": 1}):
        assert replace(SOUND, **fault).exit_code == 5 and not replace(SOUND, **fault).is_intact
    for fault in ({"black": (0,)}, {"frozen": ((0, 5),)}, {"duplicates": (1,)}, {"other_executed": 3}, {"torn_bytes": 1, "state": "recovered"}):
        assert replace(SOUND, **fault).is_intact


# What is counted


def test_a_session_without_steps_has_no_rates(tmp_path):
    begin(tmp_path, "a", steps=0).close()
    found = check(tmp_path / "a")
    assert (found.seconds, found.steps_per_second, found.bytes_per_moment, found.moments) == (0.0, 0.0, 0.0, 0)
    assert found.actions == {"one": (0, 0.0), "two": (0, 0.0)}


def test_one_step_is_all_of_its_kind(tmp_path):
    found = check(lived(tmp_path, [replace(at(0), executed=ONE)]))
    assert found.actions == {"one": (1, 1.0), "two": (0, 0.0)} and found.steps_per_second == 0.0
    assert found.seconds == pytest.approx(0.01) and found.sentences()[-1].startswith("1 step in 0.0 s")


def test_a_pause_is_longer_than_ten_usual_steps_and_half_a_second(tmp_path):
    def after(name: str, usual_ms: int, pause_ms: int) -> tuple[int, ...]:
        clock = [number * usual_ms + (pause_ms - usual_ms) * (number > 5) for number in range(20)]
        steps = [replace(at(number), monotonic_ns=SECOND + ms * SECOND // 1000) for number, ms in enumerate(clock)]
        return tuple(pause.after for pause in check(lived(tmp_path / name, steps)).time_gaps)

    assert after("as long", 100, 1000) == () and after("longer", 100, 1001) == (5,)
    assert after("half a second", 10, 500) == () and after("and more", 10, 501) == (5,)


def test_the_wall_clock_helps_where_the_other_began_anew(tmp_path):
    steps = [replace(at(number), monotonic_ns=(number if number < 6 else number - 6) * SECOND // 10 + 1) for number in range(12)]
    assert check(lived(tmp_path / "a", steps)).time_gaps == ()
    later = [replace(step, started_ns=step.started_ns + 60 * SECOND * (step.index > 5)) for step in steps]
    assert [(pause.after, pause.seconds) for pause in check(lived(tmp_path / "b", later)).time_gaps] == [(5, pytest.approx(60.1))]
    leap = [60 * SECOND * (step.index > 5) for step in steps]
    back = [replace(step, started_ns=step.started_ns - by, ended_ns=step.ended_ns - by) for step, by in zip(steps, leap, strict=True)]
    found = check(lived(tmp_path / "c", back))
    assert found.time_gaps == () and found.seconds == 0.0


def test_a_torn_end_is_counted_to_the_byte(tmp_path):
    writer = begin(tmp_path, "a", steps=3)
    crash(writer)
    folder = tmp_path / "a"
    assert check(folder).torn_bytes == 0
    with open(folder / events_file(0), "ab") as lines, open(folder / frames_file(0), "ab") as pack:
        lines.write(b'{"moment":3')
        pack.write(b"12345")
    assert check(folder).torn_bytes == 16
    (folder / frames_file(1)).write_bytes(b"123")
    (folder / events_file(1)).write_bytes(b'{"header":1}\n{"mo')
    found = check(folder)
    assert found.torn_bytes == 16 + 3 + 4 and found.state == "cut short" and found.is_intact is False, "the second shard's header is none"
    repaired = repair(folder)
    assert repaired.cut and repaired.moments == 3 and check(folder).torn_bytes == 0 and check(folder).exit_code == 0


def test_a_repair_says_why_it_cannot_be(tmp_path):
    with pytest.raises(RecordingError, match=r"there is no session at"):
        repair(tmp_path / "nowhere")
    live = begin(tmp_path, "live")
    with pytest.raises(RecordingError, match=r"live is being recorded by another process"):
        repair(tmp_path / "live")
    live.close()
    (tmp_path / "live" / frames_file(0)).write_bytes(b"")
    before = {path.name: path.read_bytes() for path in (tmp_path / "live").iterdir() if path.name != LOCK}
    with pytest.raises(SessionDamaged, match=r"a repair would leave nothing; it was not touched"):
        repair(tmp_path / "live")
    assert {path.name: path.read_bytes() for path in (tmp_path / "live").iterdir() if path.name != LOCK} == before
    begin(tmp_path, "lines", steps=2).close()
    lines = tmp_path / "lines" / events_file(0)
    lines.write_bytes(lines.read_bytes().splitlines(keepends=True)[0])
    crash(begin(tmp_path, "pack", steps=2))
    (tmp_path / "pack" / frames_file(0)).write_bytes(b"")
    for name in ("lines", "pack"):  # closed, whose moments are promised; cut short, whose lines are there
        with pytest.raises(SessionDamaged, match=r"would leave nothing"):
            repair(tmp_path / name)
    begin(tmp_path, "empty", steps=0).close()
    assert repair(tmp_path / "empty").moments == 0, "nothing was there to lose"


def test_the_balance_reads_no_frame_and_passes_over_damage(tmp_path):
    steps = [replace(at(n), requested=action, executed=action) for n, action in enumerate((ONE, TWO, TWO, TWO, ONE))]
    with begin(tmp_path, "a", steps=0) as writer:
        for step in steps:
            writer.record(step)
        writer.record(Ending(at(9).observation))
    (tmp_path / "a" / frames_file(0)).write_bytes(b"")
    assert balance(RecordingReader(tmp_path / "a")) == {"two": (3, 0.6), "one": (2, 0.4)}
    path = tmp_path / "a" / events_file(0)
    path.write_bytes(path.read_bytes().replace(b'"moment":1,', b'"moment":7,'))
    assert balance(RecordingReader(tmp_path / "a")) == {"two": (2, 0.5), "one": (2, 0.5)}


def test_an_unknown_action_has_a_label_of_its_own():
    assert health._label({"add": 7.0}, SPACE) == "unknown {'add': 7.0}" and health._label(TWO, SPACE) == "two"


def test_a_range_is_told_in_thirds_and_what_cannot_vary_is_not():
    space = ActionSpace.box([Channel("left", -2, 4), Channel("still", 1, 1), Channel("turn", 0, 1)], {"left": 0, "still": 1, "turn": 0})

    def told(left: float, turn: float) -> str:
        return health._label({"left": left, "still": 1, "turn": turn}, space)

    assert told(-2, 1) == "left low, turn high" and told(4, 0) == "left high, turn low"
    assert told(-0.01, 0.34) == "left low, turn middle" and told(0.01, 0.33) == "left middle, turn low"
    assert told(1.99, 0.66) == "left middle, turn middle" and told(2.01, 0.67) == "left high, turn high"
    assert told(5, 0).startswith("unknown {'left': 5")
