"""The canvas: where things are on it, what is hidden, and that the model on it passes the exam of world models."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from exams import MODEL_RULES, PLANS, squares, taught

from motorbabble.errors import ActionError, ConfigurationError, FrameError
from motorbabble.experience import ActionSpace, Window
from motorbabble.models.attention import record_attention
from motorbabble.models.autoencoder import AutoencoderConfig
from motorbabble.models.canvas import Frame, TargetedMAE, build_canvas, canvas_slot, separator_color, separator_colors
from motorbabble.world_models.base import Batch
from motorbabble.world_models.canvas import AutoencoderConcatPredictorWorldModelConfig, CanvasWorldModel

TINY = AutoencoderConfig(patch_size=8, width=32, depth=1, heads=2, decoder_width=32, decoder_depth=2)
SMALL = AutoencoderConcatPredictorWorldModelConfig(TINY, separator_width=8)


def small(**changes) -> CanvasWorldModel:
    return CanvasWorldModel((32, 32), 2, replace(SMALL, **changes))


MODELS = {
    "three frames": small,
    "two frames": lambda: small(canvas_history_size=2),
    "five frames, wide bars": lambda: small(canvas_history_size=5, separator_width=16),
}


@pytest.mark.parametrize("make_model", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("rule", MODEL_RULES, ids=lambda rule: rule.__name__)
def test_exam(rule, make_model):
    torch.manual_seed(0)
    rule(make_model)


# Where things are


def test_a_canvas_is_frames_and_bars_side_by_side():
    frames = [np.full((224, 224, 3), 10 * i, np.uint8) for i in range(3)]
    canvas = build_canvas(frames, [np.array([-1.0]), np.array([1.0])], 3, 16)
    assert canvas.shape == (224, 704, 3)
    for slot, frame in enumerate(frames):
        assert np.array_equal(canvas[:, canvas_slot(224, 3, 16, slot)], frame)
    assert (canvas[:, 224:240] == (214, 69, 65)).all(), "the first action was stay: red"
    assert (canvas[:, 464:480] == (46, 160, 67)).all(), "the second was move: green"


@pytest.mark.parametrize(("height", "width", "frames", "bar"), [(32, 32, 3, 8), (16, 40, 2, 8), (32, 24, 6, 16)])
def test_every_patch_belongs_to_one_slot_or_one_bar(height, width, frames, bar):
    mae = TargetedMAE(height, width, 2, frames, bar, TINY)
    owners = np.zeros(mae.canvas_columns, int)
    for slot in range(frames):
        owners[mae.slot_columns(slot)] += 1
        if slot:
            owners[mae.bar_columns(slot)] += 1
    assert (owners == 1).all()
    images = [np.full((height, width, 3), 255, np.uint8)] * frames
    canvas = build_canvas(images, [np.array([0.0, 1.0, 0.0])] * (frames - 1), frames, bar)
    assert canvas.shape[1] == 8 * mae.canvas_columns
    for slot in range(frames):  # in pixels, columns of patches and slots are the same places
        pixels = canvas_slot(width, frames, bar, slot)
        assert (pixels.start, pixels.stop) == (8 * mae.slot_columns(slot).start, 8 * mae.slot_columns(slot).stop)
        assert (canvas[:, pixels] == 255).all()


def test_places_on_the_canvas_are_those_of_its_patches():
    """The same place one frame later is one fixed distance away, and a bar lies between the frames."""
    mae = TargetedMAE(16, 24, 2, 3, 8, TINY)
    first, second, third = (mae._group(slot, mae.canvas_places)[-mae.tokens :] for slot in range(3))
    assert torch.equal(second - first, torch.tensor([0, 0, 4]).expand(6, 3))
    assert torch.equal(third - second, second - first)
    group = mae._group(1, mae.canvas_places)
    assert torch.equal(group[:2, 2], torch.tensor([4, 4])), "the bar's column"
    assert torch.equal(group[2], torch.zeros(3)), "an action stands nowhere"


def test_colors_say_what_was_done():
    assert separator_color(np.array([-1.0])).tolist() == [214, 69, 65]
    assert separator_color(np.array([1.0])).tolist() == [46, 160, 67]
    half = separator_color(np.array([0.0]))
    assert half.tolist() == [130, 114, 66], "in between for a motor at half speed"
    assert separator_color(np.array([0.0, -1.0, 0.0])).tolist() == [214, 69, 65], "as the motor that moves, beside what never varies"
    assert separator_color(np.array([0.0, 1.0, 0.0])).tolist() == [46, 160, 67]
    assert separator_color(None).tolist() == [128, 128, 128]
    spaces = [
        ActionSpace.discrete([{"action": i} for i in range(60)], ordered=False),
        ActionSpace.discrete([{"left": left, "right": right} for left in (0.0, 0.1, 0.2) for right in (0.0, 0.1, 0.2)]),
        ActionSpace.discrete([{"x": x, "y": y, "z": z} for x in (-1.0, 0.0, 1.0) for y in (-1.0, 0.0, 1.0) for z in (-1.0, 0.0, 1.0)]),
    ]
    for space in spaces:
        colors = {tuple(separator_color(space.encode(action)).tolist()) for action in space.candidates()}
        assert len(colors) == len(space.candidates()), "every action has a colour of its own"
    with pytest.raises(ActionError, match="finite"):
        separator_color(np.array([np.nan]))


def test_colors_of_many_are_those_of_each():
    """Whatever shape they come in; of names in a list the first three are directions like any others."""
    names = torch.eye(6)
    told = [[90, 74, 216], [46, 160, 67], [200, 184, 136], [153, 0, 134], [61, 153, 138], [153, 97, 31]]
    assert separator_colors(names).tolist() == told
    assert separator_colors(torch.tensor([0.25, -0.5, 0.75, 0.1])).tolist() == [212, 132, 163]
    drawn = torch.rand(2, 5, 4, generator=torch.Generator().manual_seed(0)) * 3 - 1.5
    many = separator_colors(drawn)
    assert many.shape == (2, 5, 3) and not (many - many.round()).any()
    for action, color in zip(drawn.flatten(0, 1), many.flatten(0, 1), strict=True):
        assert np.array_equal(separator_color(action.numpy()), color.numpy())


# What it looks at


def test_only_what_stands_left_is_looked_at():
    """A context is the same whatever is asked about, and whatever comes after it."""
    torch.manual_seed(0)
    model, windows = small().eval(), [squares(3), squares(3, seed=4)]
    batch = Batch.of(windows)
    patches = model.autoencoder.patchify(batch.images)
    mae, actions = model.autoencoder, batch.actions[:, :1]
    one = mae.read(model._frames(patches[:, :1], actions[:, :0])).looked
    two = mae.read(model._frames(patches[:, :2], actions)).looked
    torch.testing.assert_close(two[:, :1], one)
    other = mae.read(model._frames(torch.cat((patches[:, :1], 1 - patches[:, 1:2]), 1), -actions)).looked
    assert torch.equal(other[:, 0], two[:, 0])
    assert not torch.allclose(other[:, 1], two[:, 1])


@pytest.mark.parametrize("given", [False, True], ids=["nothing of a slot given", "some of it given"])
def test_all_at_once_is_what_it_is_one_after_the_other(given):
    """Frames and hidden slots that pass the blocks together, as when they are learned, give what they give alone, as when they are imagined."""
    torch.manual_seed(0)
    model = small(canvas_history_size=4).eval()
    mae, batch = model.autoencoder, Batch.of([squares(4), squares(4, seed=4)])
    patches = mae.patchify(batch.images)
    keep = mae.random_keep(batch.chance("mask", mae.tokens), 0.7) if given else None
    frames = model._frames(patches, batch.actions)
    hidden = [replace(frame, patches=frame.patches if given else None, keep=keep, hidden=True) for frame in frames[1:]]
    together, known = mae.read([*frames[:3], *hidden]), None
    assert together.slots == 3 and together.looked.shape[:3] == (2, 3, 16) and together.painted.shape[:3] == (2, 3, 16)
    for slot in range(3):
        known = mae.read([frames[slot]], known)
        torch.testing.assert_close(known.looked[:, 0], together.looked[:, slot])
        alone = mae.read([hidden[slot]], known)
        assert alone.slots == slot + 1 and not alone.looked.shape[1], "what is hidden is no part of what was seen"
        torch.testing.assert_close(alone.painted[:, 0], together.painted[:, slot])
        torch.testing.assert_close(alone.actions[:, 0], together.actions[:, slot])
        for one, many in zip(known.decoder, together.decoder, strict=True):
            torch.testing.assert_close(one[0], many[0][:, :, : one[0].shape[2]])


@pytest.mark.parametrize("blind", [False, True])
def test_the_hidden_slot_sees_the_frames_before_it(blind):
    """Also against a decoder that does not attend, which paints the same whatever it was shown."""
    torch.manual_seed(0)
    model = small(moved_layers=0, residual=False).eval()
    with torch.no_grad():
        model.autoencoder.decoder_head.weight.normal_()
        if blind:
            for block in model.autoencoder.decoder_blocks:
                block.attn.proj.weight.zero_()
    images = [model.imagine(squares(2, seed=seed), PLANS).images for seed in (0, 3)]
    assert torch.allclose(images[0], images[1]) == blind
    assert torch.allclose(images[0][0], images[0][1]) == blind, "and the action"


def test_the_slot_itself_is_hidden():
    """What is painted does not depend on what is there, unless patches of it are given."""
    torch.manual_seed(0)
    model = small().eval()
    mae, batch = model.autoencoder, Batch.of([squares(3)])
    patches = mae.patchify(batch.images)
    known = mae.read(model._frames(patches[:, :2], batch.actions[:, :1]))
    asked = Frame(2, batch.actions[:, 1], model._colors(batch.actions)[:, 1], hidden=True)

    def painted(given):
        return mae.read([replace(asked, patches=given, keep=torch.tensor([[3, 7]]))], known).painted

    given = painted(patches[:, 2])
    assert not torch.allclose(given, mae.read([asked], known).painted)
    changed = patches[:, 2].clone()
    changed[:, [i for i in range(16) if i not in (3, 7)]] = 0.7
    assert torch.equal(painted(changed), given), "the hidden patches of the slot are not looked at"
    changed[:, 3] += 0.5
    assert not torch.allclose(painted(changed), given), "the given ones are"


def test_losses_hide_what_predicting_hides():
    """Mostly whole slots, sometimes most of one, sometimes patches anywhere, in the shares that are set."""
    model = small(slot_share=0.6, part_share=0.2)
    batch, kinds = Batch.of([squares(3)] * 2), []
    with torch.no_grad():
        for draw in range(100):
            losses = model.losses(replace(batch, draw=draw))
            whole = float(losses["mask_ratio"]) == 1
            assert whole == ("fresh_error" in losses), "what is predicted unseen is scored where all of it was hidden"
            kinds.append("slot" if whole else "part" if "patch" in losses else "anywhere")
            assert float(losses["mask_ratio"]) >= (0.5 if "patch" in losses else 0.25)
    assert 45 <= kinds.count("slot") <= 75
    assert 10 <= kinds.count("part") <= 30
    assert kinds.count("slot") + kinds.count("part") < 100


def test_the_loss_lies_on_hidden_patches():
    """With no weight on visible ones, what is given of a slot does not teach how it is painted."""
    torch.manual_seed(0)
    model = small(slot_share=1e-9, part_share=1 - 1e-9, visible_w=0.0)
    batch = Batch.of([squares(2)] * 2)
    with torch.no_grad():
        model.autoencoder.change_head.weight.normal_(std=0.1)
    shown, paint = [], model._paint
    model._paint = lambda *given: shown.append(paint(*given)) or (shown[-1].retain_grad() or shown[-1])
    losses = model.losses(batch)
    losses["total"].backward()
    taught_patches = (shown[0].grad.abs().sum(-1) > 0).float().mean()
    assert float(taught_patches) == pytest.approx(float(losses["mask_ratio"]))


# Ways to be wrong


def test_what_cannot_be_is_refused_in_one_sentence():
    frames = [np.zeros((32, 32, 3), np.uint8)] * 3
    with pytest.raises(FrameError, match="needs 3 frames and 2 actions, got 2 and 1"):
        build_canvas(frames[:2], [np.array([0.0])], 3, 8)
    with pytest.raises(FrameError, match="resize them to one size"):
        build_canvas([*frames[:2], np.zeros((16, 32, 3), np.uint8)], [None, None], 3, 8)
    with pytest.raises(ConfigurationError, match="canvas of 1 frames"):
        build_canvas(frames[:1], [], 1, 8)
    with pytest.raises(ConfigurationError, match="canvas_history_size is 1"):
        small(canvas_history_size=1)
    for width in (4, 12, 0):
        with pytest.raises(ConfigurationError, match=f"separator_width is {width}"):
            small(separator_width=width)
    with pytest.raises(ConfigurationError, match="patch size 8 does not divide"):
        CanvasWorldModel((30, 32), 2, SMALL)
    with pytest.raises(ConfigurationError, match="autoencoder_type is cnn"):
        small(autoencoder=replace(TINY, autoencoder_type="cnn"))
    with pytest.raises(ConfigurationError, match="twice the 3 heads"):
        small(autoencoder=replace(TINY, heads=3))
    with pytest.raises(ConfigurationError, match="shares"):
        small(slot_share=0.9, part_share=0.2)


def test_a_short_history_fills_the_canvas_from_the_left():
    torch.manual_seed(0)
    model = small(canvas_history_size=4)
    taught(model, [squares(4)], 3)
    model.eval()
    window = squares(4)
    for length in (1, 2, 3):
        assert model.imagine(window.last(length), PLANS).images.shape == (2, 1, 3, 32, 32)
    long = Window(np.concatenate([window.images] * 2), np.zeros((7, 2), np.float32))
    torch.testing.assert_close(model.imagine(long, PLANS).images, model.imagine(long.last(3), PLANS).images)


def test_attention_of_every_block_can_be_watched():
    model, window = small().eval(), squares(2)
    alone = model.imagine(window, PLANS).images
    with record_attention(model) as maps:
        watched = model.imagine(window, PLANS).images
    assert torch.equal(alone, watched)
    newest = maps["autoencoder.decoder_blocks.1.attn.attend"][-1]
    lead = 4 + 1  # a bar's patches and the action
    assert newest.shape == (2, 2, lead + 16, 16 + lead + 16 + lead + 16)
    torch.testing.assert_close(newest.sum(-1), torch.ones_like(newest[..., 0]))


def test_as_an_autoencoder_it_sees_a_frame_alone():
    """Encoded from some patches only, the others are filled in from those and no others."""
    torch.manual_seed(0)
    mae = TargetedMAE(16, 24, 2, 3, 8, TINY)
    patches, keep = torch.rand(2, 6, 192), torch.tensor([[0, 4], [1, 2]])
    latents = mae.encode(patches, keep)
    assert latents.shape == (2, 2, 32)
    assert mae.decode(latents, keep).shape == (2, 6, 192)
    hidden = torch.ones(2, 6, dtype=torch.bool).scatter(1, keep, False)
    assert torch.equal(mae.encode(torch.where(hidden[..., None], 0.3, patches), keep), latents)
    features = mae.read([Frame(0, patches=patches)]).looked[:, 0]
    assert torch.equal(mae.decode_features(mae.encode(patches)), features)
