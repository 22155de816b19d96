"""How soon something is learned, before a change and after it: `python benchmarks/before_after.py --before REV`.

The older revision is checked out beside this one for as long as it lasts. For each seed, the dot and bodies (latent model) and the dot on the
canvas are lived by benchmarks/first_life.py of both revisions, each with its own package, in turn: before, after, before, after. The canvas lives
with random actions, as in benchmarks/canvas.py, whose own curve tells no seconds. Seconds are those of life: exams, one after every `--every`
updates, are left out. A life ends with the first exam that reaches the highest of `--skills`, or with the first after `--seconds` of it; what it
reached is told. Prints a table to stderr and one JSON line to stdout.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
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
SKILLS, EVERY = (0.8,), 5  # updates from one exam to the next
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


def reached(lines: Iterable[str], skills: Sequence[float], seconds: float) -> Facts:
    """Of a curve as it is printed, a point a line: seconds, updates and robot steps when each skill was first there, None for one that was not."""
    found: dict[float, Facts | None] = dict.fromkeys(sorted(skills))
    best = last = None
    for line in lines:
        if not line.startswith('{"update"'):
            continue
        last, _ = json.JSONDecoder().raw_decode(line)
        best = last["skill_moved"] if best is None else max(best, last["skill_moved"])
        for skill in [skill for skill, when in found.items() if when is None and last["skill_moved"] >= skill]:
            found[skill] = {name: last[name] for name in ("seconds", "update", "steps")}
        if best >= max(skills) or last["seconds"] >= seconds:
            break
    return {"reached": {str(skill): when for skill, when in found.items()}, "best_skill": best, "last": last}


def life(folder: Path, name: str, seed: int, seconds: float, threads: int, skills: Sequence[float] = SKILLS, every: int = EVERY) -> Facts:
    """One life by the scripts of a folder, ended by the first exam that is good enough or late enough; SystemExit where it ends by itself."""
    limits = {"seed": seed, "seconds": 10 * seconds, "steps": STEPS, "curve": every, "threads": threads}
    command = [sys.executable, "benchmarks/first_life.py", *LIVES[name], *(f"--{limit}={value}" for limit, value in limits.items())]
    with (
        tempfile.TemporaryFile("w+") as told,
        subprocess.Popen(command, cwd=folder, env=settings_of(folder, threads), stdout=told, stderr=subprocess.PIPE, text=True) as process,
    ):
        assert process.stderr is not None
        said: list[str] = []
        found = reached((said.append(line) or line for line in process.stderr), skills, seconds)
        if found["best_skill"] is None or (found["best_skill"] < max(skills) and found["last"]["seconds"] < seconds):  # it ended by itself
            raise SystemExit(f"a life of {name} failed in {folder}:\n{''.join(said[-20:])}")
        process.kill()
    return found


def compared(revisions: dict[str, Path], names: Sequence[str], seeds: Sequence[int], *limits: Any) -> list[Facts]:
    """A row per life, revision and seed, in the order in which they were lived; the limits are those of `life`."""
    rows = []
    for seed in seeds:
        for name in names:
            for which, folder in revisions.items():
                rows.append({"life": name, "seed": seed, "revision": which, **life(folder, name, seed, *limits)})
                print(f"{time.strftime('%H:%M:%S')} {json.dumps(rows[-1])}", file=sys.stderr, flush=True)
    return rows


def table(rows: Sequence[Facts]) -> str:
    """A row per life, seed and skill."""

    def said(row: Facts, skill: str, what: str) -> str:
        when = row["reached"][skill]
        return f"not in {row['last']['seconds']:.0f} s ({row['best_skill']:.2f})" if when is None else str(when[what])

    found = {(row["life"], row["seed"], row["revision"]): row for row in rows}
    asked = [(row["life"], row["seed"], skill) for row in rows for skill in row["reached"] if row["revision"] == "before"]
    columns = [(what, which) for what in ("seconds", "update") for which in ("before", "after")]
    head = ("life", "seed", "skill", *(f"{what}{'s' if what == 'update' else ''}, {which}" for what, which in columns))
    cells = [[said(found[name, seed, which], skill, what) for what, which in columns] for name, seed, skill in asked]
    return markdown(head, [(*of, *row) for of, row in zip(asked, cells, strict=True)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", required=True, metavar="REV", help="the older revision, as git names it")
    parser.add_argument("--lives", nargs="+", choices=LIVES, default=list(LIVES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=180.0, help="of a life, at most")
    parser.add_argument("--skills", nargs="+", type=float, default=list(SKILLS), help="whose first exams are told; the highest ends a life")
    parser.add_argument("--every", type=int, default=EVERY, help="updates from one exam to the next")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    facts = machine(chosen.threads)
    with checked_out(chosen.before) as before:
        revisions = {"before": before, "after": ROOT}
        rows = compared(revisions, chosen.lives, chosen.seeds, chosen.seconds, chosen.threads, chosen.skills, chosen.every)
    print(table(rows), file=sys.stderr)
    print(json.dumps({"machine": facts, "before": chosen.before, "lives": rows}))


if __name__ == "__main__":
    main()
