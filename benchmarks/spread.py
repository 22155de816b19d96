"""What spreading a batch over two processes takes and saves on two cores: `python benchmarks/spread.py`.

For each model, three equal learners make the same updates, in turn: one in a process of one thread, one of two threads, one spread over two
processes of one thread each (motorbabble/learning/spread.py), which is how a fleet's learner uses several devices. Told are the medians, and the
ratio of the last to each of the others, of the same round. The table of docs/performance.md goes to stderr, one JSON line to stdout, and what was
found to the section `spread` of benchmarks/results.json, unless `--quick`; `--show` prints the table of what was found last.
"""

import statistics
from contextlib import closing
from functools import partial

import torch
from measuring import Facts, by_model, flags, kept, markdown, timed
from variants import KINDS, Variant, lived

from motorbabble.learning.learner import Learner
from motorbabble.learning.spread import Spread

SPREAD = tuple(Variant(kind, preset, side) for preset, side in (("tiny", 64), ("tiny", 224), ("base", 224)) for kind in KINDS)
WAYS = {"one_core": 1, "two_threads": 2, "two_processes": 1}  # and the threads of this process


def work(variant: Variant, rounds: int) -> Facts:
    with closing(lived(variant, 1, learner_of=partial(Spread, processes=2)).learner) as several:
        learners = {"one_core": lived(variant, 1).learner, "two_threads": lived(variant, 2).learner, "two_processes": several}
        took: dict[str, list[float]] = {way: [] for way in WAYS}

        def update(way: str) -> float:
            torch.set_num_threads(WAYS[way])
            learner: Learner = learners[way]
            return timed(lambda: learner.update(learner.choose()[0]), 1)[0]

        for way in WAYS:  # the first ones are slow
            for _ in range(3):
                update(way)
        for _ in range(rounds):
            for way in WAYS:
                took[way].append(update(way))

    def ratio(way: str) -> float:
        return round(statistics.median(a / b for a, b in zip(took["two_processes"], took[way], strict=True)), 3)

    return {
        **{f"{way}_ms": round(1e3 * statistics.median(took[way]), 1) for way in WAYS},
        "to_one_core": ratio("one_core"),
        "to_two_threads": ratio("two_threads"),
    }


def table(models: Facts) -> str:
    """As it stands in docs/performance.md."""
    head = ("model", "update, one core, ms", "two threads", "two processes", "to one core", "to two threads")
    rows = [
        (
            Variant.named(name),
            *(f"{found[f'{way}_ms']:.0f}" for way in WAYS),
            f"{found['to_one_core']:.2f}",
            f"{found['to_two_threads']:.2f}",
        )
        for name, found in models.items()
    ]
    return markdown(head, rows)


def main() -> None:
    chosen = flags(__doc__, "one tiny model, few updates", "the table", rounds=20)
    if chosen.show:
        return print(table(kept("spread")["models"]))
    models = {one.name: partial(work, one, 3 if chosen.quick else chosen.rounds) for one in (SPREAD[:1] if chosen.quick else SPREAD)}
    by_model("spread", 2, models, table, not chosen.quick)


if __name__ == "__main__":
    main()
