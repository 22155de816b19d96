"""A robot that finds off-by-ones: its frame says how long it has lived and what it did last.

    count, last = read(robot.get_observation().image)

Live, record, replay, sample or window it through whatever you built, then read the frames: between two neighbours
the count must rise by the later one's `last`, which must be the action said to lie between them. The frame is 16
black or white blocks, so reading survives JPEG, resizing and a fair prediction.
"""

import threading

import numpy as np

from motorbabble.errors import RobotError
from motorbabble.experience import Action, ActionSpace, Observation
from motorbabble.robots.interface import RobotInterface

COUNT_BITS = 14  # the count starts again at 2 ** 14; the other two of the 16 blocks hold the last action


class Counting(RobotInterface):
    """Actions {"add": 1} and {"add": 2}: the count rises by the action's value, and goes on rising across episodes.

    With `episode_steps`, a new episode begins after that many actions; its first frame says that nothing came before (0).
    Observation.state: "count" (1,) int64.
    """

    robot_type = "counting"

    def __init__(self, size: int = 32, episode_steps: int | None = None):
        assert size % 4 == 0, "the frame is 4 by 4 blocks"
        self.size, self.episode_steps = size, episode_steps
        self.count = self.last = self.steps = self.episode = 0
        self._stopped = threading.Event()

    @property
    def action_space(self) -> ActionSpace:
        return ActionSpace.discrete([{"add": 1}, {"add": 2}], labels=("one", "two"))

    def get_observation(self) -> Observation:
        count = np.array([self.count], np.int64)
        return Observation(write(self.count, self.last, self.size), sequence=self.steps, episode=self.episode, state={"count": count})

    def execute_action(self, action: Action) -> Action:
        plain = self.action_space.check(action)
        if self._stopped.is_set():
            raise RobotError(f"action {plain} came after the robot was stopped; make a new robot to go on")
        self.last = int(plain["add"])
        self.count += self.last
        self.steps += 1
        if self.episode_steps and self.steps % self.episode_steps == 0:
            self.episode += 1
            self.last = 0
        return plain

    def stop(self) -> None:
        self._stopped.set()

    def cleanup(self) -> None:
        self.stop()

    def state_dict(self) -> dict:
        return {"count": self.count, "last": self.last, "steps": self.steps, "episode": self.episode}

    def load_state_dict(self, state: dict) -> None:
        self.count, self.last, self.steps, self.episode = state["count"], state["last"], state["steps"], state["episode"]


def write(count: int, last: int, size: int = 32) -> np.ndarray:
    """(size, size, 3) uint8: the frame that says so."""
    code = count % 2**COUNT_BITS + (last << COUNT_BITS)
    bits = np.array([(code >> bit) & 1 for bit in range(16)], np.uint8).reshape(4, 4)
    return np.repeat(np.kron(bits * 255, np.ones((size // 4, size // 4), np.uint8))[..., None], 3, axis=2).astype(np.uint8)


def read(image: np.ndarray) -> tuple[int, int]:
    """(count, last action) from a (4 k, 4 k, 3) uint8 frame; last is 0 at the start of an episode."""
    block = image.shape[0] // 4
    bits = image.reshape(4, block, 4, block, 3).mean(axis=(1, 3, 4)).ravel() > 127
    code = int(sum(1 << bit for bit in range(16) if bits[bit]))
    return code % 2**COUNT_BITS, code >> COUNT_BITS
