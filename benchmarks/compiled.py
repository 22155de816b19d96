"""What `--learner.compile` costs and what it saves: `python benchmarks/compiled.py`.

For each model, in a process of its own with an empty cache, two equal learners make the same updates and imagine the same, in turn: one as it
always is, one compiled. Told are the seconds that the compiled one's first updates and looks took beyond the others', then what an update and
imagining two actions take (medians), their ratio, and the share of the best matrix product of the same minutes that updates reach (measuring.py
says how operations are counted). The table of docs/performance.md goes to stderr, one JSON line to stdout, and what was found to the section
`compiled` of benchmarks/results.json, unless `--quick`; `--show` prints the table of what was found last.
"""

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import tempfile
from functools import partial

import torch
from measuring import Facts, best_product, by_model, flags, kept, markdown, operations_of, timed
from variants import KINDS, Variant, each_action, lived

from motorbabble.agents import Run
from motorbabble.learning.learner import Learner

COMPILED = tuple(Variant(kind, preset, side) for preset, side in (("tiny", 64), ("tiny", 224), ("base", 224)) for kind in KINDS)
WARM = 40  # updates: whatever a mask may hide was hidden in one of them


def work(variant: Variant, threads: int, warm: int, rounds: int) -> Facts:
    """In this process."""
    torch.set_num_threads(threads)
    plain, compiled = lived(variant, threads), lived(variant, threads, compile=True)

    def update(learner: Learner) -> None:
        learner.update(learner.choose()[0])

    def look(run: Run) -> None:
        run.world_model.imagine(run.window, each_action(run))

    first = {run: sum(timed(lambda run=run: update(run.learner), warm) + timed(lambda run=run: look(run), 2)) for run in (plain, compiled)}
    counted = copy.deepcopy(plain.learner)  # will hide by chance what the others do
    operations = operations_of(lambda: [update(counted) for _ in range(rounds)])
    updates: dict[Run, list[float]] = {plain: [], compiled: []}
    looks: dict[Run, list[float]] = {plain: [], compiled: []}
    peaks = [best_product(1.0)]
    for _ in range(rounds):
        for run in (plain, compiled):
            updates[run] += timed(lambda run=run: update(run.learner), 1)
            looks[run] += timed(lambda run=run: look(run), 4)
    peak = max(*peaks, best_product(1.0))

    def ratio(found: dict[Run, list[float]]) -> float:
        return round(statistics.median(after / before for before, after in zip(found[plain], found[compiled], strict=True)), 3)

    def milliseconds(found: dict[Run, list[float]], run: Run) -> float:
        return round(1e3 * statistics.median(found[run]), 1)

    return {
        "seconds_to_compile": round(first[compiled] - first[plain], 1),
        "update_ms": milliseconds(updates, plain),
        "compiled_update_ms": milliseconds(updates, compiled),
        "update_ratio": ratio(updates),
        "imagine_ms": milliseconds(looks, plain),
        "compiled_imagine_ms": milliseconds(looks, compiled),
        "imagine_ratio": ratio(looks),
        "compiled_frames_per_second": round(rounds * variant.batch * (plain.world_model.history + 1) / sum(updates[compiled]), 1),
        "peak_fraction": round(operations / sum(updates[plain]) / peak, 3),
        "compiled_peak_fraction": round(operations / sum(updates[compiled]) / peak, 3),
    }


def compiled(variant: Variant, threads: int, warm: int, rounds: int) -> Facts:
    """Asked of a fresh process that finds nothing compiled."""
    command = [sys.executable, __file__, "--work", variant.name, str(threads), str(warm), str(rounds)]
    with tempfile.TemporaryDirectory() as empty:
        settings = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": empty}
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=settings).stdout)


def table(models: Facts) -> str:
    """As it stands in docs/performance.md."""
    head = (
        "model",
        "to compile",
        "update, ms",
        "compiled",
        "ratio",
        "frames/s, compiled",
        "share of peak",
        "compiled",
        "imagine, ms",
        "compiled",
        "ratio",
    )
    rows = [
        (
            Variant.named(name),
            f"{found['seconds_to_compile']:.0f} s",
            f"{found['update_ms']:.0f}",
            f"{found['compiled_update_ms']:.0f}",
            f"{found['update_ratio']:.2f}",
            f"{found['compiled_frames_per_second']:.0f}",
            f"{found['peak_fraction']:.2f}",
            f"{found['compiled_peak_fraction']:.2f}",
            f"{found['imagine_ms']:.0f}",
            f"{found['compiled_imagine_ms']:.0f}",
            f"{found['imagine_ratio']:.2f}",
        )
        for name, found in models.items()
    ]
    return markdown(head, rows)


def main() -> None:
    if sys.argv[1:2] == ["--work"]:
        parser = argparse.ArgumentParser()
        parser.add_argument("--work", nargs=4)
        name, *numbers = parser.parse_args().work
        return print(json.dumps(work(Variant.named(name), *map(int, numbers))))
    chosen = flags(__doc__, "one tiny model, few updates", "the table", rounds=30)
    if chosen.show:
        return print(table(kept("compiled")["models"]))
    warm, rounds = (2, 2) if chosen.quick else (WARM, chosen.rounds)
    variants = COMPILED[:1] if chosen.quick else COMPILED
    models = {one.name: partial(compiled, one, chosen.threads, warm, rounds) for one in variants}
    by_model("compiled", chosen.threads, models, table, not chosen.quick)


if __name__ == "__main__":
    main()
