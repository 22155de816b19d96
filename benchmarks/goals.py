"""Does it reach a goal it is shown? `python benchmarks/goals.py --seed 0`

A dot that goes four ways learns for `--steps` steps in the default recipe; then it is shown a picture of itself at a place 1 to 6
moves away (all such places equally likely, and so is where it starts) and has twice the shortest plan to get there, edges wrapping. Reached
means within half a move of the place, by the world's own word; the selector knows only pictures. Beside it, with the same goals and
as many actions: acting at random, and staying. A decision's time is one call of the selector. Prints one JSON line.
"""

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import torch

from motorbabble.agents import learn
from motorbabble.experience import Choice, Situation, Step
from motorbabble.life import live
from motorbabble.robots.dot_2d import Dot2dRobot
from motorbabble.selectors import GoalSelector, RandomSelector, create_constant_action_selector
from motorbabble.world_models.base import WorldModel

FURTHEST = 6  # moves


def reach_goals(model: WorldModel, seed: int = 0, goals: int = 20, **planning) -> dict:
    """How many of `goals` places are reached by planning with `model`, at random and by staying; `planning`: settings of GoalSelector."""
    rng = np.random.default_rng(2_000_003 + seed)
    robot = Dot2dRobot(seed=seed)
    size, step = robot.config.image_size, robot.config.move_pixels
    far = range(-FURTHEST, FURTHEST + 1)
    ways = [(right, down) for right in far for down in far if 1 <= abs(right) + abs(down) <= FURTHEST]  # none is where it is already
    seconds: list[float] = []
    false_arrivals = 0
    taken: dict[str, list[float]] = {"planned": [], "random": [], "stay": []}  # actions of each success, by those of the shortest plan
    for number in range(goals):
        way = np.array(ways[rng.integers(len(ways))])
        start = rng.integers(0, size, 2)
        goal = (start + step * way) % size
        robot.place(*goal)
        planner = GoalSelector(robot.picture(), seed=seed + number, **planning)

        def planned(situation: Situation, planner: GoalSelector = planner) -> Choice:
            nonlocal false_arrivals
            began = time.perf_counter()
            choice = planner(situation)
            seconds.append(time.perf_counter() - began)
            false_arrivals += planner.reached  # nobody is asked who is there
            return choice

        tries: dict[str, Callable[[Situation], Choice]] = {
            "planned": planned,
            "random": RandomSelector(seed + number),
            "stay": create_constant_action_selector(robot.action_space.rest),
        }
        shortest = int(np.abs(way).sum())
        for name, select in tries.items():
            robot.place(*start)
            taken[name] += [actions / shortest for actions in _actions_to(robot, select, goal, 2 * shortest, model)]
    return {
        "goals": goals,
        "goals_reached": len(taken["planned"]),
        "random_reached": len(taken["random"]),
        "stay_reached": len(taken["stay"]),
        "goal_length_ratio": round(float(np.mean(taken["planned"])), 3) if taken["planned"] else None,  # 1: by the shortest plans
        "goal_false_arrivals": false_arrivals,
        "goal_decision_ms": round(float(np.percentile(seconds, 50)) * 1e3, 1),
        "goal_decision_ms_p95": round(float(np.percentile(seconds, 95)) * 1e3, 1),
    }


def _actions_to(robot: Dot2dRobot, select: Callable[[Situation], Choice], goal: np.ndarray, most: int, model: WorldModel) -> list[int]:
    """[after how many actions the dot was within half a move of the place], or [] where it never was."""
    for event in live(robot, select, world_model=model, steps=most):
        assert isinstance(event, Step)
        if robot.distance(np.array([robot.x, robot.y]), goal) < robot.config.move_pixels / 2:
            return [event.index + 1]
    return []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=400, help="of the robot, while it learns")
    parser.add_argument("--selector", default="random", help="who decides while it learns")
    parser.add_argument("--patch-size", type=int, default=16)
    parser.add_argument("--goals", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    robot = Dot2dRobot(seed=chosen.seed)
    run = learn(robot, selector=chosen.selector, steps=chosen.steps, seed=chosen.seed, threads=chosen.threads, patch_size=chosen.patch_size)
    for _ in run:
        pass
    told = {"seed": chosen.seed, "selector": chosen.selector, "steps": run.steps_done, "updates": run.learner.updates}
    told |= {"seconds": round(run.elapsed, 1), "skill": round(run.progress.skill, 3)}
    print(json.dumps(told | reach_goals(run.world_model, chosen.seed, chosen.goals)))


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
