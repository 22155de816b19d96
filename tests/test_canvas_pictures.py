"""The canvas drawn for people: every bar is named in words over its own place, what is hidden looks hidden, and what is shown is what was."""

import math
from html import unescape

import numpy as np
import pytest
import torch
from counting import Counting, write
from test_canvas import small
from test_view import tile_at

from motorbabble import figures
from motorbabble.agents import learn
from motorbabble.analysis.canvas import (
    SIDE,
    canvas_of,
    canvas_section,
    canvases_of,
    drawn,
    frames_on,
    predicted_canvas,
    reconstructed_canvas,
    with_frame,
    words_of,
)
from motorbabble.analysis.scores import Trial
from motorbabble.analysis.view import View
from motorbabble.errors import FrameError
from motorbabble.experience import ActionSpace, Situation, Window
from motorbabble.figures import BORDER, PAPER, captioned, fit, hatched
from motorbabble.models.canvas import RED, separator_color

SPACE = ActionSpace.discrete([{"add": 1}, {"add": 2}], ordered=False, labels=("one", "two"))
ONE, TWO = SPACE.encode({"add": 1}), SPACE.encode({"add": 2})


def seen(frames: int = 3) -> Window:
    codes = [ONE if i % 2 else TWO for i in range(frames - 1)]
    return Window(np.stack([write(40 + i, 1, 32) for i in range(frames)]), np.stack(codes))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return small().eval()


def inked(band: np.ndarray) -> list[int]:
    """The columns of a band of paper that hold ink."""
    return np.flatnonzero((band < 200).any((0, 2))).tolist()


def test_words_stand_over_their_own_columns_above_the_untouched_image():
    image = np.full((20, 300, 3), 90, np.uint8)
    image[:, 100:110] = RED
    shown = captioned(image, [[((0, 100), "left"), ((110, 300), "right")], [((100, 110), "stay")]], 300)
    np.testing.assert_array_equal(shown[44:], image)
    names, words = inked(shown[:22]), inked(shown[22:44])
    assert min(words) > 80 and max(words) < 130 and abs((min(words) + max(words)) / 2 - 105) < 3
    assert all(column < 70 or column > 180 for column in names)
    assert inked(shown[40:44]) and not inked(captioned(image, [[((0, 300), "stay")]], 300)[18:22]), "a tick where the bar is narrower than its word"
    assert captioned(image[:, :30], [[((0, 10), "a word far too long"), ((10, 30), "another one")]], 30).shape == (42, 30, 3)


def test_words_grow_with_the_image():
    image = np.full((10, 40, 3), 90, np.uint8)
    small_words, large = captioned(image, [[((30, 34), "a")]], 40), captioned(image, [[((30, 34), "a")]], 400)
    assert large.shape == (122, 400, 3) and abs(np.mean(inked(large[:22])) - 320) < 4 and abs(np.mean(inked(small_words[:22])) - 32) < 3


def test_what_is_hidden_is_striped_and_nothing_of_it_is_left():
    image = np.random.default_rng(0).integers(0, 255, (32, 60, 3)).astype(np.uint8)
    other = image.copy()
    other[:, 40:] = 255 - other[:, 40:]
    np.testing.assert_array_equal(hatched(image, slice(40, 60)), hatched(other, slice(40, 60)))
    np.testing.assert_array_equal(hatched(image, slice(40, 60))[:, :40], image[:, :40])
    assert set(np.unique(hatched(image, slice(40, 60))[:, 40:])) == {160, 205}


def test_wide_tiles_wrap_where_there_is_no_room():
    wide, plain = figures.Tile(np.zeros((10, 100, 3), np.uint8), "wide", side=200), figures.Tile(np.zeros((10, 10, 3), np.uint8), "plain")
    shapes = [figures.sheet([("", [wide] * count)], side=50, columns=6).shape[1] for count in (1, 2, 3)]
    assert shapes == [200 + 2 * BORDER, 2 * (200 + 2 * BORDER) + 4, 2 * (200 + 2 * BORDER) + 4]
    assert figures.sheet([("", [plain] * 6)], side=50, columns=6).shape[0] < figures.sheet([("", [plain] * 7)], side=50, columns=6).shape[0]


def test_a_canvas_is_cut_where_it_was_glued(model):
    canvas = canvas_of(model, seen())
    assert canvas.shape == (32, 3 * 32 + 2 * 8, 3)
    np.testing.assert_array_equal(frames_on(model, canvas), seen().images)
    np.testing.assert_array_equal(canvas[0, [32, 72]], [separator_color(TWO), separator_color(ONE)])
    with pytest.raises(FrameError, match="this model's canvas is"):
        frames_on(model, canvas[:, 1:])


def test_what_is_painted_stands_in_the_newest_slot(model):
    window = seen()
    with torch.no_grad():
        image = model.imagine(Window(window.images[:2], window.actions[:1]), window.actions[1][None, None]).images[0, 0]
        canvas, frame = predicted_canvas(model, Window(window.images[:2], window.actions[:1]), window.actions[1])
        again = reconstructed_canvas(model, window)
        looked = model.reconstruct(window.images[:2])
    np.testing.assert_array_equal(frame, figures.to_uint8(image.numpy().transpose(1, 2, 0)))
    np.testing.assert_array_equal(frames_on(model, canvas), [*window.images[:2], frame])
    np.testing.assert_array_equal(frames_on(model, again), [*figures.to_uint8(looked.numpy().transpose(0, 2, 3, 1)), frame])


def test_the_drawn_canvas_differs_with_its_words_and_hides_only_the_newest_slot(model):
    canvas = canvas_of(model, seen())
    plain, renamed, hidden = (
        drawn(model, canvas, ["two", "one"]),
        drawn(model, canvas, ["two", "two"]),
        drawn(model, canvas, ["two", "one"], hidden=True),
    )
    grown = fit(canvas, 480)
    tile_at(plain, grown)
    scale = grown.shape[1] // canvas.shape[1]
    np.testing.assert_array_equal(hidden[-len(grown) :, : 80 * scale], grown[:, : 80 * scale])
    differs = np.flatnonzero((plain != renamed).any((0, 2)))
    assert differs.min() > 60 * scale and differs.max() < 92 * scale, "only the word over the second bar"
    assert not np.array_equal(drawn(model, canvas, ["two", "one"], "next"), plain)


def test_the_view_shows_what_it_is_trained_on_and_a_canvas_for_every_action():
    run = learn(Counting(32), "canvas", "random", 5, patch_size=8, separator_width=8, width=32, depth=1, heads=2, batch_size=2, max_seconds=math.inf)
    view = View(side=100)
    for event in run:
        view.watch(event, run.situation)
    picture, model, space = view.picture(), run.world_model, run.action_space
    before = list(run.lived)[-3:]
    whole = Window(np.stack([step.observation.image for step in before]), np.stack([space.encode(step.executed) for step in before[:-1]]))
    tile_at(picture, drawn(model, canvas_of(model, whole), words_of(space, whole.actions), hidden=True))
    tile_at(picture, drawn(model, reconstructed_canvas(model, whole), words_of(space, whole.actions)))
    codes = np.stack([space.encode(action) for action in space.candidates()])
    imagined = model.imagine(run.window, codes[:, None]).images[:, 0].numpy().transpose(0, 2, 3, 1)  # in one batch, which rounds in its own way
    for action, code, image in zip(space.candidates(), codes, imagined, strict=True):
        canvas = canvas_of(model, with_frame(run.window, figures.to_uint8(image), code))
        tile_at(picture, drawn(model, canvas, [*words_of(space, run.window.actions), space.label(action)], "next"))


def test_a_view_draws_no_canvas_while_too_little_was_lived():
    torch.manual_seed(0)
    view, space = View(side=100), SPACE
    view.consider(Situation(Window(write(5, 1, 32)[None], np.zeros((0, 2), np.float32)), space, small().eval()))
    assert view.picture().shape[1] < SIDE


def test_the_card_names_the_bars_in_words(model):
    window = seen(4)
    short = Trial(Window(window.images[:1], window.actions[:0]), TWO, window.images[1], None, True)
    whole = Trial(Window(window.images[:2], window.actions[:1]), window.actions[1], window.images[2], None, True)
    with torch.no_grad():
        (found,) = canvases_of(model, [short, whole], SPACE)
        assert canvases_of(model, [short], SPACE) == []
        assert canvases_of(model, [], SPACE) == canvases_of(torch.nn.Identity(), [whole], SPACE) == []  # type: ignore[arg-type]
    assert (found.bars, found.labels) == (["two", "one"], ["one", "two"]) and len(found.predicted) == 2
    page = unescape(canvas_section([found]))
    assert page.count("<img ") == 4 and page.count("bars from left to right: “two”, “one”") == 2 and "if “two”" in page
    assert canvas_section([]) == ""
    assert (found.hidden[0] == PAPER).all(1).any()
