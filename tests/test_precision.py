"""bfloat16 where a device has it: the same losses but for rounding, whole gradients, float32 weights; and no rounding where it would do harm."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from exams import squares
from test_canvas import SMALL as CANVAS
from test_latent import OTHERS
from test_latent import SMALL as LATENT

from motorbabble.errors import ConfigurationError
from motorbabble.learning.learner import Learner, LearnerConfig
from motorbabble.models.attention import Rotary, grid_places
from motorbabble.models.mover import Mover
from motorbabble.models.precision import computing, precision_for
from motorbabble.world_models.base import WorldModel
from motorbabble.world_models.canvas import CanvasWorldModel
from motorbabble.world_models.latent import AutoencoderLatentPredictorWorldModelConfig, LatentWorldModel

MODELS = {
    "latent": lambda: LatentWorldModel((32, 32), 2, AutoencoderLatentPredictorWorldModelConfig(*LATENT)),
    "canvas": lambda: CanvasWorldModel((32, 32), 2, CANVAS),
    "other_networks": lambda: LatentWorldModel((32, 32), 2, OTHERS),
}
each_model = pytest.mark.parametrize("name", MODELS)
WINDOWS = [squares(3, seed) for seed in range(2)]
MEAN = np.zeros((32, 32, 3))


def learner(name: str, precision: str, **changes) -> Learner:
    torch.manual_seed(0)
    return Learner(MODELS[name](), LearnerConfig(shift=(8, 8), precision=precision, **changes), seed=0)  # type: ignore[arg-type]


@each_model
def test_half_precision_learns_the_same_but_for_rounding(name):
    exact, rounded = learner(name, "float32"), learner(name, "bfloat16")
    for update in range(6):  # of the canvas, each of its three kinds of masks
        full, half = (one.update(WINDOWS, background=MEAN) for one in (exact, rounded))
        assert full["total"] == pytest.approx(half["total"], rel=0.03), update
        assert full["total"] != half["total"], "it was not rounded at all"
        assert half["grad_norm"] == pytest.approx(full["grad_norm"], rel=0.2)
        for parameter in rounded.trained.parameters():
            assert parameter.grad is None or bool(torch.isfinite(parameter.grad).all())


@each_model
def test_every_weight_has_the_gradient_that_it_has_in_float32(name):
    exact, rounded = learner(name, "float32"), learner(name, "bfloat16")
    for one in (exact, rounded):
        one.update(WINDOWS, background=MEAN)
    for (weight, ours), theirs in zip(rounded.trained.named_parameters(), exact.trained.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None), weight
        if ours.grad is not None and theirs.grad is not None and theirs.grad.norm() > 1e-4:
            assert torch.nn.functional.cosine_similarity(ours.grad.flatten(), theirs.grad.flatten(), 0) > 0.9, weight


@each_model
def test_weights_average_and_optimiser_stay_float32(name):
    one = learner(name, "bfloat16")
    one.update(WINDOWS, background=MEAN)
    kept = [*one.trained.state_dict().values(), *one.world_model.state_dict().values()]
    kept += [value for state in one.optimizer.state.values() for value in state.values()]
    assert {value.dtype for value in kept} == {torch.float32}


@each_model
def test_what_is_imagined_is_float32_and_nearly_the_same(name):
    one, found = learner(name, "float32", ema_decay=0.0), []
    one.update(WINDOWS, background=MEAN)
    model = one.world_model.eval()
    for model.precision in (torch.float32, torch.bfloat16):
        plans = np.stack([WINDOWS[0].actions, WINDOWS[1].actions])
        imagined = model.imagine(WINDOWS[0], plans)
        assert imagined.images is not None and imagined.expected_error is not None
        found.append((imagined.images, imagined.uncertainty, imagined.expected_error, model.reconstruct(WINDOWS[0].images)))
    for full, half in zip(*found, strict=True):
        assert half.dtype == torch.float32 and not torch.equal(full, half)
        assert torch.allclose(full, half, atol=0.05)


def test_a_level_above_learns_in_half_precision_too():
    one = learner("latent", "bfloat16")
    one.grow()
    losses = one.update(WINDOWS, background=MEAN, long=(1, [squares(4)]))
    assert all(map(np.isfinite, losses.values())) and one.trained.higher[0].predictor.head.weight.grad is not None  # type: ignore[union-attr]


def test_a_mover_that_learned_nothing_moves_nothing():
    torch.manual_seed(0)
    mover, image = Mover(16, 16, 8, 32), torch.rand(1, 3, 16, 16)
    states = torch.randn(1, 4, 32)
    with computing(torch.bfloat16, image.device):
        masks = mover.masks(states)
        assert not masks.any()
        shown = mover(image, masks.unflatten(-1, (2, 8, 8)).new_zeros(1, 2, 16, 16), states[:, :1], torch.zeros_like(image), image)
    assert torch.equal(shown, image)


def test_angles_are_not_rounded():
    rotary, places = Rotary(16), grid_places(14, 14)
    with computing(torch.bfloat16, places.device):
        assert torch.equal(rotary(places), Rotary(16)(places)) and rotary(places).dtype == torch.float32
        inside = rotary(places)
    assert torch.equal(inside, rotary(places))


def test_on_a_cpu_nothing_is_rounded_unless_asked_for():
    assert precision_for("auto", torch.device("cpu")) == torch.float32
    auto, exact = learner("latent", "auto"), learner("latent", "float32")
    assert auto.update(WINDOWS, background=MEAN) == exact.update(WINDOWS, background=MEAN)
    assert auto.trained.precision == auto.world_model.precision == torch.float32 == WorldModel.precision


def test_a_device_with_units_for_it_is_asked(monkeypatch):
    asked = {}
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: asked.setdefault("emulation", including_emulation) or True)
    assert precision_for("auto", torch.device("cuda")) == torch.bfloat16 and asked == {"emulation": False}
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: False)
    assert precision_for("auto", torch.device("cuda")) == torch.float32


def test_another_precision_is_refused_in_one_sentence():
    with pytest.raises(ConfigurationError, match=r"^precision is 'float16'; choose one of \['auto', 'float32', 'bfloat16'\]$"):
        replace(LearnerConfig(), precision="float16")  # type: ignore[arg-type]
