"""What the scripts of this folder share: their flags, taking times, counting operations, saying which machine it was, and keeping what was found.

Operations are counted by torch, which counts nothing for two things that are counted here: the CPU's fused attention (counted written out)
and Fourier transforms, 5 N log2 N for a complex one of N numbers, half of that for a real one, over all transformed dimensions together.
`benchmarks/results.json` holds a section per script, each with the facts of the machine it was measured on.
"""

import argparse
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

RESULTS = Path(__file__).parent / "results.json"
Facts = dict[str, Any]


def flags(about: str | None, quick: str, found: str, **times: int) -> argparse.Namespace:
    """--threads, `times` with their defaults, --quick (which does `quick`) and --show (which tells `found`)."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"threads": 2, **times}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--quick", action="store_true", help=f"{quick}; nothing is written")
    parser.add_argument("--show", action="store_true", help=f"measure nothing: {found} of what was found last")
    return parser.parse_args()


def timed(work: Callable[[], Any], times: int) -> list[float]:
    """Seconds of each of `times` calls."""
    durations = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        durations.append(time.perf_counter() - start)
    return durations


def best_product(seconds: float = 3.0, side: int = 2048) -> float:
    """Operations per second of the fastest of several square fp32 matrix products."""
    a, b = torch.randn(side, side), torch.randn(side, side)
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < seconds:
        best = min(best, *timed(lambda: a @ b, 1))
    return 2 * side**3 / best


def operations_of(work: Callable[[], Any]) -> int:
    """Multiplications and additions of one call, backward passes and transforms included."""
    aten = torch.ops.aten
    transforms = {aten._fft_r2c: _real, aten._fft_c2r: _back_to_real, aten._fft_c2c: _complex}
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False, custom_mapping=transforms) as counter:
        work()
    return counter.get_total_flops()


def _complex(shape: Sequence[int], dims: Sequence[int], *_: Any, **__: Any) -> int:
    """Of a batch of transforms over `dims` of an array of this shape."""
    return round(5 * math.prod(shape) * math.log2(math.prod(shape[dim] for dim in dims)))


def _real(shape: Sequence[int], dims: Sequence[int], *_: Any, **__: Any) -> int:
    return _complex(shape, dims) // 2


def _back_to_real(shape: Sequence[int], dims: Sequence[int], *_: Any, out_shape: Sequence[int], **__: Any) -> int:
    return _real(out_shape, dims)


def machine(threads: int) -> Facts:
    """What must be known to compare numbers with those of another day."""
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")] or [platform.machine()]
    facts = {"processor": names[0], "cores": os.cpu_count(), "threads": threads, "python": platform.python_version(), "torch": torch.__version__}
    return {**facts, "date": time.strftime("%Y-%m-%d"), "load_before": round(os.getloadavg()[0], 2)}


def keep(section: str, found: Facts, results: Path = RESULTS) -> None:
    """Write what a script found into its section; those of the others stay."""
    told = json.loads(results.read_text()) if results.exists() else {}
    results.write_text(json.dumps({**told, section: found}, indent=1) + "\n")


def kept(section: str, results: Path = RESULTS) -> Facts:
    """What that script found last."""
    return json.loads(results.read_text())[section]


def by_model(section: str, threads: int, models: Mapping[str, Callable[[], Facts]], table: Callable[[Facts], str], writes: bool) -> None:
    """Measure each model, say so, tell the table on stderr and all as a JSON line, and keep it where `writes`."""
    told: Facts = {"machine": machine(threads), "models": {}}
    for name, measure in models.items():
        told["models"][name] = measure()
        print(f"{name.replace('_', ' ')} is measured", file=sys.stderr)
    print(table(told["models"]), file=sys.stderr)
    if writes:
        keep(section, told)
    print(json.dumps(told))


def markdown(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table as it stands in a document."""
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (head, *rows)).replace("\n", "\n|" + "---|" * len(head) + "\n", 1)
