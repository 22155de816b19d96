"""One thread for torch: two test runs on two cores with two threads each would mostly wait for one another."""

import os
from pathlib import Path

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
