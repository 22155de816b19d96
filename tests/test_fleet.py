"""A fleet: many robots, one learner. Whoever is killed is replaced, and no step that was acknowledged is lost."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_beside import gone

from motorbabble.errors import ConfigurationError
from motorbabble.experience import Step
from motorbabble.fleet import Fleet, sweep
from motorbabble.fleet.body import Body, Place
from motorbabble.fleet.replays import Replays
from motorbabble.fleet.tape import Tape
from motorbabble.fleet.teacher import Course, Mind, Teacher
from motorbabble.learning.replay import ReplayConfig
from motorbabble.recipes import RECIPES, KeepConfig, LearningRecipe
from motorbabble.recording.recorder import Recorder
from motorbabble.robots.toroidal_dot import ToroidalDotConfig

SMALL = {"patch_size": 8, "width": 32, "shift": (2, 2)}  # of the model and the learner: an update takes milliseconds
LEAD = 8  # steps that the broken body holds back


def recipe(folder: Path, **changes: Any) -> LearningRecipe:
    dot = RECIPES["toroidal_dot_latent"]
    assert isinstance(dot, LearningRecipe)
    keep = KeepConfig(folder / "sessions", folder / "checkpoints", save_updates=20)
    return replace(dot, robot=ToroidalDotConfig(image_size=32, dot_radius=3), selector="random", keep=keep, **changes)


def body_of(folder: Path, kind: type[Body] = Body, robot: int = 0, steps: int = 40) -> tuple[Body, Mind, Tape]:
    """A body in this process, without a learner to learn from."""
    lives = recipe(folder, steps=steps)
    body = kind(Place("dot", lives, robot, lives.robot, SMALL))
    tape = Tape(folder / "sessions" / body.hold(0), "fleet", robot)
    done, mind = body.begin("fleet")
    body.meet(None, done + steps)
    return body, mind, tape


# Without Ray


def test_a_beat_acknowledges_nothing_that_is_not_on_disk(tmp_path):
    body, _, tape = body_of(tmp_path)
    beats = [body.live(0.02) for _ in range(5)]
    assert beats[-1].steps > 4 and tape.extent()[1] == beats[-1].steps
    body.close()
    body.release()


def test_a_body_that_acknowledges_before_it_records_is_noticed(tmp_path, monkeypatch):
    held: list[Any] = []
    real = Recorder.__call__

    def late(recorder: Recorder, event: Any) -> None:
        held.extend([event] if isinstance(event, Step) else [])
        if len(held) > LEAD:
            real(recorder, held.pop(0))

    monkeypatch.setattr(Recorder, "__call__", late)
    body, _, tape = body_of(tmp_path)
    while (beat := body.live(0.02)).steps <= LEAD:
        pass
    assert tape.extent()[1] == beat.steps - LEAD  # so many a kill would lose
    body.close()
    body.release()


def test_the_next_body_counts_on_where_the_recordings_of_the_first_end(tmp_path):
    first, _, tape = body_of(tmp_path, steps=10)
    assert first.live(60.0).over
    first.close()
    first.release()
    second, _, _ = body_of(tmp_path, steps=10)
    assert second.live(60.0).steps == 20
    second.close()
    moments, steps = tape.extent()
    looks = list(tape.looks(0, moments))
    assert (moments, steps, len(tape.sessions())) == (22, 20, 2)  # each closed session ends with a look from which nothing was done
    assert [number for number, _, _ in looks] == list(range(22))
    assert [number for number, _, led in looks if led is None] == [0, 11]  # no window reaches from one session into the next
    second.release()


@pytest.fixture
def lived(tmp_path) -> Iterator[tuple[Course, list[tuple[int, Any, Any]]]]:
    """A course, and all that its one robot saw in 30 steps."""
    body, mind, tape = body_of(tmp_path, steps=30)
    body.live(60.0)
    looks = list(tape.looks(0, 30))
    config = replace(mind.config, gate=replace(mind.config.gate, max_seconds=60.0))
    settings = {**vars(mind), "config": config}
    yield (
        Course(**settings, seed=0, robots=1, fleet="fleet", folder=tmp_path / "mind", sessions=tape.root, save_updates=500, save_seconds=60.0),
        looks,
    )
    body.close()
    body.release()


def told(teacher: Teacher, looks: list[tuple[int, Any, Any]], life: str = "a") -> None:
    for number, seen, led in looks:
        teacher.hear(0, life, number, seen.image, led)
    assert teacher.news(0, "", looks[-1][0], 60.0).studied == looks[-1][0], teacher.failed


def remembered(teacher: Teacher) -> tuple[Any, ...]:
    one = teacher.replays.of[0]
    references = one.references(one.moments)
    return np.stack(one.frames(one.moments)), references["moments"], references["runs"], np.nan_to_num(references["led"], nan=-9.0)


def test_a_teacher_that_was_killed_reads_what_it_was_not_told(lived):
    course, looks = lived
    one = Teacher(course)
    told(one, looks)
    assert one.close() is None
    updates, whole = one.learner.updates, remembered(one)
    other = Teacher(course)
    assert other.learner.updates == updates and not len(other.replays)  # its checkpoint holds what was learned, not what was lived
    told(other, looks[-1:])
    for ours, theirs in zip(remembered(other), whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert other.learner.updates > updates
    assert other.close() is None


def test_a_look_that_a_killed_robot_told_last_is_joined_to_nothing(lived):
    course, looks = lived
    teacher = Teacher(course)
    told(teacher, looks[:10])
    number, seen, led = looks[10]
    teacher.hear(0, "b", 9, seen.image, None)  # another actor: the ninth look again, another one
    told(teacher, [(number, seen, led)], "b")
    assert teacher.replays.of[0].references(11)["runs"].tolist()[-2:] == [1, 2]
    assert teacher.close() is None


def test_a_life_is_no_fleet_and_is_not_overwritten(lived, tmp_path):
    course, looks = lived
    first = Teacher(course)
    told(first, looks[:3])
    assert first.close() is None
    other = Teacher(replace(course, fleet="another"))
    assert other.failed and other.failed[0] == "CheckpointMismatch" and "choose another --name" in other.failed[1]
    other.close()


def test_no_window_crosses_robots_and_each_is_drawn_from_by_what_it_lived():
    replays = Replays(ReplayConfig(capacity=60), 3)
    for moment in range(30):
        for robot in range(2):  # the third has not lived yet
            if robot == 0 or moment % 3 == 0:
                replays.hear(robot, np.full((2, 2, 3), 100 * robot + moment, np.uint8), np.ones(1, np.float32) if moment else None)
    drawn = replays.sample(400, 4, np.random.default_rng(0))
    robots = [set((window.images[:, 0, 0, 0] // 100).tolist()) for window in drawn]
    assert len(drawn) == 400 and all(len(of) == 1 for of in robots)
    assert 0.2 < sum(of == {1} for of in robots) / 400 < 0.45  # ten of thirty frames (its share of 60 is 20)
    replays.turn = 1
    newest = replays.newest(2)
    assert newest is not None and newest.images[-1, 0, 0, 0] == 127
    assert len(replays) == 30


def test_what_cannot_be_a_fleet_is_said():
    with pytest.raises(ConfigurationError, match="no recipe of one that learns"):
        Fleet("toroidal_dot_runner")
    with pytest.raises(ConfigurationError, match="at least 1"):
        Fleet("toroidal_dot_latent", robots=0)
    with pytest.raises(ConfigurationError, match="at least 1"):
        Fleet("toroidal_dot_latent", devices=0)
    dot = RECIPES["toroidal_dot_latent"]
    assert isinstance(dot, LearningRecipe)
    with pytest.raises(ConfigurationError, match="leave record on"):
        Fleet(replace(dot, record=False))


# Over Ray


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    pytest.importorskip("ray", reason="fleets were not tested over Ray; pip install motorbabble[fleet]")
    from motorbabble.fleet.cluster import cluster

    with cluster(cpus=2) as found:
        yield found


def kill(ray: Any, actor: Any) -> None:
    os.kill(ray.get(actor.__ray_call__.remote(lambda self: os.getpid())), signal.SIGKILL)


def helper_of(ray: Any, teacher: Any) -> int:
    return ray.get(teacher.__ray_call__.remote(lambda self: self.learner.helpers[0]))


@pytest.mark.parametrize("devices", [2, pytest.param(1, marks=pytest.mark.soak)])
def test_two_robots_teach_one_learner_and_whoever_is_killed_is_replaced(ray, tmp_path, devices):
    with Fleet(recipe(tmp_path, steps=40), 2, devices=devices, **SMALL) as fleet:
        assert fleet.folder
        tape, acknowledged, said, killed = Tape(tmp_path / "sessions" / fleet.folder.parent.name, fleet.fleet, 1), 0, [], set()
        helpers: list[int] = []
        for beat in fleet:
            said += [fleet.notes.pop(0) for _ in list(fleet.notes)]
            acknowledged = beat.steps if beat.robot == 1 else acknowledged
            if "robot" not in killed and acknowledged >= 8:
                killed.add("robot")
                kill(ray, fleet.robots[1].actor)
                assert tape.extent()[1] >= acknowledged
            if "helper" not in killed and beat.robot == 0 and beat.steps >= 12 and devices > 1:
                killed.add("helper")
                os.kill(helper_of(ray, fleet.teacher), signal.SIGKILL)
            if "learner" not in killed and beat.robot == 0 and beat.steps >= 24:
                killed.add("learner")
                helpers += [helper_of(ray, fleet.teacher)] if devices > 1 else []
                kill(ray, fleet.teacher)
                assert all(map(gone, helpers))
        assert tape.extent()[1] == 40 and len(tape.sessions()) == 2
        assert "The actor of robot 1 was killed; another one goes on where its recordings end." in said
        whose = "The learner's actor was killed" if devices == 1 else "The learner's actor, or one of its helpers, was killed"
        assert sum(note.startswith(f"{whose}; another one goes on where it was saved, after ") for note in said) == devices
    result = fleet.result
    assert [(robot["steps"], robot["actors"], robot["why"]) for robot in result["robots"]] == [(40, 1, ""), (40, 2, "")]
    assert result["steps"] == 80 and result["updates"] >= 80
    assert max(robot["skill"] for robot in result["robots"]) > 0.6  # seen from outside: predictions before their outcome was learned from


def test_a_sweep_is_a_row_for_each_recipe_and_seed(ray, tmp_path):
    fits = recipe(tmp_path, steps=8, exam_steps=6)
    lives = {"fits": fits, "odd": replace(fits, robot=ToroidalDotConfig(image_size=30, dot_radius=3))}
    rows = {(row["recipe"], row["seed"]): row for row in sweep(lives, [0, 1], **SMALL)}
    assert rows.keys() == {(name, seed) for name in lives for seed in (0, 1)}
    assert rows["fits", 0]["steps"] == 8 and rows["fits", 0]["updates"] >= 7 and "skill_moved" in rows["fits", 1]
    assert "30" in rows["odd", 0]["failed"]  # and the others went on
    assert not list(tmp_path.rglob("*.jsonl"))  # nothing of a sweep is kept
