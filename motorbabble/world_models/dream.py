"""DreamRobot: a world model wearing the face of a robot, so that whatever lives in the real world lives inside its imagination.

Decisions: an episode begins with real frames, drawn by seed from those it was given, and goes on with imagined ones alone; each frame is
rounded to the 8 bits a camera would give, and what is imagined next starts from the newest of them. So one step here is
`imagine` asked for one step; asked for several at once it keeps its pictures unrounded, which differs by little (tests/test_dream.py).
How unsure the model is of a step is in Observation.state["uncertainty"], absent from the real frame an episode begins with.
"""

import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from motorbabble.errors import ActionError, ConfigurationError, FrameError, RobotError
from motorbabble.experience import Action, ActionSpace, Observation, Window
from motorbabble.recording.format import decoded, to_png
from motorbabble.robots.interface import RobotInterface
from motorbabble.world_models.base import WorldModel


@dataclass(frozen=True)
class DreamConfig:
    checkpoint: str = ""  # whose imagination: ROBOT_TYPE/NAME, NAME or a folder; babble checkpoints list shows them
    session: str = ""  # whose frames episodes begin with: a name, ROBOT_TYPE/NAME or a path; empty: those it learned from
    episode_steps: int = 30  # actions, after which a new episode begins with real frames
    beginnings: int = 64  # places to begin from, spread over the sessions
    checkpoints: Path = Path("saved/checkpoints")  # a folder per robot type in it
    sessions: Path = Path("saved/sessions")  # likewise

    def __post_init__(self):
        if self.episode_steps < 1 or self.beginnings < 1:
            raise ConfigurationError(f"{self.beginnings} beginnings and episodes of {self.episode_steps} steps are no dream; give at least 1 of each")


class DreamRobot(RobotInterface):
    """What `world_model` imagines, as a world to act in. It is shown as it is now: a model that learns on changes its dream.

    `beginnings`: windows of real frames, one of which every episode starts from. After `episode_steps` actions the next look begins a new
    episode. Once stopped it stays stopped, with RobotError for every further action. Observation.state["uncertainty"]: (1,) float32, nats.
    """

    def __init__(
        self,
        world_model: WorldModel,
        action_space: ActionSpace,
        beginnings: Sequence[Window],
        episode_steps: int = 30,
        seed: int = 0,
        robot_type: str = "robot",
    ):
        if world_model.action_size != action_space.size:
            raise ActionError(
                f"the model knows actions of {world_model.action_size} numbers, this action space has {action_space.size}; "
                "give the space of the robot it learned from"
            )
        if not beginnings:
            raise ConfigurationError("a dream needs real frames to begin from, and there are none; give at least one window")
        if episode_steps < 1:
            raise ConfigurationError(f"episode_steps is {episode_steps}; give at least 1")
        self.world_model, self.robot_type, self.episode_steps = world_model.eval(), f"dream_of_{robot_type}", episode_steps
        self.beginnings = [world_model.check_window(window).last(world_model.history) for window in beginnings]
        self._action_space = action_space
        self._rng = np.random.default_rng(seed)
        self._stopped = threading.Event()
        self._sequence = self._episode = 0
        self._begin_episode()

    @property
    def action_space(self) -> ActionSpace:
        return self._action_space

    def get_observation(self) -> Observation:
        state = {} if self._uncertainty is None else {"uncertainty": np.array([self._uncertainty], np.float32)}
        return Observation(self._window.images[-1].copy(), None, time.time_ns(), self._sequence, self._episode, state=state)

    def execute_action(self, action: Action) -> Action:
        plain = self._action_space.check(action)
        if self._stopped.is_set():
            raise RobotError(f"action {plain} came after the dream was stopped; make a new one to go on")
        encoded = self._action_space.encode(plain)
        self._sequence += 1
        self._steps += 1
        if self._steps == self.episode_steps:
            self._episode += 1
            self._begin_episode()
            return plain
        imagined = self.world_model.imagine(self._window, encoded[None, None])
        assert imagined.images is not None
        picture = imagined.images[0, 0].clamp(0, 1).movedim(0, -1).cpu().numpy()
        images = np.concatenate((self._window.images, np.rint(picture * 255).astype(np.uint8)[None]))
        self._window = Window(images, np.concatenate((self._window.actions, encoded[None]))).last(self.world_model.history)
        self._uncertainty = float(imagined.uncertainty[0, 0])
        return plain

    def _begin_episode(self) -> None:
        self._window = self.beginnings[self._rng.integers(len(self.beginnings))]
        self._steps, self._uncertainty = 0, None

    def stop(self) -> None:
        self._stopped.set()

    def cleanup(self) -> None:
        self.stop()

    def describe(self) -> str:
        steps = f"episodes of {self.episode_steps} steps, each from one of {len(self.beginnings)} real beginnings"
        return f"A dream: what a world model imagines of {self.robot_type.removeprefix('dream_of_')}, in {steps}."

    def state_dict(self) -> dict[str, Any]:
        """Where the dream is, in plain values; what dreams it, and from where, is given again when it is made."""
        return {
            "images": [b64encode(to_png(image)).decode() for image in self._window.images],
            "actions": self._window.actions.tolist(),
            "uncertainty": self._uncertainty,
            "counts": [self._sequence, self._episode, self._steps],
            "generator": self._rng.bit_generator.state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        images = np.stack([decoded(b64decode(image)) for image in state["images"]])
        mine = self._window.images.shape[1:]
        if images.shape[1:] != mine:
            raise FrameError(f"the saved dream has frames of {images.shape[1:]}, this one of {mine}; dream with the model that it was saved from")
        actions = np.array(state["actions"], np.float32).reshape(len(images) - 1, self._action_space.size)
        self._window, self._uncertainty = Window(images, actions), state["uncertainty"]
        self._sequence, self._episode, self._steps = state["counts"]
        self._rng.bit_generator.state = state["generator"]
