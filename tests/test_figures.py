"""Pictures are what the arrays say."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from motorbabble import figures
from motorbabble.errors import FrameError

CHECKS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [9, 9, 9]]], np.uint8)


def test_floats_are_clipped_and_rounded():
    np.testing.assert_array_equal(figures.to_uint8(np.array([-1.0, 0.0, 0.5, 1.0, 7.0])), [0, 0, 128, 255, 255])
    assert figures.to_uint8(CHECKS) is CHECKS
    with pytest.raises(FrameError, match="2 values"):
        figures.to_uint8(np.array([np.nan, 0.5, np.inf]))


def test_small_frames_grow_by_whole_factors_and_large_ones_shrink_by_area():
    grown = figures.fit(CHECKS, 7)
    assert grown.shape == (6, 6, 3)
    np.testing.assert_array_equal(grown[::3, ::3], CHECKS)
    flat = np.full((30, 60, 3), 77, np.uint8)
    np.testing.assert_array_equal(figures.fit(flat, 20), np.full((10, 20, 3), 77))


def test_a_label_stands_above_the_untouched_image():
    image = np.full((20, 80, 3), 50, np.uint8)
    labelled = figures.label(image, "move", size=12)
    np.testing.assert_array_equal(labelled[20:], image)
    assert labelled[:20].min() < 100 and labelled[:20].max() == 255
    assert figures.label(image, "a title that is far too long for it").shape == (42, 80, 3)


def test_side_by_side_stands_on_the_bottom_line():
    sheet = figures.side_by_side([CHECKS, np.zeros((5, 3, 3), np.uint8)], gap=1)
    assert sheet.shape == (5, 6, 3)
    np.testing.assert_array_equal(sheet[3:, :2], CHECKS)
    assert (sheet[:3, :3] == 255).all() and (sheet[:, 3:] == 0).all()
    with pytest.raises(FrameError):
        figures.side_by_side([])


def test_a_filmstrip_holds_every_row():
    strip = figures.filmstrip([[CHECKS, CHECKS], [CHECKS / 255, CHECKS / 255]], ["now", "next"], ["a", "b"], side=40, gap=2)
    assert strip.shape == (2 * 22 + 22 + 2 * 40 + 2, 82, 3)
    np.testing.assert_array_equal(strip[-40:, -40:], figures.fit(CHECKS, 40))
    assert figures.filmstrip([[CHECKS]], side=10).shape == (10, 10, 3)
    with pytest.raises(FrameError):
        figures.filmstrip([])


def test_a_spot_is_lighter_than_everything_else_and_a_place_is_framed():
    white = np.full((8, 12, 3), 255, np.uint8)
    heat, outlined = np.zeros((2, 3)), np.zeros((2, 3), bool)
    heat[0, 2], outlined[1, 0] = 1.0, True
    lit = figures.spotlit(white, heat, outlined, side=24)
    assert lit.shape == (16, 24, 3) and lit.dtype == np.uint8
    spot, rest = lit[0:8, 16:24].mean(2), lit[0:8, 0:16].mean(2)
    assert spot.min() > rest.max() + 15, "in grey too"
    frame = lit[8:16, 0:8]
    assert (frame[[0, -1]] == 255).all() and (frame[:, [0, -1]] == 255).all()
    assert (frame[1, 1:-1] == 0).all() and (frame[2:-2, 2:-2] == rest[0, 0]).all()


def test_a_png_is_the_image_and_a_uri_is_the_png():
    png = figures.png_bytes(CHECKS)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), CHECKS)
    assert base64.b64decode(figures.data_uri(png).removeprefix("data:image/png;base64,")) == png


@pytest.mark.parametrize("dark", [False, True])
def test_curves_are_drawn_in_both_schemes(dark):
    lines = {"model": ([1, 2, 3], [0.1, float("nan"), 0.9]), "shift floor": ([1, 2, 3], [-9, -9, -9])}
    png = figures.curve_png(lines, x_label="steps", y_label="skill", dark=dark, y_low=-1, level=0)
    image = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    assert image.shape == (480, 768, 3)
    assert (image[0, 0] < 60).all() if dark else (image[0, 0] == 255).all()
