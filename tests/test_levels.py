"""Levels of prediction: when they come and go, what they learn from, and what growing must leave as it was."""

import math
import time

import numpy as np
import pytest
import torch
from exams import squares
from hypothesis import given
from hypothesis import strategies as st
from test_card import SPACE, FakeMind, RollWorld, a_life
from test_latent import small

from motorbabble.agents import learn
from motorbabble.analysis.card import make_card, thinking
from motorbabble.analysis.levels import level_numbers
from motorbabble.errors import ActionError, CheckpointMismatch, ConfigurationError
from motorbabble.experience import Observation, Study, Window
from motorbabble.learning.gate import GateConfig
from motorbabble.learning.learner import ONLINE, Learner, LearnerConfig
from motorbabble.learning.levels import Levels, LevelsConfig
from motorbabble.learning.state import grow_as_saved
from motorbabble.robots.toroidal_dot import ToroidalDotRobot
from motorbabble.world_models.base import Batch, Imagination
from motorbabble.world_models.latent import LatentWorldModel

CONFIG = LevelsConfig(most_levels=4, level_evaluations=5)


def scored(levels: Levels, level: int, skill: float, times: int) -> Levels:
    for _ in range(times):
        levels.score(level, (1 - skill) * 0.01, 0.01)
    return levels


# When they come and go


def test_one_more_is_wanted_when_the_highest_was_good_often_enough_in_a_row():
    levels = scored(Levels(CONFIG), 0, 0.95, 4)
    assert levels.verdict()[0] == 1
    assert levels.verdict()[0] == 1  # asking changes nothing
    wanted, why = scored(levels, 0, 0.95, 1).verdict()
    assert wanted == 2 and "0.95" in why


def test_one_bad_stretch_begins_the_count_anew():
    levels = scored(Levels(CONFIG), 0, 0.95, 4)
    scored(levels, 0, -1.0, 1)
    assert scored(levels, 0, 0.99, 4).verdict()[0] == 1


def test_a_level_above_a_good_one_must_itself_be_good():
    levels = scored(Levels(CONFIG), 0, 0.95, 9)
    levels.grown()
    assert scored(levels, 0, 0.95, 50).verdict()[0] == 2
    assert scored(levels, 1, 0.5, 50).verdict()[0] == 2
    assert scored(levels, 1, 0.95, 60).verdict()[0] == 3


def test_what_was_built_on_a_level_that_turns_bad_goes():
    levels = scored(Levels(CONFIG), 0, 0.95, 9)
    for level in (1, 2):
        levels.grown()
        scored(levels, level, 0.95, 9)
    wanted, why = scored(levels, 0, -0.5, 30).verdict()
    assert wanted == 1 and "level 0" in why
    levels = scored(levels, 0, 0.95, 60)
    assert scored(levels, 1, 0.0, 60).verdict()[0] == 2
    scored(levels, 1, 0.95, 60)
    assert scored(levels, 2, -3.0, 60).verdict()[0] == 3  # nothing stands on the highest


def test_between_good_and_bad_nothing_changes():
    levels = scored(Levels(CONFIG), 0, 0.95, 9)
    levels.grown()
    assert scored(levels, 0, 0.6, 100).verdict()[0] == 2


def test_a_prediction_that_is_no_number_counts_as_a_very_bad_one():
    levels = scored(Levels(CONFIG), 0, 0.95, 20)
    levels.grown()
    for _ in range(10):
        levels.score(0, math.nan, 0.01)
    assert levels.records[0].skill is not None and levels.records[0].skill < -1
    assert levels.verdict()[0] == 1


def test_where_nothing_changed_nothing_is_counted():
    levels = Levels(CONFIG)
    for _ in range(50):
        levels.score(0, 0.0, 0.0)
    assert levels.records[0].skill is None and levels.verdict()[0] == 1


def test_lookahead_is_the_largest_span_that_is_good_now():
    levels = Levels(CONFIG)
    assert levels.lookahead((1,)) == 0
    scored(levels, 0, 0.95, 9)
    levels.grown()
    assert levels.lookahead((1, 2)) == 1
    assert scored(levels, 1, 0.9, 20).lookahead((1, 2)) == 2
    assert scored(levels, 1, 0.5, 20).lookahead((1, 2)) == 1


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(-5, 1), st.integers(1, 12)), max_size=40))
def test_whatever_happens_there_is_one_level_at_least_and_never_more_than_wanted(course):
    levels = Levels(CONFIG)
    for level, skill, times in course:
        for _ in range(times):
            if level < len(levels):
                scored(levels, level, skill, 1)
            before, (wanted, why) = len(levels), levels.verdict()
            assert 1 <= wanted <= CONFIG.most_levels and wanted <= before + 1
            assert (wanted == before) == (why == "")
            while len(levels) > wanted:
                levels.retired()
            if wanted > len(levels):
                levels.grown()
    again = Levels(CONFIG)
    again.load_state_dict(levels.state_dict())
    assert again.verdict() == levels.verdict() and again.state_dict() == levels.state_dict()


@pytest.mark.parametrize(
    "bad", [{"most_levels": 0}, {"most_levels": 99}, {"level_evaluations": 0}, {"evaluate_every": 0}, {"retire_skill": 0.9}, {"level_skill": 1.0}]
)
def test_settings_that_cannot_work_are_refused(bad):
    with pytest.raises(ConfigurationError):
        LevelsConfig(**bad)


# What they learn from


def grown(levels: int = 2, **changes) -> LatentWorldModel:
    torch.manual_seed(0)
    model = small(prediction_history_size=2, **changes)
    for seed in range(levels):
        model.grow(seed)
    return model


def moving(frames: int, actions: list[int]) -> Window:
    """A bright square that each action moves: 0 not at all, 1 four pixels to the right."""
    images = np.zeros((frames, 32, 32, 3), np.uint8)
    for frame in range(frames):
        x = (4 + 4 * sum(actions[:frame])) % 32
        images[frame, 12:20, np.arange(x, x + 8) % 32] = 255
    return Window(images, np.eye(2, dtype=np.float32)[actions[: frames - 1]])


def test_a_level_learns_and_every_action_of_its_sequence_counts():
    model = grown(2)
    plans = [[int(bit) for bit in f"{number:04b}"] for number in range(16)]
    windows = [moving(6, [1, *plan]) for plan in plans]
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for draw in range(150):
        some = [windows[i] for i in np.random.default_rng(draw).choice(16, 8, replace=False)]
        optimizer.zero_grad()
        model.level_losses(2, Batch.of(some, draw=draw))["total"].backward()
        optimizer.step()
    seen = Window(windows[0].images[:2], windows[0].actions[:1])
    encoded = np.stack([window.actions[1:] for window in windows])
    images = model.eval().imagine(seen, encoded, level=2).images[:, 0]
    truth = torch.from_numpy(np.stack([window.images[-1] for window in windows])).movedim(-1, 1) / 255
    kept = torch.from_numpy(seen.images[-1]).movedim(-1, 0) / 255
    moved = [i for i, plan in enumerate(plans) if sum(plan)]
    assert (images[moved] - truth[moved]).square().mean() < 0.3 * (kept - truth[moved]).square().mean()
    for place in range(4):
        other = encoded.copy()
        other[:, place] = other[:, place, ::-1]
        flipped = model.imagine(seen, other, level=2).images[:, 0]
        assert (flipped - images).abs().amax((1, 2, 3)).min() > 0.2, f"action {place} of the sequence"


def test_a_level_looks_at_no_frame_behind_the_one_it_starts_from():
    model = grown(2)
    window = squares(6)
    other = Window(np.concatenate((window.images[:2], 255 - window.images[2:5], window.images[5:])), window.actions)
    for draw in range(4):  # with and without context
        one, two = (model.level_losses(2, Batch.of([w], np.zeros((1, 32, 32, 3)), draw=draw)) for w in (window, other))
        assert {name: float(value.detach()) for name, value in one.items()} == {name: float(value.detach()) for name, value in two.items()}


def test_context_is_told_only_what_is_known_when_the_newest_frame_is_seen():
    model = grown(2)
    rung = model._rung(2)
    actions = torch.arange(1.0, 7.0)[None, :, None]  # two frames of context, then a sequence of four
    told = rung.told(actions, 2)
    assert told[0, :, :, 0].tolist() == [[1, 2, 0, 0], [2, 0, 0, 0], [3, 4, 5, 6]]
    assert told[0, :, :, 1].tolist() == [[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]]
    known = rung.told(torch.cat((actions[:, :2], 9 * actions[:, 2:]), 1), 2)
    assert torch.equal(told[:, :2], known[:, :2])


def test_levels_teach_the_encoder_nothing():
    model = grown(1)
    torch.nn.init.normal_(model.higher[0].predictor.head.weight, std=0.1)
    model.level_losses(1, Batch.of([squares(4)] * 2))["total"].backward()
    assert model.autoencoder.patch_embed.weight.grad is None
    assert model.predictor.head.weight.grad is None
    assert all(p.grad is not None for name, p in model.higher[0].named_parameters() if "gain" in name or "mask_head" in name)


def test_a_level_with_one_frame_only_learns_without_context():
    assert torch.isfinite(grown(2).level_losses(2, Batch.of([squares(5)] * 2))["total"])


# What they imagine


def test_an_untrained_level_shows_the_frame_it_starts_from():
    window = squares(2)
    images = grown(2).eval().imagine(window, np.zeros((3, 8, 2), np.float32), level=2).images
    assert images.shape == (3, 2, 3, 32, 32)
    torch.testing.assert_close(images[:, 0], (torch.from_numpy(window.images[-1]).movedim(-1, 0) / 255).expand(3, -1, -1, -1), atol=1e-4, rtol=0)


def test_it_starts_from_the_weights_below():
    model = small()
    with torch.no_grad():
        for parameter in (*model.predictor.parameters(), *model.mover.parameters()):
            parameter.add_(torch.randn_like(parameter), alpha=0.01)
    model.grow(0)
    level = model.higher[0]
    assert torch.equal(level.predictor.blocks[0].attn.qkv.weight, model.predictor.blocks[0].attn.qkv.weight)
    assert torch.equal(level.predictor.action_embed.each.fc1.weight, model.predictor.action_embed.fc1.weight)
    assert torch.equal(level.mover.mask_head.weight, model.mover.mask_head.weight)
    assert torch.equal(level.mover.distance_head.weight, model.mover.distance_head.weight)
    assert level.predictor.head.weight.abs().max() == 0


def test_all_plans_in_one_batch_are_the_plans_one_by_one():
    model = grown(2)
    for parameter in model.higher.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    model.eval()
    plans = np.random.default_rng(0).uniform(-1, 1, (3, 8, 2)).astype(np.float32)
    together = model.imagine(squares(2), plans, level=2)
    assert together.uncertainty.shape == together.expected_error.shape == (3, 2)
    for i, plan in enumerate(plans):
        alone = model.imagine(squares(2), plan[None], level=2)
        torch.testing.assert_close(together.images[i], alone.images[0], atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(together.uncertainty[i], alone.uncertainty[0], atol=1e-4, rtol=1e-3)
    first = model.imagine(squares(2), plans[:, :4], level=2, pictures=False)
    assert first.images is None
    torch.testing.assert_close(first.uncertainty, together.uncertainty[:, :1])


def test_a_plan_that_does_not_fit_a_level_is_refused_in_one_sentence():
    model, window = grown(1), squares(2)
    with pytest.raises(ActionError, match="predicts 2 actions at once, a plan of 3 is no multiple"):
        model.imagine(window, np.zeros((1, 3, 2), np.float32), level=1)
    for level in (2, -1):
        with pytest.raises(ConfigurationError, match=f"no level {level}; this model has 2"):
            model.imagine(window, np.zeros((1, 4, 2), np.float32), level=level)
    assert model.spans == (1, 2)


def test_a_new_level_knows_already_what_the_one_below_learned_of_single_actions():
    """A level whose predictor and mover were made anew does not."""
    torch.manual_seed(0)
    model = small(prediction_history_size=2)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for draw in range(160):
        rng = np.random.default_rng(draw)
        optimizer.zero_grad()
        model.losses(Batch.of([moving(3, [1, *rng.integers(0, 2, 1).tolist()]) for _ in range(4)], draw=draw))["total"].backward()
        optimizer.step()

    def error() -> float:
        window = moving(4, [1, 1, 1])
        image = model.eval().imagine(window.last(4), window.actions[None, 1:], level=1).images[0, -1]
        truth, kept = (torch.from_numpy(frame).movedim(-1, 0) / 255 for frame in (moving(6, [1, 1, 1, 1, 1]).images[-1], window.images[-1]))
        return float((image - truth).square().mean() / (kept - truth).square().mean())

    model.grow(0)
    assert error() < 0.6
    fresh = small(prediction_history_size=2)
    fresh.grow(0)
    model.higher = fresh.higher
    assert error() > 0.9


# Growing in mid-life


def taught(steps: int = 8, seed: int = 0, **levels) -> Learner:
    torch.manual_seed(seed)
    config = LearnerConfig(
        batch_size=2, gate=GateConfig(max_seconds=math.inf, max_updates=1), schedule=ONLINE.schedule, levels=LevelsConfig(**levels)
    )
    learner = Learner(small(prediction_history_size=2), config, seed)
    studied(learner, steps)
    return learner


def studied(learner: Learner, steps: int) -> list[Study]:
    window, studies = squares(steps + 1, seed=learner.replay.moments), []
    for i in range(steps):
        learner.remember(Observation(window.images[i]), window.actions[i - 1] if i or learner.replay.moments else None)
        studies += learner.study()
    return studies


def flat(parameters) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector([parameter.detach() for parameter in parameters])


def test_growing_leaves_everything_else_as_it_was():
    learner = taught()
    before, chance = flat(learner.trained.parameters()).clone(), torch.get_rng_state()
    moments = {parameter: {name: value.clone() for name, value in state.items()} for parameter, state in learner.optimizer.state.items()}
    learner.grow()
    assert torch.equal(chance, torch.get_rng_state()), "torch's own generator was drawn from"
    assert torch.equal(before, flat(p for name, p in learner.trained.named_parameters() if not name.startswith("higher")))
    assert all(torch.equal(learner.optimizer.state[parameter][name], value) for parameter, state in moments.items() for name, value in state.items())
    assert torch.equal(flat(learner.trained.higher.parameters()), flat(learner.world_model.higher.parameters()))
    assert not any(parameter.requires_grad for parameter in learner.world_model.parameters())
    held = [parameter for group in learner.optimizer.param_groups for parameter in group["params"]]
    assert len(held) == len(set(held)) == len(list(learner.trained.parameters()))


def test_the_same_seed_grows_the_same_bits():
    one, two = taught(), taught()
    for learner in (one, two):
        torch.manual_seed(int(learner is one))
        learner.grow()
        studied(learner, 6)
    assert torch.equal(flat(one.trained.parameters()), flat(two.trained.parameters()))


def test_a_level_that_grew_is_learned_and_averaged_and_can_go_again():
    learner = taught(12)
    learner.grow()
    learner.grow()
    start = [flat(level.parameters()) for level in learner.trained.higher]
    studies = studied(learner, 6)
    assert {"level_1/patch", "level_2/latent"} <= {name for study in studies for name in study.losses}
    for level, averaged, first in zip(learner.trained.higher, learner.world_model.higher, start, strict=True):
        assert 0 < (flat(averaged.parameters()) - first).norm() < (flat(level.parameters()) - first).norm()
    lower = flat(learner.trained.higher[0].parameters())
    learner.retire()
    assert learner.trained.spans == learner.world_model.spans == (1, 2) and len(learner.levels) == 2
    alive = set(learner.trained.parameters())
    assert set(learner.optimizer.state) <= alive
    assert {parameter for group in learner.optimizer.param_groups for parameter in group["params"]} == alive
    assert torch.equal(lower, flat(learner.trained.higher[0].parameters()))
    studied(learner, 4)
    assert not torch.equal(lower, flat(learner.trained.higher[0].parameters()))


def test_the_newest_frame_is_foreseen_before_it_is_learned_from():
    """Each level in its turn, by the model that acts, from as many actions before as it spans."""
    learner = taught(12, evaluate_every=1)
    learner.grow()
    learner.grow()
    asked = []
    honest = learner.world_model.imagine
    learner.world_model.imagine = lambda window, plans, **more: asked.append((window, plans, more["level"])) or honest(window, plans, **more)
    studies = studied(learner, 6)
    assert [level for *_, level in asked] == [1, 2] * 3 or [level for *_, level in asked] == [2, 1] * 3
    names = [name for study in studies for name in study.losses if name.startswith("prediction_errors/")]
    assert names == [f"prediction_errors/level_{level}" for *_, level in asked]
    frames, led = learner.replay._frames, learner.replay._led
    for place, (window, plans, level) in enumerate(asked):
        end = len(frames) - 6 + place
        assert np.array_equal(window.images[-1], frames[end - 2**level])
        assert np.array_equal(plans[0], np.stack(led[end - 2**level + 1 : end + 1]))


def test_nothing_is_foreseen_across_what_was_held_out():
    learner = taught(12, evaluate_every=1)
    learner.grow()
    learner.replay.skip()
    studies = studied(learner, 4)
    foreseen = [study.update for study in studies if any(name.startswith("prediction_errors/") for name in study.losses)]
    assert foreseen == [study.update for study in studies][-2:], "from the third frame after the gap on"


def test_a_life_grows_a_level_and_says_so_and_retires_it_when_what_it_stands_on_gets_worse():
    robot = ToroidalDotRobot(image_size=32, dot_radius=3, move_pixels=8, seed=0)
    sizes = {"patch_size": 8, "width": 16, "depth": 1, "heads": 2, "decoder_width": 16, "moved_layers": 1, "action_embed_dim": 8}
    run = learn(robot, selector="random", steps=60, max_seconds=math.inf, level_skill=-0.05, retire_skill=-0.06, level_evaluations=2, **sizes)
    for _ in run:
        if len(run.learner.levels) == 3:
            break
    assert run.world_model.spans == (1, 2, 4)
    assert [note.split(" of ")[0] for note in run.notes] == ["Level 1", "Level 2"] and all("was created after" in note for note in run.notes)
    with torch.no_grad():
        for model in (run.learner.trained, run.world_model):
            torch.nn.init.normal_(model.predictor.head.weight)  # it forgets all it knew
    for _ in run:
        if len(run.learner.levels) < 3:
            break
    assert run.world_model.spans[-1] < 4 and "was retired" in run.notes[-1]


def test_a_level_that_is_no_number_any_more_goes_alone():
    learner = taught(level_skill=0.99, retire_skill=0.0)
    learner.grow()
    with torch.no_grad():
        learner.trained.higher[0].predictor.head.weight.fill_(math.nan)
    below = flat(learner.trained.predictor.parameters()).clone()
    told = studied(learner, 1)
    assert learner.trained.spans == learner.world_model.spans == (1,) and "no longer numbers" in " ".join(told[0].notes)
    assert told[0].gate != "diverged" and torch.equal(flat(learner.trained.predictor.parameters()), below), "the step was not taken"
    assert all(math.isfinite(study.losses["total"]) for study in told + studied(learner, 2)), "life goes on"


def test_no_level_is_wanted_where_most_levels_says_so():
    learner = taught(16, most_levels=1, level_skill=-9.0, retire_skill=-10.0, level_evaluations=1)
    assert learner.trained.spans == (1,)
    assert taught(16, level_skill=-9.0, retire_skill=-10.0, level_evaluations=1).trained.spans == (1, 2, 4)


def test_no_level_is_grown_that_no_run_is_long_enough_for():
    learner = taught(0, level_skill=-9.0, retire_skill=-10.0, level_evaluations=1)
    window = squares(3)
    for _ in range(10):  # episodes of 3 frames
        for i in range(3):
            learner.remember(Observation(window.images[i]), window.actions[i - 1] if i else None)
            list(learner.study())
    assert learner.trained.spans == (1, 2)


@pytest.mark.parametrize("count", [0, 99])
def test_a_checkpoint_with_an_absurd_number_of_levels_is_refused(count):
    with pytest.raises(CheckpointMismatch, match=f"has {count} levels"):
        grow_as_saved(taught(2), {"levels": {"records": [{}] * count}})


# On the card


class Leaping(FakeMind):
    """A mind that knows what any number of actions does. Its level 1 is off by `slip` pixels, and any level takes its time for each pass."""

    spans = (1, 2)

    def __init__(self, slip: int = 0):
        super().__init__()
        self.slip = slip

    def imagine(self, window, plans, *, pictures=True, level=0):
        seen = super().imagine(window, plans, pictures=pictures)
        if seen.images is None:
            return seen
        if plans.shape[:2] == (1, 2):  # as it is timed
            time.sleep(0.01 * 2 / self.spans[level])
        images = seen.images[:, self.spans[level] - 1 :: self.spans[level]]
        return Imagination(images.roll(self.slip if level else 0, -1), seen.uncertainty[:, : images.shape[1]])


@pytest.mark.parametrize("slip", [0, 9])
def test_the_card_holds_each_level_against_rolling_out_the_one_below(slip):
    card = make_card(Leaping(slip), SPACE, a_life(), a_life(seed=1, start=(33, 50)), robot=RollWorld())
    (told,) = card.numbers["levels"]["levels"]
    assert (told["level"], told["span"], told["skill_rolled_out"]) == (1, 2, 1.0) and told["starts"] > 20
    assert told["cost_ratio"] < 0.9
    (sentence,) = [said for said in card.sentences() if "2 actions at once" in said]
    page = card.to_html()
    assert "Several actions at once" in page
    if slip:
        assert told["skill"] < 0.5 and sentence.startswith("It has begun to predict")
    else:
        assert told["skill"] == 1.0 and sentence.startswith("It predicts 2 actions at once: skill 1.00")


def test_a_card_of_a_mind_without_levels_says_nothing_of_them():
    card = make_card(FakeMind(), SPACE, a_life(), a_life(seed=1, start=(33, 50)), robot=RollWorld())
    assert card.numbers["levels"] == {"levels": [], "lookahead": 32}
    assert "at once" not in card.to_html()


@pytest.mark.parametrize(
    ("mind", "horizon", "actions"),
    [(FakeMind(), [0.9, 0.85, 0.7, 0.95], 2), (FakeMind(), [0.7, 0.9], 0), (Leaping(), [0.7, 0.9], 2), (Leaping(9), [0.7, 0.9], 0)],
)
def test_lookahead_on_the_card_ends_where_rolling_out_is_no_longer_good_unless_a_level_sees_further(mind, horizon, actions):
    with thinking(mind):
        assert level_numbers(mind, a_life(seed=1, start=(33, 50)), SPACE, horizon)["lookahead"] == actions
