"""Selectors that follow a script: constant, sequence, random. They ask no model.

A selector takes a Situation and answers a Choice. Any plain function that answers an action, or (action,
metadata), works as well.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from motorbabble.errors import ConfigurationError
from motorbabble.experience import Action, Choice, Situation, Step

STAY: Action = {"action": 0}
MOVE: Action = {"action": 1}
SEQUENCE_ALWAYS_MOVE = (MOVE,)
SEQUENCE_ALWAYS_STAY = (STAY,)
SEQUENCE_ALTERNATE = (STAY, MOVE)
SEQUENCE_DOUBLE_MOVE = (MOVE, MOVE, STAY)
SEQUENCE_TRIPLE_MOVE = (MOVE, MOVE, MOVE, STAY)
SEQUENCES = {
    "always_move": SEQUENCE_ALWAYS_MOVE,
    "always_stay": SEQUENCE_ALWAYS_STAY,
    "alternate": SEQUENCE_ALTERNATE,
    "double_move": SEQUENCE_DOUBLE_MOVE,
    "triple_move": SEQUENCE_TRIPLE_MOVE,
}


def create_constant_action_selector(action: Action) -> Callable[[Situation], Choice]:
    """Always the same action."""
    fixed = dict(action)

    def constant(situation: Situation) -> Choice:
        return Choice(dict(fixed), why="always the same action")

    return constant


def create_sequence_action_selector(sequence: Sequence[Action]) -> Callable[[Situation], Choice]:
    """One action after the other, and from the start again."""
    if not sequence:
        raise ConfigurationError("a sequence of 0 actions selects nothing; give at least one action")
    script = [dict(action) for action in sequence]

    def in_sequence(situation: Situation) -> Choice:
        place = situation.step % len(script)
        return Choice(dict(script[place]), why=f"number {place + 1} of {len(script)} in the sequence")

    return in_sequence


class RandomSelector:
    """Any action, each as likely."""

    def __init__(self, seed: int = 0):
        self.rng = np.random.default_rng(seed)

    def __call__(self, situation: Situation) -> Choice:
        candidates = situation.action_space.actions or situation.action_space.candidates(rng=self.rng)
        return Choice(candidates[self.rng.integers(len(candidates))], why="drawn at random")

    def state_dict(self) -> dict[str, Any]:
        return dict(self.rng.bit_generator.state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rng.bit_generator.state = state


class RandomDurationSelector(RandomSelector):
    """A random action, kept for a random number of steps: long movements that steps drawn one by one almost never make."""

    def __init__(self, seed: int = 0, longest: int = 8):
        super().__init__(seed)
        if longest < 1:
            raise ConfigurationError(f"the longest duration is {longest} steps; give at least 1")
        self.longest, self.left = longest, 0
        self.action: Action = {}

    def __call__(self, situation: Situation) -> Choice:
        if self.left == 0:
            self.action = super().__call__(situation).action
            self.left = int(self.rng.integers(1, self.longest + 1))
        self.left -= 1
        return Choice(self.action, why=f"a random action, {self.left} more steps of it")

    def state_dict(self) -> dict[str, Any]:
        return {"rng": super().state_dict(), "left": self.left, "action": self.action}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state["rng"])
        self.left, self.action = state["left"], state["action"]


class LeastTriedSelector:
    """The candidate that was executed least often so far; ties fall to chance."""

    def __init__(self, seed: int = 0):
        self.rng = np.random.default_rng(seed)
        self.counts: dict[str, int] = {}  # by the action's channels and values

    def __call__(self, situation: Situation) -> Choice:
        space = situation.action_space
        candidates = space.candidates(rng=self.rng)
        tried = [self.counts.get(_name(action), 0) for action in candidates]
        fewest = [action for action, count in zip(candidates, tried, strict=True) if count == min(tried)]
        scores = {space.label(action): -float(count) for action, count in zip(candidates, tried, strict=True)}
        return Choice(fewest[self.rng.integers(len(fewest))], scores, f"tried {min(tried)} times, least of all")

    def observe(self, event: Step) -> None:
        self.counts[_name(event.executed)] = self.counts.get(_name(event.executed), 0) + 1

    def state_dict(self) -> dict[str, Any]:
        return {"rng": self.rng.bit_generator.state, "counts": dict(self.counts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rng.bit_generator.state, self.counts = state["rng"], dict(state["counts"])


def _name(action: Action) -> str:
    return " ".join(f"{channel}={float(value)!r}" for channel, value in sorted(action.items()))
