"""The mission's face of the canvas world model: its loop in the order that is documented, its state for pictures, and what it refuses."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from counting import Counting, read
from exams import look

from motorbabble.errors import ActionError, ConfigurationError, Diverged, FrameError
from motorbabble.experience import Action, Observation
from motorbabble.faces import AutoencoderConcatPredictorWorldModel
from motorbabble.models.canvas import build_canvas, separator_color
from motorbabble.world_models.canvas import CanvasWorldModel

QUICK = {"patch_size": 8, "separator_width": 8, "width": 32, "decoder_width": 32, "depth": 1, "decoder_depth": 1, "heads": 2, "batch_size": 2}
BAR = 8


class Heard(Counting):
    """Writes down what is asked of it."""

    def __init__(self, **settings):
        super().__init__(32, **settings)
        self.told: list[str] = []

    def get_observation(self) -> Observation:
        self.told.append("look")
        return super().get_observation()

    def execute_action(self, action: Action) -> Action:
        self.told.append("execute")
        return super().execute_action(action)

    def stop(self) -> None:
        self.told.append("stop")

    def cleanup(self) -> None:
        self.told.append("cleanup")


def mind(robot: Counting | None = None, select=None, heard=None, **settings) -> AutoencoderConcatPredictorWorldModel:
    return AutoencoderConcatPredictorWorldModel(robot or Heard(), select, "cpu", heard, **{**QUICK, "max_seconds": math.inf, **settings})


def frames_of(canvas: np.ndarray) -> list[np.ndarray]:
    """The three frames on a canvas of 32 pixels high."""
    return [canvas[:, start : start + 32] for start in (0, 32 + BAR, 2 * (32 + BAR))]


class Hindsight(AutoencoderConcatPredictorWorldModel):
    """Broken on purpose: it predicts again, with what was learned from the outcome, and compares that."""

    asked = None

    def _compare(self, situation):
        if self._due is not None and self.asked is not None:
            window, action = self.asked
            self._due = self._due[0], self._predict(window, situation.action_space.encode(action))
        super()._compare(situation)

    def _foresee(self, situation, action):
        super()._foresee(situation, action)
        self.asked = situation.window, action


def ordered(kind: type[AutoencoderConcatPredictorWorldModel]) -> tuple[list[str], list[tuple[float | None, float | None]]]:
    """What happened from each look to the next; and at each gradient step the error that was told and the one that is right."""
    robot, foreseen, errors = Heard(), [], []

    def select(situation):
        robot.told.append("select")
        return {"add": 1.0 + situation.step % 2}  # an action and nothing else

    def execute(action, execute=robot.execute_action):
        robot.told.append("nothing predicted" if made.predicted_frame is None else "predicted")
        foreseen.append(made.predicted_frame)
        return execute(action)

    def trained(iteration, loss):
        robot.told.append("train")
        expected, came = foreseen[-1], made.life.window.images[-1]
        errors.append((made.prediction_error, None if expected is None else float(np.square(expected / 255 - came / 255).mean())))

    robot.execute_action = execute  # type: ignore[method-assign]
    made = kind(robot, select, "cpu", trained, **QUICK, max_seconds=math.inf, max_updates=1, holds_out=lambda seen: False)
    robot.told.clear()
    made.run(5)
    return [part.strip("-") for part in "-".join(robot.told).split("look")[1:]], errors


def test_each_observation_goes_through_the_documented_order():
    """Look, compare, train, select, predict, execute; what is compared is what was predicted before anything was learned from the outcome."""
    (first, *later), ((none, nothing), *errors) = ordered(AutoencoderConcatPredictorWorldModel)
    assert first == "select-nothing predicted-execute", "there is no transition to learn from yet, and no canvas to predict on"
    assert later == ["train-select-predicted-execute"] * 4
    assert none is nothing is None and len(errors) == 3
    assert all(told == pytest.approx(right) and right > 0 for told, right in errors)


def test_comparing_in_hindsight_would_be_noticed():
    _, (_, *errors) = ordered(Hindsight)
    assert any(told != pytest.approx(right) for told, right in errors)


def test_training_is_bounded_by_the_gate_and_ends_early_where_it_is_good_enough():
    def updates(**gate) -> list[int]:
        robot = Heard()
        made = mind(robot, None, lambda *_: robot.told.append("train"), holds_out=lambda seen: False, **gate)
        robot.told.clear()
        made.run(6)
        assert len(made.loss_history) == made.life.learner.updates
        return [part.count("train") for part in "-".join(robot.told).split("look")[2:]]

    assert updates(reconstruction_skill=0.9999, max_updates=4) == [4] * 5, "an unreachable threshold ends too"
    assert updates(reconstruction_skill=-1e9, max_updates=4) == [1] * 5


def test_its_state_is_what_it_says():
    robot = Heard()
    made = mind(robot, lambda situation: {"add": 1.0 + situation.step % 2}, holds_out=lambda seen: False)
    assert made.training_canvas is made.reconstruction is made.prediction_canvas is made.predicted_frame is made.prediction_error is None
    made.run(6)
    space, (newest, before) = robot.action_space, (list(made.life.lived)[-1], list(made.life.lived)[-2])
    canvas = made.training_canvas
    assert canvas is not None and canvas.shape == (32, 3 * 32 + 2 * BAR, 3) and canvas.dtype == np.uint8
    np.testing.assert_array_equal(frames_of(canvas)[-1], newest.observation.image)
    np.testing.assert_array_equal(canvas[0, 2 * 32 + BAR], separator_color(space.encode(before.executed)))
    seen = made.reconstruction
    assert seen is not None and seen.shape == canvas.shape and not np.array_equal(seen, canvas)
    np.testing.assert_array_equal(seen[:, 32 : 32 + BAR], canvas[:, 32 : 32 + BAR])
    asked, shown = made.prediction_canvas, made.predicted_frame
    assert asked is not None and shown is not None
    np.testing.assert_array_equal(frames_of(asked)[1], newest.observation.image)
    np.testing.assert_array_equal(frames_of(asked)[2], shown)
    np.testing.assert_array_equal(asked[0, 2 * 32 + BAR], separator_color(space.encode(newest.executed)))
    np.testing.assert_array_equal(made.predict_next_frame(newest.executed), shown)
    other = made.predict_next_frame({"add": 3.0 - newest.executed["add"]})
    assert made.predicted_frame is other and made.prediction_canvas is not asked


def test_a_canvas_can_be_trained_on_by_hand():
    told, robot = [], Heard()
    made = mind(robot, None, lambda *heard: told.append(heard), holds_out=lambda seen: False)
    images, actions = [robot.get_observation().image for _ in range(3)], [{"add": 1.0}, {"add": 2.0}]
    codes = [robot.action_space.encode(action) for action in actions]
    canvas = build_canvas(images, codes, 3, BAR)
    weights = [weight.clone() for weight in made.life.learner.trained.parameters()]
    with pytest.raises(ActionError, match="give actions, one for each bar"):
        made.train_autoencoder(canvas)
    loss = made.train_autoencoder(canvas, actions)
    assert told == [(1, loss)] and list(made.loss_history) == [loss] and loss > 0
    assert any(not torch.equal(old, new) for old, new in zip(weights, made.life.learner.trained.parameters(), strict=True))
    made.train_autoencoder(canvas, codes)
    with pytest.raises(ActionError, match="other colours"):
        made.train_autoencoder(canvas, actions[::-1])
    with pytest.raises(ActionError, match="has 2 bars"):
        made.train_autoencoder(canvas, actions[:1])
    for wrong in (canvas[:, :-1], canvas / 255, None):
        with pytest.raises(FrameError, match="make it with build_canvas") as refused:
            made.train_autoencoder(wrong, actions)
        assert "\n" not in str(refused.value)
    assert len(told) == 2, "what was refused taught nothing"
    made.run(5)
    assert made.training_canvas is not None
    before = len(told)
    made.train_autoencoder(made.training_canvas)
    assert len(told) == before + 1


def test_a_frame_teaches_what_it_shows():
    """Fifty steps on one canvas: what was hidden is painted better than by an untrained model. The canvas is cut where it was glued."""
    made = mind(shift=(0, 0), learning_rate=3e-3)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (32, 32, 3)).astype(np.uint8)
    canvas = build_canvas([image, image, np.roll(image, 8, 1)], [np.array([1.0]), np.array([1.0])], 3, BAR)
    losses = [made.train_autoencoder(canvas, [np.array([1.0]), np.array([1.0])]) for _ in range(50)]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


def test_too_little_lived_is_said_in_a_sentence():
    made = mind()
    with pytest.raises(ConfigurationError, match="nothing was lived yet"):
        made.predict_next_frame({"add": 1.0})
    made.run(1)
    with pytest.raises(FrameError, match=r"1 of the 2 frames .* run some more") as refused:
        made.predict_next_frame({"add": 1.0})
    assert "\n" not in str(refused.value)
    made.run(1)
    assert made.predict_next_frame({"add": 1.0}).shape == (32, 32, 3)
    with pytest.raises(ConfigurationError, match="max_iterations is 0"):
        made.run(0)


def test_it_can_be_reset_and_goes_on_with_what_it_learned():
    made = mind(holds_out=lambda seen: False)
    made.run(5)
    learned = made.life.learner.updates
    made.reset_state()
    assert made.training_canvas is made.reconstruction is made.predicted_frame is None and not made.loss_history
    made.run(1)
    assert made.predicted_frame is None and len(made.life.window) == 1, "what comes next did not follow from what was seen"
    made.run(4)
    assert made.life.learner.updates > learned and made.life.steps_done == 10 and made.prediction_error is not None
    replay = made.life.learner.replay
    assert [run for run in replay._runs if run == 1] == [1, 1], "and is not learned as if it had"


def test_no_prediction_is_compared_with_another_episode():
    """Of an episode's four looks the first is new, the second fills the canvas for the first prediction, which the third is compared with."""
    compared = []

    def select(situation):
        compared.append((situation.episode, made.prediction_error is not None))
        return {"add": 1.0}

    made = mind(Heard(episode_steps=4), select, max_updates=1, holds_out=lambda seen: False)
    made.run(9)
    assert compared == [(episode, look > 1) for episode in range(2) for look in range(4)] + [(2, False)]


def test_the_robot_stops_first_and_is_never_cleaned_up_by_a_run():
    robot = Heard()

    def trained(iteration, loss):
        raise RuntimeError("the callback broke")

    made = mind(robot, None, trained)
    with pytest.raises(RuntimeError, match="the callback broke"):
        made.run(3)
    assert robot.told[-1] == "stop" and "cleanup" not in robot.told
    robot = Heard()
    made = mind(robot)
    made.run(2)
    made.run(2)
    assert robot.told.count("execute") == 4 and not {"stop", "cleanup"} & set(robot.told)


class Growing(Heard):
    """Its frames change their size."""

    def get_observation(self) -> Observation:
        seen = super().get_observation()
        return seen if self.told.count("look") < 5 else replace(seen, image=np.pad(seen.image, ((0, 8), (0, 0), (0, 0))))


def test_frames_that_change_their_size_end_it_in_a_sentence():
    robot = Growing()
    made = mind(robot)
    with pytest.raises(FrameError, match="keep one size") as refused:
        made.run(9)
    assert "\n" not in str(refused.value) and robot.told[-1] == "stop"


def test_a_canvas_that_makes_it_diverge_is_said():
    made = mind()
    with torch.no_grad():
        next(made.life.learner.trained.parameters()).fill_(math.nan)
    image = np.zeros((32, 32, 3), np.uint8)
    with pytest.raises(Diverged, match="not finite"):
        made.train_autoencoder(build_canvas([image] * 3, [np.array([1.0])] * 2, 3, BAR), [np.array([1.0])] * 2)
    assert made.robot.told[-1] == "stop"


def test_actions_are_random_unless_told_otherwise_and_two_lives_of_one_seed_are_alike():
    def life(seed):
        made = mind(seed=seed)
        made.run(12)
        return [step.executed["add"] for step in made.life.lived], list(made.loss_history)

    assert life(1) == life(1) != life(2)
    assert set(life(1)[0]) == {1.0, 2.0}


def test_looking_at_its_state_changes_nothing():
    def losses(looks: bool) -> list[float]:
        made = mind(seed=3)
        for _ in range(5):
            made.run(1)
            if looks:
                _ = made.training_canvas, made.reconstruction
        return list(made.loss_history)

    assert losses(True) == losses(False)


def test_it_is_saved_and_goes_on(tmp_path):
    with mind(checkpoint_dir=tmp_path) as made:
        made.run(4)
        updates = made.life.learner.updates
    with mind(checkpoint_dir=tmp_path) as again:
        again.run(3)
        assert again.life.steps_done == 7 and again.life.learner.updates > updates
        assert isinstance(again.world_model, CanvasWorldModel)
        assert read(look(again.robot).image)[0] > 4


def test_small_frames_stand_on_its_canvas_where_it_has_a_door():
    robot = Heard()
    made = mind(robot, image_size=(16, 16))
    made.run(4)
    assert made.training_canvas is not None and made.training_canvas.shape == (16, 3 * 16 + 2 * BAR, 3)
    assert made.predict_next_frame({"add": 1.0}).shape == (16, 16, 3)
