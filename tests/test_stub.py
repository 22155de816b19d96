"""The main loop without hardware: all of it is real but the robot, and it gets past the gate."""

import json

import numpy as np
import pytest
from PIL import Image

from motorbabble.errors import ConfigurationError
from motorbabble.robots.stub import StubConfig, StubRobot


def test_nine_actions_and_a_red_square_in_noise():
    robot = StubRobot(seed=1)
    assert len(robot.action_space.actions) == 9 and robot.action_space.rest == {"motor_left": 0.0, "motor_right": 0.0, "duration": 0.1}
    assert {action["motor_left"] for action in robot.action_space.actions} == {-0.15, 0.0, 0.15}
    first = robot.get_observation().image
    robot.execute_action(robot.action_space.rest)
    second = robot.get_observation().image
    inside, outside = first[20:40, 20:40].mean((0, 1)), first[:, 50:].mean((0, 1))
    assert inside[0] > 180 > 70 > inside[1:].max() and np.ptp(outside) < 20
    changed = np.abs(first.astype(int) - second)
    assert changed[:, 50:].mean() > 60 > changed[20:40, 20:40].mean()


def test_another_seed_sees_other_noise():
    assert not np.array_equal(StubRobot(seed=1).get_observation().image, StubRobot(seed=2).get_observation().image)
    with pytest.raises(ConfigurationError, match="at least 8"):
        StubConfig(image_size=4)
    with pytest.raises(ConfigurationError, match="make the robot with the saved settings"):
        StubRobot(seed=1).load_state_dict(StubRobot(seed=2).state_dict())


def test_the_loop_runs_without_a_robot_and_draws_every_action(tmp_path, here):
    done = here("run", "stub", "--steps", "4", "--exam-steps", "3", "--display-interval", "2", "--log-interval", "1")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "saved/cards/stub/stub-seed0"
    assert "view.png" in done.stdout.replace("\n", "")
    picture = np.asarray(Image.open(folder / "view.png"))
    assert picture.shape[1] > 5 * 192 and picture.shape[0] > 3 * 192, "what it sees, and nine actions in two rows"
    logged = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert json.loads((folder / "card.json").read_text())["lived_steps"] == 4
    assert {entry["gate"] for entry in logged} == {"learning", "budget"}, "noise cannot be seen well, and it acts all the same"
