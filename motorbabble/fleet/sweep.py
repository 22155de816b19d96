"""Sweeps: recipes and seeds, each a life of its own, as many at once as the cluster has cores.

Decisions: nothing of a sweep is kept but its table; a life that is killed with its worker begins anew, since from the same seed it is the same life;
one that ends with an error is a row that says so, and the others go on.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from motorbabble.birth import born
from motorbabble.errors import ConfigurationError, MotorbabbleError
from motorbabble.experience import Step
from motorbabble.fleet.cluster import cluster
from motorbabble.life import live
from motorbabble.recipes import LearningRecipe, robot_from
from motorbabble.selectors import RandomSelector

SCORES = ("skill_moved", "action_advantage", "effective_horizon")  # of the card


def sweep(
    recipes: Mapping[str, LearningRecipe], seeds: Sequence[int], *, address: str | None = None, cpus: int | None = None, **settings: Any
) -> Iterator[dict[str, Any]]:
    """A row per recipe and seed, as each comes to its end: steps, updates, seconds of life, the card's scores, or why it failed.

    `settings` are those of the model and the learner, as `learn` takes them. `address`: of a Ray cluster that is there already.
    """
    if not recipes or not seeds:
        raise ConfigurationError("a sweep needs a recipe and a seed; give at least one of each")
    with cluster(address, cpus) as ray:
        lived = ray.remote(num_cpus=1)(one_life)
        pending = [lived.remote(name, replace(recipe, seed=seed), settings) for name, recipe in recipes.items() for seed in seeds]
        while pending:
            ready, pending = ray.wait(pending, num_returns=1)
            yield from ray.get(ready)


def one_life(name: str, recipe: LearningRecipe, settings: Mapping[str, Any]) -> dict[str, Any]:
    """From birth to exam, on one core."""
    row: dict[str, Any] = {"recipe": name, "seed": recipe.seed}
    try:
        with robot_from(recipe.robot, recipe.seed) as robot:
            run = born(name, replace(recipe, threads=recipe.threads or 1, beside=False), robot, holds_out=lambda observation: False, **settings)
            for _ in run:
                pass
            row |= {"steps": run.steps_done, "updates": run.learner.updates, "seconds": run.elapsed}
            exam = live(robot, RandomSelector(recipe.seed + 1), steps=recipe.exam_steps)
            card = run.card([event for event in exam if isinstance(event, Step)], name=name)
            return row | {score: card.model[score] for score in SCORES if score in card.model}
    except MotorbabbleError as error:
        return row | {"failed": str(error)}
