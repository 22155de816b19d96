"""The scripts of benchmarks/, in small: each piece really measures, operations and kinds are counted right, documents show what was found."""

import json
import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))

import before_after
import compiled
import growth
import in_turn
import speed
import spread
import where_time_goes
from measuring import RESULTS, best_product, by_model, keep, kept, machine, markdown, operations_of, timed
from variants import VARIANTS, Variant, each_action, lived

from motorbabble.models import compiling

ROOT = Path(__file__).parent.parent
SMALL = Variant("latent", "tiny", 32, 2), Variant("canvas", "tiny", 32, 2)
DOCUMENT = (ROOT / "docs" / "performance.md").read_text()


def numbers(found) -> list[float]:
    """All of them, however deep."""
    if isinstance(found, dict):
        return [number for each in found.values() for number in numbers(each)]
    if isinstance(found, list):
        return [number for each in found for number in numbers(each)]
    return [found]


def measured(found) -> bool:
    return all(math.isfinite(number) and number > 0 for number in numbers(found))


# Operations


@pytest.mark.parametrize("batch, rows, columns", [(1, 8, 16), (6, 16, 8), (3, 5, 7)])
def test_transforms_are_counted(batch, rows, columns):
    """5 N log2 N of complex numbers, half of real ones, forth and back, whatever the batch; over one dimension its own N counts."""
    real = torch.randn(batch, rows, columns)
    waves = torch.fft.rfft2(real)
    both, one = rows * columns * math.log2(rows * columns), rows * columns * math.log2(columns)
    assert operations_of(lambda: torch.fft.rfft2(real)) == pytest.approx(2.5 * batch * both, abs=1)
    assert operations_of(lambda: torch.fft.irfft2(waves, (rows, columns))) == pytest.approx(2.5 * batch * both, abs=1)
    assert operations_of(lambda: torch.fft.fft2(real.to(torch.complex64))) == pytest.approx(5 * batch * both, abs=1)
    assert operations_of(lambda: torch.fft.rfft(real)) == pytest.approx(2.5 * batch * one, abs=1)


def test_products_and_attention_are_counted_beside_transforms():
    a, q = torch.randn(4, 8, 8), torch.randn(1, 2, 16, 8)
    assert operations_of(lambda: a @ a) == 4 * 2 * 8**3
    assert operations_of(lambda: torch.nn.functional.scaled_dot_product_attention(q, q, q)) == 2 * 2 * (2 * 16 * 16 * 8)
    assert operations_of(lambda: (a @ a, torch.fft.rfft2(a))) == 4 * 2 * 8**3 + 2.5 * a.numel() * 6


def test_the_movers_transforms_count_in_both_directions():
    from motorbabble.models.mover import _Shift

    layers, down, right = (torch.rand(shape, requires_grad=True) for shape in ((1, 2, 4, 16, 16), (1, 2, 16), (1, 2, 16)))
    one = 2.5 * 256 * 8  # a real transform of 16 x 16
    distances = 2 * 2 * 2.5 * 16 * 4  # two layers', down and right
    forward, backward = (8 + 4) * one + distances, (4 + 8 + 2) * one
    products = 2 * 2 * (2 * 256)  # the distributions' own gradients
    assert operations_of(lambda: _Shift.apply(layers, down, right).sum().backward()) == forward + backward + products


# What is shared


def test_a_section_is_kept_and_the_others_stay(tmp_path):
    results = tmp_path / "results.json"
    keep("a", {"x": 1}, results)
    keep("b", {"y": 2}, results)
    keep("a", {"x": 3}, results)
    assert (kept("a", results), kept("b", results)) == ({"x": 3}, {"y": 2})


def test_times_and_the_machine():
    assert min(timed(lambda: time.sleep(0.01), 2)) >= 0.01
    assert best_product(0.01, side=64) > 1e6
    assert {"processor", "threads", "date", "load_before"} <= machine(1).keys()
    assert markdown(("a", "b"), [(1, 2), (3, 4)]) == "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |"


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda one: one.name)
def test_a_variant_is_found_by_its_name(variant):
    assert Variant.named(variant.name) == variant


# speed.py


def test_speed_measures_all_it_shows(tmp_path):
    told = speed.learning(1, 1, SMALL[:1], product_seconds=0.05)
    assert measured(told) and set(told["models"]) == {SMALL[0].name}
    for found in told["models"].values():
        assert found["frames_per_second"] == pytest.approx(3 * found["windows_per_second"], rel=0.01), "two frames of history and the next"
        assert found["before_mb"] < found["peak_mb"]
    told |= speed.control(2, side=32) | speed.keeping(tmp_path, 1, steps=20, side=32) | speed.environment(0.05) | speed.starting(times=1)
    assert measured({name: value for name, value in told.items() if name != "control_updates_meanwhile"})
    assert 0 < told["control_alone_ms_p50"] <= told["control_alone_ms_p95"] and told["record_ms_p50"] <= told["record_ms_p95"]
    shown = speed.tables({**told, "models": dict.fromkeys((one.name for one in VARIANTS), told["models"][SMALL[0].name])})
    assert all(f"| {one} |" in shown for one in VARIANTS)
    assert "nan" not in shown and shown.count("peak memory") == 1


# compiled.py


def test_compiling_is_measured_beside_the_same_uncompiled(monkeypatch):
    monkeypatch.setattr(compiling, "BACKEND", "eager")  # recorded, and computed operation by operation, which takes no minutes
    torch._dynamo.reset()
    found = compiled.work(SMALL[0], 1, warm=2, rounds=2)
    torch._dynamo.reset()
    assert measured({name: value for name, value in found.items() if name != "seconds_to_compile"}) and found["seconds_to_compile"] > 0
    assert found["peak_fraction"] / found["compiled_peak_fraction"] == pytest.approx(found["compiled_update_ms"] / found["update_ms"], rel=0.3)
    assert f"| {SMALL[0]} |" in compiled.table({SMALL[0].name: found})


# spread.py


def test_spreading_is_measured_beside_one_process(capsys, monkeypatch):
    found = spread.work(SMALL[0], 2)
    assert measured(found) and found["to_one_core"] == pytest.approx(found["two_processes_ms"] / found["one_core_ms"], rel=0.3)
    by_model("spread", 2, {SMALL[0].name: lambda: found}, spread.table, writes=False)
    shown = capsys.readouterr()
    assert f"| {SMALL[0]} |" in shown.err and json.loads(shown.out)["models"] == {SMALL[0].name: found}


# growth.py


def test_growth_measures_every_kind_and_draws_it(tmp_path):
    grown = growth.growth(tmp_path, 1, 1, ((1, 2), (2, 4), (20, 60), (2, 4)), side=32)
    assert grown.keys() == growth.WORDS.keys() and measured(grown)
    assert [many for many, _ in grown["sessions_listed"]] == [2, 4]
    assert len(growth.table(grown).splitlines()) == 2 + len(growth.WORDS)
    assert growth.picture(grown)[:8] == b"\x89PNG\r\n\x1a\n"


def test_what_is_measured_of_sessions_is_what_it_says(tmp_path):
    shelf = growth.recorded_sessions(tmp_path, 3)
    assert len(growth.Places(shelf, shelf, shelf / "none").sessions()) == 3
    assert growth.opened(shelf, 2).shape == (32, 32, 3)
    assert len(growth.prepared(shelf)) > 1, "a window of several frames"


# where_time_goes.py


@pytest.mark.parametrize(
    "work, kind",
    [
        (lambda x: x @ x, "products of matrices"),
        (torch.fft.rfft2, "shifts, in frequencies"),
        (torch.nn.functional.gelu, "GELU"),
        (lambda x: torch.nn.functional.layer_norm(x, x.shape[-1:]), "norms"),
        (lambda x: torch.nn.functional.conv2d(x[None, None], x[None, None, :9, :9]), "convolutions"),
        (lambda x: torch.nn.functional.scaled_dot_product_attention(x[None, None], x[None, None], x[None, None]), "attention"),
        (torch.sin, "losses and elementwise"),
        (torch.clone, "copies and shapes"),
        (torch.linalg.inv, "other operations"),
        (lambda x: time.sleep(0.005), "Python and bookkeeping"),
    ],
)
def test_a_kind_of_operation_is_recognised(work, kind):
    """By most of its time; several tries, since a busy machine interrupts whatever runs."""
    x = torch.randn(512, 512)
    assert any(where_time_goes.shares(where_time_goes.operations(lambda: work(x), 2))[kind] > 0.5 for _ in range(8))


def test_what_the_optimiser_calls_is_the_optimisers():
    weights = [torch.nn.Parameter(torch.randn(64, 64)) for _ in range(3)]
    for weight in weights:
        weight.grad = torch.randn(64, 64)
    optimizer = torch.optim.AdamW(weights, fused=False, foreach=False)
    ran = where_time_goes.operations(optimizer.step, 1)
    assert {kind for kind, name, _ in ran if name.startswith("aten::mul")} == {"optimiser, clipping, averaging"}


@pytest.mark.parametrize("variant", SMALL, ids=lambda one: one.kind)
def test_the_kinds_cover_all_of_an_update_and_of_imagining(variant):
    run = lived(variant, 1, steps=6)
    windows, _ = run.learner.choose()
    works = {"update": lambda: run.learner.update(windows), "imagine": lambda: run.world_model.imagine(run.window, each_action(run))}
    for name, work in works.items():
        ran = where_time_goes.operations(work, 1)
        assert not {each for kind, each, _ in ran if kind == "other operations"}, "give them a kind in where_time_goes.py"
        found = where_time_goes.shares(ran)
        assert sum(found.values()) == pytest.approx(1, abs=0.002) and min(found.values()) >= 0
        never = {"convolutions", "other operations"} | ({"optimiser, clipping, averaging"} if name == "imagine" else set())
        assert {kind for kind, share in found.items() if not share} <= never | {"shifts, in frequencies"}


def test_where_time_goes_shows_what_it_measured():
    found = where_time_goes.spent(Variant("latent", "tiny", 32, 2), 1, 1)
    assert all(work["ms"] > 0 for work in found.values()) and found["update"]["shares"]["shifts, in frequencies"] > 0
    shown = where_time_goes.table({SMALL[0].name: found})
    assert "latent, 32 px, an update" in shown and f"{found['update']['ms']:.0f} |" in shown


# before_after.py


def curve(*skills: float) -> list[str]:
    points = [{"update": 5 * i, "seconds": 1.5 * i, "steps": 4 * i, "skill_moved": skill} for i, skill in enumerate(skills, 1)]
    return ["a warning\n", *(f"{json.dumps(point)} {{'total': 0.1}}\n" for point in points)]


def test_the_first_exam_that_reaches_a_skill_counts():
    found = before_after.reached(curve(-0.5, 0.7, 0.81, 0.2, 0.9), [0.8, 0.5], 60)
    assert found["reached"] == {"0.5": {"seconds": 3.0, "update": 10, "steps": 8}, "0.8": {"seconds": 4.5, "update": 15, "steps": 12}}
    assert found["best_skill"] == 0.81 and found["last"]["update"] == 15  # no further than the highest skill


def test_a_life_that_is_not_good_in_time_is_over_at_the_first_exam_after_it():
    found = before_after.reached(curve(-0.5, 0.7, 0.2, 0.9), [0.8], 4.0)
    assert found["reached"] == {"0.8": None} and found["best_skill"] == 0.7 and found["last"]["seconds"] == 4.5
    assert before_after.reached([], [0.8], 4.0)["best_skill"] is None


def test_revisions_take_turns_and_share_a_row(monkeypatch):
    lived_by = []

    def life(folder, name, seed, seconds, threads):
        lived_by.append(folder.name)
        when = {"seconds": 1.5, "update": 5, "steps": 4}
        return {"reached": {"0.8": when if folder.name == "new" else None}, "best_skill": 0.61, "last": {"seconds": 10.2}}

    monkeypatch.setattr(before_after, "life", life)
    rows = before_after.compared({"before": Path("old"), "after": Path("new")}, ["dot"], [3, 4], 10.0, 1)
    assert lived_by == ["old", "new", "old", "new"]
    assert "| dot | 4 | 0.8 | not in 10 s (0.61) | 1.5 | not in 10 s (0.61) | 5 |" in before_after.table(rows)


def test_a_life_is_lived_by_the_scripts_of_its_folder():
    """Any skill will do, so it ends with its first exam."""
    found = before_after.life(ROOT, "dot", 0, 60.0, 1, skills=[-1e6], every=1)
    first = found["reached"]["-1000000.0"]
    assert first["seconds"] > 0 and first["update"] == 1 and np.isfinite(found["best_skill"])


def test_a_life_that_ends_by_itself_is_a_failure_and_says_what_it_said(tmp_path, monkeypatch):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "first_life.py").write_text("raise SystemExit('the robot fell over')")
    monkeypatch.setattr(before_after, "settings_of", lambda folder, threads: None)
    with pytest.raises(SystemExit, match="the robot fell over"):
        before_after.life(tmp_path, "dot", 0, 60.0, 1)


def test_a_package_from_elsewhere_is_refused(tmp_path):
    (tmp_path / "motorbabble").mkdir()
    (tmp_path / "motorbabble" / "__init__.py").write_text("__file__ = '/elsewhere/motorbabble/__init__.py'\n")
    with pytest.raises(AssertionError, match="would be measured"):
        before_after.settings_of(tmp_path, 1)


# in_turn.py


def test_updates_are_made_in_turn_and_compared_within_a_round():
    found = in_turn.in_turn({"before": before_after.settings_of(ROOT, 1)}, SMALL[0], 2, 1)
    assert found["before"]["ms"] > 0 and found["before"]["ratio"] == 1
    mine, first = [(2.0, 0.1), (9.0, 0.3), (1.0, 0.2)], [(4.0, 0.1), (3.0, 0.3), (2.0, 0.2)]
    assert in_turn.told(mine, first) == {"ms": 2000.0, "system_ms": 200.0, "ratio": 0.5}
    assert "| latent, tiny, 32 px, 2 windows | before |" in in_turn.table({SMALL[0].name: found})


def test_a_revision_that_cannot_work_is_said_to(tmp_path, capfd):
    with pytest.raises(SystemExit, match="before cannot make an update of latent, tiny"):
        in_turn.in_turn({"before": {"PYTHONPATH": str(tmp_path), "PYTHONHOME": str(tmp_path)}}, SMALL[0], 1, 1)
    assert capfd.readouterr().err


# Documents


SHOWN = {
    "speed": speed.tables,
    "growth": lambda told: growth.table({name: told[name] for name in growth.WORDS}),
    "where_time_goes": lambda told: where_time_goes.table(told["models"]),
    "compiled": lambda told: compiled.table(told["models"]),
    "spread": lambda told: spread.table(told["models"]),
}


@pytest.mark.parametrize("section", json.loads(RESULTS.read_text()))
def test_the_document_shows_what_was_found_last(section):
    lost = [line for line in SHOWN[section](kept(section)).splitlines() if line and line not in DOCUMENT.splitlines()]
    assert not lost, f"paste into docs/performance.md what python benchmarks/{section}.py --show prints"


def test_make_bench_begins_with_what_the_document_shows():
    steps = subprocess.run(["make", "-n", "bench"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    named = [f"benchmarks/{name}.py" for name in ("speed", "growth", "where_time_goes", "compiled", "spread")]
    assert [line.split()[1] for line in steps.splitlines() if "benchmarks/" in line][:5] == named
    assert all(name in DOCUMENT for name in named)
