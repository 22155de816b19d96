"""Any Gymnasium environment with pictures is a robot; what cannot be one is refused in a sentence."""

import json
from dataclasses import asdict

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from motorbabble.agents import learn
from motorbabble.cli import main
from motorbabble.errors import ActionError, ConfigurationError, RobotError
from motorbabble.experience import Ending, Step
from motorbabble.life import live
from motorbabble.memory import MemoryConfig
from motorbabble.models.autoencoder import AutoencoderConfig
from motorbabble.models.predictor import PredictorConfig
from motorbabble.recipes import RECIPES, robot_from
from motorbabble.robots import gymnasium_robot
from motorbabble.robots.gymnasium_robot import GymnasiumConfig, GymnasiumRobot
from motorbabble.selectors import RandomSelector
from motorbabble.world_models.latent import AutoencoderLatentPredictorWorldModelConfig, LatentWorldModel

TOY = "MotorbabbleToy-v0"


class Toy(gymnasium.Env):
    """Shows how many steps its episode has, and where it began, as brightness; ends after `lasts`. Draws into one buffer, as some do."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - Gymnasium's own convention
    offered: spaces.Space = spaces.Discrete(2)
    nothing_repeats = 0

    def __init__(self, render_mode=None, lasts=5, shows=False, chaotic=False, breaks=False):
        self.action_space = self.offered
        self.observation_space = spaces.Box(0, 255, (8, 8, 3), np.uint8) if shows else spaces.Box(-1, 1, (2,), np.float32)
        self.render_mode, self.lasts, self.shows, self.chaotic, self.breaks = render_mode, lasts, shows, chaotic, breaks
        self.buffer, self.asked = np.zeros((8, 8, 3), np.uint8), []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count, self.start = 0, int(self.np_random.integers(200))
        Toy.nothing_repeats += 1
        return self._seen(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        if self.breaks:
            raise RuntimeError("a wheel fell off")
        self.count += 1
        self.asked.append(action)
        return self._seen(), 0.5, self.count >= self.lasts, False, {}

    def render(self):
        self.buffer[0] = self.count
        self.buffer[1:] = self.start + (Toy.nothing_repeats if self.chaotic else 0)
        return self.buffer

    def _seen(self):
        return 255 - self.render() if self.shows else np.array([self.count / 10, self.start / 200], np.float32)


class Blind(Toy):
    metadata = {"render_modes": ["ansi"]}  # noqa: RUF012


@pytest.fixture(autouse=True)
def toys():
    gymnasium.register(TOY, Toy)
    gymnasium.register("MotorbabbleBlind-v0", Blind)
    yield
    del gymnasium.registry[TOY], gymnasium.registry["MotorbabbleBlind-v0"]


def toy(seed=0, repeat=1, **settings) -> GymnasiumRobot:
    return GymnasiumRobot(GymnasiumConfig(TOY, repeat, json.dumps(settings)), seed)


def offering(monkeypatch, space) -> GymnasiumRobot:
    monkeypatch.setattr(Toy, "offered", space)
    return toy()


def test_an_episode_ends_with_its_last_frame_and_the_next_look_begins_another():
    robot = toy(lasts=3)
    events = list(live(robot, RandomSelector(), steps=7))
    endings = [event.observation for event in events if isinstance(event, Ending)]
    assert [int(seen.image[0, 0, 0]) for seen in endings] == [3, 3] and all(seen.ends for seen in endings)
    steps = [event.observation for event in events if isinstance(event, Step)]
    assert [int(seen.image[0, 0, 0]) for seen in steps] == [0, 1, 2, 0, 1, 2, 0]
    assert [seen.episode for seen in steps] == [0, 0, 0, 1, 1, 1, 2] and not any(seen.ends for seen in steps)


def test_every_episode_begins_elsewhere_and_a_seed_repeats_them_all():
    def starts(seed):
        robot = toy(seed=seed, lasts=1)
        return [int(event.observation.image[1, 0, 0]) for event in live(robot, RandomSelector(), steps=6) if isinstance(event, Step)]

    assert starts(1) == starts(1) != starts(2)
    assert len(set(starts(1))) > 3


def test_the_picture_is_the_observation_where_that_is_one_else_what_is_drawn():
    drawn, shown = toy().get_observation(), toy(shows=True).get_observation()
    assert np.array_equal(shown.image, 255 - drawn.image)
    assert drawn.state["observation"].shape == (2,) and "observation" not in shown.state
    assert drawn.state["reward"].tolist() == [0.0]


def test_an_action_may_last_several_steps_but_not_beyond_the_end():
    robot = toy(lasts=5, repeat=3)
    robot.execute_action({"action": 1})
    assert (robot.get_observation().image[0, 0, 0], robot.get_observation().state["reward"].tolist()) == (3, [1.5])
    robot.execute_action({"action": 0})
    last = robot.get_observation()
    assert last.ends and (last.image[0, 0, 0], last.state["reward"].tolist()) == (5, [1.0])


def test_a_world_is_saved_as_its_seed_and_what_was_done():
    robot = toy(lasts=9)
    list(live(robot, RandomSelector(), steps=12))
    state = json.loads(json.dumps(robot.state_dict()))
    other = toy(seed=5, lasts=9)
    assert other.load_state_dict(state) is True
    assert np.array_equal(other.get_observation().image, robot.get_observation().image)
    with pytest.raises(ConfigurationError, match="the saved world is"):
        toy(lasts=8).load_state_dict(state)


def test_a_world_that_does_not_repeat_itself_says_so_and_begins_anew(monkeypatch):
    robot = toy(lasts=9, chaotic=True)
    list(live(robot, RandomSelector(), steps=3))
    state, other = robot.state_dict(), toy(lasts=9, chaotic=True)
    assert other.load_state_dict(state) is False
    assert other.get_observation().episode > robot.get_observation().episode and other.get_observation().image[0, 0, 0] == 0
    monkeypatch.setattr(gymnasium_robot, "MOST_RELIVED", 2)
    long = toy(lasts=9)
    list(live(long, RandomSelector(), steps=4))
    assert toy(lasts=9).load_state_dict(long.state_dict()) is False, "an episode this long is not lived again"


def test_a_life_in_it_resumes_to_the_bit(tmp_path):
    small = AutoencoderLatentPredictorWorldModelConfig(
        AutoencoderConfig(width=16, depth=1, heads=2, decoder_width=16), PredictorConfig(depth=1, heads=2), moved_layers=0, image_size=(16, 16)
    )

    def life(steps, **kept):
        torch.manual_seed(0)
        model = LatentWorldModel((8, 8), 2, small)
        run = learn(toy(lasts=5), model, steps=steps, max_updates=1, max_seconds=float("inf"), threads=1, **kept)
        return run, [event for event in run if isinstance(event, Step)]

    memory = MemoryConfig(tmp_path / "checkpoint", tmp_path / "sessions")
    before, after = life(7, memory=memory)[1], life(7, memory=memory)[1]
    whole = life(14)[1]
    assert [step.executed for step in before + after] == [step.executed for step in whole]
    assert all(np.array_equal(a.observation.image, b.observation.image) for a, b in zip(before + after, whole, strict=True))


def test_lists_of_choices_become_one_list(monkeypatch):
    robot = offering(monkeypatch, spaces.MultiDiscrete([2, 3], start=[0, 1]))
    assert [tuple(action.values()) for action in robot.action_space.actions] == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3)]
    robot.execute_action({"a0": 1, "a1": 3})
    assert robot.environment.unwrapped.asked[-1].tolist() == [1, 3]
    robot = offering(monkeypatch, spaces.MultiBinary(3))
    assert robot.action_space.size == 8
    with pytest.raises(ConfigurationError, match="100 combinations of choices as actions, more than 64"):
        offering(monkeypatch, spaces.MultiDiscrete([10, 10]))


def test_a_box_of_values_keeps_its_ranges(monkeypatch):
    robot = offering(monkeypatch, spaces.Box(np.float32([[-2, 1]]), np.float32([[2, 3]])))
    assert [(channel.name, channel.low, channel.high) for channel in robot.action_space.channels] == [("a0", -2, 2), ("a1", 1, 3)]
    assert robot.action_space.rest == {"a0": 0.0, "a1": 1.0}
    assert robot.execute_action({"a0": 0.5, "a1": 3.0}) == {"a0": 0.5, "a1": 3.0}
    assert robot.environment.unwrapped.asked[-1].tolist() == [[0.5, 3.0]]
    whole = offering(monkeypatch, spaces.Box(0, 9, (1,), np.int64))
    assert whole.execute_action({"a0": 2.6}) == {"a0": 3.0}, "what was really executed is a whole number"


@pytest.mark.parametrize(
    "space", [spaces.Box(-np.inf, np.inf, (2,)), spaces.Box(-3e38, 3e38, (2,)), spaces.Dict(x=spaces.Discrete(2)), spaces.Text(4)]
)
def test_actions_that_cannot_be_said_are_refused(monkeypatch, space):
    with pytest.raises(ConfigurationError, match=rf"^{TOY} has actions (without limits|of the kind)[^\n]*;[^\n]*$"):
        offering(monkeypatch, space)


def test_actions_are_called_what_the_environment_calls_them():
    with GymnasiumRobot(GymnasiumConfig("MiniGrid-FourRooms-v0", settings='{"tile_size": 8}'), seed=0) as robot:
        assert robot.describe() == "minigrid_fourrooms_v0 can do: left, right, forward, pickup, drop, toggle, done."
        assert robot.action_space.label(robot.action_space.rest) == "done"
        assert robot.get_observation().image.shape == (152, 152, 3)
    with GymnasiumRobot(GymnasiumConfig("ALE/Breakout-v5"), seed=0) as robot:
        assert robot.action_space.labels == ("noop", "fire", "right", "left")
        assert [channel.name for channel in robot.action_space.channels] == ["action"]
        first = robot.get_observation()
        assert first.image.shape == (210, 160, 3) and first.image.any()
        list(live(robot, RandomSelector(), steps=20))
        with GymnasiumRobot(GymnasiumConfig("ALE/Breakout-v5"), seed=9) as again:
            assert again.load_state_dict(robot.state_dict()) is True, "a game is brought back by playing it again"
    assert toy().action_space.label({"action": 1}) == "action=1"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("MotorbabbleBlind-v0", "gives no pictures, neither as observations nor as rgb_array; choose one that does"),
        ("MotorbabbleNowhere-v0", r"cannot be made \(.*doesn't exist.*\); check its name and settings"),
        ("no_such_module_here:Thing-v0", r"cannot be made \(No module named 'no_such_module_here'\)"),
    ],
)
def test_an_environment_that_cannot_be_is_named_in_one_sentence(name, says):
    with pytest.raises(ConfigurationError, match=says) as refusal:
        GymnasiumRobot(GymnasiumConfig(name))
    assert name in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(gymnasium_robot.HOMES, "ALE", ("no_such_module_here", "ale-py"))
    with pytest.raises(ConfigurationError, match="pip install ale-py"):
        GymnasiumRobot(GymnasiumConfig("ALE/NoSuchGame-v5"))

    def undrawable(self):
        raise gymnasium.error.DependencyNotInstalled("pygame is not installed")

    monkeypatch.setattr(Toy, "render", undrawable)
    with pytest.raises(ConfigurationError, match=r"pygame is not installed.*motorbabble\[gym\]"):
        toy()


def test_whatever_an_environment_raises_names_it(monkeypatch):
    robot = toy(breaks=True)
    with pytest.raises(RobotError, match=rf"the environment {TOY} failed: RuntimeError\('a wheel fell off'\)"):
        robot.execute_action({"action": 0})
    with pytest.raises(ActionError):
        robot.execute_action({"action": 2})
    monkeypatch.setattr(Toy, "render", lambda self: None)
    with pytest.raises(RobotError, match=rf"^the environment {TOY} drew no picture; try it alone"):
        toy()


@pytest.mark.parametrize("settings", [{"repeat": 0}, {"settings": "frameskip"}, {"settings": "[1]"}])
def test_settings_that_cannot_be_are_refused(settings):
    with pytest.raises(ConfigurationError):
        GymnasiumConfig(**settings)


def test_a_module_can_be_named_with_its_environment():
    with GymnasiumRobot(GymnasiumConfig("motorbabble:ToroidalDot-v0", settings='{"image_size": 32}'), seed=0) as robot:
        assert robot.robot_type == "motorbabble_toroidaldot_v0" and robot.get_observation().image.shape == (32, 32, 3)


def test_the_recipe_lives_in_any_of_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = ["--model.image-size", "32", "32", "--model.patch-size", "16", "--steps", "4", "--exam-steps", "6", "--threads", "1"]
    main(["run", "gym_latent", "--robot.env", TOY, *small])
    assert (tmp_path / "saved/cards/motorbabbletoy_v0/gym_latent-seed0/card.html").is_file()
    assert "motorbabbletoy_v0 can do: action=0, action=1." in capsys.readouterr().out
    config = RECIPES["gym_latent"].robot
    with robot_from(config, seed=0) as robot:
        assert asdict(robot.config) == asdict(config)
