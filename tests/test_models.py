"""Networks alone: shapes, who can see whom, what stands still before training."""

import numpy as np
import pytest
import torch

from motorbabble.errors import ConfigurationError, FrameError
from motorbabble.models.attention import Attention, Block, Groups, Rotary, grid_places
from motorbabble.models.autoencoder import AutoencoderConfig, MaskedAutoencoderViT
from motorbabble.models.ensemble import EnsembleHeads
from motorbabble.models.mover import Mover, _Shift
from motorbabble.models.predictor import PredictorConfig, TransformerActionConditionedPredictor

SMALL = AutoencoderConfig(patch_size=8, width=32, depth=2, heads=2, decoder_width=32)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def vit(height=32, width=48) -> MaskedAutoencoderViT:
    return MaskedAutoencoderViT(height, width, SMALL)


def predictor(**changes) -> TransformerActionConditionedPredictor:
    made = TransformerActionConditionedPredictor(2, 3, 32, 2, PredictorConfig(depth=3, heads=2, **changes))
    torch.nn.init.normal_(made.head.weight, std=0.1)
    for layer in [*made.film_layers.values(), *made.adaln_layers]:
        torch.nn.init.normal_(layer.affine.weight, std=0.1)
    return made


@pytest.mark.parametrize("shape", [(16, 16), (32, 48), (48, 8), (8, 200)])
def test_any_size_that_the_patch_divides(shape):
    model = vit(*shape)
    images = torch.rand(2, 3, *shape)
    patches = model.patchify(images)
    assert patches.shape == (2, shape[0] * shape[1] // 64, 192)
    assert torch.equal(model.unpatchify(patches), images)
    assert model.decode(model.encode(patches)).shape == patches.shape


@pytest.mark.parametrize("shape", [(30, 32), (32, 30), (4, 32)])
def test_a_patch_that_does_not_divide_is_refused_in_one_sentence(shape):
    with pytest.raises(ConfigurationError, match=rf"patch size 8 does not divide a frame of {shape[0]} x {shape[1]}"):
        vit(*shape)


def test_a_frame_of_another_size_is_refused():
    with pytest.raises(FrameError, match="this model sees"):
        vit().patchify(torch.rand(1, 3, 32, 32))


def test_patches_keep_the_order_colour_row_column():
    image = torch.arange(3 * 32 * 48).reshape(3, 32, 48).float()
    assert torch.equal(vit().patchify(image)[7], image[:, 8:16, 8:16].flatten())  # 6 columns: patch 7 is row 1, column 1


def test_a_masked_patch_depends_on_visible_ones():
    model = vit()
    patches = torch.rand(1, 24, 192)
    keep = torch.arange(12)[None]
    other = patches.clone()
    other[:, 3] += 1.0
    hidden = model.decode(model.encode(patches, keep), keep)[:, 12:]
    assert (hidden - model.decode(model.encode(other, keep), keep)[:, 12:]).abs().max() > 1e-4


def test_what_is_masked_is_not_seen():
    model = vit()
    patches = torch.rand(1, 24, 192)
    keep = torch.arange(12)[None]
    other = patches.clone()
    other[:, 12:] = torch.rand(1, 12, 192)
    assert torch.equal(model.decode(model.encode(patches, keep), keep), model.decode(model.encode(other, keep), keep))


def test_keeping_every_patch_is_not_masking():
    model = vit()
    patches = torch.rand(2, 24, 192)
    everything = torch.arange(24).expand(2, -1)
    torch.testing.assert_close(model.encode(patches, everything), model.encode(patches))
    torch.testing.assert_close(model.decode(model.encode(patches), everything), model.decode(model.encode(patches)))


@pytest.mark.parametrize(("ratio", "visible"), [(0.3, 17), (0.85, 4), (0.999, 1), (0.0, 24)])
def test_random_masks_keep_the_share_they_should(ratio, visible):
    keep = vit().random_keep(torch.rand(5, 24), ratio)
    assert keep.shape == (5, visible)
    assert all(len(set(row.tolist())) == visible for row in keep)
    assert ratio == 0.0 or not torch.equal(keep[0], keep[1])


def test_rotary_codes_are_relative():
    """The score between two places depends on their distance alone."""
    rotary = Rotary(32)
    q, k = torch.rand(1, 1, 1, 32), torch.rand(1, 1, 1, 32)
    from motorbabble.models.attention import rotate

    def score(a, b):
        return (rotate(q, rotary(torch.tensor([a]))) * rotate(k, rotary(torch.tensor([b])))).sum()

    torch.testing.assert_close(score([1, 2, 3], [2, 5, 1]), score([4, 6, 9], [5, 9, 7]))
    assert (score([1, 2, 3], [2, 5, 1]) - score([1, 2, 3], [2, 6, 1])).abs() > 1e-4


def test_blocks_carry_the_fields_names():
    names = set(Block(32, 2).state_dict())
    layers = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    assert names == {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}


def test_attention_is_softmax_of_scaled_scores():
    """Against the formula written out, with a mask of what is newer: each of three moments sees its own two tokens and all before them."""
    attention = Attention(32, 2)
    x = torch.rand(2, 6, 32)
    rotary = Rotary(16)(grid_places(2, 3))
    mask = torch.ones(3, 3, dtype=torch.bool).tril().repeat_interleave(2, 0).repeat_interleave(2, 1)
    seen = {}
    attention.attend.register_forward_hook(lambda module, inputs, output: seen.update(inputs=inputs, output=output))
    attention(x, rotary, Groups.in_time(3, 2))
    q, k, v, _ = seen["inputs"]
    weights = (q @ k.transpose(-1, -2) / 16**0.5).masked_fill(~mask, -torch.inf).softmax(-1)
    torch.testing.assert_close(seen["output"], weights @ v)


def test_an_untrained_predictor_says_nothing_changes():
    made = TransformerActionConditionedPredictor(2, 3, 32, 2, PredictorConfig(depth=3, heads=2))
    latents = torch.rand(2, 3, 6, 32)
    assert torch.equal(made(latents, torch.rand(2, 3, 2))[0], latents)


def test_causal_between_blocks_and_open_inside_one():
    made = predictor()
    latents, actions = torch.rand(1, 3, 6, 32), torch.rand(1, 3, 2)
    base, _, _ = made(latents, actions)
    later = latents.clone()
    later[:, 2, 0] += 1
    changed, _, _ = made(later, actions)
    assert torch.equal(changed[:, :2], base[:, :2])  # earlier blocks do not see later ones
    assert (changed[:, 2, 1:] - base[:, 2, 1:]).abs().max() > 1e-5  # patches of a block see each other
    acted = actions.clone()
    acted[:, 1] += 1
    changed, _, _ = made(latents, acted)
    assert torch.equal(changed[:, :1], base[:, :1])
    assert (changed[:, 1] - base[:, 1]).abs().max() > 1e-4  # its own action tells
    assert (changed[:, 2] - base[:, 2]).abs().max() > 1e-6  # and is remembered


def test_cached_blocks_give_what_the_whole_window_gives():
    made = predictor()
    latents, actions = torch.rand(2, 3, 6, 32), torch.rand(2, 3, 2)
    whole, states, _ = made(latents, actions)
    _, _, past = made(latents[:, :2], actions[:, :2])
    last, state, _ = made(latents[:, 2:], actions[:, 2:], past, start=2)
    torch.testing.assert_close(last[:, 0], whole[:, 2])
    torch.testing.assert_close(state[:, 0], states[:, 2])
    tail, _, _ = made(latents[:, 1:], actions[:, 1:], made(latents[:, :1], actions[:, :1])[2], start=1)
    torch.testing.assert_close(tail, whole[:, 1:])


def test_long_histories_are_clipped_to_the_capacity():
    made = predictor(max_sequence_length=14)  # two blocks of seven tokens
    latents, actions = torch.rand(1, 5, 6, 32), torch.rand(1, 5, 2)
    predicted, _, _ = made(latents, actions)
    assert predicted.shape[1] == 2
    torch.testing.assert_close(predicted, made(latents[:, -2:], actions[:, -2:])[0])


def test_an_untrained_mover_changes_nothing():
    mover = Mover(16, 24, 8, 32, layers=2)
    image = torch.rand(2, 3, 16, 24)
    masks = torch.zeros(2, 2, 16, 24) + mover.masks(torch.rand(2, 6, 32))[0, 0, 0].detach()
    nothing = torch.zeros_like(image)
    torch.testing.assert_close(mover(image, masks, torch.rand(2, 1, 32), nothing, torch.rand_like(image)), image)


@pytest.mark.parametrize(("down", "right"), [(0, 0), (3, 5), (15, 23)])
def test_a_mover_that_is_sure_shifts_exactly(down, right):
    mover = Mover(16, 24, 8, 32, layers=1)
    with torch.no_grad():
        mover.distance_head.weight.zero_()
        mover.distance_head.bias.zero_()
        mover.distance_head.bias[down] = 100
        mover.distance_head.bias[16 + right] = 100
    image = torch.rand(1, 3, 16, 24)
    everything, nothing = torch.ones(1, 1, 16, 24), torch.zeros(1, 3, 16, 24)
    moved = mover(image, everything, torch.rand(1, 1, 32), nothing, nothing)
    torch.testing.assert_close(moved, image.roll((down, right), (2, 3)))


@pytest.mark.parametrize("size", [(6, 8), (5, 7), (1, 3)])
def test_a_shift_is_the_average_of_all_shifts_by_their_chances_and_so_are_its_gradients(size):
    height, width = size
    layers = torch.rand(2, 3, 4, *size, dtype=torch.float64)
    down, right = (torch.rand(2, 3, many, dtype=torch.float64).softmax(-1) for many in size)
    expected = sum(layers.roll((i, j), (3, 4)) * (down[..., i] * right[..., j])[..., None, None, None] for i in range(height) for j in range(width))
    torch.testing.assert_close(_Shift.apply(layers, down, right), expected.sum(1))
    assert torch.autograd.gradcheck(_Shift.apply, [x.requires_grad_() for x in (layers, down, right)])


def test_what_several_actions_move_adds_up_around_the_edges():
    mover = Mover(16, 24, 8, 32, layers=2)
    with torch.no_grad():
        mover.distance_head.weight.zero_()
        mover.distance_head.bias.zero_()
        heads = mover.distance_head.weight.view(2, 16 + 24, 32)
        for state, (down, right) in enumerate([(3, 20), (15, 1), (0, 7)]):  # what each action moves the first layer by
            heads[0, down, state] = heads[0, 16 + right, state] = 100
    states = torch.eye(32)[None, :3]
    down, right = mover.distances(states)
    assert (int(down[0, 0].argmax()), int(right[0, 0].argmax())) == ((3 + 15) % 16, (20 + 1 + 7) % 24)
    torch.testing.assert_close(down[0, 0].max(), torch.tensor(1.0))
    torch.testing.assert_close(down[0, 1], torch.full((16,), 1 / 16))  # whoever does not know how far does not know the sum
    assert torch.equal(mover.distances(states[:, :1])[0][0, 0].argmax(), torch.tensor(3))


def test_adaln_lets_an_action_act_on_its_own_moment_only():
    made = predictor(conditioning="adaln")
    assert not made.film_layers and len(made.adaln_layers) == 3
    latents, actions = torch.rand(1, 3, 6, 32), torch.rand(1, 3, 2)
    after, _, _ = made(latents, actions)
    other = actions.clone()
    other[:, 1] += 1
    changed, _, _ = made(latents, other)
    moved = (changed - after).abs().amax((0, 2, 3))
    assert moved[0] == 0 and moved[1] > 1e-4, "an action changes its own moment, and none before it"
    _, _, past = made(latents[:, :2], actions[:, :2])
    last, _, _ = made(latents[:, 2:], actions[:, 2:], past, 2)
    torch.testing.assert_close(last[:, 0], after[:, 2])


def test_adaln_starts_as_no_change():
    made = TransformerActionConditionedPredictor(2, 3, 32, 2, PredictorConfig(depth=2, heads=2, conditioning="adaln"))
    latents = torch.rand(1, 2, 6, 32)
    after, states, _ = made(latents, torch.rand(1, 2, 2))
    torch.testing.assert_close(after, latents)
    torch.testing.assert_close(states[:, :, :-1], made.norm(latents)), "closed gates leave every token as it came"


def test_heads_disagree_before_they_learn_and_the_floor_holds():
    heads = EnsembleHeads(32, 2, 8)
    states, action = torch.rand(4, 7, 32), torch.rand(4, 2)
    guesses = heads(states, action)
    assert guesses.shape == (5, 4, 6, 16)
    assert heads.entropy(guesses).shape == heads.expected_error(states, action).shape == (4,)
    agreed = heads.entropy(guesses[:1].expand(5, -1, -1, -1))
    assert (heads.entropy(guesses) > agreed + 1).all()
    np.testing.assert_allclose(agreed.detach(), 0.5 * np.log(2 * np.pi * np.e * 1e-6), rtol=1e-4)


def test_the_entropy_is_that_of_a_gaussian():
    heads = EnsembleHeads(8, 1, 8, heads=200)
    spread = torch.randn(200, 3, 50, 16) * 20.0  # in tenths of full brightness
    np.testing.assert_allclose(heads.entropy(spread), 0.5 * np.log(2 * np.pi * np.e * 4.0), atol=0.03)
