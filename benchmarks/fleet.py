"""What more robots bring where acting is the bottleneck: `python benchmarks/fleet.py --robots 1 4`.

The dot, its default recipe, actions of one second, and one update for each look, as where the learner is in the loop; but robots act on time,
whatever the learner does. Each fleet begins from nothing and ends when its learner's averaged weights have the dot's skill in the exam of
first_life.py (skill 0.8, and 95 % of "move" and of "stay" within 2 px, at columns held out of everything learned from), or after `--seconds`.
Seconds count from the robots' first look; starting Ray is left out, and exams are sat on the same cores. Prints a JSON line per fleet and seed, in
alternation, and the ratio of the sums last.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from first_life import DotExam, within_2px

from motorbabble.analysis.card import picturing, thinking
from motorbabble.analysis.scores import tally
from motorbabble.experience import Observation
from motorbabble.fleet import Fleet
from motorbabble.fleet.cluster import cluster
from motorbabble.recipes import RECIPES, KeepConfig, LearningRecipe
from motorbabble.robots.toroidal_dot import ToroidalDotConfig, ToroidalDotRobot


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--robots", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--period", type=float, default=1.0, help="seconds of an action")
    parser.add_argument("--seconds", type=float, default=300.0, help="of one fleet, at most")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two exams")
    parser.add_argument("--image-size", type=int, default=96, help="pixels, both sides; at 224 two cores learn no faster than four robots act")
    parser.add_argument("--updates", type=int, default=1, help="per look, at most: 1 as in the loop; more lets one robot learn more from each action")
    parser.add_argument("--threads", type=int, default=1, help="of the learner")
    chosen = parser.parse_args()
    times: dict[int, list[float | None]] = {robots: [] for robots in chosen.robots}
    with cluster():
        for seed in chosen.seeds:
            for robots in chosen.robots:
                with tempfile.TemporaryDirectory() as folder:
                    found = reached(robots, seed, chosen, Path(folder))
                times[robots].append(found["seconds_to_skill"])
                print(json.dumps(found), flush=True)
    fewest, most = min(times), max(times)
    known = None not in times[fewest] + times[most]
    ratio = round(sum(filter(None, times[most])) / sum(filter(None, times[fewest])), 3) if known else None
    print(json.dumps({"seconds_to_skill": times, "ratio": ratio}))


def reached(robots: int, seed: int, chosen: argparse.Namespace, folder: Path) -> dict:
    dot = RECIPES["toroidal_dot_latent"]
    assert isinstance(dot, LearningRecipe)
    recipe = replace(
        dot,
        robot=ToroidalDotConfig(image_size=chosen.image_size),
        seed=seed,
        steps=10**6,
        threads=chosen.threads,
        action_period=chosen.period,
        beside=True,  # it acts on time
        keep=KeepConfig(folder / "sessions", folder / "checkpoints"),
    )
    exam = DotExam(ToroidalDotRobot(recipe.robot, seed=seed), seed)
    hidden = frozenset(map(int, exam.columns))

    def holds_out(observation: Observation) -> bool:
        return int(observation.state["objects"][0, 0]) in hidden

    curve, seconds, due = [], None, chosen.every
    with Fleet(recipe, robots, holds_out=holds_out, beside_updates=chosen.updates) as fleet:
        for beat in fleet:
            if fleet.seconds < due:
                continue
            at, model = fleet.seconds, fleet.world_model()
            with thinking(model):
                scored = tally(picturing(model), exam.trials(model.history)[::3], exam.space, exam.scratch)
            places = within_2px(scored, exam.space)
            steps = sum(robot.beat.steps for robot in fleet.robots if robot.beat)
            curve.append([round(at, 1), steps, beat.updates, round(scored.skill_moved, 3), round(min(places.values()), 3)])
            print(robots, seed, curve[-1], file=sys.stderr, flush=True)
            due = max(at + chosen.every, fleet.seconds)
            if scored.skill_moved >= 0.8 and min(places.values()) >= 0.95:
                seconds = round(at, 1)
                break
            if at >= chosen.seconds:
                break
    load = round(os.getloadavg()[0], 1)
    facts = {"cores": os.cpu_count(), "load": load, "torch": torch.__version__, "at": time.strftime("%Y-%m-%d")}
    result = {name: fleet.result[name] for name in ("steps", "updates")}
    return {
        "robots": robots,
        "seconds_to_skill": seconds,
        "seed": seed,
        "period": chosen.period,
        "most_updates_per_look": chosen.updates,
        **result,
        "curve": curve,
        **facts,
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
