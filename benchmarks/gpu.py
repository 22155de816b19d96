"""How fast learning and imagining are on a GPU: `python benchmarks/gpu.py`. A table goes to stderr, one JSON line to stdout.

For each model, preset and batch size: frames (`samples`) learned per second, choosing and gathering them included, the share of the best matrix
product of the same run and precision, and the peak of the device's memory. Operations (measuring.py says how they are counted) are those of
some updates with 4 windows, since masks differ from one to the next. Then what imagining plans
takes, answering doubt alone or pictures too (in between, a model always looks at its own pictures). What does not fit the device is said to.

`--parity`: the same seed and life on the CPU in float32 and on the device in its own precision; how far the two curves of the loss, each a
running mean of 20 updates, are apart, at most, as a share of the CPU's, and how far the means over all updates. Exit status 1 where
the former is over 2 %. Beside it stands how far the CPU's own curve gets from itself when its weights begin a ten-thousandth apart: learning
spreads any difference. `--device cpu --precision bfloat16 --side 32` imitates a GPU's rounding, slowly.
`--devices 4` measures with each batch spread over four of them (motorbabble/learning/spread.py); shares are of the peak of all.
`--compile` measures with losses and imagining compiled, and on CUDA replayed as graphs, after longer warming up; run it with and without.
`--device cpu --quick` runs all of it tiny, to see that it works; its numbers say nothing.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import numpy as np
import torch
from measuring import markdown, operations_of
from variants import KINDS, Variant, lived, plans_of

from motorbabble.agents import Run
from motorbabble.learning.spread import Spread
from motorbabble.models.precision import Precision

COUNTED = 4  # windows of an update whose operations are counted
ALLOWED, RUNNING = 0.02, 20
DISTURBED = 1e-4  # of each weight, times a normal number


@dataclass(frozen=True)
class Extent:
    """How much is measured."""

    presets: tuple[str, ...] = ("tiny", "base", "large")
    side: int = 224  # pixels
    batches: tuple[int, ...] = (4, 64, 256)
    plans: tuple[int, ...] = (2, 64, 1024)
    steps: int = 8  # of a plan
    lived: int = 300  # steps before anything is measured
    updates: int = 20  # timed, after as many to warm up
    looks: int = 50  # times that plans are imagined
    product: int = 8192  # side of the matrices
    parity: int = 200  # updates


QUICK = Extent(("tiny",), 32, (2, 4), (2, 3), 2, 12, 2, 2, 256, 10)


def alive(kind: str, preset: str, batch: int, device: str, extent: Extent, side: int, **settings: Any) -> Run:
    """A robot that lived without learning, so that there is something to remember."""
    return lived(Variant(kind, preset, side, batch), None, extent.lived, device=device, shift=(8, 8), **settings)


def waited(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds until the device is done with it."""

    def finish() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    finish()
    began = time.perf_counter()
    work()
    finish()
    return time.perf_counter() - began


def best_product(side: int, precision: torch.dtype, device: torch.device) -> float:
    """Operations per second of the fastest of several square matrix products."""
    a, b = (torch.randn(side, side, device=device).to(precision) for _ in range(2))
    return 2 * side**3 / min(waited(lambda: a @ b, device) for _ in range(20))


def update(run: Run) -> dict[str, float]:
    return run.learner.update(run.learner.choose()[0])


def operations(run: Run, updates: int) -> float:
    """Of one window, on average."""
    return operations_of(lambda: [update(run) for _ in range(updates)]) / updates / COUNTED


def learning(run: Run, batch: int, per_window: float, peak: float, extent: Extent) -> dict[str, float | None]:
    device = run.world_model.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(extent.updates * (3 if run.world_model.compiled else 1)):  # whatever is seldom hidden is compiled late
        update(run)
    second = sum(waited(lambda: update(run), device) for _ in range(extent.updates)) / extent.updates
    return {
        "samples_per_second": round(batch * (run.world_model.history + 1) / second, 1),
        "update_ms": round(1e3 * second, 2),
        "peak_fraction": round(per_window * batch / second / peak, 4),
        "peak_memory_mb": round(torch.cuda.max_memory_allocated(device) / 1e6) if device.type == "cuda" else None,
    }


def imagining(run: Run, extent: Extent) -> dict[str, Any]:
    """Milliseconds, median and 95th percentile, by the number of plans."""
    model = run.world_model.eval()
    found: dict[str, Any] = {}
    for many in extent.plans:
        plans = plans_of(run, many, extent.steps)
        for pictures in (False, True):

            def look(plans: np.ndarray = plans, pictures: bool = pictures) -> Any:
                return model.imagine(run.window, plans, pictures=pictures)

            def measured(look: Callable[[], Any] = look) -> dict[str, float]:
                times = [1e3 * waited(look, model.device) for _ in range(4 + extent.looks)][4:]
                return {"p50_ms": round(float(np.percentile(times, 50)), 2), "p95_ms": round(float(np.percentile(times, 95)), 2)}

            found[f"{many}_plans_{'with_pictures' if pictures else 'doubt_alone'}"] = fitting(measured)
    return found


def fitting(work: Callable[[], Any]) -> Any:
    """Its answer, or None where the device's memory does not hold it."""
    try:
        return work()
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return None


def speed(device: str, extent: Extent, compiled: bool = False, devices: int = 1) -> dict[str, Any]:
    found: dict[str, Any] = {"learning": {}, "imagining": {}}
    how: dict[str, Any] = {"compile": compiled} | ({"learner_of": partial(Spread, processes=devices)} if devices > 1 else {})
    for preset in extent.presets:
        for kind in KINDS:
            counted = alive(kind, preset, COUNTED, device, extent, extent.side)
            precision, place = counted.world_model.precision, counted.world_model.device
            per_window, peak = operations(counted, 2 if extent is QUICK else 10), best_product(extent.product, precision, place)
            found |= {"precision": str(precision).removeprefix("torch."), "peak_teraflop_per_second": round(peak / 1e12, 3)}
            del counted
            for batch in extent.batches:
                run = alive(kind, preset, batch, device, extent, extent.side, **how)
                if batch == extent.batches[0]:
                    found["imagining"][f"{kind}_{preset}"] = imagining(run, extent)
                numbers = fitting(lambda run=run, batch=batch, cost=per_window, peak=peak * devices: learning(run, batch, cost, peak, extent))
                found["learning"][f"{kind}_{preset}_batch_{batch}"] = numbers
                run.close()
                del run
    return found


def parity(device: str, extent: Extent, side: int, precision: Precision = "auto", compiled: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = {}
    window = np.ones(min(RUNNING, extent.parity)) / min(RUNNING, extent.parity)
    for kind in KINDS:

        def curve(place: str, rounded: Precision, disturbed: float = 0.0, compile: bool = False, kind: str = kind) -> np.ndarray:
            run = alive(kind, "tiny", 4, place, extent, side, precision=rounded, compile=compile)
            if disturbed:
                disturb(run.learner.trained, disturbed)
            return np.array([update(run)["total"] for _ in range(extent.parity)])

        curves = curve("cpu", "float32"), curve(device, precision, compile=compiled), curve("cpu", "float32", DISTURBED)
        here, there, disturbed = (np.convolve(losses, window, "valid") for losses in curves)
        apart, by_chance = (float(np.abs(other / here - 1).max()) for other in (there, disturbed))
        found[kind] = {
            "updates": extent.parity,
            "first_and_last_loss": [round(float(losses[i]), 4) for losses in curves[:2] for i in (0, -1)],
            "most_apart": round(apart, 5),
            "means_apart": round(abs(float(curves[1].mean() / curves[0].mean()) - 1), 5),
            "disturbed_apart": round(by_chance, 7),
            "within_2_percent": bool(apart <= ALLOWED),
        }
    return found


@torch.no_grad()
def disturb(model: torch.nn.Module, share: float) -> None:
    """Each weight becomes another by this share of itself, up or down by chance, the same chance each time."""
    chance = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        weight.mul_(1 + share * torch.randn(weight.shape, generator=chance).to(weight.device))


def table(rows: dict[str, Any]) -> str:
    columns = list(next((row for row in rows.values() if row), {}))
    cells = [[row[column] if row else "does not fit" for column in columns] for row in rows.values()]
    names = [name.replace("_", " ") for name in rows]
    return markdown(("what", *(column.replace("_", " ") for column in columns)), [(name, *row) for name, row in zip(names, cells, strict=True)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="everything tiny")
    parser.add_argument("--parity", action="store_true", help="the loss beside the CPU's, instead of speed")
    parser.add_argument("--side", type=int, default=64, help="pixels of a frame, for --parity")
    parser.add_argument("--precision", choices=get_args(Precision), default="auto", help="the device's, for --parity")
    parser.add_argument("--compile", action="store_true", help="with what can be compiled compiled")
    parser.add_argument("--devices", type=int, default=1, help="that each batch is spread over")
    chosen = parser.parse_args()
    if chosen.device.startswith("cuda") and not torch.cuda.is_available():
        print("There is no CUDA device here; run it where there is one, or try --device cpu --quick.", file=sys.stderr)
        return 1
    extent = QUICK if chosen.quick else Extent()
    name = torch.cuda.get_device_name(chosen.device) if chosen.device.startswith("cuda") else chosen.device
    told: dict[str, Any] = {
        "device": name,
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "quick": chosen.quick,
        "compile": chosen.compile,
        "devices": chosen.devices,
    }
    if chosen.parity:
        told["parity"] = parity(chosen.device, extent, 32 if chosen.quick else chosen.side, chosen.precision, chosen.compile)
        print(table(told["parity"]), file=sys.stderr)
        print(json.dumps(told))
        return 0 if all(found["within_2_percent"] for found in told["parity"].values()) else 1
    told |= speed(chosen.device, extent, chosen.compile, chosen.devices)
    print(table(told["learning"]), file=sys.stderr)
    for model, found in told["imagining"].items():
        print(f"\n{model.replace('_', ' ')}, plans of {extent.steps} steps\n\n{table(found)}", file=sys.stderr)
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
