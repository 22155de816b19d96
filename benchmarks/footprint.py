"""What one model takes of memory, in a process of its own: `python benchmarks/footprint.py latent_tiny_224_batch_4`. Prints one JSON line.

`before_mb` is resident once everything is imported, `peak_mb` the most that ever was, after a short life, some updates and an imagined look:
weights, their average, gradients, optimiser, replay and whatever an update holds at once. Read from Linux's `/proc/self/status`, whose peak is
this process's own; that of `getrusage` begins with the parent's.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import torch
from variants import Variant, each_action, lived

UPDATES = 3


def resident_mb(line: str) -> float:
    """VmRSS: now; VmHWM: at most."""
    said = dict(each.split(":", 1) for each in Path("/proc/self/status").read_text().splitlines())
    return int(said[line].split()[0]) * 1024 / 1e6


def footprint(variant: Variant, threads: int) -> dict[str, int]:
    """Asked of a fresh process."""
    command = [sys.executable, __file__, variant.name, "--threads", str(threads)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variant", type=Variant.named)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    before = resident_mb("VmRSS")
    run = lived(chosen.variant, chosen.threads)
    windows, _ = run.learner.choose()
    for _ in range(UPDATES):
        run.learner.update(windows)
    run.world_model.imagine(run.window, each_action(run))
    print(json.dumps({"before_mb": round(before), "peak_mb": round(resident_mb("VmHWM"))}))


if __name__ == "__main__":
    main()
