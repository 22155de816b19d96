"""The models that are measured: each kind, size, side of the frame and batch, after a short life that fills its replay and warms it up."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from motorbabble.agents import Run, learn
from motorbabble.life import live
from motorbabble.robots.toroidal_dot import ToroidalDotRobot

WARM_STEPS = 40


@dataclass(frozen=True)
class Variant:
    kind: str  # latent or canvas
    preset: str = "tiny"
    side: int = 224  # pixels of a frame
    batch: int = 4  # windows an update

    @property
    def name(self) -> str:
        """latent_tiny_224_batch_4"""
        return f"{self.kind}_{self.preset}_{self.side}_batch_{self.batch}"

    @classmethod
    def named(cls, name: str) -> "Variant":
        kind, preset, side, _, batch = name.split("_")
        return cls(kind, preset, int(side), int(batch))

    def __str__(self) -> str:
        return f"{self.kind}, {self.preset}, {self.side} px, {self.batch} windows"


KINDS = ("latent", "canvas")
VARIANTS = (
    *(Variant(kind, preset, side) for preset in ("tiny", "base") for side in (224, 64) for kind in KINDS),
    *(Variant(kind, "tiny", 64, 16) for kind in KINDS),
)


def lived(variant: Variant, threads: int | None, steps: int = WARM_STEPS, **settings: Any) -> Run:
    """A run of the dot whose learner remembers `steps` looks and has made no update."""
    size = (variant.side, variant.side)
    run = learn(
        ToroidalDotRobot(seed=0),
        variant.kind,
        "random",
        preset=variant.preset,
        threads=threads,
        image_size=size,
        batch_size=variant.batch,
        **settings,
    )
    eyes: Any = SimpleNamespace(world_model=run.world_model, remember=run.learner.remember, study=lambda: ())
    for _ in live(run.robot, run.select, eyes, steps=steps, history=run._history):
        pass
    return run


def plans_of(run: Run, many: int, length: int = 1) -> np.ndarray:
    """(many, length, C): plans of random actions, the same ones each time."""
    actions = np.stack([run.action_space.encode(action) for action in run.action_space.candidates()])
    return actions[np.random.default_rng(0).integers(0, len(actions), (many, length))]


def each_action(run: Run) -> np.ndarray:
    """(actions, 1, C): every action once, which is what is imagined before a choice."""
    return np.stack([run.action_space.encode(action) for action in run.action_space.candidates()])[:, None]
