"""The card gives each mind exactly the score it deserves: the oracle all, copy-last nothing, chance no more than chance."""

import html.parser
import json

import numpy as np
import pytest
import torch

from motorbabble.analysis import card as cards
from motorbabble.analysis import scores
from motorbabble.analysis.card import make_card
from motorbabble.errors import ConfigurationError, Diverged
from motorbabble.experience import ActionSpace, Channel, Choice, Observation, Step
from motorbabble.world_models.base import Imagination, WorldModel

SPACE = ActionSpace.discrete([{"motor": 0.0}, {"motor": 1.0}], labels=["stay", "move"])
STAY, MOVE = SPACE.actions
SIDE, JUMP = 64, 27


class RollWorld:
    """A dot on a torus that knows where it is."""

    def paint(self, x: int, y: int) -> np.ndarray:
        image = np.zeros((SIDE, SIDE, 3), np.uint8)
        image[np.ix_(np.arange(y - 2, y + 3) % SIDE, np.arange(x - 2, x + 3) % SIDE)] = (255, 220, 60)
        return image

    def locate(self, image: np.ndarray) -> np.ndarray:
        rows, columns = np.nonzero(image.max(2) > 127)
        if not len(rows):
            return np.full((1, 2), np.nan)
        turns = [np.angle(np.exp(2j * np.pi * where / SIDE).mean()) / (2 * np.pi) * SIDE % SIDE for where in (columns, rows)]
        return np.array([turns])

    def distance(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        away = np.abs(a - b) % SIDE
        return np.hypot(*np.minimum(away, SIDE - away).T)

    def live(self, actions, start=(10, 20), episode=0, first=0) -> list[Step]:
        x, y = start
        steps = []
        for index, action in enumerate(actions):
            state = {"objects": np.array([[x, y]], np.float32)}
            steps.append(Step(first + index, Observation(self.paint(x, y), episode=episode, state=state), action, action, Choice(action), 0, 0))
            x = (x + JUMP * int(action["motor"])) % SIDE
        return steps


class FakeMind(WorldModel):
    """Predicts by rolling the last frame `jump` px per unit of motor; 0 makes it copy-last."""

    def __init__(self, jump=JUMP, history=2):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.frozen = torch.nn.Dropout().eval()
        self.image_shape, self.action_size, self.history, self.jump = (SIDE, SIDE), 1, history, jump
        self.calls = []

    def reconstruct(self, images):
        return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255

    def imagine(self, window, plans, *, pictures=True):
        assert not self.training and not torch.is_grad_enabled() and len(window) <= self.history
        self.calls.append(plans.shape)
        last = torch.from_numpy(window.images[-1].astype(np.float32) / 255).permute(2, 0, 1)
        uncertainty = torch.from_numpy((plans[..., 0] + 1).cumsum(1) + window.images[-1].argmax() % 7)
        if not pictures:
            return Imagination(None, uncertainty)
        return Imagination(torch.stack([torch.stack([self.paint(last, shift) for shift in plan]) for plan in self.shifts(plans)]), uncertainty)

    def shifts(self, plans):
        return ((plans[..., 0] + 1) / 2).cumsum(1) * self.jump

    def paint(self, last, shift):
        return last.roll(round(float(shift)), 2)

    def losses(self, batch):
        return {"total": self.weight.sum()}


class Guessing(FakeMind):
    """Puts the dot anywhere."""

    def paint(self, last, shift):
        return last.roll(tuple(torch.randint(SIDE, (2,)).tolist()), (1, 2))


def a_life(seed=0, steps=40, **where) -> list[Step]:
    rng = np.random.default_rng(seed)
    return RollWorld().live([SPACE.actions[i] for i in rng.integers(0, 2, steps)], **where)


def card_of(mind, test=None, **options):
    return make_card(mind, SPACE, a_life(), test or a_life(seed=1, start=(33, 50)), robot=RollWorld(), **options)


@pytest.fixture(scope="module")
def oracle():
    return card_of(FakeMind(), name="oracle", curve=[(1.0, 10, -0.5), (2.0, 20, float("nan")), (3.0, 30, 1.0)])


def test_the_oracle_scores_everything(oracle):
    model = oracle.model
    assert model["skill_moved"] == 1.0 and model["db_over_copy"] == 99.0 and model["stayed_mse"] == 0.0
    assert model["action_advantage"] == 1.0 and model["action_advantage_95"][0] == pytest.approx(39 / (39 + 1.96**2))
    assert model["objects"] == {
        "things": 39,
        "missing": 0.0,
        "within_2px": 1.0,
        "median_px": pytest.approx(0, abs=1e-3),
        "p95_px": pytest.approx(0, abs=1e-3),
    }
    assert model["by_action"]["move"]["skill_moved"] == 1.0 and model["by_action"]["stay"]["skill_moved"] is None
    assert model["action_margin"] == pytest.approx(1.0) and model["horizon_above_stills"] == 32
    assert model["horizon"] == [1.0] * 32 and model["effective_horizon"] == 32 and model["skill_horizon_8"] == 1.0
    assert model["reconstruction_skill"] == 1.0
    assert oracle.numbers["trials_moved"] == sum(step.executed == MOVE for step in a_life(seed=1)[:-1])


def test_the_floors_stand_beside_it(oracle):
    floors = oracle.numbers["scores"]
    assert list(floors) == ["model", "copy_last", "mean_frame", "black", "shift"]
    assert oracle.numbers["shifts_px"] == {"stay": [0, 0], "move": [27, 0]}
    assert floors["shift"]["skill_moved"] == 1.0 and floors["shift"]["action_advantage"] == 1.0
    assert floors["copy_last"]["skill_moved"] == 0.0 and floors["copy_last"]["stayed_mse"] == 0.0 and floors["copy_last"]["action_advantage"] == 0.0
    assert floors["copy_last"]["by_action"]["move"]["objects"]["median_px"] == pytest.approx(JUMP, abs=1e-3)
    assert floors["black"]["skill_moved"] == pytest.approx(0.5), "a black picture is right about half of what copy-last gets wrong"
    assert floors["black"]["objects"]["missing"] == 1.0 and floors["black"]["objects"]["within_2px"] == 0.0
    assert floors["mean_frame"]["reconstruction_skill"] == 0.0 and floors["copy_last"]["reconstruction_skill"] is None


def test_copy_last_scores_nothing():
    model = card_of(FakeMind(jump=0)).model
    assert model["skill_moved"] == 0.0 and model["db_over_copy"] == 0.0
    assert model["action_advantage"] == 0.0, "ties are losses"
    assert model["horizon"] == [0.0] * 32 and model["effective_horizon"] == 0
    assert model["objects"]["within_2px"] == pytest.approx(model["stayed"]["trials"] / model["trials"])


def test_a_guess_scores_chance():
    torch.manual_seed(0)
    card = card_of(Guessing(), a_life(seed=2, steps=200))
    low, _ = card.model["action_advantage_95"]
    assert low < 0.5 and card.model["skill_moved"] < 0.2
    assert card.sentences()[0] == "It learned what 0 of the 2 tested actions do."


def test_a_wrong_direction_is_worse_than_copy_last_nowhere_but_a_wrong_size_is_seen_in_pixels():
    model = card_of(FakeMind(jump=JUMP - 5)).model
    assert model["by_action"]["move"]["objects"]["median_px"] == pytest.approx(5, abs=1e-3)
    assert model["by_action"]["move"]["objects"]["within_2px"] == 0.0 and model["by_action"]["stay"]["objects"]["within_2px"] == 1.0


def test_winning_by_a_hair_is_not_knowing():
    class Hair(FakeMind):  # copies, but for a dot that fades by 1 % under "move"
        def paint(self, last, shift):
            return last * (1 - 0.01 * float(shift) / JUMP)

    card = card_of(Hair())
    assert card.model["action_advantage"] == 1.0 and card.model["action_margin"] < 0.02
    assert card.sentences()[0] == "It learned what 0 of the 2 tested actions do."


def test_sentences_say_what_was_learned_and_what_was_not(oracle):
    said = oracle.sentences()
    assert said[0] == "It learned what 2 of the 2 tested actions do."
    assert "It knows what “move” does: in 100% of" in said[2] and "chance 50%" in said[2] and "skill where things moved is 1.00" in said[2]
    assert "it put 100% of the things within 2 px" in said[2]
    assert "It knows what “stay” does: nothing moves" in said[1]
    assert any("has not yet shown that it understands more" in sentence for sentence in said)
    assert any("for 32 of 32 steps" in sentence for sentence in said)
    unlearned = card_of(FakeMind(jump=0)).sentences()
    assert "It has not learned what “move” does" in unlearned[2]
    assert any("cannot imagine ahead yet" in sentence for sentence in unlearned)
    few = card_of(FakeMind(), RollWorld().live([STAY] * 4)).sentences()
    assert "“move” was not tested." in few and any("Only 3 moments" in sentence for sentence in few) and any("Nothing moved" in s for s in few)


def test_trials_know_their_past_and_never_cross_an_episode():
    steps = a_life(steps=5) + a_life(seed=3, steps=1, episode=1, first=5) + a_life(seed=4, steps=3, episode=2, first=9)
    trials = scores.trials_of(steps, SPACE, history=3)
    assert [len(trial.window) for trial in trials] == [1, 2, 3, 3, 1, 2]
    for trial, step in zip(trials, steps[:4] + steps[6:8], strict=True):
        np.testing.assert_array_equal(trial.window.images[-1], step.observation.image)
        np.testing.assert_array_equal(trial.action, SPACE.encode(step.executed))
        assert trial.moved == (step.executed == MOVE)
    np.testing.assert_array_equal(trials[2].window.actions, [SPACE.encode(step.executed) for step in steps[:2]])
    np.testing.assert_array_equal(trials[3].truth, steps[4].observation.image)


def test_short_episodes_give_short_horizons():
    steps = [step for episode in range(5) for step in a_life(seed=episode, steps=11, episode=episode, first=11 * episode)]
    journeys = scores.journeys_of(steps, SPACE, history=2)
    assert {len(journey.plan) for journey in journeys} <= set(range(5, 11)) and len(journeys) == 8
    card = card_of(FakeMind(), steps)
    assert card.model["effective_horizon"] == 10 and len(card.model["horizon"]) == 10 == len(card.numbers["horizon_starts"])


def test_the_effective_horizon_ends_at_the_first_step_that_is_no_better():
    assert scores.effective_horizon([0.9, None, 0.1, 0.0, 0.8]) == 3
    assert scores.effective_horizon([-0.1, 0.9]) == 0
    assert scores.effective_horizon([None, None]) == 0


def test_wilson_and_spearman_match_the_textbook():
    assert scores.wilson(0, 0) == (0.0, 1.0)
    assert scores.wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert scores.spearman(np.array([1, 2, 3, 4]), np.array([10, 40, 90, 99])) == pytest.approx(1)
    assert scores.spearman(np.array([1, 2, 2, 3]), np.array([4, 3, 3, 1])) == pytest.approx(-1)
    assert scores.spearman(np.ones(5), np.arange(5)) is None


def test_uncertainty_is_held_against_the_error():
    class Wavering(FakeMind):  # its dot fades as much as it doubts
        def imagine(self, window, plans, *, pictures=True):
            imagined = super().imagine(window, plans, pictures=pictures)
            doubt = torch.full(plans.shape[:2], float(window.images[-1].nonzero()[1].min()) / SIDE)
            return Imagination(None if imagined.images is None else imagined.images * (1 - doubt[..., None, None, None]), doubt)

    numbers = card_of(Wavering()).numbers["uncertainty"]
    assert numbers["spearman"] == pytest.approx(1) and numbers["spearman_within_action"] == pytest.approx(1)
    assert 0 < numbers["mean_nats"] < 1
    assert numbers["top_decile_lift"] == pytest.approx(numbers["top_decile_lift_possible"]) and numbers["top_decile_lift"] > 1
    assert abs(numbers["spearman_action_alone"]) < 0.9, "whoever knows only the action ranks worse"
    assert sum(numbers["chosen"].values()) == pytest.approx(1) and numbers["spearman_expected_error"] is None


def test_a_box_of_ranges_has_a_card_too():
    space = ActionSpace.box([Channel("motor", 0, 1)], {"motor": 0.0})
    rng = np.random.default_rng(0)
    actions = [{"motor": float(rng.uniform())} for _ in range(60)]
    steps, x = [], 5.0
    for index, action in enumerate(actions):
        steps.append(Step(index, Observation(RollWorld().paint(round(x) % SIDE, 30)), action, action, Choice(action), 0, 0))
        x = round(x) + round(JUMP * action["motor"])
    card = make_card(FakeMind(), space, steps, steps)
    assert card.numbers["chance"] == 1 / 8 and card.model["skill_moved"] > 0.95 and card.model["objects"] is None
    assert len(card.numbers["shifts_px"]) == 8 and card.model["skill_moved"] > card.numbers["scores"]["shift"]["skill_moved"]
    card.to_html()


def test_the_model_is_left_as_it_was_found():
    mind = FakeMind()
    mind.train()
    mind.frozen.eval()
    with cards.thinking(mind):
        assert not mind.training
    assert mind.training and not mind.frozen.training
    with pytest.raises(RuntimeError), cards.thinking(mind):
        raise RuntimeError
    assert mind.training and not mind.frozen.training and torch.is_grad_enabled()


def test_pictures_are_imagined_in_chunks():
    mind = FakeMind().eval()
    trial = scores.trials_of(a_life(steps=3), SPACE, 2)[0]
    with torch.no_grad():
        assert cards.picturing(mind)(trial.window, np.zeros((70, 2, 1), np.float32)).shape == (70, 2, SIDE, SIDE, 3)
    assert [shape[0] for shape in mind.calls] == [32, 32, 6]


def test_what_cannot_be_scored_is_refused_in_one_sentence():
    with pytest.raises(ConfigurationError, match="1 test steps hold no two consecutive"):
        card_of(FakeMind(), a_life(steps=1))
    mind = FakeMind()
    mind.paint = lambda last, shift: last * float("nan")
    with pytest.raises(Diverged, match="NaN"):
        card_of(mind)


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))


def test_the_saved_page_stands_alone(oracle, tmp_path):
    path = oracle.save(tmp_path / "card")
    assert path.name == "card.html" and sorted(p.name for p in path.parent.iterdir()) == ["card.html", "card.json"]
    assert json.loads((path.parent / "card.json").read_text()) == json.loads(json.dumps(oracle.to_json()))
    text = path.read_text()
    page = Page(text)
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "iframe")] and "http" not in text
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == 6 * 4 + 2 * 14 + 2 + 1 + 1 and all(p["alt"] and p["src"].startswith("data:image/png;base64,") for p in pictures)
    for sentence in oracle.sentences():
        assert sentence in text


def test_a_failed_save_leaves_the_old_card(oracle, tmp_path, monkeypatch):
    oracle.save(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    monkeypatch.setattr(cards.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError):
        oracle.save(tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
