"""Gauges: the mission's names, values counted by hand, and nothing learned differently because somebody looked."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from brief_lives import BriefMind
from exams import squares
from test_canvas import small as small_canvas
from test_latent import small

from motorbabble.errors import ConfigurationError
from motorbabble.learning.gauges import Gauge, action_ratio, layers_of
from motorbabble.learning.learner import ONLINE, Learner, LearnerConfig

WINDOWS = [squares(3, seed=seed) for seed in range(2)]
BACKGROUND = np.zeros((32, 32, 3), np.float32)
NO_SHIFT = replace(ONLINE, shift=(0, 0))


def taught(updates: int, **changes) -> tuple[Learner, list[dict[str, float]]]:
    torch.manual_seed(0)
    learner = Learner(small(), replace(NO_SHIFT, **changes))
    return learner, [learner.update(WINDOWS, background=BACKGROUND) for _ in range(updates)]


def is_gauge(name: str) -> bool:
    return name.startswith(("grad_norms/", "uwr/")) or name in ("predictor_uwr_95th", "predictor/grad/grad_action_ratio")


def test_looking_changes_nothing_that_is_learned():
    (watched, told), (unwatched, plain) = taught(4, gauge_every=2), taught(4, gauge_every=0)
    for name, weight in watched.trained.state_dict().items():
        assert torch.equal(weight, unwatched.trained.state_dict()[name]), name
    for name, weight in watched.world_model.state_dict().items():
        assert torch.equal(weight, unwatched.world_model.state_dict()[name]), name
    assert [any(map(is_gauge, losses)) for losses in told] == [False, True, False, True]
    assert not any(is_gauge(name) for losses in plain for name in losses)
    assert [{name: value for name, value in losses.items() if not is_gauge(name)} for losses in told] == plain


def test_every_name_of_the_mission():
    _, told = taught(2, gauge_every=1)
    for layer in range(2):
        for part in ("self_attn", "linear1", "linear2", "norm1", "norm2"):
            assert f"grad_norms/transformer/transformer_layer_{layer}_{part}" in told[0]
            assert f"uwr/transformer/transformer_layer_{layer}_{part}" in told[0]
    for part in ("action_embed", "action_token", "film_layers", "head", "norm", "autoencoder", "mover", "ensemble", "action_decoder"):
        assert f"grad_norms/{part}" in told[0] and f"uwr/{part}" in told[0]
    assert all(np.isfinite(value) and value >= 0 for name, value in told[0].items() if is_gauge(name))
    assert told[0]["predictor/grad/grad_action_ratio"] == 0, "its last layer starts at zero, and lets no gradient through yet"
    assert 0 < told[1]["predictor/grad/grad_action_ratio"] < 1 and told[1]["predictor_uwr_95th"] > 0


def test_a_model_that_predicts_with_its_autoencoder_is_looked_into_layer_by_layer():
    torch.manual_seed(0)
    model = small_canvas()
    layers = layers_of(model)
    for name in ("encoder_layer_0_self_attn", "decoder_layer_0_linear1", "decoder_layer_1_norm2"):
        assert f"transformer/{name}" in layers
    assert {"patch_embed", "decoder_head", "mover", "ensemble"} <= layers.keys()
    assert [id(weight) for weight in layers["autoencoder"]] == [id(model.autoencoder.mask_token)], "a weight of its own, in no layer"
    assert sorted(id(w) for weights in layers.values() for w in weights) == sorted(map(id, model.parameters()))
    told = Learner(model, replace(NO_SHIFT, gauge_every=1)).update(WINDOWS, background=BACKGROUND)
    assert told["grad_norms/transformer/decoder_layer_0_self_attn"] >= 0 and told["predictor_uwr_95th"] > 0


def test_every_weight_is_in_one_layer_and_levels_have_their_own():
    model = small()
    model.grow(0)
    layers = layers_of(model)
    assert sorted(id(weight) for weights in layers.values() for weight in weights) == sorted(id(weight) for weight in model.parameters())
    assert {id(weight) for weight in layers["level_1"]} == {id(weight) for weight in model.higher.parameters()}
    attention = model.predictor.blocks[1].attn
    assert {id(w) for w in layers["transformer/transformer_layer_1_self_attn"]} == {id(w) for w in attention.parameters()}


def test_values_by_hand():
    model = small()
    for weight in model.parameters():
        weight.data.fill_(2.0)
        weight.grad = torch.zeros_like(weight)
    token = model.predictor.action_token
    head = model.predictor.head
    token.weight.grad.fill_(-3.0)  # a median of sizes, not of signed numbers
    token.bias.grad.fill_(5.0)  # fewer than half of that layer
    head.bias.grad.fill_(1.0)
    gauge = Gauge(model)
    with torch.no_grad():
        token.weight.add_(1.0)
        token.bias.sub_(0.5)
    told = gauge.read()
    assert told["grad_norms/action_token"] == 3.0 and told["grad_norms/head"] == 0.0
    assert told["uwr/action_token"] == pytest.approx(0.5) and told["uwr/head"] == 0.0
    action = 9.0 * token.weight.numel() + 25.0 * token.bias.numel()
    assert told["predictor/grad/grad_action_ratio"] == pytest.approx((action / (action + head.bias.numel())) ** 0.5)


def test_the_largest_updates_are_the_predictors():
    model = small()
    for weight in model.parameters():
        weight.data.fill_(2.0)
    gauge = Gauge(model)
    with torch.no_grad():
        for weight in model.autoencoder.parameters():
            weight.add_(100.0)
        model.predictor.action_token.weight.add_(1.0)  # with the next, 7 % of its elements
        model.predictor.head.weight.add_(1.0)
    assert gauge.read()["predictor_uwr_95th"] == pytest.approx(0.5)


def test_the_ratio_ends_at_nothing_and_at_everything():
    predictor = small().predictor
    for name, weight in predictor.named_parameters():
        weight.grad = torch.ones_like(weight) if name.startswith(("action_embed", "film_layers")) else None
    assert action_ratio(predictor) == 1.0
    predictor.zero_grad()
    predictor.head.weight.grad = torch.ones_like(predictor.head.weight)
    assert action_ratio(predictor) == 0.0


def test_a_model_of_another_kind_is_gauged_by_its_parts():
    learner = Learner(BriefMind(2), LearnerConfig(shift=(0, 0), gauge_every=1))
    told = learner.update(WINDOWS, background=BACKGROUND)
    assert {name for name in told if is_gauge(name)} == {
        *("grad_norms/autoencoder", "grad_norms/predictor", "uwr/autoencoder", "uwr/predictor", "predictor_uwr_95th")
    }


def test_an_update_that_diverged_is_not_gauged():
    learner, _ = taught(0, gauge_every=1)
    torch.nn.init.constant_(learner.trained.predictor.head.weight, float("nan"))
    told = learner.update(WINDOWS, background=BACKGROUND)
    assert np.isnan(told["total"]) and not any(map(is_gauge, told))


def test_a_rhythm_that_cannot_be_is_refused():
    with pytest.raises(ConfigurationError, match="gauge_every is -1"):
        LearnerConfig(gauge_every=-1)
