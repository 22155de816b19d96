"""Counterfactuals: a model that listens is told from one that does not, and from luck; nothing is exchanged with itself."""

from itertools import permutations, product

import numpy as np
import pytest
import torch
from exams import squares, taught
from test_card import MOVE, SPACE, STAY, FakeMind, RollWorld, a_life, card_of
from test_latent import small

from motorbabble.analysis import scores
from motorbabble.analysis.card import make_card, picturing, thinking
from motorbabble.analysis.counterfactuals import counterfactual_sentence, exchange_gap, exchange_p, paired_p
from motorbabble.experience import ActionSpace, Channel, Choice, Observation, Step, Window


def brute_gap(errors: np.ndarray, taken: np.ndarray) -> float:
    pairs = [(s, t) for s, t in product(range(len(taken)), repeat=2) if taken[s] != taken[t]]
    return float(np.mean([errors[t, taken[s]] - errors[t, taken[t]] for s, t in pairs]))


def test_the_gap_is_the_mean_over_all_pairs_that_acted_differently():
    rng = np.random.default_rng(0)
    errors, taken = rng.uniform(size=(9, 3)), np.array([0, 0, 0, 0, 1, 1, 2, 0, 1])
    assert exchange_gap(errors, taken) == pytest.approx(brute_gap(errors, taken))
    assert exchange_gap(errors, np.zeros(9, int)) is None, "nobody to exchange with"


def test_what_is_hard_and_what_is_blurred_adds_nothing():
    """Trials that are hard whatever is done, and actions whose pictures are always worse, show no understanding, however unequal the counts."""
    rng = np.random.default_rng(1)
    taken = (rng.uniform(size=50) < 0.1).astype(int)
    errors = rng.uniform(size=(50, 1)) + np.array([0.0, 7.0])
    assert exchange_gap(errors, taken) == pytest.approx(0, abs=1e-12)
    assert exchange_p(errors, taken) == 1.0
    naive = float((errors[np.arange(50), 1 - taken] - errors[np.arange(50), taken]).mean())
    assert naive > 5, "the plain difference is taken in"


def test_the_shuffles_count_as_many_as_all_permutations_would():
    rng = np.random.default_rng(2)
    errors, taken = rng.uniform(size=(6, 3)), np.array([0, 1, 2, 0, 1, 2])
    errors[np.arange(6), taken] -= 0.25
    true = errors[np.arange(6), taken].sum()
    exact = np.mean([errors[np.arange(6), list(dealt)].sum() <= true + 1e-12 for dealt in permutations(taken)])
    assert 0 < exact < 0.2 and exchange_p(errors, taken) == pytest.approx(exact, abs=0.02)
    assert exchange_p(errors, taken) == exchange_p(errors, taken), "the same numbers each time"


def test_p_is_never_zero():
    taken = np.arange(200) % 2
    errors = np.where(taken[:, None] == np.arange(2), 0.0, 1.0)
    assert exchange_p(errors, taken) == pytest.approx(1 / 2001) and exchange_p(errors, taken, shuffles=999) == pytest.approx(1 / 1000)
    assert paired_p(np.ones(200)) == pytest.approx(1 / 2001) and paired_p(np.zeros(200)) == 1.0


def test_signs_that_flip():
    differences = np.array([3.0, 1.0, 2.0, -0.5])
    exact = np.mean([np.dot(signs, differences) >= differences.sum() for signs in product((-1, 1), repeat=4)])
    assert paired_p(differences) == pytest.approx(exact, abs=0.03)


def test_p_is_even_under_luck():
    """A model that knows nothing gets every p equally often."""
    found = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        found.append((exchange_p(rng.uniform(size=(20, 2)), rng.integers(0, 2, 20), shuffles=99), paired_p(rng.normal(size=20), shuffles=99)))
    for one in np.array(found).T:
        assert 0.02 <= (one <= 0.1).mean() <= 0.18 and 0.4 < one.mean() < 0.6


def test_a_model_that_listens():
    card = card_of(FakeMind())
    told = card.numbers["counterfactuals"]["scores"]
    assert told["model"]["asg_relative"] == pytest.approx(1.0), "mistaking move for stay costs a whole movement, and the other way around"
    assert told["model"]["asg_p"] == pytest.approx(1 / 2001)
    assert (
        told["shift"]["asg"] == told["model"]["asg"] and told["copy_last"]["asg"] == told["black"]["asg"] == 0.0 and told["copy_last"]["asg_p"] == 1.0
    )
    assert card.numbers["counterfactuals"]["rest_is"] == "stay" and told["model"]["rest_relative"] == pytest.approx(1.0)
    assert any(sentence.startswith("It listens to the action: when two moments exchange") for sentence in card.sentences())


def test_a_model_that_is_deaf():
    card = card_of(FakeMind(jump=0))
    model = card.numbers["counterfactuals"]["scores"]["model"]
    assert model["asg"] == model["azg"] == model["rest"] == 0.0 and model["asg_p"] == model["azg_p"] == model["rest_p"] == 1.0
    assert card.model["action_sensitivity"] == 0.0 and card.model["pixels_by_action"] == 0.0
    assert any(sentence.startswith("Nothing shows yet that it listens") for sentence in card.sentences())


def test_listening_hardly_is_said():
    class Hair(FakeMind):
        def paint(self, last, shift):
            return last * (1 - 0.01 * float(shift) / 27)

    told = card_of(Hair()).numbers
    assert told["counterfactuals"]["scores"]["model"]["asg_p"] < 0.01 and "but hardly" in (counterfactual_sentence(told) or "")


def test_zero_where_no_action_is_encoded_so():
    """Stay is -1 and move is 1, so 0 is half a movement: a picture that this model was never asked for."""
    mind = FakeMind()
    numbers = card_of(mind).numbers["counterfactuals"]
    assert numbers["zero_is"] is None and numbers["scores"]["model"]["azg_relative"] > 0.5
    assert numbers["scores"]["shift"]["azg_relative"] < 0.7, "the nearest action is one of the two, so it is right half of the time"


def test_zero_where_it_is_an_action():
    space = ActionSpace.discrete([{"motor": 0.0}, {"motor": 1.0}], ranges={"motor": (-1.0, 1.0)}, labels=["stay", "move"])

    class Plain(FakeMind):
        def shifts(self, plans):
            return plans[..., 0].cumsum(1) * self.jump

    card = make_card(Plain(), space, a_life(), a_life(seed=1, start=(33, 50)))
    told = card.numbers["counterfactuals"]
    assert told["zero_is"] == "stay" == told["rest_is"] and "“stay” is encoded so, a legal action" in card.to_html()
    assert told["scores"]["model"]["azg"] == told["scores"]["model"]["rest"] and told["scores"]["model"]["azg_relative"] == pytest.approx(1)


def test_sensitivity_by_hand():
    """Two pictures of one dot in two places: half of its brightness apart from their mean, at both."""
    card = card_of(FakeMind())
    dot = RollWorld().paint(10, 20).astype(float) / 255
    assert card.model["action_sensitivity"] == pytest.approx(2 * np.square(dot / 2).mean(), rel=1e-4)
    pixels = 2 * 25 / 64**2
    assert card.model["pixels_by_action"] == pytest.approx(pixels) == pytest.approx(card.numbers["pixels_changed"])
    floors = card.numbers["scores"]
    assert (
        floors["shift"]["action_sensitivity"] == pytest.approx(card.model["action_sensitivity"]) and floors["mean_frame"]["action_sensitivity"] == 0.0
    )


def test_one_action_alone_has_no_counterfactual():
    space = ActionSpace.discrete([{"motor": 1.0}])
    card = make_card(FakeMind(), space, [s for s in RollWorld().live([MOVE] * 8)], RollWorld().live([MOVE] * 8, start=(3, 4)))
    told = card.numbers["counterfactuals"]["scores"]["model"]
    assert told["asg"] is None and told["asg_p"] is None and told["rest"] is None and card.model["action_sensitivity"] is None
    card.to_html()
    only_stayed = card_of(FakeMind(), RollWorld().live([STAY] * 8))
    assert only_stayed.numbers["counterfactuals"]["scores"]["model"]["asg"] is None and counterfactual_sentence(only_stayed.numbers) is None


def test_a_box_exchanges_what_lies_near():
    space = ActionSpace.box([Channel("motor", 0, 1)], {"motor": 0.0})
    rng = np.random.default_rng(0)
    steps, x = [], 5
    for index, action in enumerate({"motor": float(rng.uniform())} for _ in range(60)):
        steps.append(Step(index, Observation(RollWorld().paint(x % 64, 30)), action, action, Choice(action), 0, 0))
        x += round(27 * action["motor"])
    told = make_card(FakeMind(), space, steps, steps).numbers["counterfactuals"]
    assert told["zero_is"] == "motor=0.5" and told["scores"]["model"]["asg_relative"] > 0.3 and told["scores"]["model"]["asg_p"] < 0.001


def test_a_thousand_actions_have_no_exchange():
    space = ActionSpace.discrete([{"choice": float(i)} for i in range(1000)], ordered=False)
    rng = np.random.default_rng(0)
    actions = [space.actions[i] for i in rng.integers(0, 1000, 12)]
    steps = [Step(i, Observation(RollWorld().paint(3 * i, 30)), action, action, Choice(action), 0, 0) for i, action in enumerate(actions)]

    class Lost(FakeMind):
        def shifts(self, plans):
            return torch.zeros(plans.shape[:2])

    mind = Lost()
    mind.action_size = 1000
    told = make_card(mind, space, steps, steps).numbers["counterfactuals"]
    assert told["scores"]["model"]["asg"] is None


def test_the_space_of_the_tests_is_as_told():
    assert [float(SPACE.encode(action)[0]) for action in (STAY, MOVE)] == [-1.0, 1.0]


def test_a_network_that_was_taught_listens_and_a_fresh_one_does_not():
    space = ActionSpace.discrete([{"a": 0.0, "b": 1.0}, {"a": 1.0, "b": 0.0}])  # what squares() calls (-1, 1) and (1, -1)
    trials = []
    for seed in range(6):
        window = squares(4, seed=seed)
        for now in (1, 2):
            past = Window(window.images[now - 1 : now + 1], window.actions[now - 1 : now])
            trials.append(scores.Trial(past, window.actions[now], window.images[now + 1], None, window.actions[now, 0] > 0))
    torch.manual_seed(0)
    model, gaps = small(prediction_history_size=2), []
    for updates in (0, 60):
        if updates:
            taught(model, [squares(4, seed=seed) for seed in range(6)], updates)
        with thinking(model):
            scored = scores.tally(picturing(model), trials, space)
        gaps.append((exchange_gap(scored.errors, scored.taken), exchange_p(scored.errors, scored.taken)))
    change = scored.copied[scored.moved].mean()
    assert gaps[0][0] == pytest.approx(0, abs=1e-9) and gaps[0][1] > 0.5, "untrained, it says that nothing changes"
    assert gaps[1][0] > 0.1 * change and gaps[1][1] < 0.01
