"""Who decides: scripts, chance, counts and curiosity."""

import itertools

import numpy as np
import pytest
import torch
from counting import Counting

from motorbabble.agents import SELECTORS
from motorbabble.errors import ConfigurationError
from motorbabble.experience import ActionSpace, Channel, Situation, Step, Window
from motorbabble.life import live
from motorbabble.selectors import (
    SEQUENCE_ALTERNATE,
    SEQUENCE_ALWAYS_MOVE,
    SEQUENCE_ALWAYS_STAY,
    SEQUENCE_DOUBLE_MOVE,
    SEQUENCE_TRIPLE_MOVE,
    SEQUENCES,
    LeastTriedSelector,
    RandomDurationSelector,
    RandomSelector,
    UncertaintySelector,
    create_constant_action_selector,
    create_sequence_action_selector,
)
from motorbabble.world_models.base import Imagination

SPACE = ActionSpace.discrete([{"action": 0}, {"action": 1}], labels=("stay", "move"))
BOX = ActionSpace.box([Channel("left", -1, 1), Channel("right", -1, 1)], rest={"left": 0, "right": 0})
WINDOW = Window(np.zeros((1, 8, 8, 3), np.uint8), np.zeros((0, 1), np.float32))


def at(step: int, space: ActionSpace = SPACE, world_model=None) -> Situation:
    return Situation(WINDOW, space, world_model, step)


def chosen(select, steps: int, space: ActionSpace = SPACE) -> list[int]:
    return [int(select(at(step, space)).action["action"]) for step in range(steps)]


def test_constant():
    select = create_constant_action_selector({"action": 1})
    assert chosen(select, 4) == [1, 1, 1, 1]
    select(at(0)).action["action"] = 5
    assert chosen(select, 1) == [1], "whoever changes what was chosen changes nothing else"


@pytest.mark.parametrize(
    ("name", "sequence", "expected"),
    [
        ("always_move", SEQUENCE_ALWAYS_MOVE, [1] * 8),
        ("always_stay", SEQUENCE_ALWAYS_STAY, [0] * 8),
        ("alternate", SEQUENCE_ALTERNATE, [0, 1] * 4),
        ("double_move", SEQUENCE_DOUBLE_MOVE, [1, 1, 0, 1, 1, 0, 1, 1]),
        ("triple_move", SEQUENCE_TRIPLE_MOVE, [1, 1, 1, 0, 1, 1, 1, 0]),
    ],
)
def test_the_five_named_sequences(name, sequence, expected):
    assert SEQUENCES[name] is sequence
    assert chosen(create_sequence_action_selector(sequence), 8) == expected


def test_an_empty_sequence_is_refused():
    with pytest.raises(ConfigurationError, match="at least one action"):
        create_sequence_action_selector([])


def test_random_draws_every_action_about_as_often():
    assert 420 < sum(chosen(RandomSelector(0), 1000)) < 580


def test_random_durations_keep_an_action_for_a_while():
    actions = chosen(RandomDurationSelector(0, longest=8), 2000)
    changes = sum(a != b for a, b in itertools.pairwise(actions))
    assert 150 < changes < 350  # 4.5 steps on average, half of the draws repeat the action: 2000 / 9 = 222
    with pytest.raises(ConfigurationError, match="at least 1"):
        RandomDurationSelector(longest=0)


def test_least_tried_keeps_counts_level():
    robot, select = Counting(), LeastTriedSelector(0)
    done = [event.executed["add"] for event in live(robot, select, steps=21) if isinstance(event, Step)]
    assert abs(done.count(1) - done.count(2)) == 1


@pytest.mark.parametrize("name", ["random", "random_duration", "least_tried"])
def test_ranges_are_sampled_too(name):
    for step in range(20):
        BOX.check(SELECTORS[name](0)(at(step, BOX)).action)


@pytest.mark.parametrize("make", [RandomSelector, RandomDurationSelector, LeastTriedSelector])
def test_a_restored_selector_goes_on_as_it_would_have(make):
    first = make(3)
    chosen(first, 7)
    second = make(99)
    second.load_state_dict(first.state_dict())
    assert chosen(first, 20) == chosen(second, 20)


class Unsure:
    """A world model that is unsure of one action only."""

    def __init__(self, action: int):
        self.action = action

    def eval(self):
        return self

    def imagine(self, window, plans, *, pictures=True) -> Imagination:
        assert not pictures and plans.shape[1] == 1
        return Imagination(None, torch.tensor([[3.0 if i == self.action else 1.0] for i in range(len(plans))]))


@pytest.mark.parametrize("action", [0, 1])
def test_uncertainty_picks_what_the_model_is_least_sure_of(action):
    choice = UncertaintySelector(0, epsilon=0.0)(at(50, world_model=Unsure(action)))
    assert choice.action == {"action": action}
    assert choice.scores == {"stay": 1.0 + 2.0 * (action == 0), "move": 1.0 + 2.0 * (action == 1)}
    assert "2.00 nats" in choice.why


def test_uncertainty_babbles_first_and_stays_a_little_random():
    select = UncertaintySelector(0, epsilon=0.2, babble=30)
    actions = [int(select(at(step, world_model=Unsure(1))).action["action"]) for step in range(1030)]
    assert 5 < sum(actions[:30]) < 25
    assert 0.85 < np.mean(actions[30:]) < 0.95  # 0.8 + 0.2 / 2


def test_uncertainty_without_a_model_says_what_to_do():
    with pytest.raises(ConfigurationError, match="needs a world model"):
        UncertaintySelector()(at(50))
