"""GoalSelector: reach a picture by imagining plans that might lead to it, and doing the first action of the best one.

Decisions: what is left of the way is measured by where things are (models/distance.py), since a difference of pixels says
nothing until they touch; a plan is worth its best moment, and the earlier the better; where there are few plans all are imagined,
else some are drawn, and more around the best of them (the cross-entropy method, Rubinstein 1999); the first ones repeat one action or keep
it for a while, because actions drawn one by one seldom lead far. All plans of a round run in one batch, and every step plans anew.
"""

import itertools
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from motorbabble.errors import ConfigurationError
from motorbabble.experience import Action, ActionSpace, Choice, Situation, Window, check_frame

if TYPE_CHECKING:
    from motorbabble.world_models.base import WorldModel

ENUMERATED = 64  # plans; of more than these, some are drawn
DELAY = 0.02  # of the way that is left: what a plan may gain less for each action by which it is sooner
PROMISE = 0.02  # of the way: plans that gain less promise nothing
MOMENTS = 4  # that a level of prediction must show of a plan, or a lower one is taken
KEEP = 2 / 3  # chance that a drawn plan does the same again
NARROWEST = 0.05  # of a channel's half range: plans redrawn in a box differ at least by that


class GoalSelector:
    """Chooses what leads to `goal`, an (H, W, 3) uint8 picture of what the robot would see there.

    `horizon`: actions of a plan. `plans`: how many, at least, are imagined in each of `rounds` rounds (None: 1 over a list of actions, 3 over
    ranges), where there are more than 64 to choose from; where there are not, all of them, once. `highest`: the highest level of prediction to
    plan with; None: whichever still shows a plan at four moments. Where no plan leads closer it acts at random, which a model that knows
    nothing yet needs. After each choice `distance` says what is left, `reached` whether that is at most `tolerance` times what one action changes.
    """

    def __init__(
        self,
        goal: np.ndarray,
        horizon: int = 6,
        plans: int = 6,
        rounds: int | None = None,
        *,
        tolerance: float = 0.5,
        highest: int | None = None,
        seed: int = 0,
    ):
        if horizon < 1 or plans < 2 or (rounds is not None and rounds < 1):
            raise ConfigurationError(f"{rounds} rounds of {plans} plans of {horizon} actions lead nowhere; give at least 1 round, 2 plans, 1 action")
        if not tolerance > 0 or (highest is not None and highest < 0):
            raise ConfigurationError(f"tolerance is {tolerance} and highest {highest}; give a positive tolerance, and a level from 0 on, or None")
        self.goal = check_frame(goal).copy()
        self.horizon, self.plans, self.rounds = horizon, plans, rounds
        self.tolerance, self.highest = tolerance, highest
        self.rng = np.random.default_rng(seed)
        self.distance, self.reached = float("inf"), False
        self._next: list = []  # how the last plan would have gone on
        self._strides: deque[float] = deque(maxlen=9)  # what one action changes, as imagined lately
        self._proposals: tuple[ActionSpace, Proposals | BoxProposals] | None = None

    def __call__(self, situation: Situation) -> Choice:
        space, model = situation.action_space, situation.world_model
        if model is None:
            raise ConfigurationError("the goal selector plans with a world model, and there is none; use selector random, or give a model")
        model.eval()
        if self._proposals is None or self._proposals[0] is not space:
            self._proposals = space, BoxProposals(space) if space.actions is None else Proposals(space)
        proposals = self._proposals[1]
        level = self._level(model.spans)
        search = Search(model, situation.window, self.goal, level)
        self._search(search, proposals, self.horizon)
        self._strides.append(search.stride)
        self.distance, self.reached = search.left, search.left <= self.tolerance * float(np.median(self._strides))
        if level and (self.reached or search.moments[search.best] == 0):  # within one leap only single actions show where it is
            search = Search(model, situation.window, self.goal, 0)
            self._search(search, proposals, model.spans[level])
        scores: dict[str, float] = {}
        for first, cost in zip(search.plans[:, 0], search.costs, strict=True):
            label = space.label(proposals.action(first))
            scores[label] = max(scores.get(label, -np.inf), 1 - float(cost))
        if self.reached:  # no plan is worth leaving it for
            self._next = []
            action = proposals.action(search.plans[search.closest_next, 0])
            return Choice(action, scores, f"the goal is reached, and {space.label(action)} keeps closest to it")
        plan, gain = search.plans[search.best], 1 - float(search.shares[search.best])
        if gain < PROMISE:
            self._next = []
            candidates = space.candidates(rng=self.rng)
            return Choice(candidates[self.rng.integers(len(candidates))], scores, "it can imagine no plan that leads closer; a random action")
        self._next = plan[1:].tolist()
        doing = _in_words([space.label(proposals.action(action)) for action in plan[: search.actions_to(search.best)]])
        return Choice(proposals.action(plan[0]), scores, f"{doing} would take it {gain:.0%} of the way to the goal")

    def _search(self, search: "Search", proposals: "Proposals | BoxProposals", horizon: int) -> None:
        every = proposals.every(horizon)
        if every is not None:
            search.imagine(every, proposals.encoded(every))
            return
        plans = proposals.first(max(self.plans, proposals.least), horizon, self._next, self.rng)
        search.imagine(plans, proposals.encoded(plans))
        for _ in range((self.rounds or proposals.rounds) - 1):
            plans = proposals.around(search.elite(max(3, self.plans // 4)), self.plans, self.rng)
            search.imagine(plans, proposals.encoded(plans))

    def _level(self, spans: tuple[int, ...]) -> int:
        highest = len(spans) - 1 if self.highest is None else min(self.highest, len(spans) - 1)
        fits = [level for level in range(1, highest + 1) if self.horizon >= MOMENTS * spans[level] and self.horizon % spans[level] == 0]
        return max(fits, default=0)

    def state_dict(self) -> dict[str, Any]:
        return {"rng": self.rng.bit_generator.state, "next": list(self._next), "strides": list(self._strides)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rng.bit_generator.state, self._next = state["rng"], list(state["next"])
        self._strides = deque(state["strides"], maxlen=9)


class Search:
    """Plans from one window on, and how close each leads to the goal.

    N plans; `costs` (N,): the share of the way that a plan leaves at its best moment, `moments` (N,), and what the time until then costs;
    `shares` (N,) without that. `left`: the distance before anything is done.
    """

    def __init__(self, model: "WorldModel", window: Window, goal: np.ndarray, level: int):
        import torch

        from motorbabble.models.distance import distance

        self.model, self.window, self.level, self.span = model, window, level, model.spans[level]
        seen = torch.from_numpy(np.stack([model.at_the_door(image) for image in (window.images[-1], goal)]))
        self._now, self._goal = seen.to(model.device).movedim(-1, 1).float() / 255
        self._distance = distance
        self.left = float(distance(self._now[None], self._goal)[0])
        self.plans, self._ways, self._changes = np.zeros(0), np.zeros((0, 0)), np.zeros(0)

    def imagine(self, plans: np.ndarray, encoded: np.ndarray) -> None:
        at_level = {"level": self.level} if self.level else {}  # a model without levels knows no such word
        images = self.model.imagine(self.window, encoded, pictures=True, **at_level).images
        assert images is not None
        ways = self._distance(images.flatten(0, 1), self._goal).unflatten(0, images.shape[:2]).cpu().numpy()
        changes = self._distance(images[:, 0], self._now).cpu().numpy() / self.span
        if len(self._ways):
            plans, ways, changes = (np.concatenate(pair) for pair in ((self.plans, plans), (self._ways, ways), (self._changes, changes)))
        self.plans, self._ways, self._changes = plans, ways, changes
        left = self._ways / (max(self.left, self.stride) or 1.0)
        costs = left + DELAY * self.span * np.arange(1, left.shape[1] + 1)
        self.moments = costs.argmin(1)
        self.costs, self.shares = (np.take_along_axis(values, self.moments[:, None], 1)[:, 0] for values in (costs, left))

    @property
    def stride(self) -> float:
        """What an action changes that changes something: the median, since over an edge a small step can look like a large one."""
        return float(np.median(self._changes[self._changes >= 0.1 * self._changes.max()]))

    @property
    def best(self) -> int:
        return int(self.costs.argmin())

    @property
    def closest_next(self) -> int:
        """The plan that is closest after what it does first."""
        return int(self._ways[:, 0].argmin())

    def elite(self, count: int) -> np.ndarray:
        return self.plans[self.costs.argsort(kind="stable")[:count]]

    def actions_to(self, plan: int) -> int:
        """How many actions a plan needs to its best moment."""
        return int(self.moments[plan] + 1) * self.span


class Proposals:
    """Plans over a list of actions: (N, H) numbers of actions. `least`: plans enough for every action to be the first of one, up to 64."""

    rounds = 1  # the best of those that keep an action is a step in the right direction, and planned anew after it

    def __init__(self, space: ActionSpace):
        assert space.actions is not None
        self._actions = space.actions
        self.least = min(len(space.actions), ENUMERATED) + 1
        self._table = np.stack([space.encode(action) for action in space.actions]) if space.ordered else np.eye(space.size, dtype=np.float32)

    def encoded(self, plans: np.ndarray) -> np.ndarray:
        return self._table[plans]

    def action(self, one: int) -> Action:
        return self._actions[int(one)]

    def every(self, horizon: int) -> np.ndarray | None:
        """All plans, where they are few."""
        if len(self._actions) ** horizon > ENUMERATED:
            return None
        return np.array(list(itertools.product(range(len(self._actions)), repeat=horizon)))

    def first(self, count: int, horizon: int, warm: list, rng: np.random.Generator) -> np.ndarray:
        """How the last plan goes on, each action again and again (or some of them, each time others), and plans that keep an action for a while."""
        straight = rng.permutation(len(self._actions))[: count - 1]
        drawn = rng.integers(len(self._actions), size=(count, horizon))
        same = rng.random((count, horizon)) < KEEP
        for step in range(1, horizon):
            drawn[:, step] = np.where(same[:, step], drawn[:, step - 1], drawn[:, step])
        drawn[: len(straight)] = straight[:, None]
        if warm:
            drawn[-1] = (warm + warm[-1:] * horizon)[:horizon]
        return drawn

    def around(self, elite: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        """Each moment's action as often as the elite has it there, and now and then any."""
        any_one = rng.integers(len(self._actions), size=(count, elite.shape[1]))
        chosen = np.take_along_axis(elite, rng.integers(len(elite), size=(count, elite.shape[1])), 0)
        return np.where(rng.random(chosen.shape) < 0.1, any_one, chosen)


class BoxProposals:
    """Plans over ranges: (N, H, C) encoded actions."""

    rounds, least = 3, 16

    def __init__(self, space: ActionSpace):
        self._space = space

    def encoded(self, plans: np.ndarray) -> np.ndarray:
        return plans

    def action(self, one: np.ndarray) -> Action:
        return self._space.decode(one)

    def every(self, horizon: int) -> None:
        return None

    def first(self, count: int, horizon: int, warm: list, rng: np.random.Generator) -> np.ndarray:
        """Half of them one action again and again, the others keep one for a while; and how the last plan goes on."""
        drawn = rng.uniform(-1, 1, (count, horizon, self._space.size)).astype(np.float32)
        same = rng.random((count, horizon)) < KEEP
        same[: count // 2] = True
        for step in range(1, horizon):
            drawn[:, step] = np.where(same[:, step, None], drawn[:, step - 1], drawn[:, step])
        if warm:
            drawn[-1] = (warm + warm[-1:] * horizon)[:horizon]
        return drawn

    def around(self, elite: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        """Each moment's action from a Gaussian over the elite's, clipped to the ranges."""
        spread = np.maximum(elite.std(0), NARROWEST)
        return np.clip(rng.normal(elite.mean(0), spread, (count, *elite.shape[1:])), -1, 1).astype(np.float32)


def _in_words(labels: list[str]) -> str:
    """right, right, down -> "right 2 times, down"."""
    runs = [(label, len(list(run))) for label, run in itertools.groupby(labels)]
    return ", ".join(label if times == 1 else f"{label} {times} times" for label, times in runs)
