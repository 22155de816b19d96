"""How fast everything is: `python benchmarks/speed.py`, the first part of `make bench`.

Both models, at 224 and 64 pixels, tiny and base, in batches of 4 windows and of 16, take turns, so that a busy machine harms all alike:
windows and frames learned per second, the share of the best matrix product of the same minutes (measuring.py says how operations are
counted), both actions of the dot imagined, memory in a process of its own. Then one control step of a real life, with and without a learner
beside it, what recording and saving take, the environment on one thread, and how soon a fresh process has imported the package (without
torch) and shown its help. The tables of docs/performance.md go to stderr, one JSON line to stdout, and its facts to the section `speed` of
benchmarks/results.json, unless `--quick`; `--show` prints the tables of what was found last.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from footprint import footprint
from measuring import Facts, best_product, flags, keep, kept, machine, markdown, operations_of, timed
from memory import recorded_dot
from variants import VARIANTS, Variant, each_action, lived

from motorbabble.agents import learn
from motorbabble.experience import Step
from motorbabble.life import live
from motorbabble.memory import MemoryConfig
from motorbabble.robots.toroidal_dot import ToroidalDotEnvironment, ToroidalDotRobot

CONTROL_STEPS, RECORDED_STEPS = 100, 500
BABBLE = 9  # steps before any are counted: the first eight are drawn, not imagined
HELP = "import sys; sys.argv = ['babble', '--help']; from motorbabble.cli import main\ntry: main()\nexcept SystemExit: pass"


def learning(threads: int, rounds: int, variants: Sequence[Variant] = VARIANTS, product_seconds: float = 1.0) -> Facts:
    """Of every variant, by its name; all of them take turns. Memory is asked for before anything is held here."""
    held = {one: footprint(one, threads) for one in variants}
    runs = {one: lived(one, threads) for one in variants}
    chosen = {one: run.learner.choose()[0] for one, run in runs.items()}
    operations = {one: operations_of(lambda one=one: runs[one].learner.update(chosen[one])) for one in variants}
    updating: dict[Variant, list[float]] = {one: [] for one in variants}
    imagining: dict[Variant, list[float]] = {one: [] for one in variants}
    peaks = [best_product(product_seconds)]
    for _ in range(rounds):
        for one, run in runs.items():
            many = 1 if one.preset == "base" else 4
            updating[one] += timed(lambda run=run, one=one: run.learner.update(chosen[one]), many)
            imagining[one] += timed(lambda run=run: run.world_model.imagine(run.window, each_action(run)), many)
        peaks.append(best_product(product_seconds / 2))
    peak = max(peaks)
    found = {}
    for one, run in runs.items():
        second = statistics.median(updating[one])
        found[one.name] = {
            "windows_per_second": round(len(chosen[one]) / second, 2),
            "frames_per_second": round(sum(map(len, chosen[one])) / second, 1),
            "peak_fraction": round(operations[one] / second / peak, 3),
            "gigaflop_per_update": round(operations[one] / 1e9, 1),
            "imagine_two_actions_ms": round(1e3 * statistics.median(imagining[one]), 1),
            "million_weights": round(sum(weight.numel() for weight in run.world_model.parameters()) / 1e6, 2),
            **held[one],
        }
    return {"models": found, "peak_gigaflop_per_second": round(peak / 1e9, 1)}


def control(steps: int, side: int = 224) -> Facts:
    """Milliseconds from one step to the next of a real life with two actions, on one core; alone, then with a learner on the other."""

    def told(events: Any, warm: int, learns: bool) -> list[float]:
        times, begun = [], not learns
        for event in events:
            begun = begun or not isinstance(event, Step)  # what learns beside it needs some seconds to begin
            if isinstance(event, Step) and begun:
                times.append(time.perf_counter())
            if len(times) > warm + steps:
                break
        return [1e3 * seconds for seconds in np.diff(times[warm:])]

    with ToroidalDotRobot(seed=0) as robot:
        with learn(robot, "latent", "uncertainty", steps=None, beside=True, gate="act", threads=1, image_size=(side, side)) as run:
            busy, updates = told(run, BABBLE, True), run.learner.updates
        alone = told(live(robot, run.select, world_model=run.world_model), BABBLE, False)
    return {
        "control_alone_ms_p50": round(float(np.percentile(alone, 50)), 1),
        "control_alone_ms_p95": round(float(np.percentile(alone, 95)), 1),
        "control_learning_ms_p50": round(float(np.percentile(busy, 50)), 1),
        "control_learning_ms_p95": round(float(np.percentile(busy, 95)), 1),
        "control_updates_meanwhile": updates,
    }


def keeping(folder: Path, threads: int, steps: int = RECORDED_STEPS, side: int = 224) -> Facts:
    """What recording takes of a step, and a checkpoint of a life."""
    recorded = recorded_dot(folder / "dot", steps)
    saved: list[float] = []
    memory = MemoryConfig(checkpoint_dir=folder / "checkpoint", session_dir=folder / "sessions")
    with (
        ToroidalDotRobot(seed=0) as robot,
        learn(robot, "latent", "random", steps=8, threads=threads, memory=memory, image_size=(side, side)) as run,
    ):
        for event in run:
            if isinstance(event, Step) and event.index == 6:
                saved = timed(run.save, 5)
    return {
        "record_ms_p50": round(1e3 * float(np.percentile(recorded, 50)), 3),
        "record_ms_p95": round(1e3 * float(np.percentile(recorded, 95)), 3),
        "checkpoint_seconds": round(statistics.median(saved), 3),
    }


def environment(seconds: float = 2.0) -> Facts:
    """The dot as a Gymnasium environment, which draws every frame, on one thread."""
    world = ToroidalDotEnvironment()
    world.reset(seed=0)
    frames, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        world.step(frames & 1)
        frames += 1
    return {"environment_frames_per_second": round(frames / (time.perf_counter() - began))}


def starting(times: int = 5) -> Facts:
    """Seconds of a fresh process beyond those of one that does nothing; the best of several."""

    def least(program: str) -> float:
        return min(timed(lambda: subprocess.run([sys.executable, "-c", program], check=True, env=os.environ, stdout=subprocess.DEVNULL), times))

    nothing = least("pass")
    return {"import_seconds": round(least("import motorbabble") - nothing, 3), "help_seconds": round(least(HELP) - nothing, 3)}


def tables(told: Facts) -> str:
    """As they stand in docs/performance.md."""
    head = ("model", "windows/s", "frames/s", "share of peak", "GFLOP an update", "imagine two actions", "weights", "peak memory")
    models = [
        (
            Variant.named(name),
            f"{found['windows_per_second']:.1f}",
            f"{found['frames_per_second']:.0f}" if found["frames_per_second"] >= 100 else f"{found['frames_per_second']:.1f}",
            f"{found['peak_fraction']:.2f}",
            f"{found['gigaflop_per_update']:.1f}",
            f"{found['imagine_two_actions_ms']:.0f} ms",
            f"{found['million_weights']:.1f} M",
            f"{found['peak_mb']} MB",
        )
        for name, found in sorted(told["models"].items(), key=lambda pair: [one.name for one in VARIANTS].index(pair[0]))
    ]
    rest = [
        (
            "a control step (look, imagine two actions, choose, act) at 224 px, one core",
            f"{told['control_alone_ms_p50']:.0f} ms",
            f"{told['control_alone_ms_p95']:.0f} ms",
        ),
        ("the same while a learner uses the other core", f"{told['control_learning_ms_p50']:.0f} ms", f"{told['control_learning_ms_p95']:.0f} ms"),
        ("what recording takes of a step", f"{told['record_ms_p50']:.1f} ms", f"{told['record_ms_p95']:.1f} ms"),
        ("saving a checkpoint", f"{told['checkpoint_seconds']:.2f} s", ""),
        ("importing the package, without torch; best of five", f"{told['import_seconds']:.2f} s", ""),
        ("`babble --help`; best of five", f"{told['help_seconds']:.2f} s", ""),
        ("a frame of the dot's environment; mean", f"{1e3 / told['environment_frames_per_second']:.3f} ms", ""),
    ]
    return markdown(head, models) + "\n\n" + markdown(("what", "median", "95th percentile"), rest)


def main() -> None:
    chosen = flags(__doc__, "one round, few steps, the tiny models at 64 px", "the tables", rounds=12)
    if chosen.show:
        return print(tables(kept("speed")))
    told: Facts = {"machine": machine(chosen.threads), **control(12 if chosen.quick else CONTROL_STEPS)}
    torch.set_num_threads(chosen.threads)
    variants = [one for one in VARIANTS if not chosen.quick or (one.preset, one.side, one.batch) == ("tiny", 64, 4)]
    told |= learning(chosen.threads, 1 if chosen.quick else chosen.rounds, variants)
    with tempfile.TemporaryDirectory() as place:
        told |= keeping(Path(place), chosen.threads)
    told |= environment() | starting()
    print(tables(told), file=sys.stderr)
    if not chosen.quick:
        keep("speed", told)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
