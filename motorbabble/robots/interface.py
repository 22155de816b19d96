"""The contract between everything here and a robot.

Looking changes nothing. Acting blocks until the action is over and says what was really done. A robot
that cannot look or act raises RobotError; it never answers with a stale or invented frame. `stop` wins
over everything. tests/exams.py holds these rules as an exam that every robot passes.
"""

from abc import ABC, abstractmethod
from typing import Protocol, Self

import numpy as np

from motorbabble.experience import Action, ActionSpace, Observation

SAID = 24  # actions that a sentence names


class RobotInterface(ABC):
    """A body that can look and act. Subclass it, give the four members, and everything else works unchanged."""

    robot_type: str = "robot"  # a slug: it names folders

    @property
    @abstractmethod
    def action_space(self) -> ActionSpace:
        """What this robot can do; the same for its whole life."""

    @abstractmethod
    def get_observation(self) -> Observation | np.ndarray:
        """A fresh look: an Observation, or just an (H, W, 3) uint8 RGB array. Raises RobotError when there is none."""

    @abstractmethod
    def execute_action(self, action: Action) -> Action:
        """Do it, return when it is over, and give back what was really executed (after clipping).

        Raises ActionError for an action outside `action_space` (and does nothing), RobotError when it failed.
        """

    @abstractmethod
    def cleanup(self) -> None:
        """Stop, then release everything held. May be called twice."""

    def stop(self) -> None:  # noqa: B027 - a simulation at rest has nothing to stop
        """Stop moving now: idempotent, latching, from any thread, never raising."""

    def describe(self) -> str:
        """What it is and can do, in a sentence for people."""
        actions = self.action_space.actions
        if actions is None:
            return f"{self.robot_type} can do any value of {self.action_space}."
        more = f" and {len(actions) - SAID} more" if len(actions) > SAID else ""
        return f"{self.robot_type} can do: {', '.join(map(self.action_space.label, actions[:SAID]))}{more}."

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info) -> None:
        self.stop()
        self.cleanup()


class KnowsItsObjects(Protocol):
    """A world that can point at its movable things, so that the card can measure where a predicted picture puts them.

    The truth is in Observation.state["objects"]: (n, 2) float32, x and y in pixels.
    """

    def locate(self, image: np.ndarray) -> np.ndarray:
        """(n, 2) float x, y of each thing found in an (H, W, 3) uint8 picture, predicted or real; NaN where it is not to be seen."""
        ...

    def distance(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """(n,) pixels between positions a and b (n, 2), around the edges where this world wraps."""
        ...
