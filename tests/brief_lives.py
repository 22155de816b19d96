"""Lives that take milliseconds: a mind that learns from all a batch holds, a selector and a robot in which whatever is left out shows."""

import json
import math
import random
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from counting import Counting
from torch import nn

from motorbabble.agents import Run, learn
from motorbabble.experience import Action, Choice, Observation, Situation, Step, Window
from motorbabble.learning import checkpoint as checkpoint_module
from motorbabble.learning.checkpoint import Checkpoints, Saved
from motorbabble.memory import MemoryConfig
from motorbabble.robots.toroidal_dot import ToroidalDotRobot
from motorbabble.selectors.curious import UncertaintySelector
from motorbabble.world_models.base import Batch, Imagination, WorldModel


@dataclass(frozen=True)
class BriefConfig:
    width: int = 8
    copy_w: float = 0.3  # how it is taught


class BriefMind(WorldModel):
    """Sees 4 by 4 blocks, and learns in a millisecond from all that a batch holds: frames, actions, background, chance."""

    teaching = frozenset({"copy_w"})

    def __init__(self, action_size: int, config: BriefConfig = BriefConfig(), image_shape: tuple[int, int] = (32, 32)):
        super().__init__()
        self.image_shape, self.action_size, self.history, self.config = image_shape, action_size, 2, config
        self.autoencoder = nn.Linear(48, config.width)
        self.predictor = nn.Linear(config.width + action_size, 48)

    def _blocks(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.adaptive_avg_pool2d(images, 4).flatten(1)

    def reconstruct(self, images: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255

    @torch.no_grad()
    def imagine(self, window: Window, plans: np.ndarray, *, pictures: bool = True) -> Imagination:
        actions = torch.from_numpy(self.check_plans(plans))
        seen = self.autoencoder(self._blocks(self.reconstruct(window.images[-2:]))).mean(0)
        after = self.predictor(torch.cat((seen.expand(len(actions), -1), actions[:, 0]), -1))
        return Imagination(None, after.std(-1, keepdim=True).expand(actions.shape[:2]))

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        blocks = self._blocks((batch.images - batch.background[:, None] * 0.5).flatten(0, 1)).unflatten(0, batch.images.shape[:2])
        noise = batch.chance("noise", blocks.shape[1] - 1)[..., None] * 0.1
        after = self.predictor(torch.cat((torch.tanh(self.autoencoder(blocks[:, :-1] + noise)), batch.actions), -1))
        error, copied = (after - blocks[:, 1:]).square(), (blocks[:, :-1] - blocks[:, 1:]).square()
        fresh = {"fresh_error": error[0, -1].mean(), "fresh_copy_error": copied[0, -1].mean()}
        fresh |= {"remembered_error": error[-1, -1].mean(), "remembered_copy_error": copied[-1, -1].mean()}
        total = error.mean() + self.config.copy_w * (after - blocks[:, :-1]).square().mean()
        return {"total": total, "reconstruction_skill": 1 - total, **fresh}

    def file_of(self, weight: str) -> str:
        return "autoencoder" if weight.startswith("autoencoder") else "predictor_0"


class Wavering:
    """Curiosity, swayed by all that was done so far and by every global generator, so that one left out is noticed."""

    def __init__(self, seed: int = 0):
        self.curious, self.done = UncertaintySelector(seed, babble=2), 0

    def __call__(self, situation: Situation) -> Choice:
        choice, actions = self.curious(situation), situation.action_space.candidates()
        drawn = random.random() + float(np.random.random()) + float(torch.rand(()))
        return choice if drawn < 1 else Choice(actions[(int(drawn * 50) + self.done) % len(actions)], why=f"{drawn}")

    def observe(self, step: Step) -> None:
        self.done = (self.done * 3 + len(step.choice.why)) % 1000

    def state_dict(self) -> dict:
        return {"curious": self.curious.state_dict(), "done": self.done}

    def load_state_dict(self, state: dict) -> None:
        self.curious.load_state_dict(state["curious"])
        self.done = state["done"]


class Slippery(Counting):
    """Sometimes does the other thing, by a generator of its own; senses what is not a number; its episodes may have a last frame."""

    robot_type = "slippery"

    def __init__(self, size: int = 32, episode_steps: int | None = None, last_frames: bool = False):
        super().__init__(size, episode_steps)
        self.rng, self.last_frames, self.ended = np.random.default_rng(5), last_frames, False

    def get_observation(self) -> Observation:
        """Looking twice at an episode's last frame begins the next episode."""
        if self.ended:
            self.episode, self.last, self.ended = self.episode + 1, 0, False
        seen = super().get_observation()
        self.ended = self.last_frames and self.last > 0 and self.steps % 4 == 0
        return replace(seen, ends=self.ended, state={**seen.state, "range": np.array([np.nan, np.inf, self.count])})

    def execute_action(self, action: Action) -> Action:
        slips = self.rng.random() < 0.3
        return super().execute_action({"add": 3 - action["add"]} if slips else action)

    def state_dict(self) -> dict:
        return {**super().state_dict(), "rng": self.rng.bit_generator.state, "ended": self.ended}

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        self.rng.bit_generator.state, self.ended = state["rng"], state["ended"]


def dot() -> ToroidalDotRobot:
    return ToroidalDotRobot(image_size=32, dot_radius=2, move_pixels=5, seed=0)


def brief(folder: Path, mind: BriefMind | None = None, robot=None, steps: int = 6, save_updates: int = 500, **settings) -> Run:
    robot = robot or dot()
    torch.manual_seed(0)
    keeps = MemoryConfig(folder / "c" if not list(folder.glob("gen-*")) else folder, folder / "s", save_updates=save_updates)
    mind = mind or BriefMind(robot.action_space.size)
    return learn(robot, mind, Wavering(), steps, memory=keeps, max_seconds=math.inf, **{"batch_size": 2, **settings})


def ended(run: Run) -> Run:
    for _ in run:
        pass
    return run


def weights(mind: torch.nn.Module) -> bytes:
    return b"".join(tensor.numpy().tobytes() for tensor in mind.state_dict().values())


def forged(folder: Path, change) -> None:
    """The newest generation again, with every hash right, after `change(tensors, state)`."""
    with Checkpoints(folder) as checkpoints:
        loaded = checkpoints.load()
        assert loaded
        tensors = {stem: dict(named) for stem, named in loaded.tensors.items()}
        state = json.loads(json.dumps(loaded.state))
        change(tensors, state)
        told = checkpoints.manifest(loaded.generation)
        identity = checkpoint_module.Identity(told["robot_type"], dot().action_space, told["architecture"])
        checkpoints.save(loaded.generation + 1, Saved(identity, tensors, state))


def put(stem: str, name: str, tensor: torch.Tensor | None):
    def change(tensors, state):
        if tensor is None:
            del tensors[stem][name]
        else:
            tensors[stem][name] = tensor

    return change


def flip(path: Path) -> None:
    good = path.read_bytes()
    path.write_bytes(good[:-9] + bytes([good[-9] ^ 1]) + good[-8:])
