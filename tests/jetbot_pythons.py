"""A Python as a stock JetBot has it: 3.6 with rpyc 5.0.1 where a 3.6 is found, else this one with the same rpyc; or a skip that says why."""

import functools
import os
import subprocess
import sys
from pathlib import Path
from shutil import which

import pytest
from filelock import FileLock

RPYC = "5.0.1"
HOME = Path(__file__).parent.parent / ".venv"  # kept, so that it is built once


def pythons() -> list[str]:
    """Those that are 3.6, then the one of the tests."""
    places = [*sorted(Path.home().glob(".pyenv/versions/3.6*/bin/python")), which("python3.6"), "/opt/python3.6/bin/python3.6"]
    return [str(place) for place in places if place and _answers([str(place), "-c", "import sys; sys.exit(sys.version_info[:2] != (3, 6))"])] + [
        sys.executable
    ]


@functools.cache
def old_python() -> str:
    """Its path. Built in .venv/jetbot-VERSION the first time, for which pip needs its index."""
    HOME.mkdir(exist_ok=True)
    for python in pythons():
        named = "3.6" if python != sys.executable else "this"
        home = HOME / f"jetbot-{named}"
        with FileLock(f"{home}.lock"):
            works = [str(home / "bin" / "python"), "-c", f"import rpyc; assert rpyc.__version__ == {RPYC!r} or rpyc.version.version == (5, 0, 1)"]
            if not _answers(works):
                _answers([python, "-m", "venv", "--clear", str(home)], 60)
                _answers([str(home / "bin" / "python"), "-m", "pip", "install", "-q", "--retries", "1", "--timeout", "10", f"rpyc=={RPYC}"], 120)
            if _answers(works):
                return str(home / "bin" / "python")
    pytest.skip(f"NOT TRIED on an old JetBot's Python: rpyc {RPYC} could not be installed for any of {pythons()}")


def _answers(command: list[str], seconds: float = 10) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=seconds, env={**os.environ, "PYTHONPATH": ""}).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
