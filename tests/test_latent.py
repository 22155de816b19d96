"""The latent world model: the exam, and what is particular to it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from exams import MODEL_RULES, PLANS, squares, taught

from motorbabble.errors import ActionError, ConfigurationError
from motorbabble.experience import Window
from motorbabble.models.autoencoder import AutoencoderConfig
from motorbabble.models.predictor import PredictorConfig
from motorbabble.world_models.base import Batch
from motorbabble.world_models.latent import AutoencoderLatentPredictorWorldModelConfig, LatentWorldModel
from motorbabble.world_models.losses import balanced, squared

SMALL = (AutoencoderConfig(patch_size=8, width=32, depth=2, heads=2, decoder_width=32), PredictorConfig(depth=2, heads=2))
OTHERS = AutoencoderLatentPredictorWorldModelConfig(replace(SMALL[0], autoencoder_type="cnn"), replace(SMALL[1], predictor_type="lstm"))


def small(**changes) -> LatentWorldModel:
    return LatentWorldModel((32, 32), 2, AutoencoderLatentPredictorWorldModelConfig(*SMALL, **changes))


MODELS = {
    "moving and painting": small,
    "only painting": lambda: small(moved_layers=0),
    "one frame of history": lambda: small(prediction_history_size=1),
    "convolutions and an LSTM": lambda: LatentWorldModel((32, 32), 2, OTHERS),
}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("make_model", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("rule", MODEL_RULES, ids=lambda rule: rule.__name__)
def test_it_passes_the_exam(rule, make_model):
    rule(make_model)


def test_frames_of_any_shape_the_patch_divides():
    model = LatentWorldModel((16, 40), 3, AutoencoderLatentPredictorWorldModelConfig(*SMALL))
    images = torch.rand(2, 3, 3, 16, 40)
    losses = model.losses(Batch(images, torch.rand(2, 2, 3), images.mean(1)))
    assert torch.isfinite(losses["total"])


def test_half_the_weight_lies_on_informative_patches():
    shown = torch.zeros(1, 100, 4)
    shown[0, 0] = 1.0  # one informative patch of a hundred, wrong by one
    informative = torch.zeros(1, 100, dtype=torch.bool)
    informative[0, 0] = True
    error = squared(shown, torch.zeros_like(shown))
    assert float(balanced(error, informative)) == pytest.approx(0.5)
    assert float(balanced(error, torch.zeros_like(informative))) == pytest.approx(0.005, rel=0.01)  # nothing informative: half the plain mean


def test_losses_are_relative_to_doing_nothing():
    """Untrained, the picture loss is 1: exactly copy-last."""
    assert float(small().losses(Batch.of([squares(3)] * 2))["patch"].detach()) == pytest.approx(1.0, abs=1e-3)


def test_the_latent_target_is_stopped():
    """The newest frame is only a target, so nothing but its own reconstruction may pull at how it is encoded."""
    model = small(reconstruction_w=0.0, pred_patch_w=0.0, pred_action_w=0.0)
    torch.nn.init.normal_(model.predictor.head.weight, std=0.1)
    images = Batch.of([squares(3)]).images.requires_grad_(True)
    batch = Batch(images, torch.from_numpy(squares(3).actions)[None], images.detach().mean(1))
    model.losses(batch)["latent"].backward()
    assert images.grad[0, 2].abs().max() == 0
    assert images.grad[0, 1].abs().max() > 0


def test_every_part_reaches_the_encoder():
    model = small()
    torch.nn.init.normal_(model.predictor.head.weight, std=0.1)
    batch = Batch.of([squares(3)] * 2)
    for part in ("reconstruction", "masked", "patch", "latent", "action"):
        model.zero_grad()
        model.losses(batch)[part].backward()
        assert model.autoencoder.patch_embed.weight.grad.abs().max() > 0, part


def test_the_ensemble_teaches_the_trunk_nothing():
    model = small()
    model.losses(Batch.of([squares(3)] * 2))["ensemble"].backward()
    assert model.autoencoder.patch_embed.weight.grad is None
    assert model.predictor.head.weight.grad is None
    assert model.ensemble.w1.grad.abs().max() > 0


def test_the_action_is_decoded_from_real_differences_not_from_predictions():
    model = small()
    model.losses(Batch.of([squares(3)] * 2))["action"].backward()
    assert all(parameter.grad is None for parameter in model.predictor.parameters())


def test_an_action_that_shouts_is_capped():
    """Ten times the error pulls no harder than one time: the gradient of log, not of the square."""
    model = small(reconstruction_w=0.0, pred_patch_w=0.0, pred_latent_w=0.0)
    window = squares(3)

    def pull(scale: float) -> float:
        model.zero_grad()
        batch = Batch.of([window])
        model.losses(Batch(batch.images, batch.actions * scale, batch.background))["total"].backward()
        return float(model.action_decoder[2].bias.grad.norm())

    assert pull(100.0) < pull(1.0)


def test_disagreement_falls_where_something_was_learned():
    model = small()
    window = squares(3)
    before = model.eval().imagine(window, PLANS, pictures=False).uncertainty.mean()
    taught(model, [window], 150)
    assert model.eval().imagine(window, PLANS, pictures=False).uncertainty.mean() < before - 0.3


@pytest.mark.parametrize("history", [0, -1])
def test_no_history_is_refused(history):
    with pytest.raises(ConfigurationError, match="at least 1 frame"):
        small(prediction_history_size=history)


@pytest.mark.parametrize("bad", [{"ensemble_heads": 1}, {"moved_layers": -1}, {"pred_patch_w": -1.0}, {"masked_w": float("nan")}])
def test_parts_that_cannot_work_are_refused(bad):
    with pytest.raises(ConfigurationError):
        small(**bad)


def test_a_history_beyond_the_capacity_is_refused():
    config = AutoencoderLatentPredictorWorldModelConfig(SMALL[0], PredictorConfig(depth=2, heads=2, max_sequence_length=40))
    with pytest.raises(ConfigurationError, match="3 frames of 16 patches exceed 40 tokens"):
        LatentWorldModel((32, 32), 2, config)


def test_windows_are_checked_like_plans():
    model, window = small(), squares(3)
    with pytest.raises(ActionError, match="NaN"):
        model.imagine(Window(window.images, window.actions * np.nan), PLANS)
    with pytest.raises(ActionError, match="3 numbers each"):
        model.imagine(Window(window.images, np.zeros((2, 3), np.float32)), PLANS)


def test_impossible_mask_ratios_are_refused():
    with pytest.raises(ConfigurationError, match="mask ratios"):
        small(mask_ratio_min=0.9, mask_ratio_max=0.3)


def test_mask_ratios_are_drawn_between_their_bounds(monkeypatch):
    model, drawn = small(), []
    monkeypatch.setattr(model.autoencoder, "random_keep", lambda chance, ratio: drawn.append(ratio) or torch.arange(4).expand(len(chance), -1))
    for draw in range(50):
        model.losses(Batch.of([squares(2)], draw=draw))
    assert 0.3 <= min(drawn) < 0.4 and 0.75 < max(drawn) <= 0.85
    assert np.std(drawn) > 0.1


def test_a_sample_is_masked_alike_wherever_it_stands_in_a_batch():
    batch = Batch.of([squares(3)] * 3, seeds=np.array([7, 8, 9]), draw=1)
    alone = Batch.of([squares(3)], seeds=np.array([8]), draw=1)
    assert torch.equal(batch.chance("mask", 16)[1:2], alone.chance("mask", 16))
    assert torch.equal(batch.chance("mask", 16), batch.chance("mask", 40)[:, :16])
    assert batch.chance_of_all("mask ratio") == alone.chance_of_all("mask ratio")


def test_chance_is_even_and_another_for_every_sample_and_purpose():
    batch = Batch.of([squares(3)] * 3, seeds=np.array([0, 1, 2**62]))
    one, other = batch.chance("mask", 20_000), batch.chance("heads", 20_000)
    for row in (*one, *other):
        assert row.min() >= 0 and row.max() < 1
        assert np.allclose(np.histogram(row.numpy(), 10, (0, 1))[0] / 2000, 1, atol=0.1)
        assert abs(float(np.corrcoef(row[:-1], row[1:])[0, 1])) < 0.03
    assert np.abs(np.corrcoef(torch.cat((one, other)).numpy()) - np.eye(6)).max() < 0.03
    draws = {Batch.of([squares(3)], draw=draw).chance_of_all("mask ratio") for draw in range(100)}
    assert len(draws) == 100 and min(draws) < 0.1 and max(draws) > 0.9
