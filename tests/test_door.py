"""A model may see smaller frames than its robot gives: they are resized at its door, and nowhere else."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from recordings import onward, recorded

from motorbabble.agents import learn
from motorbabble.commands.train import train
from motorbabble.errors import CheckpointMismatch, ConfigurationError, FrameError
from motorbabble.experience import Observation, Step, Window
from motorbabble.learning.learner import ONLINE, Learner
from motorbabble.learning.state import model_from
from motorbabble.learning.windows import Part, SessionWindows
from motorbabble.life import live
from motorbabble.memory import MemoryConfig
from motorbabble.models.autoencoder import AutoencoderConfig
from motorbabble.models.predictor import PredictorConfig
from motorbabble.robots.toroidal_dot import ToroidalDotRobot
from motorbabble.selectors import RandomSelector
from motorbabble.world_models.base import resized
from motorbabble.world_models.latent import AutoencoderLatentPredictorWorldModelConfig, LatentWorldModel

SMALL = AutoencoderLatentPredictorWorldModelConfig(
    AutoencoderConfig(patch_size=8, width=32, depth=1, heads=2, decoder_width=32),
    PredictorConfig(depth=1, heads=2),
    prediction_history_size=2,
    image_size=(32, 32),
)
QUICK = {"max_updates": 1, "threads": 1}


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("size", [(8, 4), (12, 13), (7, 10), (30, 9), (22, 20)])
def test_each_new_pixel_is_the_mean_of_the_area_that_it_covers(size):
    images = noise(2, 22, 10, 3)
    height, width = size
    fine = images.repeat(height, 1).repeat(width, 2).astype(float)  # on a grid that both divide
    mean = fine.reshape(2, height, 22, width, 10, 3).mean((2, 4))
    small = resized(images, size)
    assert small.dtype == np.uint8 and small.shape == (2, *size, 3)
    assert np.abs(small - mean).max() <= 0.5 + 1e-9


def test_resizing_keeps_black_white_and_what_already_fits():
    for value in (0, 1, 254, 255):
        assert (resized(np.full((37, 53, 3), value, np.uint8), (16, 24)) == value).all()
    assert np.array_equal(resized(noise(9, 7, 3), (9, 7)), noise(9, 7, 3))


def test_a_frame_that_fits_is_not_copied():
    model = LatentWorldModel((32, 32), 2, SMALL)
    image = noise(32, 32, 3)
    assert model.at_the_door(image) is image
    assert model.at_the_door(noise(50, 64, 3)).shape == (32, 32, 3)


def test_what_comes_through_the_door_is_what_a_small_robot_would_have_shown():
    torch.manual_seed(0)
    model = LatentWorldModel((96, 64), 2, SMALL).eval()
    window = Window(noise(2, 96, 64, 3), np.eye(2, dtype=np.float32)[:1])
    small = Window(resized(window.images, (32, 32)), window.actions)
    plans = np.eye(2, dtype=np.float32)[:, None]
    assert torch.equal(model.imagine(window, plans).images, model.imagine(small, plans).images)
    assert torch.equal(model.reconstruct(window.images), model.reconstruct(small.images))
    assert model.imagine(window, plans).images.shape == (2, 1, 3, 32, 32)


def test_without_a_door_another_size_is_refused():
    model = LatentWorldModel((32, 32), 2, replace(SMALL, image_size=None))
    with pytest.raises(FrameError, match=r"sees frames of shape \(32, 32, 3\) uint8, not \(64, 64, 3\)"):
        model.reconstruct(noise(1, 64, 64, 3))
    with pytest.raises(FrameError, match="float32"):
        LatentWorldModel((32, 32), 2, SMALL).at_the_door(noise(64, 64, 3).astype(np.float32))
    with pytest.raises(ConfigurationError, match="image_size"):
        replace(SMALL, image_size=(32, 0))
    with pytest.raises(ConfigurationError, match="patch size 16 does not divide"):
        learn(ToroidalDotRobot(), image_size=(40, 40))


def small_model(config: AutoencoderLatentPredictorWorldModelConfig = SMALL) -> LatentWorldModel:
    torch.manual_seed(0)
    return LatentWorldModel((64, 64), 1, config)


def test_replay_and_what_was_lived_hold_small_frames():
    robot = ToroidalDotRobot(image_size=64, seed=1)
    run = learn(robot, "latent", steps=2, image_size=(32, 32), **QUICK)
    seen = [event.observation.image for event in run if isinstance(event, Step)]
    assert seen[0].shape == (64, 64, 3), "whoever watches sees what the robot saw"
    assert run.window.images.shape[1:] == (64, 64, 3)
    for remembered, lived, image in zip(run.learner.replay.frames(10**9), run.lived, seen, strict=True):
        assert np.array_equal(remembered, resized(image, (32, 32))) and np.array_equal(lived.observation.image, remembered)


def test_the_card_scores_what_passed_the_door_floors_included():
    robot = ToroidalDotRobot(image_size=64, dot_radius=4, move_pixels=6, seed=1)
    run = learn(robot, small_model(), "random", steps=20, **QUICK)
    list(run)
    other = ToroidalDotRobot(image_size=64, dot_radius=4, move_pixels=6, seed=2)
    exam = [event for event in live(other, RandomSelector(0), steps=9) if isinstance(event, Step)]
    card, small = (run.card(steps) for steps in (exam, [seen_small(step) for step in exam]))
    assert card.to_json() == small.to_json(), "a small robot's steps would have got the same card"
    assert json.loads(json.dumps(card.to_json()))["shifts_px"]["move"] == [3, 0], "6 px of 64 are 3 of 32"
    assert card.model["objects"] is None, "a robot points at things in its own frames only"
    assert card.scenes[0].truth.shape == card.scenes[0].imagined[0].shape == (32, 32, 3)


def seen_small(step: Step) -> Step:
    seen: Observation = step.observation
    return replace(step, observation=replace(seen, image=resized(seen.image, (32, 32))))


def test_a_life_with_a_door_resumes_to_the_bit(tmp_path):
    quick = {**QUICK, "max_seconds": float("inf"), "selector": "random"}
    robot_type, space = ToroidalDotRobot.robot_type, ToroidalDotRobot().action_space
    memory = MemoryConfig(tmp_path / "checkpoint", tmp_path / "sessions", save_seconds=1e9)

    def lives(steps: int):
        robot = ToroidalDotRobot(image_size=64, seed=1)
        run = learn(robot, small_model(), steps=steps, memory=memory, **quick)
        list(run)
        return run

    lives(4)
    made_anew = model_from(memory.checkpoint_dir, robot_type, space)
    assert made_anew is not None and made_anew.has_door and made_anew.image_shape == (32, 32)
    resumed = lives(4)
    whole = learn(ToroidalDotRobot(image_size=64, seed=1), small_model(), steps=8, **quick)
    list(whole)
    assert all(np.array_equal(a, b) for a, b in zip(whole.learner.replay.frames(99), resumed.learner.replay.frames(99), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(whole.world_model.state_dict().values(), resumed.world_model.state_dict().values(), strict=True))
    with pytest.raises(CheckpointMismatch, match="image_s"):
        learn(ToroidalDotRobot(image_size=64, seed=1), small_model(replace(SMALL, image_size=(48, 48))), memory=memory, **quick)


def test_a_model_with_a_door_lives_in_a_robot_of_any_size():
    learner = Learner(LatentWorldModel((32, 32), 2, SMALL), ONLINE)
    learner.remember(Observation(noise(120, 80, 3)), None)
    assert learner.replay.frames(9)[0].shape == (32, 32, 3)
    model = LatentWorldModel((32, 32), 1, SMALL)
    assert sum(isinstance(event, Step) for event in learn(ToroidalDotRobot(image_size=48), model, steps=2, threads=1)) == 2
    with pytest.raises(ConfigurationError, match="make a model for this robot"):
        learn(ToroidalDotRobot(image_size=48), LatentWorldModel((32, 32), 1, replace(SMALL, image_size=None)))


def test_windows_of_sessions_pass_the_door_too():
    robot = onward()
    parts = [Part.whole(reader) for reader in robot.sessions]
    native = SessionWindows(parts, 3)
    small = SessionWindows(parts, 3, image_size=(8, 8))
    assert small.image_shape == (8, 8) != native.image_shape
    assert np.array_equal(small.at(0).images, resized(native.at(0).images, (8, 8)))
    assert small.background().shape == (8, 8, 3)


def test_offline_training_sees_what_the_door_lets_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    session = recorded(tmp_path / "sessions", ToroidalDotRobot(image_size=48, seed=0), steps=25)
    small = ["--image-size", "32", "32", "--steps", "2", "--validate-every", "2", "--validation-windows", "2", "--batch-size", "2", "--threads", "1"]
    train([str(session), *small])
    model = model_from(tmp_path / "saved/checkpoints/toroidal_dot/offline", "toroidal_dot", ToroidalDotRobot().action_space)
    assert model is not None and model.image_shape == (32, 32) and model.at_the_door(noise(48, 48, 3)).shape == (32, 32, 3)
