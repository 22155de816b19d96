"""Makes what the explorer shows on a first visit: `python benchmarks/starter.py`, or `make starter`; some minutes on two cores.

The recipe `toroidal_dot_latent` lives from random weights; its session and what it learned go into motorbabble/explorer/starter, from where
they are shipped. Kept is what somebody who looks needs: the averaged weights of the lowest level, in half precision. Neither optimiser nor
memories, so that it counts as a training (docs/checkpoint-format.md). Refused, and nothing is replaced, where a card of
exactly these weights gives less than SKILL. Prints what it does to stderr, and one JSON line to stdout.
"""

import argparse
import json
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from motorbabble.agents import Run
from motorbabble.birth import born
from motorbabble.experience import Step, Study
from motorbabble.learning.checkpoint import LOCK as CHECKPOINT_LOCK
from motorbabble.learning.checkpoint import Checkpoints, Identity, Saved
from motorbabble.learning.state import TRAINED, architecture_of, counters_of, generators_of
from motorbabble.life import live
from motorbabble.recipes import RECIPES, KeepConfig, LearningRecipe, robot_from
from motorbabble.recording.format import LOCK as SESSION_LOCK
from motorbabble.recording.format import META
from motorbabble.recording.reader import RecordingReader
from motorbabble.recording.shelf import Shelf
from motorbabble.recording.writer import RecordingWriter
from motorbabble.selectors import RandomSelector

RECIPE, NAME = "toroidal_dot_latent", "dot-on-a-ring"
SKILL = 0.95  # on transitions that moved, at least: 1 is perfect, 0 keeping the last frame
STARTER = Path(__file__).parent.parent / "motorbabble/explorer/starter"


def say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def live_through(run: Run) -> None:
    for event in run:
        if isinstance(event, Study) and event.update % 50 == 0:
            say(f"{run.steps_done} steps, {event.update} updates, skill {run.progress.skill:.3f}")


def halved(run: Run) -> dict[str, torch.Tensor]:
    """The averaged weights of the lowest level in half precision, which from now on are also those that act."""
    while len(run.learner.levels) > 1:
        run.learner.retire()
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in run.world_model.state_dict().items()}
    run.world_model.load_state_dict({name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in half.items()})
    return half


def ship_session(lived: RecordingReader, root: Path) -> None:
    """The same moments, of the same time, under a name of its own, without locks and pins."""
    about = {key: value for key, value in lived.meta.about.items() if key not in ("life", "moment")}
    with RecordingWriter.create(root, lived.robot_type, lived.action_space, name=NAME, about=about) as writer:
        for number in lived.readable():
            moment = lived.moment(number)
            writer.record(lived.event(number), gate=moment.gate, updates=moment.updates)
    told = replace(writer.meta, created_ns=lived.meta.created_ns, ended_ns=lived.meta.ended_ns)
    (root / NAME / META).write_bytes(told.to_bytes())
    (root / NAME / SESSION_LOCK).unlink()


def ship_mind(run: Run, weights: dict[str, torch.Tensor], folder: Path) -> None:
    files: dict[str, dict[str, torch.Tensor]] = {"optimizer": {}, "memory": {}, "best": {}}
    for name, tensor in weights.items():
        files.setdefault(run.world_model.file_of(name), {})[TRAINED + name] = tensor
    state = {
        "training": {"position": 0, "history": [], "sources": [[NAME, 0]], "held_out": []},
        "counters": counters_of(run.learner),
        "generators": generators_of(run.learner),
        "about": {"recipe": RECIPE, "shift": list(run.learner.config.shift)},
    }
    identity = Identity(run.robot.robot_type, run.action_space, architecture_of(run.world_model))
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(run.learner.updates, Saved(identity, files, state))
    (folder / CHECKPOINT_LOCK).unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=150, help="of the robot")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--into", type=Path, default=STARTER)
    chosen = parser.parse_args()
    recipe = RECIPES[RECIPE]
    assert isinstance(recipe, LearningRecipe)
    recipe = replace(recipe, steps=chosen.steps, seed=chosen.seed, threads=chosen.threads, device="cpu")
    with tempfile.TemporaryDirectory() as place, robot_from(recipe.robot, recipe.seed) as robot:
        made = Path(place) / "starter"
        memory = KeepConfig(sessions=Path(place) / "lived", checkpoints=None).memory(robot.robot_type, RECIPE, record=True)
        with born(RECIPE, recipe, robot, memory) as run:
            live_through(run)
        (lived,) = Shelf(Path(place) / "lived" / robot.robot_type).names()
        weights = halved(run)
        exam = [event for event in live(robot, RandomSelector(1_000_003), steps=recipe.exam_steps) if isinstance(event, Step)]
        skill = run.card(exam).model["skill_moved"]
        if skill < SKILL:
            raise SystemExit(f"its skill is {skill:.3f}, less than {SKILL}; let it live longer with --steps")
        ship_session(RecordingReader(Path(place) / "lived" / robot.robot_type / lived), made / "sessions" / robot.robot_type)
        ship_mind(run, weights, made / "checkpoints" / robot.robot_type / NAME)
        shutil.rmtree(chosen.into, ignore_errors=True)
        shutil.copytree(made, chosen.into)
    sizes = {part.name: sum(path.stat().st_size for path in part.rglob("*") if path.is_file()) for part in sorted(chosen.into.iterdir())}
    print(json.dumps({"steps": run.steps_done, "updates": run.learner.updates, "skill": round(skill, 4), **sizes}))


if __name__ == "__main__":
    main()
