"""RobotRunner: acts, counts, waits, shows and asks, and learns nothing."""

import io

import numpy as np
import pytest
from counting import Counting, write
from PIL import Image
from test_interactive import Person
from test_life import Watched
from test_view import tile_at

from motorbabble.errors import ConfigurationError
from motorbabble.figures import fit
from motorbabble.robots.toroidal_dot import ToroidalDotRobot
from motorbabble.runner import RobotRunner
from motorbabble.selectors import SEQUENCE_DOUBLE_MOVE, create_constant_action_selector, create_sequence_action_selector


def dot() -> ToroidalDotRobot:
    return ToroidalDotRobot(seed=0, image_size=64, move_pixels=13)


def test_the_runner_counts_and_times():
    runner = RobotRunner(dot(), create_sequence_action_selector(SEQUENCE_DOUBLE_MOVE))
    numbers = runner.run(9)
    assert (numbers["steps"], numbers["count/move"], numbers["count/stay"]) == (9, 6, 3)
    assert numbers["share/move"] == pytest.approx(2 / 3)
    assert 0 <= numbers["action_timing/min_interval"] <= numbers["action_timing/median_interval"] <= numbers["action_timing/max_interval"]
    assert runner.run(1)["steps"] == 10, "a second run goes on counting"
    assert RobotRunner(dot(), lambda situation: {"action": 0}).statistics() == {"steps": 0}


def test_the_runner_waits_between_actions_as_the_robot_says():
    slow = ToroidalDotRobot(seed=0, image_size=32, action_delay=0.02)
    assert RobotRunner(slow, lambda situation: {"action": 1}).run(4)["action_timing/min_interval"] >= 0.02


def test_chance_chooses_unless_somebody_else_is_named():
    runner = RobotRunner(dot())
    runner.run(40)
    assert 8 < runner.counts["move"] < 32 and runner.counts["stay"] == 40 - runner.counts["move"]


def test_it_waits_after_each_action():
    assert RobotRunner(dot(), action_delay=0.05).run(4)["action_timing/min_interval"] >= 0.05
    with pytest.raises(ConfigurationError, match="action_delay is -1"):
        RobotRunner(dot(), action_delay=-1)


def test_it_shows_what_it_sees_with_the_step_and_the_action(tmp_path):
    heard, view = [], tmp_path / "view.png"
    robot = Counting(32)
    RobotRunner(robot, create_constant_action_selector({"add": 1}), display_interval=3, view=view, say=heard.append).run(5)
    (said,) = heard
    assert str(view) in said and "every 3 steps" in said
    picture = np.asarray(Image.open(io.BytesIO(view.read_bytes())))
    tile_at(picture, fit(write(3, 1, 32), 448))  # the fourth step, number 3, is the last one drawn
    assert (picture[:25] < 128).any(), "something is written above it"


def test_a_person_sees_what_was_done_so_far_and_decides(tmp_path):
    person, robot = Person("", "two", "stop"), Watched()
    runner = RobotRunner(
        robot, create_constant_action_selector({"add": 1}), interactive=True, view=tmp_path / "view.png", ask=person.ask, say=person.say
    )
    numbers = runner.run()
    assert (numbers["count/one"], numbers["count/two"]) == (1, 1)
    assert "  so far: one x 1, two x 1" in person.heard
    picture = np.asarray(Image.open(io.BytesIO((tmp_path / "view.png").read_bytes())))
    tile_at(picture, fit(write(3, 2, 32), 448))  # drawn before the question that was answered with stop
    assert robot.stops


def test_nobody_is_shown_or_asked_unless_wanted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    RobotRunner(dot(), ask=Person().ask).run(3)
    assert list(tmp_path.iterdir()) == []
