"""When a life is saved, what of it, and which sessions it holds on to."""

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from brief_lives import brief, dot, ended, flip
from checkpoint_exam import Kind
from counting import Counting, read

import motorbabble
from motorbabble import memory
from motorbabble.agents import Run
from motorbabble.errors import RecordingError
from motorbabble.experience import Step
from motorbabble.learning.checkpoint import Checkpoints, Saved
from motorbabble.memory import MemoryConfig

PACKAGE = Path(motorbabble.__file__).parent


def test_the_file_names_in_the_document_are_those_of_a_real_checkpoint(tmp_path):
    ended(Kind(dot, model="latent", steps=2).learn(tmp_path))
    document = (PACKAGE.parent / "docs" / "checkpoint-format.md").read_text()
    told = re.search(r"```\n(.*?)```", document, re.DOTALL)
    assert told
    files = set(re.findall(r"^    ([a-z0-9_]+\.\w+) ", told[1], re.MULTILINE))
    newest = max((tmp_path / "checkpoint").glob("gen-*"))
    some_have = {"predictor_1.safetensors", "selector.safetensors"}  # lives with levels, and a selector with a memory of its own
    assert some_have < files and {path.name for path in newest.iterdir()} == files - some_have and len(files) == 9
    assert {path.name for path in (tmp_path / "checkpoint").iterdir() if path.is_file()} == {"checkpoint.lock"} and "checkpoint.lock" in told[1]


def test_every_500_updates_every_minute_and_at_the_end_unless_told_otherwise():
    assert (MemoryConfig().save_updates, MemoryConfig().save_seconds) == (500, 60.0)


def saves_of(folder: Path, monkeypatch, tick: float = 0.0, **settings) -> list[tuple[int, int]]:
    """(steps, updates) of every save of a life in which a step takes `tick` seconds."""
    told, now = [], [0.0]

    class Told(Checkpoints):
        def save(self, number: int, saved: Saved) -> int:
            told.append((saved.state["run"]["steps_done"], saved.state["counters"]["updates"]))
            return super().save(number, saved)

    class Clock:
        monotonic = staticmethod(lambda: now[0])

    monkeypatch.setattr(memory, "Checkpoints", Told)
    monkeypatch.setattr(memory, "time", Clock)
    for event in brief(folder, **settings):
        now[0] += tick * isinstance(event, Step)
    return told


def test_it_saves_after_so_many_updates_between_two_steps_and_at_both_ends(tmp_path, monkeypatch):
    told = saves_of(tmp_path, monkeypatch, steps=30, save_updates=10)
    updates = [updates for _, updates in told]
    assert told[0] == (0, 0) and told[-1][0] == 30
    assert all(10 <= after - before <= 12 for before, after in pairwise(updates[:-1])) and len(updates) >= 4


def test_it_saves_after_so_many_seconds(tmp_path, monkeypatch):
    told = saves_of(tmp_path, monkeypatch, tick=13.0, steps=15)
    assert [steps for steps, _ in told] == [0, 6, 11, 15], "5 steps of 13 s are the first to make a minute, seen at the next one"


def test_it_saves_when_it_is_stopped_and_when_somebody_stops_listening(tmp_path):
    run = brief(tmp_path / "stopped", steps=50)
    for event in run:
        if isinstance(event, Step) and event.index == 4:
            run.stop.set()
    assert steps_saved(tmp_path / "stopped") == 5
    with brief(tmp_path / "left", steps=50) as run:
        for event in run:
            if isinstance(event, Step) and event.index == 4:
                break
    assert steps_saved(tmp_path / "left") == 5


def steps_saved(folder: Path) -> int:
    loaded = Checkpoints(folder / "c").load()
    assert loaded
    return loaded.state["run"]["steps_done"]


def test_a_step_that_could_not_be_written_down_is_not_saved_as_lived(tmp_path, monkeypatch):
    robot, steps = Counting(), []

    def lives() -> None:
        with brief(tmp_path, robot=robot, steps=30, save_updates=4) as run:
            for event in run:
                steps.extend([event.index] if isinstance(event, Step) else [])
                if len(steps) == 9:
                    monkeypatch.setattr(run._memory.recorder.writer, "_failure", RecordingError("the disk is full; make room"))  # type: ignore[union-attr]

    with pytest.raises(RecordingError, match="disk is full"):
        lives()
    assert steps == list(range(9)) and steps_saved(tmp_path) <= 9
    again = brief(tmp_path, robot=Counting(), steps=30)
    lived = [event.index for event in again if isinstance(event, Step)]
    assert lived[0] <= 9 and lived[-1] == 29 and sorted(set(steps) | set(lived)) == list(range(30))
    counted(again)


def counted(run: Run) -> None:
    """Every two neighbours of a run in replay have the action between them that their frames say."""
    replay = run.learner.replay
    for before, after, led, length in zip(replay._frames, replay._frames[1:], replay._led[1:], replay._runs[1:], strict=False):
        if length > 1:
            (count, _), (then, last) = read(before), read(after)
            assert then - count == last and led is not None, (count, then, last)
            assert run.action_space.decode(led) == {"add": last}


# Pins


def pins(folder: Path) -> set[str]:
    return {path.parent.name for path in (folder / "s").glob("*/pinned_by_*")}


def test_sessions_that_a_kept_generation_refers_to_are_pinned_and_forgotten_ones_are_not(tmp_path):
    for _ in range(5):
        run = ended(brief(tmp_path, steps=6, capacity=8))
        assert not [note for note in run.notes if "cannot be read" in note]
    sessions = sorted(
        (path for path in (tmp_path / "s").iterdir() if path.is_dir()),
        key=lambda path: json.loads((path / "session_meta.json").read_bytes())["created_ns"],
    )
    assert len(sessions) == 5
    checkpoints = Checkpoints(tmp_path / "c")
    generations = [json.loads((checkpoints.path(number) / "state.json").read_bytes()) for number in checkpoints.generations()]
    needed = {name for state in generations for name in state["remembered"]}
    assert pins(tmp_path) == needed == {path.name for path in sessions[-3:]}, "8 frames lie in two sessions, and the backup needs one more"
    assert all(len(segment) and state["remembered"] for state in generations for segment in state["trail"]["segments"])


def test_a_life_that_holds_everything_out_keeps_the_pin_of_what_it_records(tmp_path):
    run = brief(tmp_path, steps=8, holds_out=lambda observation: True)
    for event in run:
        run.save()
        assert not isinstance(event, Step) or run._memory.recorder.session in pins(tmp_path)  # type: ignore[union-attr]


def test_sessions_of_starts_that_came_to_nothing_do_not_stay_pinned(tmp_path):
    ended(brief(tmp_path))
    for _ in range(3):
        run = brief(tmp_path)
        next(iter(run))  # begins a session, and dies of it
        run._memory.recorder.writer._let_go()  # type: ignore[union-attr]
        run._memory.release()  # type: ignore[union-attr]
    ended(brief(tmp_path, steps=12))
    ended(brief(tmp_path, steps=12))
    empty = {path.parent.name for path in (tmp_path / "s").glob("*/session_meta.json") if json.loads(path.read_bytes())["state"] == "live"}
    assert len(empty) == 3 and not empty & pins(tmp_path)


def test_a_life_that_is_stopped_while_it_catches_up_keeps_the_pins_of_what_it_has_not_reached(tmp_path):
    """Two sessions lie behind the only generation that is whole."""
    for _ in range(2):
        run = brief(tmp_path, steps=40, capacity=4)
        for event in run:
            if isinstance(event, Step) and not run.catching_up and event.index % 6 == 5:
                break
        run._memory.recorder.writer._let_go()  # type: ignore[union-attr]
        run._memory.release()  # type: ignore[union-attr]
        newest = Checkpoints(tmp_path / "c").generations()[0]
        if newest:
            flip(Checkpoints(tmp_path / "c").path(newest) / "optimizer.safetensors")
    run = brief(tmp_path, steps=40, capacity=4)
    for event in run:
        assert run.catching_up
        if isinstance(event, Step) and event.index == 2:
            run.stop.set()
    assert len(pins(tmp_path)) == 2 and steps_saved(tmp_path) == 3
    again = brief(tmp_path, steps=40, capacity=4)
    assert "first learns from what was recorded after that (9 moments)" in again.notes[0]
    again.close()
