"""One thread for torch: two test runs on two cores with two threads each would mostly wait for one another."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from crashes import scratch

torch.set_num_threads(1)
os.environ["MPLBACKEND"] = "agg"  # no test opens a window


@pytest.fixture
def folder():
    """In memory where possible: a killed process loses nothing of it, and nothing waits for a disk."""
    with scratch() as place:
        yield Path(place)


@pytest.fixture
def here(tmp_path, monkeypatch, capsys):
    """`babble` in this process, which has imported everything long ago, and in a folder of its own."""
    from motorbabble.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def command(*words: str) -> subprocess.CompletedProcess:
        capsys.readouterr()
        code: Any = 0
        try:
            main(words)
        except SystemExit as end:
            code = end.code or 0
        told = capsys.readouterr()
        return subprocess.CompletedProcess(words, code, told.out, told.err)

    return command
