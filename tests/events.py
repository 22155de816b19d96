"""Events of a life that nobody lived, for those who only watch; light enough for a process of its own."""

import numpy as np

from motorbabble.experience import ActionSpace, Choice, Observation, Step, Study

SPACE = ActionSpace.discrete([{"action": 0}, {"action": 1}], labels=("stay", "move"))
LOSSES = {"total": 1.0, "reconstruction": 0.5, "patch": 0.4, "latent": 0.3, "action": 0.2, "fresh_error": 0.1, "reconstruction_skill": 0.7}


def a_step(index: int, started: float = 0.0, action: int = 1) -> Step:
    """`started`: seconds."""
    choice = Choice({"action": action}, why="least sure of its outcome")
    return Step(index, Observation(np.zeros((4, 4, 3), np.uint8)), {"action": action}, {"action": action}, choice, int(started * 1e9), 1)


def a_study(update: int, gate: str = "passed", **losses: float) -> Study:
    return Study(update, {**LOSSES, **losses}, gate, 0.5 * update, 4 * update)
