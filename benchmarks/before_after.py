"""How soon something is learned, before a change and after it: `python benchmarks/before_after.py --before REV`.

The older revision is checked out beside this one for as long as it lasts. For each seed, the dot and bodies (latent model) and the dot on the
canvas are lived by benchmarks/first_life.py of both revisions, each with its own package, in turn: before, after, before, after. The canvas lives
with random actions, as in benchmarks/canvas.py, whose own curve tells no seconds. Seconds are those of life: exams, one after every five updates,
are left out. A life ends with the first exam whose skill is at least 0.8; or after `--seconds` of it, and then only its best skill is told.
Prints a table to stderr and one JSON line to stdout.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from measuring import Facts, machine, markdown

ROOT = Path(__file__).resolve().parent.parent
LIVES = {
    "dot": ("--world", "dot"),
    "bodies": ("--world", "bodies"),
    "canvas": ("--world", "dot", "--model", "canvas", "--selector", "random"),
}
SKILL, EVERY = 0.8, 5  # updates from one exam to the next
STEPS = 10_000  # seconds end a life, not steps


@contextmanager
def checked_out(revision: str) -> Iterator[Path]:
    """A folder with that revision, gone afterwards."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "before"
        subprocess.run(["git", "-C", ROOT, "worktree", "add", "--quiet", "--detach", folder, revision], check=True)
        try:
            yield folder
        finally:
            subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", folder], check=True)


def settings_of(folder: Path, threads: int) -> dict[str, str]:
    """For a process that imports the package of this folder; AssertionError where it would import another one."""
    settings = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": str(threads)}
    asked = [sys.executable, "-c", "import motorbabble; print(motorbabble.__file__)"]
    found = subprocess.run(asked, check=True, cwd=folder, env=settings, stdout=subprocess.PIPE, text=True).stdout
    assert Path(found.strip()).resolve().is_relative_to(folder.resolve()), f"{found.strip()} would be measured, not {folder}"
    return settings


def first_good(lines: Iterator[str], skill: float) -> Facts:
    """Of a curve as it is printed, a point a line: seconds, updates and robot steps when it was first so good; else the best there was."""
    best = None
    for line in lines:
        if not line.startswith('{"update"'):
            continue
        point, _ = json.JSONDecoder().raw_decode(line)
        best = max(point["skill_moved"], -1e9 if best is None else best)
        if best >= skill:
            return {"seconds": point["seconds"], "updates": point["update"], "steps": point["steps"], "best_skill": best}
    return {"seconds": None, "updates": None, "steps": None, "best_skill": best}


def life(folder: Path, name: str, seed: int, seconds: float, threads: int, skill: float = SKILL, every: int = EVERY) -> Facts:
    """One life by the scripts of a folder, ended as soon as it is good enough."""
    asked = [*LIVES[name], "--seed", str(seed), "--seconds", str(seconds), "--steps", str(STEPS), "--curve", str(every), "--threads", str(threads)]
    command = [sys.executable, "benchmarks/first_life.py", *asked]
    with (
        tempfile.TemporaryFile("w+") as told,
        subprocess.Popen(command, cwd=folder, env=settings_of(folder, threads), stdout=told, stderr=subprocess.PIPE, text=True) as process,
    ):
        assert process.stderr is not None
        said: list[str] = []
        found = first_good((said.append(line) or line for line in process.stderr), skill)
        if found["seconds"] is not None:
            process.kill()
        elif process.wait():
            raise SystemExit(f"a life of {name} failed in {folder}:\n{''.join(said[-20:])}")
    return found


def compared(revisions: dict[str, Path], names: Sequence[str], seeds: Sequence[int], seconds: float, threads: int) -> list[Facts]:
    """A row per life, revision and seed, in the order in which they were lived."""
    rows = []
    for seed in seeds:
        for name in names:
            for which, folder in revisions.items():
                found = life(folder, name, seed, seconds, threads)
                rows.append({"life": name, "seed": seed, "revision": which, **found})
                print(f"{time.strftime('%H:%M:%S')} {json.dumps(rows[-1])}", file=sys.stderr, flush=True)
    return rows


def table(rows: Sequence[Facts]) -> str:
    """A row per life and seed."""

    def said(value: Any) -> str:
        return "not reached" if value is None else str(value)

    found = {(row["life"], row["seed"], row["revision"]): row for row in rows}
    pairs = dict.fromkeys((row["life"], row["seed"]) for row in rows)
    columns = [(what, which) for what in ("seconds", "updates") for which in ("before", "after")]
    head = ("life", "seed", *(f"{what} to skill {SKILL}, {which}" for what, which in columns))
    return markdown(head, [(*pair, *(said(found[(*pair, which)][what]) for what, which in columns)) for pair in pairs])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", required=True, metavar="REV", help="the older revision, as git names it")
    parser.add_argument("--lives", nargs="+", choices=LIVES, default=list(LIVES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=180.0, help="of a life, at most")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    facts = machine(chosen.threads)
    with checked_out(chosen.before) as before:
        rows = compared({"before": before, "after": ROOT}, chosen.lives, chosen.seeds, chosen.seconds, chosen.threads)
    print(table(rows), file=sys.stderr)
    print(json.dumps({"machine": facts, "before": chosen.before, "lives": rows}))


if __name__ == "__main__":
    main()
