"""What is compiled computes what is not: no program is broken in two, lengths by chance share one, and whatever watches still sees."""

import copy
import pickle

import numpy as np
import pytest
import torch
from exams import squares
from test_precision import MEAN, MODELS, WINDOWS, each_model
from torch._dynamo.utils import counters

from motorbabble.agents import learn
from motorbabble.errors import ConfigurationError
from motorbabble.experience import Step
from motorbabble.learning import learner as learners
from motorbabble.learning.learner import Learner, LearnerConfig
from motorbabble.models import compiling
from motorbabble.models.attention import record_attention
from motorbabble.robots.toroidal_dot import ToroidalDotRobot
from motorbabble.world_models.base import Batch, WorldModel

PLANS = np.stack([np.repeat(WINDOWS[i].actions[:1], 4, 0) for i in range(2)])


@pytest.fixture(autouse=True)
def traced(monkeypatch):
    """Programs are recorded as for torch's compiler, and then computed operation by operation, which takes no compiler and no minute."""
    monkeypatch.setattr(compiling, "BACKEND", "eager")
    _forget()
    yield
    _forget()


def _forget() -> None:
    torch._dynamo.reset()
    counters.clear()


def programs() -> int:
    assert all("LSTM" in reason for reason in counters["graph_break"]), "a program is one piece, but for an LSTM, which stays torch's own"
    return counters["stats"]["unique_graphs"]


def learner(name: str, compile: bool, **changes) -> Learner:
    torch.manual_seed(0)
    return Learner(MODELS[name](), LearnerConfig(len(WINDOWS), shift=(8, 8), compile=compile, **changes), seed=0)


def imagined(model: WorldModel, plans: np.ndarray = PLANS, **how):
    found = model.eval().imagine(WINDOWS[0], plans, **how)
    return [x for x in (found.images, found.uncertainty, found.expected_error) if x is not None]


@each_model
def test_compiled_learning_and_imagining_are_what_they_are_otherwise(name):
    plain, compiled = learner(name, False), learner(name, True)
    for _ in range(8):  # of the canvas, each of its three kinds of masks
        one, other = (each.update(WINDOWS, background=MEAN) for each in (plain, compiled))
        assert other == pytest.approx(one, rel=1e-3, abs=1e-5)
    assert 1 <= programs() <= {"latent": 2, "canvas": 4, "other_networks": 8}[name], "no program for each length of a mask; one for a patch alone"
    before = programs()
    for how in {}, {"pictures": False}:
        for one, other in zip(imagined(plain.world_model, **how), imagined(compiled.world_model, **how), strict=True):
            torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-4)
    assert before < programs()


@pytest.mark.parametrize("name", ["latent", "canvas"])
def test_long_plans_take_no_more_programs_than_short_ones(name):
    """The first step, those in between and the last one are programs of their own."""
    plain, compiled = learner(name, False).world_model, learner(name, True).world_model
    imagined(compiled)
    before = programs()
    longer = np.concatenate([PLANS, PLANS, PLANS], 1)
    for one, other in zip(imagined(plain, plans=longer), imagined(compiled, plans=longer), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-4)
    assert programs() == before


def test_levels_learn_and_imagine_compiled():
    plain, compiled = learner("latent", False), learner("latent", True)
    long = 1, [squares(5, seed) for seed in range(2)]
    for each in (plain, compiled):
        each.grow()
    for _ in range(3):
        one, other = (each.update(WINDOWS, background=MEAN, long=long) for each in (plain, compiled))
        assert other == pytest.approx(one, rel=1e-3, abs=1e-5)
    for one, other in zip(imagined(plain.world_model, level=1), imagined(compiled.world_model, level=1), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-4)
    assert programs()


def test_every_length_of_a_mask_has_the_same_program():
    one = learner("latent", True).trained
    for draw in range(30):
        one.losses(Batch.of(WINDOWS, draw=draw))["total"].backward()
    assert programs() <= 2


def test_attention_is_seen_though_imagining_is_compiled():
    one = learner("latent", True).world_model
    imagined(one)
    with record_attention(one) as seen:
        found = imagined(one)
    assert all(seen.values()), "no map is missing"
    for recorded, unwatched in zip(found, imagined(one), strict=True):
        torch.testing.assert_close(recorded, unwatched, rtol=1e-3, atol=1e-4)


def test_a_compiled_model_is_copied_and_pickled_like_any_other_and_shares_its_programs():
    one = learner("latent", True).world_model
    imagined(one)
    before = programs()
    for other in copy.deepcopy(one), pickle.loads(pickle.dumps(one)):
        assert all(torch.equal(a, b) for a, b in zip(imagined(one), imagined(other), strict=True))
    assert programs() == before


def test_a_life_can_be_compiled_and_says_so():
    run = learn(ToroidalDotRobot(seed=0), steps=8, preset="tiny", image_size=(32, 32), compile=True)
    assert run.notes == [compiling.COMPILING]
    assert run.learner.trained.compiled and run.world_model.compiled
    assert sum(isinstance(event, Step) for event in run) == 8
    assert 2 <= programs() <= 3, "the one that tries the compiler; losses of whole batches, behind masks of one patch and of more"


@pytest.mark.parametrize("name", ["latent", "canvas"])
def test_shapes_that_pass_with_a_life_s_first_looks_are_not_compiled(name):
    one = learner(name, True)
    before = programs()
    one.update(WINDOWS[:1], background=MEAN)
    one.update([window.last(2) for window in WINDOWS], background=MEAN)
    one.world_model.eval().imagine(WINDOWS[0].last(1), PLANS)
    assert programs() == before


def test_what_cannot_be_compiled_is_computed_all_the_same(monkeypatch):
    plain, broken = learner("latent", False), learner("latent", True)

    def fails(*graph):
        raise RuntimeError("the compiler was interrupted")

    monkeypatch.setattr(compiling, "BACKEND", fails)
    whole = compiling.compilable()(lambda model, batch: model.losses(batch)["total"])
    with pytest.warns(RuntimeWarning, match="could not be compiled and is computed as if compile were false .*interrupted"):
        assert whole(broken.trained, Batch.of(WINDOWS)) == plain.trained.losses(Batch.of(WINDOWS))["total"]
    assert whole(broken.trained, Batch.of(WINDOWS)) == plain.trained.losses(Batch.of(WINDOWS))["total"], "and is not tried again"


def test_a_machine_that_cannot_compile_says_so_before_anything_is_lived(monkeypatch, tmp_path):
    monkeypatch.setattr(compiling, "BACKEND", "inductor")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("/no/such/compiler",))
    with pytest.raises(
        ConfigurationError, match=r"compile is true, and nothing can be compiled for cpu here \(InductorError\); install a C\+\+ compiler"
    ):
        learner("latent", True)


def test_several_processes_do_not_compile(monkeypatch):
    monkeypatch.setattr(learners, "this_process", lambda: (0, 2))
    with pytest.raises(ConfigurationError, match="compile is true in one of 2 processes"):
        learner("latent", True)


@pytest.mark.soak
@pytest.mark.parametrize("name", ["latent", "canvas"])
def test_programs_of_the_real_compiler_compute_the_same_and_go_on_to_the_bit_after_a_new_start(name, monkeypatch):
    monkeypatch.setattr(compiling, "BACKEND", "inductor")
    plain, compiled = learner(name, False), learner(name, True)
    for _ in range(5):
        one, other = (each.update(WINDOWS, background=MEAN) for each in (plain, compiled))
        assert other == pytest.approx(one, rel=1e-2, abs=1e-4)
    saved = copy.deepcopy(compiled)

    def lives_on(one: Learner) -> list[dict[str, float]]:
        return [one.update(WINDOWS, background=MEAN) for _ in range(5)]

    went_on = lives_on(compiled)
    _forget()  # masks of other lengths come first now
    assert lives_on(saved) == went_on
    assert all(torch.equal(a, b) for a, b in zip(saved.trained.parameters(), compiled.trained.parameters(), strict=True))
