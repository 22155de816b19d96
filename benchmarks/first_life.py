"""How well and how fast a first life teaches: `python benchmarks/first_life.py --seed 0 --world dot`.

One continuous stream, random initial weights, the default recipe. Dot: 24 columns are held out, windows that
touch them never enter training, and both actions are examined at each of them, in the row that was lived and
in rows that were not. The recipe shifts whole windows at random by up to 16 px, so training does show dots at
some of those places, though nothing that was lived there; `--set shift=[16,0]` shifts rows only, and
`--set shift=[0,0]` nothing. Bodies: the world drawn from the seed, examined on another course through it.
Seconds are those of life (looking, learning, choosing, acting); start-up and examination are left out. Prints
the learning curve to stderr and one JSON line to stdout.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import torch

from motorbabble.agents import Run, learn
from motorbabble.analysis.card import picturing, thinking
from motorbabble.analysis.floors import floors_of
from motorbabble.analysis.scores import Journey, Tally, Trial, effective_horizon, horizon_curve, journeys_of, tally, trials_of
from motorbabble.experience import ActionSpace, Observation, Step
from motorbabble.life import live
from motorbabble.recipes import RECIPES
from motorbabble.robots.bodies import BodiesRobot
from motorbabble.robots.toroidal_dot import ToroidalDotRobot
from motorbabble.selectors import RandomSelector

HELD_OUT_COLUMNS = 24


class DotExam:
    """Held-out columns of the dot's world: both actions at each, and journeys of 32 actions that start there."""

    def __init__(self, robot: ToroidalDotRobot, seed: int):
        self.space, self.config = robot.action_space, robot.config
        self.rng = np.random.default_rng(1_000_003 + seed)
        size = self.config.image_size
        self.columns = np.sort(self.rng.choice(size, HELD_OUT_COLUMNS, replace=False))
        self.row = int(robot.get_observation().state["objects"][0, 1])
        margin = self.config.dot_radius
        far = [y for y in range(margin, size - margin) if abs(y - self.row) > 16 + 2 * margin]  # out of reach of the shifts too
        self.other_rows = self.rng.choice(far, HELD_OUT_COLUMNS, replace=False)
        self.scratch = ToroidalDotRobot(self.config, seed=seed)

    def holds_out(self, observation: Observation) -> bool:
        return int(observation.state["objects"][0, 0]) in self.columns

    def trials(self, history: int) -> list[Trial]:
        rows = [self.row] * HELD_OUT_COLUMNS
        return self._trials(rows, history)

    def trials_in_other_rows(self, history: int) -> list[Trial]:
        return self._trials(self.other_rows, history)

    def journeys(self, history: int, starts: int = 12, length: int = 32) -> list[Journey]:
        found = []
        for column in self.rng.permutation(self.columns)[:starts]:
            steps = self._steps(int(column), self.row, history, self.rng.integers(0, 2, length))
            images = np.stack([step.observation.image for step in steps])
            actions = np.stack([self.space.encode(step.executed) for step in steps])
            window = trials_of(steps[: history + 1], self.space, history)[-1].window
            found.append(Journey(window, actions[history - 1 : -1], images[history:]))
        return found

    def _trials(self, rows: Sequence[int], history: int) -> list[Trial]:
        both = [(int(c), int(y), a) for c, y in zip(self.columns, rows, strict=True) for a in (0, 1)]
        return [trials_of(self._steps(column, row, history, [action]), self.space, history)[-1] for column, row, action in both]

    def _steps(self, column: int, row: int, history: int, plan: Sequence[int]) -> list[Step]:
        """A life whose frame number `history` shows the dot at (column, row), after random actions, and is followed by `plan`."""
        before = self.rng.integers(0, 2, history - 1)
        self.scratch.place((column - int(before.sum()) * self.config.move_pixels) % self.config.image_size, row)
        script = [self.space.candidates()[int(a)] for a in [*before, *plan, 0]]
        return [e for e in live(self.scratch, lambda situation: script[situation.step], steps=len(script)) if isinstance(e, Step)]


class BodiesExam:
    def __init__(self, robot: BodiesRobot, seed: int):
        self.space = robot.action_space
        other = BodiesRobot(config=robot.config, course=1_000_003 + seed)
        self.steps = [event for event in live(other, RandomSelector(seed), steps=300) if isinstance(event, Step)]

    def holds_out(self, observation: Observation) -> bool:
        return False

    def trials(self, history: int) -> list[Trial]:
        return trials_of(self.steps, self.space, history)[::2]

    def journeys(self, history: int) -> list[Journey]:
        return journeys_of(self.steps, self.space, history)


def examine(run: Run, exam: DotExam | BodiesExam, quick: bool = False) -> dict:
    model, robot = run.world_model, run.robot
    trials = exam.trials(model.history)[:: 3 if quick else 1]
    with thinking(model):
        imagine = picturing(model)
        scored = tally(imagine, trials, run.action_space, robot)
        found = {"action_advantage": float(scored.best.mean()), "skill_moved": scored.skill_moved, **within_2px(scored, run.action_space)}
        if quick:
            return found
        floors = floors_of(run.learned_from, run.action_space)
        found["skill_shift_floor"] = tally(floors["shift"], trials, run.action_space, robot).skill_moved
        curve = horizon_curve(imagine, exam.journeys(model.history))
        found["skill_horizon_8"] = curve[7] if len(curve) > 7 else None
        found["skill_horizon_last"] = curve[-1]
        found["effective_horizon"] = effective_horizon(curve)
        if isinstance(exam, DotExam):
            others = tally(imagine, exam.trials_in_other_rows(model.history), run.action_space, robot)
            found |= {f"unseen_rows_{name}": value for name, value in within_2px(others, run.action_space).items()}
            found["unseen_rows_skill_moved"] = others.skill_moved
    return found


def within_2px(scored: Tally, space: ActionSpace) -> dict[str, float]:
    """Of all things that moved or stayed with each action, the share that the prediction puts within 2 px of its place."""
    labels = [space.label(action) for action in space.candidates()]
    return {f"{label.replace(' ', '_')}_within_2px": float((scored.pixels[scored.action == i] < 2).mean()) for i, label in enumerate(labels)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--world", choices=("dot", "bodies"), default="dot")
    parser.add_argument("--model", choices=("latent", "canvas"), default="latent")
    parser.add_argument("--steps", type=int, help="robot steps; 400 for the dot, 600 for bodies")
    parser.add_argument("--seconds", type=float, help="of life; 60 for the dot, no limit for bodies")
    parser.add_argument("--curve", type=int, default=0, metavar="N", help="examine after every N updates too")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--selector", default="uncertainty")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="override a setting of the recipe, as in learn(NAME=VALUE)")
    chosen = parser.parse_args()

    is_dot = chosen.world == "dot"
    robot = ToroidalDotRobot(seed=chosen.seed) if is_dot else BodiesRobot(chosen.seed, course=chosen.seed)
    exam = DotExam(robot, chosen.seed) if is_dot else BodiesExam(robot, chosen.seed)
    recipe = RECIPES[f"{'toroidal_dot' if is_dot else 'bodies'}_{chosen.model}"]
    model = {name: value for name, value in asdict(recipe.model).items() if name != "preset"}
    settings = model | {name: json.loads(value) for name, value in (pair.split("=") for pair in chosen.set)}
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
    run = learn(
        robot,
        chosen.model,
        chosen.selector,
        steps=chosen.steps or recipe.steps,
        seconds=chosen.seconds or (60.0 if is_dot else None),
        seed=chosen.seed,
        threads=chosen.threads,
        holds_out=exam.holds_out,
        learner=recipe.learner,
        **settings,
    )
    for event in run:
        if chosen.curve and not isinstance(event, Step) and event.update % chosen.curve == 0:
            point = {"update": event.update, "seconds": round(run.elapsed, 1), "steps": run.steps_done, **examine(run, exam, quick=True)}
            print(json.dumps(rounded(point)), {k: round(v, 3) for k, v in event.losses.items()}, file=sys.stderr, flush=True)
    result = {
        "seed": chosen.seed,
        "world": chosen.world,
        "model": chosen.model,
        "robot_steps": run.steps_done,
        "updates": run.learner.updates,
        "seconds": run.elapsed,
    }
    print(json.dumps(rounded(result | examine(run, exam))))


def rounded(values: dict) -> dict:
    return {name: round(float(value), 4) if isinstance(value, float | np.floating) else value for name, value in values.items()}


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
