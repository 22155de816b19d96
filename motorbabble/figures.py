"""Arrays in, pictures out: the one renderer of terminal display, card and explorer. Knows no model and no robot.

An image is (H, W, 3), uint8 or float in [0, 1]. Small frames grow by whole factors without smoothing: a smoothed
16-pixel frame looks sharper than what the model really said. Pillow and matplotlib are imported where they are used,
because most of what imports this file never draws. Plots use matplotlib's objects and not pyplot, whose global list of
figures grows until somebody closes them.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from motorbabble.errors import FrameError

INK, PAPER = (32, 33, 36), (255, 255, 255)
# Lines differ by colour, dash and marker at once, so that a plot can be read without telling colours apart.
_LIGHT = ("#1f5fbf", "#b3261e", "#8a5a00", "#555555", "#6f3fa0", "#00706c")
_DARK = ("#7db2ff", "#ff8a80", "#e8b04b", "#b0b0b0", "#c9a3f5", "#5fd3cd")
_DASHES = ("-", "--", "-.", ":", (0, (6, 2, 1, 2)), (0, (1, 1)))
_MARKS = ("o", "s", "^", "x", "D", "v")


def to_uint8(image: np.ndarray) -> np.ndarray:
    """(..., 3) uint8 from floats in [0, 1], clipped and rounded; uint8 comes back as it is."""
    image = np.asarray(image)
    if image.dtype == np.uint8:
        return image
    if not np.isfinite(image).all():
        raise FrameError(f"the picture holds {int((~np.isfinite(image)).sum())} values that are NaN or infinite; check the model that painted it")
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def fit(image: np.ndarray, side: int) -> np.ndarray:
    """uint8, its longer side at most `side` pixels: smaller images grow by the largest whole factor, larger ones shrink by area."""
    image = to_uint8(image)
    longest = max(image.shape[:2])
    if longest <= side:
        return image.repeat(side // longest, axis=0).repeat(side // longest, axis=1)
    from PIL import Image

    height, width = (max(1, round(size * side / longest)) for size in image.shape[:2])
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))


def label(image: np.ndarray, text: str, *, size: int = 14, ink: tuple[int, int, int] = INK, paper: tuple[int, int, int] = PAPER) -> np.ndarray:
    """(H + band, W, 3) uint8: `text` on a band above the image, in letters of `size` pixels; what does not fit is cut and ends in '..'."""
    from PIL import Image, ImageDraw, ImageFont

    image = to_uint8(image)
    font = ImageFont.load_default(size)
    width = image.shape[1]
    if font.getlength(text) > width - 4:
        while text and font.getlength(text + "..") > width - 4:
            text = text[:-1]
        text += ".."
    band = Image.new("RGB", (width, size + 8), paper)
    ImageDraw.Draw(band).text(((width - font.getlength(text)) / 2, 3), text, fill=ink, font=font)
    return np.concatenate([np.asarray(band), image])


def side_by_side(images: Sequence[np.ndarray], *, gap: int = 6, paper: tuple[int, int, int] = PAPER) -> np.ndarray:
    """(max H, sum of W + gaps, 3) uint8; lower images stand on the bottom line, so that labelled ones and bare ones line up."""
    if not images:
        raise FrameError("0 images were given to stand side by side; give at least one")
    images = [to_uint8(image) for image in images]
    height = max(len(image) for image in images)
    sheet = np.empty((height, sum(image.shape[1] for image in images) + gap * (len(images) - 1), 3), np.uint8)
    sheet[:] = paper
    left = 0
    for image in images:
        sheet[height - len(image) :, left : left + image.shape[1]] = image
        left += image.shape[1] + gap
    return sheet


def filmstrip(
    rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str] = (), row_titles: Sequence[str] = (), *, side: int = 160, gap: int = 6
) -> np.ndarray:
    """Rows of images as one (H, W, 3) uint8 picture, each image fitted to `side`; `titles` over the columns, `row_titles` over each row's start."""
    if not rows or not rows[0]:
        raise FrameError("a film strip needs at least one row with one image; got none")
    strips = []
    for number, row in enumerate(rows):
        tiles = [fit(image, side) for image in row]
        if titles and number == 0:
            tiles = [label(tile, title) for tile, title in zip(tiles, titles, strict=True)]
        strip = side_by_side(tiles, gap=gap)
        strips.append(label_left(strip, row_titles[number]) if row_titles else strip)
    width = max(strip.shape[1] for strip in strips)
    between = np.full((gap, width, 3), PAPER, np.uint8)
    sheet = []
    for strip in strips:
        padded = np.full((len(strip), width, 3), PAPER, np.uint8)
        padded[:, : strip.shape[1]] = strip
        sheet += [between, padded]
    return np.concatenate(sheet[1:])


def label_left(image: np.ndarray, text: str, *, size: int = 14) -> np.ndarray:
    """The image under a band with `text` at its left end: a row's title."""
    from PIL import Image, ImageDraw, ImageFont

    band = Image.new("RGB", (image.shape[1], size + 8), PAPER)
    ImageDraw.Draw(band).text((2, 3), text, fill=INK, font=ImageFont.load_default(size))
    return np.concatenate([np.asarray(band), to_uint8(image)])


def png_bytes(image: np.ndarray) -> bytes:
    """The image as a PNG file."""
    from PIL import Image

    held = io.BytesIO()
    Image.fromarray(to_uint8(image)).save(held, "PNG", optimize=True)
    return held.getvalue()


def data_uri(png: bytes) -> str:
    """A PNG as text that stands in a page by itself."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def curve_png(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    x_label: str,
    y_label: str,
    title: str = "",
    dark: bool = False,
    points: bool = False,
    y_low: float | None = None,
    level: float | None = None,
    inches: tuple[float, float] = (6.4, 4.0),
) -> bytes:
    """A PNG of lines (or loose `points`), one per name: (xs, ys), NaN where there is no value.

    `y_low` cuts the axis below (a floor at skill -9 would flatten everything else); `level` draws a thin line at that height.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ink, colors = ("#e8e8e8", _DARK) if dark else ("#202124", _LIGHT)
    figure = Figure(figsize=inches, dpi=120, layout="constrained", facecolor="#1b1c1f" if dark else "#ffffff")
    axes: Any = figure.subplots()
    axes.set_facecolor(figure.get_facecolor())
    for number, (name, (xs, ys)) in enumerate(series.items()):
        kind = number % len(colors)
        axes.plot(
            xs,
            ys,
            label=name,
            color=colors[kind],
            marker=_MARKS[kind],
            linestyle="none" if points else _DASHES[kind],
            markersize=6,
            linewidth=2.6 if number == 0 else 1.8,
            markevery=1 if points else max(1, len(xs) // 8),
            alpha=0.75 if points else 1.0,
        )
    if level is not None:
        axes.axhline(level, color=ink, linewidth=0.8)
    if y_low is not None and axes.get_ylim()[0] < y_low:
        axes.set_ylim(bottom=y_low)
    axes.set_xlabel(x_label, color=ink, fontsize=14)
    axes.set_ylabel(y_label, color=ink, fontsize=14)
    axes.set_title(title, color=ink, fontsize=14)
    axes.tick_params(colors=ink, labelsize=13)
    axes.grid(alpha=0.25)
    for spine in axes.spines.values():
        spine.set_color(ink)
    if len(series) > 1:
        axes.legend(fontsize=12, facecolor=figure.get_facecolor(), labelcolor=ink, framealpha=0.8)
    held = io.BytesIO()
    FigureCanvasAgg(figure).print_png(held)
    figure.clear()
    return held.getvalue()
