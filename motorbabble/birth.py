"""A recipe comes to life: the one place where a named run's settings become a robot with a mind. Commands and the explorer begin here."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from threading import Event as Flag
from typing import Any

from motorbabble import __version__
from motorbabble.agents import Run, learn
from motorbabble.experience import Observation
from motorbabble.memory import MemoryConfig
from motorbabble.recipes import LearningRecipe
from motorbabble.robots.interface import RobotInterface


def born(
    name: str,
    recipe: LearningRecipe,
    robot: RobotInterface,
    memory: MemoryConfig | None = None,
    stop: Flag | None = None,
    holds_out: Callable[[Observation], bool] | None = None,
    about: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Run:
    """The Run that a recipe called `name` describes, on a robot that its caller made and will clean up. `settings` go to `learn` as they are."""
    about = {"recipe": name, "version": __version__, **(about or {})}
    return learn(
        robot,
        recipe.model.kind,
        recipe.select(),
        steps=recipe.steps,
        seconds=recipe.seconds,
        seed=recipe.seed,
        preset=recipe.model.preset,
        device=recipe.device,
        threads=recipe.threads,
        holds_out=holds_out,
        learner=recipe.learner,
        stop=stop,
        memory=memory,
        about=about,
        action_delay=recipe.action_delay,
        action_period=None if recipe.show.interactive else recipe.action_period,  # a person takes the time that it takes
        beside=recipe.beside,
        gate=recipe.gate,
        bounds=recipe.bounds,
        **{**{key: value for key, value in asdict(recipe.model).items() if key != "preset"}, **settings},
    )
