"""How a model changes: replay never crosses a border, the gate always ends, the learner repeats exactly."""

import math

import numpy as np
import pytest
import torch
from counting import Counting, read
from exams import squares
from hypothesis import given, settings
from hypothesis import strategies as st
from test_latent import small

from motorbabble.errors import ConfigurationError, FrameError
from motorbabble.experience import Observation
from motorbabble.learning import learner as learner_file
from motorbabble.learning.gate import GateConfig, QualityGate, stale
from motorbabble.learning.learner import ONLINE, Learner, LearnerConfig, shifted
from motorbabble.learning.replay import Replay, ReplayConfig
from motorbabble.learning.schedule import ScheduleConfig, decay_groups
from motorbabble.learning.surprise import Surprise, SurpriseConfig


def lived(steps: int, episode_steps: int | None = None, capacity: int = 5000, skip=()) -> Replay:
    """A counting robot's life in a replay."""
    robot, replay = Counting(episode_steps=episode_steps), Replay(ReplayConfig(capacity=capacity))
    led, episode = None, None
    rng = np.random.default_rng(0)
    for step in range(steps):
        seen = robot.get_observation()
        led = led if seen.episode == episode else None
        episode = seen.episode
        replay.skip() if step in skip else replay.add(seen.image, led)
        action = robot.action_space.candidates()[rng.integers(2)]
        led = robot.action_space.encode(robot.execute_action(action))
    return replay


def assert_whole(window) -> None:
    """Every frame of a counting robot follows from the one before by the action that stands between them."""
    read_out = [read(image) for image in window.images]
    for (before, _), (after, last), action in zip(read_out, read_out[1:], window.actions, strict=False):
        assert after == before + last
        assert last == (1 if action[0] < 0 else 2)


@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_a_window_is_a_true_stretch_of_life(length):
    for window in lived(60).sample(50, length, np.random.default_rng(1)):
        assert len(window) == length
        assert_whole(window)


def test_no_window_crosses_an_episode():
    replay = lived(60, episode_steps=4)
    windows = replay.sample(200, 3, np.random.default_rng(1))
    assert len(windows) == 200
    for window in windows:
        assert_whole(window)
    assert replay.sample(10, 6, np.random.default_rng(1)) == []


def test_no_window_touches_what_was_held_out():
    held_out = range(20, 25)
    replay = lived(60, skip=held_out)
    forbidden = counts_at(60, held_out)
    for window in replay.sample(300, 3, np.random.default_rng(1)):
        assert_whole(window)
        assert not {read(image)[0] for image in window.images} & forbidden


def counts_at(steps: int, some) -> set[int]:
    """What the counting robot of `lived` shows at some of its steps."""
    robot, rng, counts = Counting(), np.random.default_rng(0), set()
    for step in range(steps):
        if step in some:
            counts.add(read(robot.get_observation().image)[0])
        robot.execute_action(robot.action_space.candidates()[rng.integers(2)])
    return counts


def test_the_newest_window_ends_now():
    replay = lived(10)
    counts = [read(window.images[-1])[0] for window in replay.sample(500, 1, np.random.default_rng(0))]
    assert read(replay.newest(3).images[-1])[0] == max(counts)
    replay.skip()
    assert replay.newest(3) is None


def test_memory_is_bounded_and_stays_true():
    replay = lived(100, episode_steps=30, capacity=40)
    assert len(replay) == 40
    windows = replay.sample(300, 3, np.random.default_rng(1))
    for window in windows:
        assert_whole(window)
    assert min(read(window.images[0])[0] for window in windows) > 60


def test_recent_windows_are_drawn_more_often():
    replay = Replay(ReplayConfig(recent_share=0.5, recent_span=10))
    for i in range(200):
        replay.add(np.full((8, 8, 3), i, np.uint8), None if i == 0 else np.zeros(1, np.float32))
    newest = sum(window.images[-1, 0, 0, 0] >= 190 for window in replay.sample(2000, 2, np.random.default_rng(0)))
    assert 0.45 < newest / 2000 < 0.62


def test_the_mean_frame_is_the_mean():
    replay = Replay()
    for value in (0, 100, 200):
        replay.add(np.full((4, 4, 3), value, np.uint8), None)
    assert (replay.background() == 100).all()


def test_a_frame_of_another_size_is_refused():
    replay = Replay()
    replay.add(np.zeros((4, 4, 3), np.uint8), None)
    with pytest.raises(FrameError, match="keep one size"):
        replay.add(np.zeros((4, 8, 3), np.uint8), None)


numbers = st.floats(allow_nan=True, allow_infinity=True)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=60), st.integers(1, 20), st.integers(1, 5), st.integers(1, 30))
def test_the_gate_always_ends_and_never_passes_what_is_not_finite(stream, max_updates, at_least, patience):
    gate = QualityGate(GateConfig(max_updates=max_updates, patience=patience), at_least)
    for n, (loss, skill) in enumerate(stream, 1):
        outcome = gate.judge(loss, skill, 0.0)
        assert outcome in ("learning", "passed", "budget", "stalled", "diverged")
        if not (math.isfinite(loss) and math.isfinite(skill)):
            assert outcome == "diverged"
        if outcome == "passed":
            assert skill >= 0.9 and math.isfinite(loss)
        if outcome != "learning":
            assert n >= at_least or outcome == "diverged"
            return
        assert n < max(max_updates, at_least), "the budget of updates was overrun"


def test_the_gate_ends_by_the_clock():
    assert QualityGate(GateConfig(max_updates=100, max_seconds=2.0)).judge(1.0, 0.1, 2.5) == "budget"


def test_the_gate_says_when_nothing_improves():
    gate = QualityGate(GateConfig(max_updates=1000, patience=5))
    assert [gate.judge(1.0, 0.1, 0.0) for _ in range(6)] == ["learning"] * 5 + ["stalled"]


@pytest.mark.parametrize("bad", [{"max_updates": 0}, {"max_seconds": 0.0}, {"max_seconds": -1.0}, {"max_seconds": math.nan}, {"patience": 0}])
def test_a_gate_that_could_never_open_is_refused(bad):
    with pytest.raises(ConfigurationError, match="never opens"):
        GateConfig(**bad)


def test_warm_up_then_constant():
    schedule = ScheduleConfig("constant", 1e-3, warmup_steps=10)
    assert schedule.at(0) == pytest.approx(1e-4)
    assert schedule.at(9) == schedule.at(10) == schedule.at(10**6) == 1e-3


def test_warm_up_then_cosine_to_the_floor():
    schedule = ScheduleConfig("cosine", 1e-4, warmup_steps=600, total_steps=10_000)
    assert schedule.at(599) == schedule.at(600) == pytest.approx(1e-4)
    assert schedule.at(5300) == pytest.approx((1e-4 + 1e-6) / 2)
    assert schedule.at(10_000) == schedule.at(20_000) == pytest.approx(1e-6)  # max(1e-4 * 0.01, 1e-6)


@pytest.mark.parametrize("bad", [{"learning_rate": 0.0}, {"learning_rate": math.nan}, {"warmup_steps": -1}, {"kind": "cosine", "total_steps": 10}])
def test_a_schedule_that_cannot_work_is_refused(bad):
    with pytest.raises(ConfigurationError):
        ScheduleConfig(**bad)


def test_only_matrices_of_linear_layers_decay():
    model = small()
    decayed, others = decay_groups(model, 0.01)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert sorted(names) == sorted(id(p) for p in [*decayed["params"], *others["params"]]), "every parameter once"
    assert all(names[id(p)].endswith("weight") and "norm" not in names[id(p)] for p in decayed["params"])
    assert {"autoencoder.mask_token", "autoencoder.norm.weight", "autoencoder.patch_embed.bias"} <= {names[id(p)] for p in others["params"]}
    assert others["weight_decay"] == 0.0


def taught_learner(seed: int, steps: int = 6, **changes) -> Learner:
    torch.manual_seed(seed)
    learner = Learner(small(), LearnerConfig(batch_size=2, gate=GateConfig(max_seconds=math.inf), schedule=ONLINE.schedule, **changes), seed)
    window = squares(steps + 1)
    for i in range(steps):
        learner.remember(Observation(window.images[i]), window.actions[i - 1] if i else None)
        list(learner.study())
    return learner


def test_the_same_seed_learns_the_same_bits():
    one, two, other = taught_learner(0), taught_learner(0), taught_learner(1)
    weights = [torch.nn.utils.parameters_to_vector(learner.trained.parameters()) for learner in (one, two, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_the_averaged_weights_follow_the_trained_ones():
    learner = taught_learner(0, steps=12)
    trained, averaged = (torch.nn.utils.parameters_to_vector(m.parameters()) for m in (learner.trained, learner.world_model))
    start = torch.nn.utils.parameters_to_vector(taught_learner(0, steps=1).trained.parameters())
    assert 0 < (averaged - start).norm() < (trained - start).norm()
    without = taught_learner(0, ema_decay=0.0)
    assert without.world_model is without.trained


def test_a_step_that_is_not_finite_changes_no_weight():
    learner = taught_learner(0)
    before = torch.nn.utils.parameters_to_vector(learner.trained.parameters()).clone()
    averaged = torch.nn.utils.parameters_to_vector(learner.world_model.parameters()).clone()
    honest = learner.trained.losses
    learner.trained.losses = lambda batch: {name: value * math.nan for name, value in honest(batch).items()}
    assert [study.gate for study in learner.study()] == ["diverged"]
    assert torch.equal(before, torch.nn.utils.parameters_to_vector(learner.trained.parameters()))
    assert torch.equal(averaged, torch.nn.utils.parameters_to_vector(learner.world_model.parameters()))


def test_all_frames_of_a_window_and_its_background_shift_together():
    learner = taught_learner(0)
    window, mean = squares(3), learner.replay.background()
    batch = learner._batch([window], mean)
    images, background = ((x[0].movedim(-3, -1).numpy() * 255).round().astype(int) for x in (batch.images, batch.background))
    moves = [(dy, dx) for dy in range(-16, 17) for dx in range(-16, 17)]
    (move, *_) = [move for move in moves if np.array_equal(np.roll(window.images[0], move, (0, 1)), images[0])]
    assert all(np.array_equal(np.roll(a, move, (0, 1)), b) for a, b in zip(window.images, images, strict=True))
    assert np.array_equal(np.roll(mean, move, (0, 1)).round(), background)
    assert np.array_equal(window.actions, batch.actions[0].numpy())
    assert shifted(window, np.zeros(2, int), mean)[0] is window


def test_what_is_informative_does_not_depend_on_the_shift(monkeypatch):
    """A patch-wise shift moves what holds something, and with it the background it is compared with."""
    learner, marked = taught_learner(0), []
    honest = learner.trained._differs
    monkeypatch.setattr(learner.trained, "_differs", lambda *pair: marked.append(honest(*pair)) or marked[-1])
    for move in ((0, 0), (8, 16)):
        monkeypatch.setattr(learner_file, "shifted", lambda window, _, mean, m=move: shifted(window, np.array(m), mean))
        learner.update([squares(3)])
    assert marked[0].sum() == marked[2].sum() > 0  # two comparisons per update; the first is with the background


def test_all_chance_is_the_learners_own():
    """What torch's generator says changes nothing, and learning changes nothing in it."""
    one, two = taught_learner(0), taught_learner(0)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    losses = [learner.update([squares(3)] * 2) for learner in (one, two)]
    assert losses[0] == losses[1]
    assert torch.equal(before, torch.get_rng_state())


def test_a_background_can_be_given():
    one, two = taught_learner(0), taught_learner(0)
    losses = [learner.update([squares(3)], background=mean) for learner, mean in ((one, None), (two, np.full((32, 32, 3), 200.0)))]
    assert losses[0]["total"] != losses[1]["total"]


def test_nothing_is_studied_before_the_first_transition():
    learner = Learner(small(), ONLINE)
    learner.remember(Observation(squares(1).images[0]), None)
    assert list(learner.study()) == []


def test_only_a_newest_window_counts_as_fresh():
    learner = taught_learner(0)
    assert "fresh_error" in next(learner.study()).losses
    learner.replay.skip()
    assert "fresh_error" not in next(learner.study()).losses


def test_a_window_is_fresh_once():
    """Waiting at the gate, the newest window is learned from again and again; only the first prediction of it was blind."""
    learner = taught_learner(0)
    learner.config = LearnerConfig(batch_size=2, gate=GateConfig(reconstruction_skill=2.0, max_updates=3), schedule=ONLINE.schedule)
    assert ["fresh_error" in study.losses for study in learner.study()] == [True, False, False]


def test_a_model_that_names_only_its_total_learns_too():
    learner = taught_learner(0)
    honest = learner.trained.losses
    learner.trained.losses = lambda batch: {"total": honest(batch)["total"]}
    assert [study.gate for study in learner.study()] == ["passed"]


# Surprise


def met(moments: int, error: float, remembered: float, copy: float = 1.0, surprise: Surprise | None = None) -> Surprise:
    surprise = Surprise() if surprise is None else surprise
    for _ in range(moments):
        surprise.meet({"fresh_error": error, "fresh_copy_error": copy, "remembered_error": remembered, "remembered_copy_error": 1.0})
    return surprise


def test_it_is_surprised_by_what_is_worse_than_what_it_remembers():
    assert met(9, error=0.4, remembered=0.3).felt
    assert not met(9, error=0.36, remembered=0.3).felt
    assert not met(9, error=0.9, remembered=0.9).felt, "noise is as bad in memory"
    assert met(9, error=0.04, remembered=0.3, copy=0.1).felt, "a slow world, in which little changes anyhow"
    assert not met(9, error=0.1, remembered=0.2, copy=0.0).felt and not Surprise().felt, "nothing to compare with"


def test_a_surprise_passes():
    surprise = met(100, error=0.3, remembered=0.3)
    assert met(10, error=0.9, remembered=0.3, surprise=surprise).felt
    assert not met(60, error=0.3, remembered=0.3, surprise=surprise).felt


def test_what_is_no_number_and_what_is_missing_surprises_nobody():
    surprise = met(9, error=0.3, remembered=0.3)
    met(5, error=math.nan, remembered=0.3, surprise=surprise)
    surprise.meet({"fresh_error": 9.0, "fresh_copy_error": 1.0})
    assert surprise.state_dict() == met(9, error=0.3, remembered=0.3).state_dict()


@pytest.mark.parametrize("bad", [{"ratio": 1.0}, {"ratio": math.nan}, {"span": 0}, {"ema_decay": 1.0}])
def test_surprises_that_cannot_work_are_refused(bad):
    with pytest.raises(ConfigurationError):
        SurpriseConfig(**bad)


def test_all_but_one_of_the_windows_can_be_the_newest():
    replay = Replay(ReplayConfig(recent_share=0.0))
    for i in range(200):
        replay.add(np.full((8, 8, 3), i, np.uint8), None if i == 0 else np.zeros(1, np.float32))
    rng = np.random.default_rng(0)
    ends = np.array([[window.images[-1, 0, 0, 0] for window in replay.sample(3, 2, rng, newest=10)] for _ in range(200)])
    assert (ends[:, :2] >= 190).all()
    assert (ends[:, 2] < 190).mean() > 0.8


def surprised(learner: Learner) -> Learner:
    met(9, error=0.9, remembered=0.1, surprise=learner.surprise)
    return learner


def test_a_surprised_learner_learns_twice_as_much_of_what_is_new_and_acts_on_it_sooner():
    asked, gone = [], []
    for learner, updates in ((taught_learner(0, steps=30), 1), (surprised(taught_learner(0, steps=30)), 2)):
        learner.config = LearnerConfig(batch_size=4, gate=GateConfig(reconstruction_skill=-9.0), schedule=ONLINE.schedule)
        sample = learner.replay.sample
        learner.replay.sample = lambda *how, sample=sample: asked.append(how[3]) or sample(*how)  # type: ignore[method-assign]
        before = torch.nn.utils.parameters_to_vector(learner.world_model.parameters())
        assert len(list(learner.study())) == updates
        after, trained = (torch.nn.utils.parameters_to_vector(model.parameters()).detach() for model in (learner.world_model, learner.trained))
        gone.append(float((after - before).norm() / (trained - before).norm()))  # of the way to the trained weights
    assert asked == [None, 50, 50]
    assert gone[1] > 1.5 * gone[0], gone


def test_a_new_world_surprises_and_is_learned_sooner_for_it():
    """Grey squares that go right; then, from one moment to the next, squares that go down in another light."""
    other = squares(31, seed=5)
    images, errors = 255 - other.images.swapaxes(1, 2), {}
    for ratio in (SurpriseConfig().ratio, math.inf):
        learner = taught_learner(0, steps=40, surprise=SurpriseConfig(ratio=ratio), ema_decay=0.0)
        assert not learner.surprise.felt
        errors[ratio] = 0.0
        for image, led in zip(images, [None, *other.actions], strict=True):
            learner.remember(Observation(image), led)
            errors[ratio] += sum(study.losses.get("fresh_error", 0.0) for study in learner.study())
        assert learner.surprise.felt == (ratio < math.inf)
    surprised, never = errors.values()
    assert surprised < 0.9 * never


@pytest.mark.parametrize("bad", [{"batch_size": 0}, {"updates_per_step": 0}, {"shift": (-1, 0)}, {"clip_norm": 0.0}, {"ema_decay": 1.0}])
def test_settings_that_cannot_work_are_refused(bad):
    with pytest.raises(ConfigurationError):
        LearnerConfig(**bad)


@pytest.mark.parametrize(
    ("skills", "rounds"),
    [([], 0), ([0.1], 0), ([0.1, 0.2, 0.3], 0), ([0.1, 0.2, 0.2, 0.2], 2), ([0.1, 0.101, 0.1015], 2), ([-9.0, -5.0, -5.0], 1)],
)
def test_a_plateau_is_counted_from_the_last_real_gain(skills, rounds):
    assert stale(skills, 0.002) == rounds
