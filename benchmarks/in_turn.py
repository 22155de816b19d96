"""What an update takes, before a change and after it: `python benchmarks/in_turn.py --before REV`.

Two processes, one with the package of the older revision and one with this one's, make an update of the same model in turn, the other one first
in every other round; only one works at a time, so whatever else slows the machine slows both. With `--free` a third is this revision whose C
library gives memory back between updates (motorbabble/learning/heap.py). Told are medians: milliseconds of an update, those that the system
took of all cores, and the ratio to the first within a round. A table goes to stderr, one JSON line to stdout.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack

from before_after import ROOT, checked_out, settings_of
from measuring import Facts, machine, markdown
from variants import VARIANTS, Variant, lived

WARM = 3  # updates before any is timed
FREE = {"GLIBC_TUNABLES": "glibc.malloc.check=0"}  # any choice of the user's is respected, and this one changes nothing else


def work(variant: Variant, threads: int) -> None:
    """The process that is told to make updates: for each line it reads it makes one, and answers with the seconds it took, all and the system's."""
    run = lived(variant, threads)
    for made in range(-WARM, 10**9):
        if made >= 0 and not sys.stdin.readline():
            return
        before, began = resource.getrusage(resource.RUSAGE_SELF).ru_stime, time.perf_counter()
        run.learner.update(run.learner.choose()[0])
        took = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_stime - before
        if made >= -1:  # the last of the warm-up says that it is ready
            print(json.dumps(took), flush=True)


def in_turn(who: dict[str, dict[str, str]], variant: Variant, rounds: int, threads: int) -> dict[str, Facts]:
    """`who`: the environment of each process. The processes are gone afterwards."""
    command = [sys.executable, __file__, "--work", variant.name, "--threads", str(threads)]
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in who}
    with ExitStack() as stack:
        processes = {}
        for name, settings in who.items():
            started = subprocess.Popen(command, env=settings, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            process = processes[name] = stack.enter_context(started)
            stack.callback(process.kill)
            assert process.stdout is not None
            if not process.stdout.readline():
                raise SystemExit(f"{name} cannot make an update of {variant}; what it said stands above")
        for number in range(rounds):
            for name in list(who)[:: 1 if number % 2 else -1]:
                process = processes[name]
                assert process.stdin is not None and process.stdout is not None
                print(file=process.stdin, flush=True)
                took[name].append(json.loads(process.stdout.readline()))
    first = took[next(iter(who))]
    return {name: told(pairs, first) for name, pairs in took.items()}


def told(pairs: Sequence[tuple[float, float]], first: Sequence[tuple[float, float]]) -> Facts:
    seconds, system = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(mine[0] / its[0] for mine, its in zip(pairs, first, strict=True))
    return {"ms": round(1e3 * seconds, 1), "system_ms": round(1e3 * system, 1), "ratio": round(ratio, 3)}


def table(found: dict[str, dict[str, Facts]]) -> str:
    rows = [(str(Variant.named(name)), who, *facts.values()) for name, by in found.items() for who, facts in by.items()]
    return markdown(("model", "revision", "ms an update", "of the system, ms", "ratio to the first"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", metavar="REV", help="the older revision, as git names it")
    parser.add_argument("--variants", nargs="+", choices=[variant.name for variant in VARIANTS], default=[v.name for v in VARIANTS if v.side == 224])
    parser.add_argument("--free", action="store_true", help="also this revision, with memory given back between updates")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", metavar="VARIANT", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.work:
        return work(Variant.named(chosen.work), chosen.threads)
    if not chosen.before:
        parser.error("name the older revision: --before REV")
    facts, found = machine(chosen.threads), {}
    with checked_out(chosen.before) as before:
        who = {"before": settings_of(before, chosen.threads), "after": settings_of(ROOT, chosen.threads)}
        if chosen.free:
            who["after, memory given back"] = who["after"] | FREE
        for name in chosen.variants:
            found[name] = in_turn(who, Variant.named(name), chosen.rounds, chosen.threads)
            print(f"{time.strftime('%H:%M:%S')} {name} {json.dumps(found[name])}", file=sys.stderr, flush=True)
    print(table(found), file=sys.stderr)
    print(json.dumps({"machine": facts, "before": chosen.before, "updates": found}))


if __name__ == "__main__":
    main()
