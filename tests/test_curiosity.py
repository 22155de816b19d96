"""What a robot wants to know: plans, expected errors, learning progress; and that a resumed one wants the same."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from counting import Counting
from torch import nn

from motorbabble.agents import learn
from motorbabble.errors import ConfigurationError
from motorbabble.experience import ActionSpace, Channel, Situation, Step, Window
from motorbabble.learning.gate import GateConfig
from motorbabble.learning.learner import ONLINE
from motorbabble.memory import MemoryConfig
from motorbabble.selectors import LearningProgressSelector, PredictionErrorSelector, UncertaintySelector
from motorbabble.selectors.curious import MOST_PLANS, plans_of
from motorbabble.selectors.progress import region, thumbnail
from motorbabble.world_models.base import Imagination, WorldModel

SPACE = ActionSpace.discrete([{"action": 0}, {"action": 1}], ordered=False, labels=("noise", "lesson"))


class Grey(WorldModel):
    """Imagines an even grey per action, whatever it sees."""

    def __init__(self, spans=(1,), expected=None):
        super().__init__()
        self.image_shape, self.action_size, self.history = (16, 16), 2, 2
        self.grey = nn.Parameter(torch.tensor([0.5, 0.0]), requires_grad=False)
        self._spans, self.expected, self.asked = spans, expected, []

    @property
    def spans(self):
        return self._spans

    def reconstruct(self, images):
        return torch.zeros(len(images), 3, 16, 16)

    def losses(self, batch):
        return {"total": torch.zeros(())}

    def imagine(self, window, plans, *, pictures=True, level=0):
        self.asked.append((len(plans), plans.shape[1], level))
        index = torch.from_numpy(plans[..., :: self.spans[level], :].argmax(-1) if level else plans.argmax(-1))
        images = self.grey[index][..., None, None, None].expand(-1, -1, 3, 16, 16) if pictures else None
        unsure = torch.from_numpy(plans[..., 1]).reshape(len(plans), -1, self.spans[level]).mean(-1)
        return Imagination(images, unsure, None if self.expected is None else torch.tensor(self.expected)[index])


def seen(before: np.ndarray, action: int, now: np.ndarray, model: WorldModel, step: int) -> Situation:
    return Situation(Window(np.stack([before, now]), np.eye(2, dtype=np.float32)[None, action]), SPACE, model, step)


def test_all_short_plans_and_a_fair_share_of_long_ones():
    rng = np.random.default_rng(0)
    assert sorted(map(tuple, plans_of(2, 3, rng))) == [(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)]
    many = plans_of(5, 8, rng)
    assert many.shape == (60, 8) and len(many) <= MOST_PLANS
    assert np.bincount(many[:, 0]).tolist() == [12] * 5
    assert 0.55 < np.mean(many[:, 1:] == many[:, :-1]) < 0.9, "actions often repeat, or a plan leads nowhere"
    assert len(plans_of(100, 3, rng)) == 100, "every first action has a plan"


@pytest.mark.parametrize(("length", "spans", "level"), [(1, (1, 2, 4), 0), (2, (1, 2, 4), 1), (4, (1, 2, 4), 2), (4, (1,), 0), (6, (1, 2, 4), 1)])
def test_plans_run_through_the_highest_level_that_fits(length, spans, level):
    model, frame = Grey(spans), np.zeros((16, 16, 3), np.uint8)
    choice = UncertaintySelector(epsilon=0, babble=0, plan_length=length)(seen(frame, 0, frame, model, 5))
    assert model.asked[-1][1:] == (length, level)
    assert choice.action == {"action": 1} and set(choice.scores) == {"noise", "lesson"} and choice.why


def test_expected_error_is_what_the_contrast_case_wants():
    frame = np.zeros((16, 16, 3), np.uint8)
    choice = PredictionErrorSelector(epsilon=0, babble=0)(seen(frame, 0, frame, Grey(expected=[0.3, 0.1]), 5))
    assert choice.action == {"action": 0} and "most wrong" in choice.why
    with pytest.raises(ConfigurationError, match="use selector uncertainty"):
        PredictionErrorSelector(epsilon=0, babble=0)(seen(frame, 0, frame, Grey(), 5))


def test_temperature_draws_by_score():
    frame = np.zeros((16, 16, 3), np.uint8)
    select = UncertaintySelector(epsilon=0, babble=0, temperature=1.0)
    better = np.mean([select(seen(frame, 0, frame, Grey(), 5)).action["action"] for _ in range(400)])
    assert abs(better - np.exp(2) / (1 + np.exp(2))) < 0.05, "two scores are one standard deviation above and below their mean"


@pytest.mark.parametrize("bad", [{"temperature": -1.0}, {"plan_length": 0}, {"epsilon": 2.0}, {"babble": -1}])
def test_settings_that_cannot_work(bad):
    with pytest.raises(ConfigurationError):
        UncertaintySelector(**bad)


def lived(select: LearningProgressSelector, steps: int, seed: int = 0) -> list[int]:
    """Action 0 shows noise; action 1 a grey that the model learns, a fortieth of the way at a time."""
    rng, model, action = np.random.default_rng(seed), Grey(), 0
    frame, chosen = np.zeros((16, 16, 3), np.uint8), []
    for step in range(steps):
        now = rng.integers(0, 256, (16, 16, 3), np.uint8) if action == 0 else np.full((16, 16, 3), 200, np.uint8)
        model.grey[action] += 0.025 * (now.mean() / 255 - model.grey[action])
        choice = select(seen(frame, action, now, model, step))
        action, frame = int(choice.action["action"]), now
        chosen.append(action)
    return chosen


def test_progress_prefers_what_can_be_learned_to_noise():
    chosen = [lived(LearningProgressSelector(seed, places=1), 70, seed)[10:] for seed in range(4)]
    assert np.mean(chosen) > 0.6

    class Wrong(LearningProgressSelector):
        """Broken on purpose: it wants whatever is wrong now."""

        def scores(self, situation, model, candidates):
            self.progress = {name: -value if name.endswith("lesson") else 1.0 for name, value in self.progress.items()}
            return super().scores(situation, model, candidates)

    assert np.mean([lived(Wrong(seed, places=1), 70, seed)[10:] for seed in range(4)]) < 0.5


def test_places_are_told_apart_and_nothing_is_counted_twice():
    select = LearningProgressSelector(0, places=2, babble=0)
    black, white = np.zeros((16, 24, 3), np.uint8), np.full((16, 24, 3), 255, np.uint8)
    assert [select._place(image) for image in (black, white, black, white)] == [0, 1, 0, 1]
    assert select.visits == [2, 2]
    np.testing.assert_allclose(thumbnail(white), 1.0)
    np.testing.assert_allclose(thumbnail(white[:5, :7]), 1.0)  # smaller than a thumbnail
    half = white.copy()
    half[:, 12:] = 0
    assert thumbnail(half).reshape(8, 8, 3)[:, :4].min() == 1 and thumbnail(half).reshape(8, 8, 3)[:, 4:].max() == 0


def test_actions_of_a_box_share_regions():
    box = ActionSpace.box([Channel("speed", -1, 1)], rest={"speed": 0})
    names = {region(3, box, np.array([speed], np.float32)) for speed in np.linspace(-1, 1, 101)}
    assert 3 <= len(names) <= 5


def test_a_resumed_one_wants_the_same(folder):
    """Weights of the older self, clusters and the moment between two looks are all kept."""
    settings = replace(ONLINE, gate=GateConfig(max_updates=1, max_seconds=float("inf")), batch_size=2, shift=(2, 2))
    tiny = {"patch_size": 8, "width": 16, "depth": 1, "heads": 2, "decoder_width": 16, "moved_layers": 1}

    def life(name: str, steps: int):
        memory = MemoryConfig(folder / name, folder / f"{name}-sessions")
        robot = Counting(episode_steps=7)
        return learn(robot, "latent", LearningProgressSelector(0, babble=2), steps, 0, learner=settings, memory=memory, threads=1, **tiny)

    whole = [event.choice for event in life("whole", 24) if isinstance(event, Step)]
    first = life("parts", 24)
    begun = []
    for event in first:
        if isinstance(event, Step):
            begun.append(event.choice)
            if len(begun) == 11:
                first.save()
                break
    first.close()
    life("parts", 24).close()  # a start that comes to nothing loses nothing
    rest = [event.choice for event in life("parts", 24) if isinstance(event, Step)]
    assert [(choice.action, choice.scores) for choice in begun + rest] == [(choice.action, choice.scores) for choice in whole]
