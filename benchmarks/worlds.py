"""Worlds that nobody here made: `python benchmarks/worlds.py --minutes 10 --seed 0`.

Each environment is lived in for so many minutes with the recipe gym_latent as it stands: one stream, random initial weights, one
configuration for all. Then fresh episodes with random actions, which nothing was learned from, are the exam. `skill` is 1 - the model's
error / copy-last's where something moved; `floors` are the floors' own, in the same unit; `over_floors` is the skill against whichever
floor is best. Minutes are those of life (looking, learning, choosing, acting). One JSON line per world on stderr, one for all on stdout.
"""

import argparse
import json
import sys
from dataclasses import asdict, replace
from typing import Any

from motorbabble.agents import Run, learn
from motorbabble.analysis.card import at_the_door, picturing, thinking
from motorbabble.analysis.floors import floors_of
from motorbabble.analysis.scores import candidates_of, effective_horizon, horizon_curve, journeys_of, skill, tally, trials_of
from motorbabble.experience import Step
from motorbabble.life import live
from motorbabble.recipes import RECIPES, LearningRecipe, robot_from
from motorbabble.robots.gymnasium_robot import GymnasiumConfig
from motorbabble.selectors import RandomSelector

WORLDS = ("Acrobot-v1", "MiniGrid-FourRooms-v0", "ALE/Breakout-v5")


def lived(config: GymnasiumConfig, recipe: LearningRecipe, chosen: argparse.Namespace, overrides: dict[str, Any]) -> Run:
    robot = robot_from(config, chosen.seed)
    settings = {name: value for name, value in asdict(recipe.model).items() if name != "preset"} | overrides
    run = learn(
        robot,
        selector=recipe.selector,
        steps=chosen.steps,
        seconds=60 * chosen.minutes,
        seed=chosen.seed,
        preset=recipe.model.preset,
        threads=chosen.threads,
        holds_out=lambda observation: False,  # the exam is lived afterwards
        learner=recipe.learner,
        **settings,
    )
    with robot:
        for event in run:
            if chosen.curve and not isinstance(event, Step) and event.update % chosen.curve == 0:
                point = {"update": event.update, "seconds": run.elapsed, "skill": run.progress.skill}
                print(json.dumps(rounded(point)), {k: round(v, 3) for k, v in event.losses.items()}, file=sys.stderr, flush=True)
    return run


def examined(run: Run, config: GymnasiumConfig, chosen: argparse.Namespace) -> dict[str, Any]:
    with robot_from(config, 1_000_003 + chosen.seed) as robot:
        steps = [event for event in live(robot, RandomSelector(chosen.seed), steps=chosen.exam) if isinstance(event, Step)]
    model, space = run.world_model, run.action_space
    steps = at_the_door(model, steps)
    trials, journeys = trials_of(steps, space, model.history), journeys_of(steps, space, model.history)
    with thinking(model):
        predictors = {"model": picturing(model), **floors_of(run.learned_from, space)}
        scores = {who: tally(predict, trials, space) for who, predict in predictors.items()}
        horizon = horizon_curve(predictors["model"], journeys)
    mine = scores["model"]
    errors = {who: float(scored.error[scored.moved].sum()) for who, scored in scores.items()}
    told = mine.to_json(float(mine.copied[mine.moved].mean()))
    return {
        "skill": mine.skill_moved,
        "floors": {who: scored.skill_moved for who, scored in scores.items() if who != "model"},
        "over_floors": skill(errors["model"], min(error for who, error in errors.items() if who != "model")),
        "action_advantage": told["action_advantage"],
        "action_margin": told["action_margin"],
        "chance": 1 / len(candidates_of(space)),
        "moved": float(mine.moved.mean()),
        "horizon": effective_horizon(horizon),
        "trials": len(trials),
        "steps": run.steps_done,
        "updates": run.learner.updates,
        "seconds": run.elapsed,
    }


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: rounded(inner) for name, inner in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", action="append", help=f"of Gymnasium, more than once for several; {', '.join(WORLDS)} unless given")
    parser.add_argument("--minutes", type=float, default=10.0, help="of life in each world")
    parser.add_argument("--steps", type=int, help="of the robot, at most, in each world")
    parser.add_argument("--exam", type=int, default=300, help="steps with random actions that are scored")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--curve", type=int, default=0, metavar="N", help="print the losses after every N updates")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="override a setting of the recipe, as in learn(NAME=VALUE)")
    chosen = parser.parse_args()

    recipe = RECIPES["gym_latent"]
    assert isinstance(recipe, LearningRecipe) and isinstance(recipe.robot, GymnasiumConfig)
    overrides = {name: json.loads(value) for name, value in (pair.split("=", 1) for pair in chosen.set)}
    overrides = {name: tuple(value) if isinstance(value, list) else value for name, value in overrides.items()}
    results: dict[str, Any] = {}
    for name in chosen.env or WORLDS:
        config = replace(recipe.robot, env=name)
        results[name] = rounded(examined(lived(config, recipe, chosen, overrides), config, chosen))
        print(json.dumps({"world": name, **results[name]}), file=sys.stderr, flush=True)
    print(json.dumps({"skill": {name: told["skill"] for name, told in results.items()}, "seed": chosen.seed, "worlds": results}))


if __name__ == "__main__":
    main()
