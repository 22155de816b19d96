"""One action, a thousand, or any value of some ranges: learning, imagining, choosing and the card work alike."""

import threading

import numpy as np
import pytest
import torch

from motorbabble.agents import SELECTORS, Run, learn
from motorbabble.errors import ActionError, RobotError
from motorbabble.experience import LISTED, ActionSpace, Channel, Situation, Step
from motorbabble.life import live
from motorbabble.models.autoencoder import AutoencoderConfig
from motorbabble.models.predictor import PredictorConfig
from motorbabble.robots.interface import RobotInterface
from motorbabble.selectors import LeastTriedSelector, RandomSelector, UncertaintySelector
from motorbabble.world_models.latent import AutoencoderLatentPredictorWorldModelConfig, LatentWorldModel

SPACES = {
    "one": ActionSpace.discrete([{"go": 1}]),
    "a thousand names": ActionSpace.discrete([{"to": place} for place in range(1000)], ordered=False),
    "a thousand speeds": ActionSpace.discrete([{"speed": speed} for speed in range(1000)]),
    "a box": ActionSpace.box([Channel("along", -1, 1), Channel("down", -1, 1, "px")], rest={"along": 0, "down": 0}),
}
every_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
QUICK = {"max_updates": 1, "threads": 1}
SMALL = AutoencoderLatentPredictorWorldModelConfig(
    AutoencoderConfig(patch_size=8, width=16, depth=1, heads=2, decoder_width=16), PredictorConfig(depth=1, heads=2), moved_layers=1
)


def life(space: ActionSpace, selector: str = "uncertainty", steps: int = 12) -> Run:
    torch.manual_seed(0)
    return learn(Slider(space), LatentWorldModel((32, 32), space.size, SMALL), selector, steps, **QUICK)


def examined(space: ActionSpace, steps: int) -> list[Step]:
    return [event for event in live(Slider(space), RandomSelector(3), steps=steps) if isinstance(event, Step)]


class Slider(RobotInterface):
    """A bar that the first channel of whatever action it is given moves along."""

    robot_type = "slider"

    def __init__(self, space: ActionSpace):
        self.space, self.at, self.done = space, 0, 0
        self.off = threading.Event()

    @property
    def action_space(self):
        return self.space

    def get_observation(self):
        image = np.zeros((32, 32, 3), np.uint8)
        image[:, (self.at + np.arange(4)) % 32] = 200
        return image

    def execute_action(self, action):
        action = self.space.check(action)
        if self.off.is_set():
            raise RobotError("it was stopped; make a new one to go on")
        self.at += round(4 * next(iter(action.values()))) % 32
        self.done += 1
        return action

    def stop(self):
        self.off.set()

    def cleanup(self):
        self.stop()


@every_space
def test_it_learns_chooses_imagines_and_gets_a_card(space):
    run = life(space, steps=10)
    choices = [event.choice for event in run if isinstance(event, Step)]
    assert all(len(choice.scores) <= LISTED for choice in choices) and choices[-1].scores
    plans = np.stack([space.encode(action) for action in space.candidates()])[:, None]
    assert 1 <= len(plans) <= LISTED
    assert torch.isfinite(run.world_model.imagine(run.window, plans).uncertainty).all()
    exam = examined(space, steps=7)
    card = run.card(exam)
    assert sum(told["trials"] for told in card.model["by_action"].values()) == card.model["trials"] == 6
    assert len(card.numbers["actions"]) <= LISTED and card.numbers["chance"] > 0
    assert all(sentence.endswith(".") for sentence in card.sentences())
    for scene in card.scenes:
        assert len(scene.labels) == len(scene.imagined) <= LISTED


def test_the_card_never_calls_an_action_by_the_name_of_another():
    space = SPACES["a thousand names"]
    run, exam = life(space, steps=3), examined(space, steps=12)
    list(run)
    card = run.card(exam)
    assert card.numbers["actions"] == ["any of 1000 actions"] and card.numbers["chance"] == 1 / 8
    done = {space.label(step.executed) for step in exam}
    assert all(scene.labels[scene.taken] in done for scene in card.scenes)
    assert "8 of" not in card.sentences()[0] and "any of 1000 actions" in " ".join(card.sentences())
    assert "any of 1000 actions" in card.to_html()


@pytest.mark.parametrize("name", SELECTORS)
@every_space
def test_every_selector_chooses_one_of_them(space, name):
    run = life(space, name, steps=3)
    chosen = [event.choice for event in run if isinstance(event, Step)]
    assert all(space.check(choice.action) == choice.action and choice.why for choice in chosen)


def situation(space: ActionSpace, step: int = 99) -> Situation:
    run = life(space, "random", steps=2)
    list(run)
    return Situation(run.window, space, run.world_model, step)


def test_of_a_thousand_as_many_as_can_be_imagined_are_drawn_anew_each_time():
    space = SPACES["a thousand names"]
    now, select = situation(space), UncertaintySelector(seed=0, epsilon=0.0)
    first, second = select(now).scores, select(now).scores
    assert len(first) == len(second) == LISTED and set(first) != set(second), "so that each gets its turn"
    assert {space.label(space.rest)} <= set(first) & set(second)
    drawn = {space.index(RandomSelector(seed)(now).action) for seed in range(200)}
    assert len(drawn) > 150, "at random means any of them, not one of a few"
    assert len(LeastTriedSelector()(now).scores) == LISTED


def test_with_one_action_there_is_nothing_to_compare():
    run = life(SPACES["one"], steps=9)
    exam = [event for event in run if isinstance(event, Step)]
    assert exam[-1].choice.action == {"go": 1.0} and len(exam[-1].choice.scores) == 1
    card = run.card(exam)
    assert card.numbers["chance"] == 1 and card.model["action_margin"] is None
    assert "there is no other action to compare it with" in " ".join(card.sentences())


def test_a_long_list_is_told_apart_and_named_in_short():
    space = SPACES["a thousand names"]
    assert len(str(space)) < 2000 and str(space).endswith("and 936 more]")
    assert len(Slider(space).describe()) < 300
    with pytest.raises(ActionError, match="936 more"):
        space.check({"to": 1000})
    for place in (0, 63, 64, 999):
        assert space.decode(space.encode({"to": place})) == {"to": place}
    assert SPACES["a thousand speeds"].decode(np.array([0.4], np.float32)) == {"speed": 699}
    assert len({tuple(action.values()) for action in space.candidates(5)}) == 5
    assert space.candidates(5, np.random.default_rng(1)) != space.candidates(5, np.random.default_rng(2))
    assert len(ActionSpace.discrete([{"to": i} for i in range(LISTED)], ordered=False).candidates(2)) == LISTED, "a short list is given whole"
