"""The canvas world model and the latent one on the same stream: `python benchmarks/canvas.py --seed 0`. Prints one JSON line.

Both live the life of one seed with random actions, which depend on nothing that is learned, so both see the same frames. The dot's 24
columns are held out as in benchmarks/first_life.py; `--world bodies` is examined on another course, as there. A life ends after `--seconds`
of it or `--steps` of the robot. The figures without a prefix are the canvas model's; `first_good`, of the dot: robot steps, updates and
seconds after which an exam (one after every tenth update) first had 95 % of moves and of stays within 2 px, action advantage 0.95 and skill
0.8 at once. `peak_fraction` is the operations of one update that hides whole slots per second, over the best matrix product of the same
process (benchmarks/measuring.py). `--set NAME=VALUE` changes a setting of the canvas model: `--set residual=false`,
`--set action_token=false`, `--set moved_layers=0`. `--picture FILE` shows what both imagine at the end.
"""

import argparse
import json
import math
import statistics
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from first_life import BodiesExam, DotExam, examine, rounded
from measuring import best_product, operations_of, timed
from PIL import Image

from motorbabble.agents import Run, learn
from motorbabble.analysis.canvas import drawn, predicted_canvas, words_of
from motorbabble.analysis.card import picturing, thinking
from motorbabble.experience import Study
from motorbabble.figures import fit, label, side_by_side
from motorbabble.recipes import RECIPES
from motorbabble.robots.bodies import BodiesRobot
from motorbabble.robots.toroidal_dot import ToroidalDotRobot
from motorbabble.world_models.canvas import CanvasWorldModel

EXAM_EVERY = 10  # updates
GOOD = {"move_within_2px": 0.95, "stay_within_2px": 0.95, "action_advantage": 0.95, "skill_moved": 0.8}


def first_life(world: str, model: str, seed: int, steps: int, seconds: float, settings: dict[str, Any]) -> tuple[Run, dict[str, Any]]:
    is_dot = world == "dot"
    robot = ToroidalDotRobot(seed=seed) if is_dot else BodiesRobot(seed, course=seed)
    exam = DotExam(robot, seed) if isinstance(robot, ToroidalDotRobot) else BodiesExam(robot, seed)
    recipe = RECIPES[f"{'toroidal_dot' if is_dot else world}_{model}"]
    chosen = {name: value for name, value in asdict(recipe.model).items() if name != "preset"} | settings
    run = learn(robot, model, "random", steps, seed, seconds=seconds, holds_out=exam.holds_out, learner=recipe.learner, **chosen)
    first_good, curve = None, []
    for event in run:
        if is_dot and isinstance(event, Study) and event.update % EXAM_EVERY == 0:
            found = examine(run, exam, quick=True)
            curve.append((event.update, round(found["skill_moved"], 3)))
            if first_good is None and all(found[name] >= least for name, least in GOOD.items()):
                first_good = {"robot_steps": run.steps_done, "updates": event.update, "seconds": round(run.elapsed, 1)}
    print(json.dumps({"model": model, "seed": seed, "curve": curve}), file=sys.stderr, flush=True)
    lived = {"robot_steps": run.steps_done, "updates": run.learner.updates, "seconds": run.elapsed, "first_good": first_good}
    return run, lived | examine(run, exam)


def peak_fraction(run: Run, updates: int = 15) -> float:
    """Of updates that hide whole slots, the most usual ones."""
    learner = run.learner
    assert isinstance(learner.trained, CanvasWorldModel)
    learner.trained.config = replace(learner.trained.config, slot_share=1.0, part_share=0.0)
    windows, _ = learner.choose()
    operations = operations_of(lambda: learner.update(windows))
    peak = best_product()
    median = statistics.median(timed(lambda: learner.update(windows), updates))
    return operations / median / max(peak, best_product())


def imagining_ms(run: Run, times: int = 30) -> float:
    """Median, of both actions with pictures."""
    plans = np.stack([run.action_space.encode(action) for action in run.action_space.candidates()])[:, None]
    return 1e3 * statistics.median(timed(lambda: run.world_model.imagine(run.window, plans), times))


def picture(canvas: Run, latent: Run, most: int = 3) -> np.ndarray:
    """(H, W, 3) uint8: for the newest moment of both lives, a row for each of `most` actions."""
    space, model = canvas.action_space, canvas.world_model
    assert isinstance(model, CanvasWorldModel)
    window = canvas.window.last(model.history)
    rows = []
    for action in space.candidates()[:most]:
        code, word = space.encode(action), space.label(action)
        with thinking(model), thinking(latent.world_model):
            painted, _ = predicted_canvas(model, window, code)
            foreseen = picturing(latent.world_model)(window, code[None, None])[0, 0]
        words = [*words_of(space, window.actions), word]
        side = max(1, 736 // painted.shape[1]) * foreseen.shape[1]
        rows.append([drawn(model, painted, words, "next", side=736), label(fit(foreseen, side), "latent: next")])
    strips = [side_by_side(row, gap=12) for row in rows]
    return np.concatenate([part for strip in strips for part in (strip, np.full((14, strip.shape[1], 3), 255, np.uint8))][:-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--world", choices=("dot", "bodies"), default="dot")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seconds", type=float, help="of life, of each model, exams left out; 90 for the dot, no limit for bodies")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--alone", action="store_true", help="without the latent model")
    parser.add_argument("--picture", type=Path, help="a PNG of what both imagine at the end")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="override a setting of the canvas model")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    settings = {name: json.loads(value) for name, value in (pair.split("=") for pair in chosen.set)}
    seconds = chosen.seconds or (90.0 if chosen.world == "dot" else math.inf)
    run, found = first_life(chosen.world, "canvas", chosen.seed, chosen.steps, seconds, settings)
    result = {"seed": chosen.seed, "world": chosen.world, **found, "imagine_ms": imagining_ms(run), "peak_fraction": peak_fraction(run)}
    if not chosen.alone:
        other, latent = first_life(chosen.world, "latent", chosen.seed, chosen.steps, seconds, {})
        result |= {f"latent_{name}": value for name, value in {**latent, "imagine_ms": imagining_ms(other)}.items()}
        if chosen.picture:
            Image.fromarray(picture(run, other)).save(chosen.picture, optimize=True)
    print(json.dumps(rounded({**result, "threads": chosen.threads})))


if __name__ == "__main__":
    main()
