"""Whole robots with a mind: `learn`, the runner and the mission's constructor, on worlds small enough for a test."""

import math
import time

import numpy as np
import pytest
from counting import Counting, read
from exams import look

import motorbabble
from motorbabble.agents import HeldOutStretches, Progress, learn
from motorbabble.errors import ConfigurationError
from motorbabble.experience import Step, Study
from motorbabble.faces import AutoencoderLatentPredictorWorldModel
from motorbabble.robots.bodies import BodiesRobot
from motorbabble.robots.toroidal_dot import ToroidalDotRobot

EXACT = {"max_seconds": math.inf}


def dot(seed: int = 0) -> ToroidalDotRobot:
    return ToroidalDotRobot(seed=seed, image_size=64, move_pixels=13)


def test_a_dot_is_learned_from_nothing():
    """The whole spine on a small dot: from random weights to knowing both actions, with curiosity choosing."""
    run = learn(dot(), steps=95, seed=0, patch_size=16, preset="tiny", width=64, max_updates=1, **EXACT)
    for event in run:
        assert isinstance(event, Step | Study)
    card = run.card()
    assert card.model["skill_moved"] > 0.8
    assert card.model["action_advantage"] > 0.95
    assert card.numbers["scores"]["black"]["skill_moved"] < 0.6
    assert run.progress.skill > 0.6 > run.progress.curve[3][2], "skill rose while it lived"
    move, stay = (run.action_space.encode(action) for action in ({"action": 1}, {"action": 0}))
    images = run.world_model.imagine(run.window, np.stack([stay, move])[:, None]).images[:, 0]
    x = [dot().locate((image.movedim(0, -1).numpy() * 255).round().astype(np.uint8))[0, 0] for image in images]
    assert abs((x[1] - x[0]) % 64 - 13) < 2, "imagining `move` puts the dot 13 px further than imagining `stay`"


def test_the_same_seed_lives_the_same_life():
    def life(seed):
        run = learn(dot(seed), steps=12, seed=seed, **EXACT)
        return [(e.executed["action"] if isinstance(e, Step) else e.losses["total"]) for e in run]

    assert life(1) == life(1)
    assert life(1) != life(2)


def test_any_robot_that_keeps_the_contract_learns():
    run = learn(Counting(size=32), steps=14, selector="least_tried", patch_size=8, batch_size=2)
    assert sum(isinstance(event, Study) for event in run) >= 12
    assert len(run.window) == run.world_model.history


def test_a_plain_function_selects():
    run = learn(dot(), steps=5, selector=lambda situation: {"action": 1})
    assert [event.executed["action"] for event in run if isinstance(event, Step)] == [1] * 5


def test_held_out_stretches_are_never_learned_from():
    run = learn(Counting(size=32), steps=100, selector="random", patch_size=8, batch_size=1, max_updates=1)
    held = run.learner.holds_out
    assert isinstance(held, HeldOutStretches)
    for _ in run:
        pass
    steps = [step.index for step in run.lived if held.holds(step.index)]
    assert steps == list(range(84, 96))
    assert len(run.learner.replay) == 100 - 12
    assert run.card().numbers["trials"] == 11


def test_a_life_too_short_for_a_card_says_how_long_it_must_be():
    run = learn(dot(), steps=3)
    with pytest.raises(ConfigurationError, match="nothing was lived yet"):
        _ = run.window
    list(run)
    with pytest.raises(ConfigurationError, match=r"3 steps were lived .* live 88"):
        run.card()


def test_seconds_end_a_life():
    began = time.monotonic()
    run = learn(dot(), steps=None, seconds=1.0)
    list(run)
    assert 1.0 <= run.elapsed < 10 and time.monotonic() - began < 20


def test_time_between_events_is_not_life():
    run = learn(dot(), steps=2, selector="random")
    for _ in run:
        time.sleep(0.3)
    assert run.elapsed < time.monotonic() and run.elapsed < 0.3 * len(run.progress.curve) + 5
    assert run.progress.curve[-1][0] <= run.elapsed


def test_settings_reach_the_model_and_the_learner():
    run = learn(dot(), steps=1, batch_size=3, learning_rate=1e-3, moved_layers=0, prediction_history_size=1, depth=2)
    assert run.learner.config.batch_size == 3
    assert run.learner.config.schedule.learning_rate == 1e-3
    assert run.world_model.mover is None
    assert run.world_model.history == 1
    assert len(run.world_model.autoencoder.blocks) == len(run.world_model.predictor.blocks) == 2


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"steps": -3}, "steps is -3"),
        ({"seconds": 0.0}, "seconds is 0.0"),
        ({"seconds": math.nan}, "seconds is nan"),
        ({"selector": "telepathy"}, "no selector 'telepathy'"),
        ({"model": "oracle"}, "no model 'oracle'"),
        ({"preset": "huge"}, "preset 'huge'"),
        ({"bach_size": 3}, "no setting 'bach_size'"),
        ({"batch_size": 0}, "cannot teach"),
        ({"patch_size": 15}, "patch size 15 does not divide a frame of 64 x 64"),
        ({"learning_rate": -1.0}, "learning rate -1.0"),
        ({"max_updates": 0}, "never opens"),
        ({"device": "abacus"}, "device"),
        ({"threads": 0}, "threads is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"steps": "5"}, "steps is '5'"),
        ({"ensemble_heads": 1}, "at least 2"),
        ({"model": "canvas", "canvas_history_size": 1}, "canvas_history_size is 1; a canvas needs at least 2 frames"),
        ({"model": "canvas", "separator_width": 24}, "separator_width is 24; give a multiple of the patch's 16 pixels"),
        ({"model": "canvas", "separator_width": 8}, "separator_width is 8; give a multiple"),
        ({"model": "canvas", "prediction_history_size": 2}, "no setting 'prediction_history_size'"),
        ({"model": "latent", "separator_width": 16}, "no setting 'separator_width'"),
    ],
)
def test_bad_settings_are_refused_in_one_sentence_before_the_robot_moves(settings, says):
    robot = dot()
    before = look(robot).image
    with pytest.raises(ConfigurationError, match=says) as caught:
        learn(robot, **settings)
    assert "\n" not in str(caught.value)
    assert np.array_equal(before, look(robot).image)


def test_a_model_made_for_another_robot_is_refused():
    made = learn(Counting(size=32), steps=1, patch_size=8).learner.trained
    with pytest.raises(ConfigurationError, match="make a model for this robot"):
        learn(dot(), made)
    with pytest.raises(ConfigurationError, match="is no robot"):
        learn(ToroidalDotRobot)


def test_any_world_model_may_be_given():
    made = learn(dot(), steps=1).learner.trained
    run = learn(dot(), made, steps=6, selector="random")
    list(run)
    assert run.learner.trained is made and run.learner.updates > 0


def test_the_window_is_the_newest():
    run = learn(Counting(size=32), steps=6, selector="random", patch_size=8, batch_size=1, max_updates=1)
    for event in run:
        count, last = read(run.window.images[-1])
        if isinstance(event, Step):
            assert count == read(event.observation.image)[0]
        elif run.lived:
            assert count == read(run.lived[-1].observation.image)[0] + last


def test_a_rule_of_ones_own_holds_out_too():
    run = learn(dot(), steps=12, selector="random", holds_out=lambda seen: seen.sequence % 2 == 0, batch_size=1)
    list(run)
    assert len(run.learned_from) < len(run.lived) == 12
    with pytest.raises(ConfigurationError, match="give test steps"):
        learn(dot(), steps=5, holds_out=lambda seen: False).card()


def test_the_missions_constructor_runs_and_goes_on():
    mind = AutoencoderLatentPredictorWorldModel(dot(), action_selector=lambda situation: {"action": 1}, seed=3)
    heard = []
    mind.main_loop(4, on_event=heard.append)
    assert sum(isinstance(event, Step) for event in heard) == 4
    mind.main_loop(3)
    assert len(mind.life.lived) == 7
    with pytest.raises(ConfigurationError, match="max_steps is 0"):
        mind.main_loop(0)


def test_the_public_names_are_there():
    for name in motorbabble.__all__:
        assert getattr(motorbabble, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'telepathy'"):
        _ = motorbabble.telepathy


def test_progress_counts_only_what_moved():
    progress = Progress()
    progress.add(Study(1, {"fresh_error": 0.2, "fresh_copy_error": 1.0}, "passed", 0.0), 1, 0.1)
    progress.add(Study(2, {"fresh_error": 0.9, "fresh_copy_error": 0.0}, "passed", 0.0), 2, 0.2)
    progress.add(Study(3, {}, "passed", 0.0), 3, 0.3)
    assert progress.curve == [(0.1, 1, 0.8), (0.2, 2, 0.8), (0.3, 3, 0.8)]


def test_bodies_are_a_world_to_learn_in_too():
    run = learn(BodiesRobot(2, image_size=64), steps=8, batch_size=2)
    assert all(math.isfinite(event.losses["total"]) for event in run if isinstance(event, Study))
