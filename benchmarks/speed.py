"""How fast everything is, and how cost grows, in one table: `python benchmarks/speed.py`, the first part of `make bench`.

Both models, at 224 and 64 pixels, tiny and base, in batches of 4 windows and of 16, take turns, so that a busy machine harms all alike:
windows and frames (`samples`) learned per second, the share of the best matrix product of the same minutes (operations counted by torch),
all actions of the dot imagined. Then one control step of a real life, with and without a learner beside it, what recording and saving take,
and imagining with more history, plans and recordings. The table goes to stderr; one JSON line to stdout; all of it with the machine's facts
to benchmarks/results.json and the plot to docs/performance.png, unless `--quick`.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import numpy as np
import torch
from memory import hundred_thousand, recorded_dot
from throughput import best_product, environment_frames_per_second, timed
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from motorbabble.agents import Run, learn
from motorbabble.experience import Step
from motorbabble.figures import curve_png
from motorbabble.life import live
from motorbabble.memory import MemoryConfig
from motorbabble.recording.reader import RecordingReader
from motorbabble.robots.toroidal_dot import ToroidalDotRobot

HERE = Path(__file__).parent
KINDS, SIDES, PRESETS = ("latent", "canvas"), (224, 64), ("tiny", "base")
WARM_STEPS, CONTROL_STEPS = 40, 100
HISTORIES, PLANS, MOMENTS = (1, 2, 4, 8), (2, 8, 32, 128), (1_000, 10_000, 100_000)


@dataclass
class Variant:
    """One model that learns, warmed up; `operations` of one update."""

    name: str
    run: Run
    windows: Any
    operations: float
    seconds: list[float]
    imagining: list[float]


def variant(kind: str, side: int, preset: str, batch: int, threads: int) -> Variant:
    run = learn(ToroidalDotRobot(seed=0), kind, "random", preset=preset, threads=threads, image_size=(side, side), batch_size=batch)
    learner = run.learner
    eyes = SimpleNamespace(world_model=run.world_model, remember=learner.remember, study=lambda: ())
    for _ in live(run.robot, run.select, eyes, steps=WARM_STEPS, history=run._history):  # type: ignore[arg-type]
        pass
    windows, _ = learner.choose()
    # torch counts nothing for the CPU's fused attention, so it is counted written out.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        learner.update(windows)
    return Variant(f"{kind}_{preset}_{side}_batch_{batch}", run, windows, counter.get_total_flops(), [], [])


def plans_of(run: Run, many: int, length: int = 1) -> np.ndarray:
    actions = np.stack([run.action_space.encode(action) for action in run.action_space.candidates()])
    return actions[np.random.default_rng(0).integers(0, len(actions), (many, length))]


def learning(threads: int, rounds: int) -> dict[str, dict[str, float]]:
    """Of every variant, by its name; all of them take turns."""
    names = [(kind, side, preset, 4) for preset in PRESETS for side in SIDES for kind in KINDS] + [(kind, 64, "tiny", 16) for kind in KINDS]
    variants = [variant(*name, threads) for name in names]
    peaks = [best_product(1.0)]
    for _ in range(rounds):
        for one in variants:
            many = 1 if "base" in one.name else 4
            one.seconds += timed(lambda one=one: one.run.learner.update(one.windows), many)
            two = plans_of(one.run, 2)
            one.imagining += timed(lambda one=one, two=two: one.run.world_model.imagine(one.run.window, two), many)
        peaks.append(best_product(0.5))
    peak = max(peaks)
    found = {}
    for one in variants:
        second = statistics.median(one.seconds)
        frames = len(one.windows) * (one.run.world_model.history + 1)
        found[one.name] = {
            "windows_per_second": round(len(one.windows) / second, 2),
            "samples_per_second": round(frames / second, 1),
            "peak_fraction": round(one.operations / second / peak, 3),
            "gigaflop_per_update": round(one.operations / 1e9, 1),
            "imagine_two_actions_ms": round(1e3 * statistics.median(one.imagining), 1),
            "million_weights": round(sum(weight.numel() for weight in one.run.world_model.parameters()) / 1e6, 2),
        }
    return {"models": found, "peak_gigaflop_per_second": round(peak / 1e9, 1)}  # type: ignore[dict-item]


def control(steps: int) -> dict[str, float]:
    """Milliseconds from one step to the next of a real life with two actions at 224 px, on one core; alone, then with a learner on the other."""

    def told(events: Any, warm: int) -> list[float]:
        times, learned = [], warm == 0
        for event in events:
            learned = learned or not isinstance(event, Step)  # what learns beside it needs some seconds to begin
            if isinstance(event, Step) and learned:
                times.append(time.perf_counter())
            if len(times) > warm + steps:
                break
        return [1e3 * seconds for seconds in np.diff(times[warm:])]

    with ToroidalDotRobot(seed=0) as robot:
        with learn(robot, "latent", "uncertainty", steps=None, beside=True, gate="act", threads=1) as run:
            busy, updates = told(run, 5), run.learner.updates
        alone = told(live(robot, run.select, world_model=run.world_model), 0)
    return {
        "control_alone_ms_p50": round(float(np.percentile(alone, 50)), 1),
        "control_alone_ms_p95": round(float(np.percentile(alone, 95)), 1),
        "control_learning_ms_p50": round(float(np.percentile(busy, 50)), 1),
        "control_learning_ms_p95": round(float(np.percentile(busy, 95)), 1),
        "control_updates_meanwhile": updates,
    }


def keeping(folder: Path, threads: int) -> dict[str, float]:
    """What recording takes of a step, and a checkpoint of a life."""
    recorded = recorded_dot(folder / "dot", 500)
    saved: list[float] = []
    memory = MemoryConfig(checkpoint_dir=folder / "checkpoint", session_dir=folder / "sessions")
    with ToroidalDotRobot(seed=0) as robot, learn(robot, "latent", "random", steps=8, threads=threads, memory=memory) as run:
        for event in run:
            if isinstance(event, Step) and event.index == 6:
                saved = timed(run.save, 5)
    return {
        "record_ms_p50": round(1e3 * float(np.percentile(recorded, 50)), 3),
        "record_ms_p95": round(1e3 * float(np.percentile(recorded, 95)), 3),
        "checkpoint_seconds": round(statistics.median(saved), 3),
    }


def growth(folder: Path, threads: int) -> dict[str, list]:
    """Milliseconds as one thing grows; each is measured in turn with the others."""
    minds = {many: variant_of_history(many, threads) for many in HISTORIES}
    by_history: dict[int, list[float]] = {many: [] for many in HISTORIES}
    by_plans: dict[int, list[float]] = {many: [] for many in PLANS}
    by_moments: dict[int, list[float]] = {many: [] for many in MOMENTS}
    sessions = {many: hundred_thousand(folder / str(many), many) for many in MOMENTS}
    for _ in range(8):
        for many, run in minds.items():
            plans = plans_of(run, 32)
            by_history[many] += timed(lambda run=run, plans=plans: run.world_model.imagine(run.window, plans, pictures=False), 1)
        run = minds[max(HISTORIES)]
        for many in PLANS:
            plans = plans_of(run, many)
            by_plans[many] += timed(lambda run=run, plans=plans: run.world_model.imagine(run.window, plans, pictures=False), 1)
        for many, session in sessions.items():
            by_moments[many] += timed(lambda session=session, many=many: RecordingReader(session).image(many // 2), 1)
    return {
        "history": [[many, round(1e3 * statistics.median(found), 2)] for many, found in by_history.items()],
        "plans": [[many, round(1e3 * statistics.median(found), 2)] for many, found in by_plans.items()],
        "moments": [[many, round(1e3 * statistics.median(found), 2)] for many, found in by_moments.items()],
    }


def variant_of_history(history: int, threads: int) -> Run:
    run = learn(ToroidalDotRobot(seed=0), "latent", "random", threads=threads, prediction_history_size=history)
    for _ in live(run.robot, run.select, world_model=run.world_model, steps=WARM_STEPS, history=run._history):
        pass
    return run


def plot(grown: dict[str, list]) -> bytes:
    """Cost against the least of each, both as multiples, so that what is linear is a straight line."""
    lines = {}
    for name, words in (("history", "frames of history"), ("plans", "plans imagined"), ("moments", "moments recorded, one opened")):
        many, cost = zip(*grown[name], strict=True)
        lines[words] = ([np.log2(one / many[0]) for one in many], [one / cost[0] for one in cost])
    return curve_png(lines, x_label="doublings of what grows", y_label="times the cost of the least", title="How cost grows", log=True)


def machine(threads: int) -> dict[str, Any]:
    names = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")] or ["unknown"]
    facts = {"processor": names[0], "cores": os.cpu_count(), "threads": threads, "python": platform.python_version(), "torch": torch.__version__}
    return {**facts, "date": time.strftime("%Y-%m-%d"), "load_before": round(os.getloadavg()[0], 2)}


def table(models: dict[str, dict[str, float]]) -> str:
    columns = list(next(iter(models.values())))
    rows = [f"| model | {' | '.join(column.replace('_', ' ') for column in columns)} |", "|" + "---|" * (len(columns) + 1)]
    return "\n".join(
        [*rows, *(f"| {name.replace('_', ' ')} | {' | '.join(str(found[column]) for column in columns)} |" for name, found in models.items())]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--quick", action="store_true", help="one round, few steps; nothing is written")
    chosen = parser.parse_args()
    facts = machine(chosen.threads)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        steps = 12 if chosen.quick else CONTROL_STEPS
        told: dict[str, Any] = {"machine": facts, **control(steps)}
        torch.set_num_threads(chosen.threads)
        told |= learning(chosen.threads, 1 if chosen.quick else chosen.rounds) | keeping(folder, chosen.threads)
        told |= {"growth": growth(folder / "growth", chosen.threads), "environment_frames_per_second": round(environment_frames_per_second())}
    told["memory_mb"] = round(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6)
    print(table(told["models"]), file=sys.stderr)
    if not chosen.quick:
        (HERE / "results.json").write_text(json.dumps(told, indent=1) + "\n")
        (HERE.parent / "docs" / "performance.png").write_bytes(plot(told["growth"]))
    print(json.dumps(told))


if __name__ == "__main__":
    main()
