"""The benchmark for GPUs, as far as a machine without one can run it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent


def run(*flags: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "benchmarks/gpu.py", *flags]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_it_says_so_and_fails():
    done = run()
    assert done.returncode == 1 and not done.stdout
    assert done.stderr == "There is no CUDA device here; run it where there is one, or try --device cpu --quick.\n"


def test_all_that_it_measures_is_there():
    done = run("--device", "cpu", "--quick")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["device"] == "cpu" and told["precision"] == "float32" and told["quick"]
    assert {name.rpartition("_")[0] for name in told["learning"]} == {"latent_tiny_batch", "canvas_tiny_batch"}
    for row in told["learning"].values():
        assert 0 < row["peak_fraction"] < 1.5 and row["samples_per_second"] > 0 and row["peak_memory_mb"] is None
    for rows in told["imagining"].values():
        assert len(rows) == 4 and all(0 < row["p50_ms"] <= row["p95_ms"] for row in rows.values())
    assert "| latent tiny batch 4 |" in done.stderr


def test_the_same_device_is_on_a_par_with_itself():
    done = run("--device", "cpu", "--quick", "--parity")
    assert done.returncode == 0, done.stderr
    for found in json.loads(done.stdout)["parity"].values():
        assert found["most_apart"] == found["means_apart"] == 0 and found["within_2_percent"]
        first, last, *others = found["first_and_last_loss"]
        assert last < first and others == [first, last]


def test_a_curve_that_goes_astray_is_noticed(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu

    totals = iter([1.0] * gpu.QUICK.parity + [1.03] * gpu.QUICK.parity)
    monkeypatch.setattr(gpu, "KINDS", ("latent",))
    monkeypatch.setattr(gpu, "alive", lambda *how: None)
    monkeypatch.setattr(gpu, "update", lambda run: {"total": next(totals)})
    found = gpu.parity("cpu", gpu.QUICK, 32)["latent"]
    assert found["most_apart"] == pytest.approx(0.03) and not found["within_2_percent"]
    monkeypatch.setattr(gpu, "parity", lambda *asked: {"latent": found})
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu", "--quick", "--parity"])
    assert gpu.main() == 1
