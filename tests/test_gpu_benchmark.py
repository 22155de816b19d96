"""The benchmark for GPUs, as far as a machine without one can run it."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from unittest.mock import Mock

import pytest
import torch


class Done(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch, capsys) -> Callable[..., Done]:
    """`python benchmarks/gpu.py` with these flags, in this process."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    import gpu

    def ran(*flags: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["gpu.py", *flags])
        return Done(gpu.main(), *capsys.readouterr())

    return ran


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_it_says_so_and_fails(run):
    said = "There is no CUDA device here; run it where there is one, or try --device cpu --quick.\n"
    assert run() == (1, "", said)


def test_all_that_it_measures_is_there(run):
    done = run("--device", "cpu", "--quick")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["device"] == "cpu" and told["precision"] == "float32" and told["quick"]
    assert {name.rpartition("_")[0] for name in told["learning"]} == {"latent_tiny_batch", "canvas_tiny_batch"}
    for row in told["learning"].values():
        assert 0 < row["peak_fraction"] < 1.5 and row["samples_per_second"] > 0 and row["peak_memory_mb"] is None
    for rows in told["imagining"].values():
        assert len(rows) == 4 and all(0 < row["p50_ms"] <= row["p95_ms"] for row in rows.values())
    assert "| latent tiny batch 4 |" in done.err


def test_batches_are_spread_over_as_many_devices_as_are_asked_for(run, monkeypatch):
    import gpu

    monkeypatch.setattr(gpu, "KINDS", ("latent",))
    helped, learning = [], gpu.learning
    monkeypatch.setattr(gpu, "learning", lambda run, *how: helped.append(len(run.learner.helpers)) or learning(run, *how))
    found = gpu.speed("cpu", replace(gpu.QUICK, batches=(2,), plans=(2,), looks=1), devices=2)
    assert helped == [1] and found["learning"]["latent_tiny_batch_2"]["samples_per_second"] > 0


def test_the_same_device_is_on_a_par_with_itself(run):
    done = run("--device", "cpu", "--quick", "--parity")
    assert done.code == 0, done.err
    for found in json.loads(done.out)["parity"].values():
        assert found["most_apart"] == found["means_apart"] == 0 and found["within_2_percent"]
        assert 0 < found["disturbed_apart"] < 0.1, "what begins a little apart is a little apart after a few updates"
        first, last, *others = found["first_and_last_loss"]
        assert last < first and others == [first, last]


def test_a_curve_that_goes_astray_is_noticed(run, monkeypatch):
    import gpu

    totals = iter([1.0] * gpu.QUICK.parity + [1.03] * gpu.QUICK.parity + [0.99] * gpu.QUICK.parity)
    monkeypatch.setattr(gpu, "KINDS", ("latent",))
    monkeypatch.setattr(gpu, "alive", lambda *how, **settings: Mock())
    monkeypatch.setattr(gpu, "disturb", lambda *how: None)
    monkeypatch.setattr(gpu, "update", lambda run: {"total": next(totals)})
    found = gpu.parity("cpu", gpu.QUICK, 32)["latent"]
    assert found["most_apart"] == pytest.approx(0.03) and found["disturbed_apart"] == pytest.approx(0.01) and not found["within_2_percent"]
    monkeypatch.setattr(gpu, "parity", lambda *asked: {"latent": found})
    assert run("--device", "cpu", "--quick", "--parity").code == 1


def test_what_is_measured_and_compared_can_be_compiled(run, monkeypatch):
    import gpu

    from motorbabble.models import compiling

    monkeypatch.setattr(gpu, "KINDS", ("latent",))
    monkeypatch.setattr(compiling, "BACKEND", "eager")  # recorded, and computed operation by operation, which takes no minutes
    torch._dynamo.reset()
    assert json.loads(run("--device", "cpu", "--quick", "--parity", "--compile").out)["compile"]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"]
    torch._dynamo.reset()
