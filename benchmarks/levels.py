"""Do levels of prediction appear by themselves, are they right, and what are they good for? `python benchmarks/levels.py --seed 0`

A dot that goes four ways lives with the default recipe for `--seconds` (10 minutes at most); nobody says when a level should come.
Then, on places and actions it never lived: each level's skill over its whole span against keeping the frame it starts from, beside rolling out
the level below, and the time of both. Last, what levels are for: the dot is shown a place exactly 8 moves away, draws plans of 8
actions (one action for a while, then another), takes the one whose end comes closest and does all 8. Level 0 imagines 8 pictures
for each plan, level k only 8 / 2^k. Success means the place itself. Once all have the same plans, once all have the time that level 0
takes for its own. Prints one JSON line.
"""

import argparse
import json
import time
from statistics import median

import numpy as np
import torch

from motorbabble.agents import Run, learn
from motorbabble.analysis.card import thinking
from motorbabble.analysis.levels import level_numbers
from motorbabble.experience import Step, Study, Window
from motorbabble.life import live
from motorbabble.models.distance import distance
from motorbabble.robots.dot_2d import MOVES, Dot2dRobot
from motorbabble.selectors import RandomSelector
from motorbabble.world_models.base import WorldModel

LENGTH = 8  # actions of a plan
GOALS = 20
PLANS = 64


def lived(seed: int, seconds: float, updates: int | None, selector: str) -> tuple[Run, dict]:
    """A life, and when each level came: {"created_at_step": ..., ...}, level by level."""
    robot = Dot2dRobot(seed=seed)
    run = learn(robot, selector=selector, steps=None, seconds=seconds, seed=seed, patch_size=8, holds_out=lambda observation: False)
    created: dict[str, list] = {"created_at_step": [], "created_at_update": [], "created_at_second": [], "retired": []}
    for event in run:
        if isinstance(event, Study) and event.notes:
            count = len(created["created_at_step"])
            created["retired"] += [note for note in event.notes if "retired" in note]
            if len(run.world_model.spans) - 1 > count:
                for name, value in zip(created, (run.steps_done, event.update, round(run.elapsed)), strict=False):
                    created[name].append(value)
        if isinstance(event, Step) and updates and run.learner.updates >= updates:
            break
    return run, created


def plan_goals(model: WorldModel, seed: int) -> dict:
    """One plan for each of the goals, by each level: how often it ends there, and the seconds that planning took."""
    rng = np.random.default_rng(3_000_017 + seed)
    robot = Dot2dRobot(seed=seed)
    space, size, step = robot.action_space, robot.config.image_size, robot.config.move_pixels
    actions = np.stack([space.encode(action) for action in space.candidates()])
    found: dict[tuple[int, str], list] = {}
    for _ in range(GOALS):
        legs = int(rng.integers(0, LENGTH + 1))
        way = np.array([legs, LENGTH - legs]) * rng.choice([-1, 1], 2)
        start = rng.integers(0, size, 2)
        goal = (start + step * way) % size
        robot.place(*goal)
        picture = _tensor(model, robot.picture())
        robot.place(*(start - step * MOVES[1]))
        before = robot.picture()
        robot.place(*start)
        window = Window(np.stack((before, robot.picture())), actions[1][None])
        plans = _drawn(rng, 8 * PLANS)
        pace = 0.0
        for level in range(len(model.spans)):
            chosen, took = _plan(model, window, actions, plans[:PLANS], picture, level)
            tries = {"equal_plans": (chosen, took, PLANS)}
            pace = pace or took
            count = min(len(plans), round(PLANS * pace / took))
            tries["equal_time"] = (*_plan(model, window, actions, plans[:count], picture, level), count) if level else tries["equal_plans"]
            for rule, (chosen, took, count) in tries.items():
                there = (start + step * MOVES[chosen].sum(0)) % size
                found.setdefault((level, rule), []).append((bool((there == goal).all()), took, count))
    told = {}
    for (level, rule), tries in found.items():
        success, seconds = float(np.mean([reached for reached, *_ in tries])), median(took for _, took, _ in tries)
        told.setdefault(rule, []).append(
            {
                "level": level,
                "success": success,
                "plans": round(median(count for *_, count in tries)),
                "seconds": round(seconds, 4),
                "success_per_second": round(success / seconds, 4),
            }
        )
    return told


def _drawn(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, LENGTH) indices of actions: one for a while, then another."""
    first, second = rng.integers(0, len(MOVES), (2, count, 1))
    return np.where(np.arange(LENGTH) < rng.integers(0, LENGTH + 1, (count, 1)), first, second)


def _plan(model: WorldModel, window: Window, actions: np.ndarray, plans: np.ndarray, goal: torch.Tensor, level: int) -> tuple[np.ndarray, float]:
    """The plan whose last picture comes closest to the goal, and the seconds it took to find it."""
    began = time.perf_counter()
    images = model.imagine(window, actions[plans], level=level).images
    assert images is not None
    best = int(distance(images[:, -1], goal).argmin())
    return plans[best], time.perf_counter() - began


def _tensor(model: WorldModel, image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).to(model.device).movedim(-1, 0).float() / 255


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=480.0, help="of life, at most; 600 are allowed")
    parser.add_argument("--updates", type=int, help="after which life ends too")
    parser.add_argument("--selector", default="uncertainty")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    run, created = lived(chosen.seed, chosen.seconds, chosen.updates, chosen.selector)
    model, cpu_seconds = run.world_model, time.process_time()
    other = Dot2dRobot(seed=1_000_003 + chosen.seed)
    test = [event for event in live(other, RandomSelector(chosen.seed + 1), steps=300) if isinstance(event, Step)]
    with thinking(model):
        levels = level_numbers(model, test, run.action_space, [])["levels"]
        planning = plan_goals(model, chosen.seed)
    rounded = [{name: round(value, 4) if isinstance(value, float) else value for name, value in level.items()} for level in levels]
    result = {
        "seed": chosen.seed,
        "selector": chosen.selector,
        "levels": len(model.spans),
        "skill_per_level": [level["skill"] for level in rounded],
        "skill_rolled_out": [level["skill_rolled_out"] for level in rounded],
        "cost_ratio_to_rollout": [level["cost_ratio"] for level in rounded],
        **created,
        "steps": run.steps_done,
        "updates": run.learner.updates,
        "seconds": round(run.elapsed, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "planning": planning,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
