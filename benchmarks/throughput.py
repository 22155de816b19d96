"""How close to the machine's limit learning runs: `python benchmarks/throughput.py`. Prints one JSON line.

`peak_fraction` is the operations of one update (counted by torch, forward and backward) per second, over the
best 2048-cube fp32 matrix product of the same process. Imagining is timed for all actions of the dot in one
forward, pictures included. The environment runs on one thread; `import_seconds` is a fresh process without torch.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import asdict

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from motorbabble.agents import learn
from motorbabble.recipes import RECIPES
from motorbabble.robots.toroidal_dot import ToroidalDotEnvironment, ToroidalDotRobot


def best_product(seconds: float = 3.0, side: int = 2048) -> float:
    """Operations per second of the fastest of several square matrix products."""
    a, b = torch.randn(side, side), torch.randn(side, side)
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < seconds:
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def timed(work, times: int) -> list[float]:
    durations = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        durations.append(time.perf_counter() - start)
    return durations


def environment_frames_per_second(seconds: float = 2.0) -> float:
    environment = ToroidalDotEnvironment()
    environment.reset(seed=0)
    frames, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        environment.step(frames & 1)
        frames += 1
    return frames / (time.perf_counter() - began)


def fresh_process(code: str, times: int = 5) -> float:
    """Seconds a fresh interpreter needs for `code` beyond what it needs for nothing; the best of several."""

    def run(program: str) -> float:
        return min(timed(lambda: subprocess.run([sys.executable, "-c", program], check=True, env=os.environ, stdout=subprocess.DEVNULL), times))

    return run(code) - run("pass")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--updates", type=int, default=30)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    recipe = RECIPES["toroidal_dot_latent"]
    model = {name: value for name, value in asdict(recipe.model).items() if name != "preset"}
    run = learn(ToroidalDotRobot(seed=0), selector="random", steps=12, threads=chosen.threads, learner=recipe.learner, **model)
    for _ in run:  # a short life fills the replay and warms everything up
        pass
    learner = run.learner
    windows, _ = learner.choose()
    # torch counts nothing for the CPU's fused attention, so it is counted written out: two products forward, four backward.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        learner.update(windows)
    operations = counter.get_total_flops()
    peak = best_product()
    updating = timed(lambda: learner.update(windows), chosen.updates)
    peak = max(peak, best_product())
    plans = np.stack([run.action_space.encode(action) for action in run.action_space.candidates()])[:, None]
    imagining = sorted(timed(lambda: run.world_model.imagine(run.window, plans), 40))
    median = statistics.median(updating)
    print(
        json.dumps(
            {
                "train_windows_per_second": round(len(windows) / median, 2),
                "peak_fraction": round(operations / median / peak, 3),
                "imagine_ms_p50": round(1e3 * imagining[len(imagining) // 2], 1),
                "imagine_ms_p95": round(1e3 * imagining[int(len(imagining) * 0.95)], 1),
                "environment_frames_per_second": round(environment_frames_per_second()),
                "import_seconds": round(fresh_process("import motorbabble"), 3),
                "help_seconds": round(
                    fresh_process(
                        "import sys; sys.argv = ['babble', '--help']; from motorbabble.cli import main\ntry: main()\nexcept SystemExit: pass"
                    ),
                    3,
                ),
                "gigaflop_per_update": round(operations / 1e9, 1),
                "peak_gigaflop_per_second": round(peak / 1e9, 1),
                "threads": chosen.threads,
            }
        )
    )


if __name__ == "__main__":
    main()
