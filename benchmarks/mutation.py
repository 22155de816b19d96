"""How many small faults the tests notice: `make mutate`. Prints the share per file; exits 1 when it is below 80 %.

mutmut puts one fault at a time (another number, operator, argument, condition) into the functions of the files named in
pyproject.toml and runs the tests that reach it: what keeps recordings and checkpoints, or with `--what jetbot` what stops a robot. All faults
would take hours, so a part of them is drawn by their names: the same ones on each machine, others only where the sources
changed. Nothing is taken for equivalent; a survivor counts as one, so 100 % cannot be reached. What it needs and leaves is
in mutants/, which git ignores.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

MUTANTS = Path("mutants")
NOTICED = (1, 3, 24, -24, 36, 152, 255)  # mutmut's codes: a test failed, pytest itself did, it ran for too long
FIRST = {"memory": "motorbabble.disk.xǁDiskǁcreate__*", "jetbot": "motorbabble.bounds.xǁBoundsǁ__init____*"}  # any few: then all names are known
MUTMUT = """
import sys, mutmut.configuration as configuration
settings = configuration._config_reader()
own = settings(sys.argv.pop(1), {})  # [tool.mutmut.jetbot] over [tool.mutmut]
configuration._config_reader = lambda: lambda key, default: own.get(key, settings(key, default))
from mutmut.__main__ import cli
cli()
"""


def run(what: str, names: list[str], processes: int) -> None:
    command = [sys.executable, "-c", MUTMUT, what, "run", "--max-children", str(processes), *names]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        sys.exit(done.stdout.decode(errors="replace")[-4000:] + "\nThe tests must pass before they can be measured; see above.")


def results() -> dict[str, dict[str, int | None]]:
    """File -> mutant -> exit code of its tests, None where it was not run."""
    metas = sorted(MUTANTS.rglob("*.py.meta"))
    found = {path.relative_to(MUTANTS).as_posix().removesuffix(".meta"): json.loads(path.read_text())["exit_code_by_key"] for path in metas}
    return {file: codes for file, codes in found.items() if codes}


def drawn(name: str, share: float, seed: int) -> bool:
    return int.from_bytes(hashlib.sha256(f"{name}{seed or ''}".encode()).digest()[:4]) < share * 2**32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--what", choices=FIRST, default="memory", help="recordings and checkpoints, or what stops a JetBot")
    parser.add_argument("--most", type=int, default=1200, help="so many faults, drawn from all files alike")
    parser.add_argument("--seed", type=int, default=0, help="another one draws other faults: whoever made tests for the survivors asks others")
    parser.add_argument("--file", default="", help="only files whose path holds this")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--least", type=float, default=80.0, help="per cent that have to be noticed")
    settings, began = parser.parse_args(), time.monotonic()

    shutil.rmtree(MUTANTS, ignore_errors=True)  # results of other sources or tests
    run(settings.what, [FIRST[settings.what]], settings.processes)
    own = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["mutmut"].get(settings.what, {})
    left_out = re.compile("|".join(own.get("left_out", ["$^"])))
    everything = [name for file, codes in results().items() if settings.file in file for name in codes if not left_out.search(name)]
    share = min(1.0, settings.most / len(everything))
    names = {name for name in everything if drawn(name, share, settings.seed)}
    print(f"{len(names)} of {len(everything)} faults; on two cores 1,200 take about half an hour ...", flush=True)
    run(settings.what, sorted(names), settings.processes)

    total, noticed = 0, 0
    for file, codes in results().items():
        counted = {name: code for name, code in codes.items() if name in names}
        if counted:
            good = sum(code in NOTICED for code in counted.values())
            total, noticed = total + len(counted), noticed + good
            print(f"{good / len(counted):7.1%}  {good:4d} of {len(counted):4d}  {file}")
            for name in sorted(name for name, code in counted.items() if code not in NOTICED):
                print(f"            {name}  {'no test' if counted[name] in (5, 33) else ''}".rstrip())
    score = 100 * noticed / total
    error = 100 * (noticed * (total - noticed) / total**3) ** 0.5 if share < 1 else 0.0
    print(
        f"{score:.1f} % of {total} faults were noticed (±{error:.1f}), in {(time.monotonic() - began) / 60:.0f} minutes; asked {settings.least:g} %"
    )
    sys.exit(score < settings.least)


if __name__ == "__main__":
    main()
