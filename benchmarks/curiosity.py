"""Whether curiosity is worth having: `python benchmarks/curiosity.py --seeds 5 [--part calibration ...]`. Prints one JSON line.

calibration: a world of bodies, learned online; then half of the test moments are like those lived and half are shifted (rows rolled,
brightness up to 90 of 255 away; `contrast_...`: multiplied by 0.35 to 1.9 instead). Does disagreement rank the errors? `lift_possible`
is the top-decile lift of the errors themselves.
television: the dot with an action that shows noise. How often is it chosen, over its fair share? prediction_error is the contrast.
exploration: a world of bodies where most actions do nothing. Steps until curiosity's error on an even test of what does something is as
low as the one random actions end with, over their steps; random actions of random duration beside it.
goals: goal frames on the plane dot, reached by planning (benchmarks/goals.py).
lifelong: ten worlds of bodies in a row. Backward transfer: change of skill on each after all ten, relative to skill right after it. Plasticity: mean
skill while the tenth is learned, over that of a new model on the same world.

Numbers are medians over the seeds; every seed's own go to stderr. All run on --threads threads of the CPU.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from goals import reach_goals

from motorbabble.agents import Run, learn
from motorbabble.analysis.card import picturing, thinking
from motorbabble.analysis.scores import Trial, mse, predicted, spearman, tally, trials_of
from motorbabble.experience import Selector, Step
from motorbabble.life import live
from motorbabble.recipes import RECIPES
from motorbabble.robots.bodies import BodiesConfig, BodiesRobot
from motorbabble.robots.dot_2d import Dot2dConfig, Dot2dRobot
from motorbabble.robots.interface import RobotInterface
from motorbabble.selectors import RandomSelector
from motorbabble.world_models.base import Imagination, WorldModel

Light = Callable[[np.ndarray, float], np.ndarray]  # (images, strength from -1 to 1) -> images

# A small mind for small worlds: what is compared here is who chooses the actions.
SMALL: dict[str, Any] = {"patch_size": 8, "width": 64, "depth": 2, "decoder_width": 64, "heads": 4, "shift": (8, 8), "most_levels": 1}


def a_life(robot: RobotInterface, selector: str | Selector, steps: int, seed: int, recipe: str = "bodies_latent", **settings: Any) -> Run:
    chosen = RECIPES[recipe]
    model = {name: value for name, value in asdict(chosen.model).items() if name not in ("preset", "image_size")}
    return learn(robot, "latent", selector, steps, seed, holds_out=lambda seen: False, learner=chosen.learner, **model | settings)


def to_the_end(run: Run) -> Run:
    for _ in run:
        pass
    return run


# Calibration


def calibration(seed: int, steps: int = 250) -> dict[str, float]:
    robot = BodiesRobot(seed, course=seed)
    model = to_the_end(a_life(robot, "uncertainty", steps, seed)).world_model
    other = BodiesRobot(config=robot.config, course=1_000_003 + seed)
    lived = [event for event in live(other, RandomSelector(seed), steps=240) if isinstance(event, Step)]
    trials = trials_of(lived, robot.action_space, model.history)
    with thinking(model):
        told = ranked(model, trials, brighter, seed)
        return {**told, **{f"contrast_{name}": value for name, value in ranked(model, trials, stronger, seed).items()}}


def ranked(model: WorldModel, trials: Sequence[Trial], light: Light, seed: int) -> dict[str, float]:
    """How disagreement ranks the errors, every second trial shifted."""
    rng = np.random.default_rng(seed)
    trials = [shifted(trial, light, rng) if i % 2 else trial for i, trial in enumerate(trials)]
    imagined = [model.imagine(trial.window, trial.action[None, None]) for trial in trials]
    errors = np.array([float(mse(_picture(one), trial.truth)) for one, trial in zip(imagined, trials, strict=True)])
    unsure = np.array([float(one.uncertainty[0, 0]) for one in imagined])
    actions = np.array([int(trial.action.argmax()) for trial in trials])
    within = [(rho, int(mine.sum())) for a in np.unique(actions) if (rho := spearman(unsure[mine := actions == a], errors[mine])) is not None]
    top = max(1, len(errors) // 10)
    return {
        "spearman": spearman(unsure, errors) or 0.0,
        "spearman_within_action": sum(rho * count for rho, count in within) / sum(count for _, count in within),
        "top_decile_lift": float(errors[np.argsort(-unsure)[:top]].mean() / errors.mean()),
        "lift_possible": float(np.sort(errors)[-top:].mean() / errors.mean()),
        "error_shifted_over_seen": float(errors[1::2].mean() / errors[::2].mean()),
    }


def shifted(trial: Trial, light: Light, rng: np.random.Generator) -> Trial:
    """The same moment in other rows and another light."""
    rows, strength = int(rng.integers(17, trial.truth.shape[0] - 17)), float(rng.uniform(-1, 1))

    def seen(images: np.ndarray, axis: int) -> np.ndarray:
        return np.roll(np.rint(np.clip(light(images.astype(float), strength), 0, 255)).astype(np.uint8), rows, axis)

    return replace(trial, window=replace(trial.window, images=seen(trial.window.images, 1)), truth=seen(trial.truth, 0))


def brighter(images: np.ndarray, strength: float) -> np.ndarray:
    """Up to 90 of 255 brighter or darker: what is wrong stays as wrong in squares."""
    return images + 90 * strength


def stronger(images: np.ndarray, strength: float) -> np.ndarray:
    """From 0.35 to 1.9 times the light: a dark picture's errors are small in squares, however wrong they are."""
    return images * (1.125 + 0.775 * strength)


def _picture(imagined: Imagination) -> np.ndarray:
    assert imagined.images is not None
    return imagined.images[0, 0].movedim(0, -1).cpu().numpy()


# Television


def television(seed: int, steps: int = 500) -> dict[str, float]:
    shares = {}
    for selector in ("uncertainty", "learning_progress", "prediction_error"):
        robot = Dot2dRobot(Dot2dConfig(television=True), seed=seed)
        actions = robot.action_space.candidates()
        done = [event.executed for event in a_life(robot, selector, steps, seed, max_updates=1, **SMALL) if isinstance(event, Step)]
        shares[f"noise_share_{selector}"] = len(actions) * sum(action == actions[-1] for action in done) / len(done)
    return shares


# Exploration


def exploration(seed: int, steps: int = 300, every: int = 20) -> dict[str, Any]:
    curves = {selector: curve_of(selector, seed, steps, every) for selector in ("random", "random_duration", "uncertainty", "learning_progress")}
    target = min(curves["random"][-3:])  # what random actions end with, their last wobble left out
    return {
        **{f"steps_ratio_{who}": reached(curve, target, every) / steps for who, curve in curves.items() if who != "random"},
        **{f"curve_{who}": [round(value, 3) for value in curve] for who, curve in curves.items()},
    }


def curve_of(selector: str, seed: int, steps: int, every: int) -> list[float]:
    """Error on held-out moves, over copy-last's, after each `every` steps."""
    config = BodiesConfig(seed=seed, course=seed, image_size=64, idle=12)
    robot = BodiesRobot(config=config)
    useful = [action for action in robot.action_space.candidates() if not robot.action_space.label(action).startswith("idle")]
    rng = np.random.default_rng(seed)
    other = BodiesRobot(config=replace(config, course=1_000_003 + seed))
    lived = [e for e in live(other, lambda situation: useful[rng.integers(len(useful))], steps=100) if isinstance(e, Step)]
    run = a_life(robot, selector, steps, seed, updates_per_step=2, **SMALL)
    trials, curve = trials_of(lived, robot.action_space, run.world_model.history), []
    for event in run:
        if isinstance(event, Step) and (event.index + 1) % every == 0:
            curve.append(error_on(run, trials))
    return curve


def error_on(run: Run, trials: Sequence[Trial]) -> float:
    with thinking(run.world_model):
        imagine = picturing(run.world_model)
        mine = sum(float(mse(predicted(imagine, trial.window, trial.action[None, None])[0, 0], trial.truth)) for trial in trials)
    return mine / sum(float(mse(trial.window.images[-1] / np.float32(255), trial.truth)) for trial in trials)


def reached(curve: Sequence[float], target: float, every: int) -> float:
    """Steps until the curve is at the target; infinite when it never is."""
    return next(((i + 1) * every for i, value in enumerate(curve) if value <= target), float("inf"))


# Lifelong


def lifelong(seed: int, worlds: int = 10, steps: int = 100) -> dict[str, float]:
    drawn = [BodiesConfig(seed=s, course=s, image_size=64) for s in range(1000 * seed, 1000 * seed + 400)]
    configs = [config for config in drawn if BodiesRobot(config=config).action_space.size == 4][:worlds]
    tests = [test_of(config) for config in configs]
    run = a_life(BodiesRobot(config=configs[0]), "random", steps, seed, **SMALL)
    after, speeds = [], []
    for config, test in zip(configs, tests, strict=True):
        speeds.append(lived_through(run, config, test, steps))
        after.append(skill_on(run, test))
    finally_ = [skill_on(run, test) for test in tests]
    newborn = a_life(BodiesRobot(config=configs[-1]), "random", steps, seed, **SMALL)
    fresh = lived_through(newborn, configs[-1], tests[-1], steps)
    return {
        "backward_transfer": float(np.mean(np.subtract(finally_[:-1], after[:-1])) / np.mean(after[:-1])),
        "plasticity": speeds[-1] / fresh,
        "skill_after_each": float(np.mean(after)),
        "skill_after_all": float(np.mean(finally_)),
    }


def test_of(config: BodiesConfig) -> tuple[BodiesRobot, list[Trial]]:
    robot = BodiesRobot(config=replace(config, course=1_000_003))
    return robot, trials_of([e for e in live(robot, RandomSelector(1), steps=60) if isinstance(e, Step)], robot.action_space, 2)


def lived_through(run: Run, config: BodiesConfig, test: tuple[BodiesRobot, list[Trial]], steps: int) -> float:
    """The same learner in another world; mean skill on its test, measured at every fifth of the way."""
    skills = []
    for event in live(BodiesRobot(config=config), RandomSelector(config.seed), run.learner, steps=steps):
        if isinstance(event, Step) and (event.index + 1) % (steps // 5) == 0:
            skills.append(skill_on(run, test))
    return float(np.mean(skills))


def skill_on(run: Run, test: tuple[BodiesRobot, list[Trial]]) -> float:
    robot, trials = test
    with thinking(run.world_model):
        return tally(picturing(run.world_model), trials, robot.action_space).skill_moved or 0.0


def goals(seed: int) -> dict[str, float]:
    """As benchmarks/goals.py does by itself."""
    run = to_the_end(learn(Dot2dRobot(seed=seed), selector="uncertainty", steps=400, seed=seed, patch_size=16))
    return reach_goals(run.world_model, seed)


PARTS: dict[str, Callable[[int], dict[str, Any]]] = {part.__name__: part for part in (calibration, television, exploration, goals, lifelong)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this part; may be given again")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    found: dict[str, list[float]] = {}
    for part in chosen.part or PARTS:
        for seed in range(chosen.first, chosen.first + chosen.seeds):
            numbers = PARTS[part](seed)
            print(json.dumps({"part": part, "seed": seed, **numbers}), file=sys.stderr, flush=True)
            for name, value in numbers.items():
                if isinstance(value, int | float):
                    found.setdefault(name, []).append(value)
    result = {name: round(statistics.median(values), 4) for name, values in found.items()}
    ratio = result.get("steps_ratio_uncertainty")
    told = {"steps_ratio_to_random": ratio if ratio is None or ratio < float("inf") else None} if "steps_ratio_uncertainty" in result else {}
    print(json.dumps({"seeds": chosen.seeds, **{name: value for name, value in result.items() if value < float("inf")}, **told}))


if __name__ == "__main__":
    main()
