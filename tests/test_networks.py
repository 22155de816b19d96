"""Other networks to choose from: convolutions that see, an LSTM that predicts. That they learn, tests/test_latent.py shows."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from exams import squares
from test_card import SPACE, a_life
from test_latent import OTHERS, SMALL

from motorbabble.agents import learn
from motorbabble.analysis.card import make_card
from motorbabble.errors import CheckpointMismatch, ConfigurationError
from motorbabble.learning.checkpoint import Checkpoints, Identity, Saved
from motorbabble.learning.gauges import Gauge
from motorbabble.learning.state import architecture_of, model_from
from motorbabble.models.convolutional import CNNAutoencoder
from motorbabble.models.recurrent import LSTMPredictor
from motorbabble.robots.toroidal_dot import ToroidalDotRobot
from motorbabble.world_models.base import Batch
from motorbabble.world_models.latent import AutoencoderLatentPredictorWorldModelConfig, LatentWorldModel


def others(side: int = 32, actions: int = 2, **changes) -> LatentWorldModel:
    return LatentWorldModel((side, side), actions, replace(OTHERS, **changes))


def cnn() -> CNNAutoencoder:
    return CNNAutoencoder(32, 48, OTHERS.autoencoder)


def lstm(action_tokens: int = 1) -> LSTMPredictor:
    made = LSTMPredictor(2, 3, 32, 2, OTHERS.predictor, action_tokens)
    torch.nn.init.normal_(made.head.weight, std=0.1)
    return made


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


# Convolutions


def test_the_settings_choose_the_networks():
    model = others()
    assert isinstance(model.autoencoder, CNNAutoencoder) and isinstance(model.predictor, LSTMPredictor)
    model.grow(0)
    assert isinstance(model.higher[0].predictor, LSTMPredictor)
    for part, name in (("autoencoder", "autoencoder_type"), ("predictor", "predictor_type")):
        with pytest.raises(ConfigurationError, match=f"{name} is 'rnn'; choose"):
            others(**{part: replace(getattr(OTHERS, part), **{name: "rnn"})})


def test_a_frame_is_seen_alike_alone_and_among_others():
    """Training or not: nothing is normalised over a batch."""
    model, patches = cnn(), torch.rand(4, 24, 192)
    together = model.train().decode(model.encode(patches))
    for mode in (True, False):
        alone = model.train(mode).decode(model.encode(patches[:1]))
        torch.testing.assert_close(alone, together[:1])
    assert not [name for name, _ in model.named_buffers() if "running" in name]


def test_a_masked_patch_is_not_seen_and_is_filled_in_from_visible_ones():
    model, patches, keep = cnn(), torch.rand(1, 24, 192), torch.arange(12)[None]
    shown = model.decode(model.encode(patches, keep), keep)
    assert model.encode(patches, keep).shape == (1, 12, 32) and shown.shape == patches.shape
    hidden, seen = patches.clone(), patches.clone()
    hidden[:, 12:] += 1
    seen[:, 3] += 1
    assert torch.equal(model.decode(model.encode(hidden, keep), keep), shown)
    assert (model.decode(model.encode(seen, keep), keep) - shown)[:, 12:].abs().max() > 1e-4


def test_which_patches_are_kept_matters_and_their_order_does_not():
    model, patches = cnn(), torch.rand(2, 24, 192)
    everything = torch.stack([torch.randperm(24) for _ in range(2)])
    latents = model.encode(patches, everything)
    torch.testing.assert_close(latents, model.encode(patches).gather(1, everything[..., None].expand(-1, -1, 32)))
    torch.testing.assert_close(model.decode(latents, everything), model.decode(model.encode(patches)))


# An LSTM


def test_no_moment_sees_a_later_one_and_the_newest_is_seen():
    made, latents, actions = lstm(), torch.rand(1, 3, 6, 32), torch.rand(1, 3, 2)
    base, states, _ = made(latents, actions)
    assert states.shape == (1, 3, 7, 32)
    for moment in range(3):
        seen, acted = latents.clone(), actions.clone()
        seen[:, moment, 0] += 1
        acted[:, moment] += 1
        for changed in (made(seen, actions)[0] - seen, made(latents, acted)[0] - latents):
            moved = (changed - (base - latents)).abs().amax((0, 2, 3))
            assert (moved[:moment] == 0).all() and moved[moment] > 1e-3, "its own moment, and none before it"
            assert (moved[moment:] > 1e-6).all(), "and those after it remember"


def test_every_place_gets_its_own_change_and_knows_what_is_beside_it():
    made, latents, actions = lstm(), torch.rand(1, 2, 6, 32), torch.rand(1, 2, 2)
    change = made(latents, actions)[0][0, -1] - latents[0, -1]
    assert torch.pdist(change).min() > 1e-2
    other = latents.clone()
    other[:, -1, 1] += 1
    assert ((made(other, actions)[0] - other)[0, -1, 0] - change[0]).abs().max() > 1e-3


def test_untrained_it_says_that_nothing_changes():
    latents = torch.rand(2, 3, 6, 32)
    assert torch.equal(LSTMPredictor(2, 3, 32, 2, OTHERS.predictor)(latents, torch.rand(2, 3, 2))[0], latents)


def test_what_it_handed_back_gives_what_the_whole_window_gives():
    made, latents, actions = lstm(), torch.rand(2, 4, 6, 32), torch.rand(2, 4, 2)
    whole, states, _ = made(latents, actions)
    _, _, past = made(latents[:, :2], actions[:, :2])
    tail, after, _ = made(latents[:, 2:], actions[:, 2:], past, 2)
    torch.testing.assert_close(tail, whole[:, 2:])
    torch.testing.assert_close(after, states[:, 2:])
    short, _, _ = made(latents[:, 2:], actions[:, 2:], made.trim(past, 1), 2)
    torch.testing.assert_close(short, made(latents[:, 1:], actions[:, 1:])[0][:, 1:])
    assert (short - tail).abs().max() > 1e-5, "what was trimmed is forgotten"
    one = made(latents[:1, :2], actions[:1, :2])[2]  # seen once, for many plans
    plans, _, _ = made(latents[:1, 2:3].expand(5, -1, -1, -1), torch.rand(5, 1, 2), one, 2)
    assert plans.shape == (5, 1, 6, 32)


def test_there_is_no_attention_to_return():
    *plain, info = lstm()(torch.rand(1, 2, 6, 32), torch.rand(1, 2, 2), return_attn=True)
    assert len(plain) == 3 and info.layers == [] and info.index.moments == 2


# A mind made of them


def test_a_level_of_it_learns_and_every_action_of_its_sequence_counts():
    model, window = others(), squares(7)
    for seed in range(2):
        model.grow(seed)
        assert torch.equal(model.higher[seed].predictor.lstm.weight_ih_l0, model.predictor.lstm.weight_ih_l0)
    optimizer, losses = torch.optim.Adam(model.parameters(), 3e-3), []
    for _ in range(25):
        loss = model.level_losses(2, Batch.of([window]))["total"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    plans = np.repeat(window.actions[None, -4:], 5, 0)
    plans[range(1, 5), range(4)] *= -1
    images = model.eval().imagine(window.last(3), plans, level=2).images
    assert images.shape == (5, 1, 3, 32, 32)
    assert (images[1:] - images[:1]).abs().amax((1, 2, 3, 4)).min() > 1e-4


def test_the_share_of_the_gradient_that_flows_through_the_action_is_gauged():
    model = others()
    torch.nn.init.normal_(model.predictor.head.weight, std=0.1)
    model.losses(Batch.of([squares(3)]))["total"].backward()
    assert 0 < Gauge(model).gradients["predictor/grad/grad_action_ratio"] < 1


def test_a_card_leaves_attention_out(tmp_path):
    card = make_card(others(64, 1), SPACE, a_life(), a_life(seed=1, steps=12), name="others")
    assert card.numbers["attention"] is None and not card.looks
    assert "Where it looks" not in card.save(tmp_path).read_text()


def test_learn_takes_the_missions_names():
    robot = ToroidalDotRobot(image_size=32, dot_radius=3, seed=1)
    run = learn(robot, steps=2, autoencoder_type="cnn", predictor_type="lstm", patch_size=8, width=32, depth=1, max_updates=1, threads=1)
    assert len(list(run)) >= 2
    assert isinstance(run.world_model.autoencoder, CNNAutoencoder) and isinstance(run.world_model.predictor, LSTMPredictor)
    told = architecture_of(run.world_model)
    assert told["autoencoder.autoencoder_type"] == "cnn" and told["predictor.predictor_type"] == "lstm"


def test_a_checkpoint_knows_its_networks_and_one_from_before_there_was_a_choice_has_the_first(tmp_path):
    space = ToroidalDotRobot().action_space
    first = AutoencoderLatentPredictorWorldModelConfig(*SMALL)

    def identity(config: AutoencoderLatentPredictorWorldModelConfig) -> Identity:
        return Identity("toroidal_dot", space, architecture_of(LatentWorldModel((32, 32), space.size, config)))

    before = {name: value for name, value in identity(first).architecture.items() if not name.endswith("_type")}
    for folder, saved in (("older", replace(identity(first), architecture=before)), ("others", identity(OTHERS))):
        with Checkpoints(tmp_path / folder) as checkpoints:
            checkpoints.save(1, Saved(saved, {"predictor_0": {"weight": torch.zeros(1)}}, {}))
    assert Checkpoints(tmp_path / "older").load(identity(first)) and Checkpoints(tmp_path / "others").load(identity(OTHERS))
    with pytest.raises(CheckpointMismatch, match="predictor_type: transformer there, lstm here"):
        Checkpoints(tmp_path / "older").load(identity(OTHERS))
    with pytest.raises(CheckpointMismatch, match="autoencoder_type: cnn there, vit here"):
        Checkpoints(tmp_path / "others").load(identity(first))
    for folder, kind in (("older", "transformer"), ("others", "lstm")):
        assert model_from(tmp_path / folder, "toroidal_dot", space).config.predictor.predictor_type == kind
