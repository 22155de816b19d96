import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given
from hypothesis import strategies as st

from motorbabble.errors import ActionError, ConfigurationError, FrameError, RobotError
from motorbabble.robots.toroidal_dot import ToroidalDotConfig, ToroidalDotEnvironment, ToroidalDotRobot

REPOSITORY = Path(__file__).resolve().parents[1]
STAY, MOVE = {"action": 0}, {"action": 1}


def test_gymnasium_finds_nothing_to_warn_about():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make("motorbabble:ToroidalDot-v0").unwrapped)
        check_env(gymnasium.make("ToroidalDot-v0", image_size=40, render_mode="rgb_array").unwrapped)


@pytest.mark.parametrize(
    "code",
    [
        "import gymnasium; gymnasium.make('motorbabble:ToroidalDot-v0')",
        "import motorbabble, gymnasium; gymnasium.make('motorbabble:ToroidalDot-v0')",
        "import gymnasium, motorbabble; gymnasium.make('ToroidalDot-v0')",
        "from motorbabble import ToroidalDotEnvironment; import gymnasium; gymnasium.make('ToroidalDot-v0')",
        "import motorbabble, importlib.util as u; u.find_spec('gymnasium'); import gymnasium; gymnasium.make('motorbabble:ToroidalDot-v0')",
        "import sys, motorbabble; assert not {'gymnasium', 'torch'} & set(sys.modules)",
    ],
)
def test_a_fresh_process_finds_the_environment_in_any_order_of_imports(code):
    path = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); "  # on the path only, not installed
    done = subprocess.run([sys.executable, "-W", "error", "-c", path + code], capture_output=True, text=True, cwd="/", check=False)
    assert done.returncode == 0, done.stderr


def test_move_goes_around_the_right_edge():
    environment = ToroidalDotEnvironment(image_size=64, move_pixels=27)
    environment.reset(seed=0)
    environment.place(50, 20)
    before = environment.picture()
    frame, reward, terminated, truncated, info = environment.step(1)
    assert info["position"].tolist() == [13, 20]
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert np.array_equal(frame, np.roll(before, 27, axis=1))
    assert np.array_equal(environment.step(0)[0], frame)


def test_the_dot_of_the_mission_has_81_white_pixels_wherever_it_is():
    robot = ToroidalDotRobot(seed=0)
    for x in (0, 3, 100, 223):
        robot.place(x, 5)
        image = robot.get_observation().image
        assert image.shape == (224, 224, 3) and (image == 255).sum() == 81 * 3 and (image == 0).sum() == (224 * 224 - 81) * 3


def test_each_reset_starts_somewhere_else_and_the_seed_decides_where():
    environment = ToroidalDotEnvironment()
    places = [tuple(environment.reset(seed=5 if i == 0 else None)[1]["position"]) for i in range(20)]
    assert len(set(places)) > 15
    again = ToroidalDotEnvironment()
    assert places == [tuple(again.reset(seed=5 if i == 0 else None)[1]["position"]) for i in range(20)]
    assert ToroidalDotEnvironment(image_size=11).reset()[0].sum() == 81 * 3 * 255  # the smallest picture that holds the dot


@pytest.mark.parametrize("action", [2, -1, 0.5, "move", None, np.array([0, 1])])
def test_an_unknown_action_is_refused_in_one_sentence(action):
    environment = ToroidalDotEnvironment()
    environment.reset(seed=0)
    with pytest.raises(ActionError, match="0 to stay or 1 to move"):
        environment.step(action)


def test_step_before_reset_says_what_to_do():
    with pytest.raises(gymnasium.error.ResetNeeded, match="reset"):
        ToroidalDotEnvironment().step(0)


@pytest.mark.parametrize(
    "settings",
    [
        {"image_size": 0},
        {"image_size": 10},
        {"image_size": 64.0},
        {"dot_radius": -1},
        {"move_pixels": 2.5},
        {"action_delay": -1},
        {"action_delay": float("nan")},
        {"action_delay": float("inf")},
        {"colour": "red"},
    ],
)
def test_a_setting_that_cannot_work_is_refused(settings):
    with pytest.raises(ConfigurationError) as refusal:
        ToroidalDotRobot(**settings)
    assert next(iter(settings)) in str(refusal.value) or "does not fit" in str(refusal.value)


def test_a_setting_by_name_wins_over_the_config():
    robot = ToroidalDotRobot(ToroidalDotConfig(image_size=64, move_pixels=9), move_pixels=3)
    assert (robot.config.image_size, robot.config.move_pixels) == (64, 3)
    with pytest.raises(ConfigurationError, match="render_mode"):
        ToroidalDotEnvironment(render_mode="human")
    with pytest.raises(ConfigurationError, match="cut off"):
        robot.place(0, 2)


@given(x=st.integers(0, 63), y=st.integers(4, 59), other=st.integers(0, 63))
def test_locate_is_exact_and_the_distance_goes_the_short_way(x, y, other):
    robot = ToroidalDotRobot(image_size=64, dot_radius=4, seed=0)
    robot.place(x, y)
    found = robot.locate(robot.get_observation().image)
    assert robot.distance(found, np.array([[x, y]]))[0] < 1e-6
    gap = robot.distance(found, np.array([[other, y]]))[0]
    assert gap == pytest.approx(min((x - other) % 64, (other - x) % 64), abs=1e-6)


def test_locate_sees_through_noise_blur_and_ghosts_and_sees_no_dot_in_the_dark():
    robot = ToroidalDotRobot(image_size=64, seed=0)
    robot.place(1, 20)
    image = robot.get_observation().image.astype(float)
    noisy = (image + np.random.default_rng(0).normal(0, 25, image.shape)).clip(0, 255).astype(np.uint8)
    assert robot.distance(robot.locate(noisy), np.array([[1, 20]]))[0] < 0.5
    ghost = (0.8 * image + 0.4 * np.roll(image, 27, axis=1)).clip(0, 255).astype(np.uint8)
    assert robot.distance(robot.locate(ghost), np.array([[1, 20]]))[0] < 0.5
    blurred = sum(np.roll(image, (dy, dx), axis=(0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)) / 9
    assert robot.distance(robot.locate(blurred.astype(np.uint8)), np.array([[1, 20]]))[0] < 0.5
    assert np.isnan(robot.locate(np.zeros((64, 64, 3), np.uint8))).all()
    assert np.isnan(robot.locate((0.3 * image).astype(np.uint8))).all()
    with pytest.raises(FrameError, match="resize"):
        robot.locate(np.zeros((32, 32, 3), np.uint8))


def test_a_stop_ends_the_delay_of_an_action():
    robot = ToroidalDotRobot(seed=0, action_delay=30.0)
    threading.Timer(0.05, robot.stop).start()
    started = time.monotonic()
    robot.execute_action(MOVE)
    assert time.monotonic() - started < 5
    with pytest.raises(RobotError, match="stopped"):
        robot.execute_action(STAY)


def test_an_action_takes_its_delay():
    robot = ToroidalDotRobot(seed=0, action_delay=0.05)
    started = time.monotonic()
    robot.execute_action(STAY)
    assert time.monotonic() - started >= 0.05


def test_a_state_of_another_dot_is_refused():
    state = ToroidalDotRobot(image_size=64, seed=0).state_dict()
    with pytest.raises(ConfigurationError, match="saved settings"):
        ToroidalDotRobot(image_size=96, seed=0).load_state_dict(state)
    ToroidalDotRobot(image_size=64, seed=1, action_delay=0.1).load_state_dict(state)  # how long it takes is not what it does


def test_the_generator_resumes_too():
    robot, resumed = ToroidalDotRobot(seed=0), ToroidalDotRobot(seed=1)
    resumed.load_state_dict(robot.state_dict())
    assert np.array_equal(robot.environment.reset()[0], resumed.environment.reset()[0])
