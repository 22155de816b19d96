"""Arrays in, pictures out: the one renderer of terminal display, card and explorer. Knows no model and no robot.

An image is (H, W, 3), uint8 or float in [0, 1]. Small frames grow by whole factors without smoothing: a smoothed
16-pixel frame looks sharper than what the model really said. Pillow and matplotlib are imported where they are used,
because most of what imports this file never draws. Plots use matplotlib's objects and not pyplot, whose global list of
figures grows until somebody closes them.
"""

import base64
import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from motorbabble.errors import FrameError

INK, PAPER = (32, 33, 36), (255, 255, 255)
# Lines differ by colour, dash and marker at once, so that a plot can be read without telling colours apart.
_LIGHT = ("#1f5fbf", "#b3261e", "#8a5a00", "#555555", "#6f3fa0", "#00706c")
_DARK = ("#7db2ff", "#ff8a80", "#e8b04b", "#b0b0b0", "#c9a3f5", "#5fd3cd")
_DASHES = ("-", "--", "-.", ":", (0, (6, 2, 1, 2)), (0, (1, 1)))
_MARKS = ("o", "s", "^", "x", "D", "v")
# A border says how unsure somebody is by its width and by its darkness, so that grey printing keeps it.
BORDER = 14  # pixels, at most
_GLOW = (255, 190, 0)  # lighter than all that was made dark
_SURE, _UNSURE = np.array((186, 208, 235)), np.array((140, 18, 24))


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
    text = _cut(text, font, width - 4)
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


@dataclass(frozen=True)
class Tile:
    """One picture of a sheet, two lines above it, and how doubtful it is: 0 a thin pale border, 1 a wide dark one, None no border."""

    image: np.ndarray
    title: str
    note: str = ""
    doubt: float | None = None
    side: int | None = None  # pixels it is fitted to; None: as the others beside it
    mark: bool = False  # it is what really happened; a page outlines it


def bordered(image: np.ndarray, doubt: float | None) -> np.ndarray:
    """(H + 2 BORDER, W + 2 BORDER, 3) uint8: the image in the middle, its border drawn from it outwards."""
    image = to_uint8(image)
    height, width = image.shape[:2]
    sheet = np.full((height + 2 * BORDER, width + 2 * BORDER, 3), PAPER, np.uint8)
    if doubt is not None:
        share = min(1.0, max(0.0, doubt))
        gap = BORDER - 3 - round((BORDER - 3) * share)  # paper that is left: 3 pixels of border at least
        sheet[gap : len(sheet) - gap, gap : sheet.shape[1] - gap] = (_SURE + share * (_UNSURE - _SURE)).round()
    sheet[BORDER : BORDER + height, BORDER : BORDER + width] = image
    return sheet


def sheet(groups: Sequence[tuple[str, Sequence[Tile]]], title: str = "", *, side: int = 224, columns: int = 5, gap: int = 4) -> np.ndarray:
    """Groups of tiles as one (H, W, 3) uint8 picture: each group under its own title, in rows of at most `columns` tiles.

    Every image is fitted to `side` pixels; of tiles that are wider, as many stand in a row as there is room for. All rows are as wide as
    the widest; a title that does not fit is cut.
    """
    rows: list[tuple[str, np.ndarray]] = []
    for name, tiles in groups:
        row: list[np.ndarray] = []
        for drawn in [_drawn(tile, tile.side or side) for tile in tiles]:
            if row and sum(tile.shape[1] for tile in [*row, drawn]) > columns * (side + 2 * BORDER):
                rows.append((name, side_by_side(row, gap=gap)))
                name, row = "", []
            row.append(drawn)
        if row:
            rows.append((name, side_by_side(row, gap=gap)))
    if not rows:
        raise FrameError("a sheet needs at least one tile; got none")
    width = max(strip.shape[1] for _, strip in rows)
    parts = [_band(title, width, 17)] if title else []
    for name, strip in rows:
        padded = np.full((len(strip) + gap, width, 3), PAPER, np.uint8)
        padded[: len(strip), : strip.shape[1]] = strip
        parts += [_band(name, width, 15), padded] if name else [padded]
    return np.concatenate(parts)


def _drawn(tile: Tile, side: int) -> np.ndarray:
    image = bordered(fit(tile.image, side), tile.doubt)
    width = max(image.shape[1], side + 2 * BORDER)  # room for the words over narrow frames
    padded = np.full((len(image), width, 3), PAPER, np.uint8)
    padded[:, : image.shape[1]] = image
    return np.concatenate([_band(tile.title, width, 14, BORDER), _band(tile.note, width, 14, BORDER), padded])


def _band(text: str, width: int, size: int, indent: int = 2) -> np.ndarray:
    """(size + 6, width, 3) uint8: a line of text from the left; what does not fit is cut and ends in '..'."""
    from PIL import Image, ImageDraw, ImageFont

    font, band = ImageFont.load_default(size), Image.new("RGB", (width, size + 6), PAPER)
    ImageDraw.Draw(band).text((indent, 2), _cut(text, font, width - 2 * indent), fill=INK, font=font)
    return np.asarray(band)


def _cut(text: str, font: Any, width: float) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "..") > width:
        text = text[:-1]
    return text + ".."


def label_left(image: np.ndarray, text: str, *, size: int = 14) -> np.ndarray:
    """The image under a band with `text` at its left end: a row's title."""
    from PIL import Image, ImageDraw, ImageFont

    band = Image.new("RGB", (image.shape[1], size + 8), PAPER)
    ImageDraw.Draw(band).text((2, 3), text, fill=INK, font=ImageFont.load_default(size))
    return np.concatenate([np.asarray(band), to_uint8(image)])


def spotlit(image: np.ndarray, heat: np.ndarray, outlined: np.ndarray, *, side: int = 224) -> np.ndarray:
    """The image (H, W, 3) in dark grey, fitted to `side`, that glows where `heat` (rows, columns), 0 to 1, is high; `outlined` places are framed."""
    image = 0.5 * fit(image, side).mean(2, keepdims=True).repeat(3, 2)
    height, width = image.shape[:2]
    rows, columns = heat.shape
    down, across = np.arange(height) * rows // height, np.arange(width) * columns // width  # which place a pixel is in
    share = 0.9 * heat[down[:, None], across][..., None]
    lit = np.rint((1 - share) * image + share * np.array(_GLOW)).astype(np.uint8)
    region = outlined[down[:, None], across]
    for ink in (255, 0):  # white around black is seen on any ground
        wider = np.pad(region, 1)
        inner = region & wider[:-2, 1:-1] & wider[2:, 1:-1] & wider[1:-1, :-2] & wider[1:-1, 2:]
        lit[region & ~inner] = ink
        region = inner
    return lit


def hatched(image: np.ndarray, columns: slice) -> np.ndarray:
    """The image with these columns of pixels hidden behind grey stripes: something is there and not shown."""
    image = to_uint8(image).copy()
    hidden = image[:, columns]
    down, across = np.arange(len(hidden))[:, None], np.arange(hidden.shape[1])
    stripe = max(2, len(image) // 16)
    hidden[:] = np.where((down + across) // stripe % 2 == 1, 160, 205)[..., None]
    return image


def captioned(image: np.ndarray, lines: Sequence[Sequence[tuple[tuple[int, int], str]]], side: int, *, size: int = 14) -> np.ndarray:
    """The image, its longer side fitted to `side`, under lines of text: each text stands over its own columns of pixels, (first, behind the last).

    A tick points down where the text is wider than they are. What has no room beside its neighbours is cut and ends in '..'.
    """
    from PIL import Image, ImageDraw, ImageFont

    font, drawn = ImageFont.load_default(size), fit(image, side)
    width, scale = drawn.shape[1], drawn.shape[1] / image.shape[1]
    bands = []
    for line in lines:
        band = Image.new("RGB", (width, size + 8), PAPER)
        pen = ImageDraw.Draw(band)
        centres = [scale * (first + behind) / 2 for (first, behind), _ in line]
        walls = [0.0, *((a + b) / 2 for a, b in itertools.pairwise(centres)), float(width)]
        for ((first, behind), text), centre, (left, right) in zip(line, centres, itertools.pairwise(walls), strict=True):
            text = _cut(text, font, 2 * min(centre - left, right - centre) - 4)
            length = font.getlength(text)
            pen.text((centre - length / 2, 1), text, fill=INK, font=font)
            if length > scale * (behind - first):
                pen.line((centre, size + 4, centre, size + 8), fill=INK, width=2)
        bands.append(np.asarray(band))
    return np.concatenate([*bands, drawn])


def png_bytes(image: np.ndarray, *, quick: bool = False) -> bytes:
    """The image as a PNG file; `quick`: written in a fraction of the time, and larger."""
    from PIL import Image

    held = io.BytesIO()
    Image.fromarray(to_uint8(image)).save(held, "PNG", **({"compress_level": 1} if quick else {"optimize": True}))
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
    log: bool = False,
    inches: tuple[float, float] = (6.4, 4.0),
) -> bytes:
    """A PNG of lines (or loose `points`), one per name: (xs, ys), NaN where there is no value.

    `y_low` cuts the axis below (a floor at skill -9 would flatten everything else); `level` draws a thin line at that height.
    `log`: heights on a log scale, where what is not above 0 is left out.
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
    if log:
        axes.set_yscale("log", nonpositive="mask")
    if level is not None:
        axes.axhline(level, color=ink, linewidth=0.8)
    if y_low is not None and axes.get_ylim()[0] < y_low:
        axes.set_ylim(bottom=y_low)
    counted = {float(x) for xs, _ in series.values() for x in xs}
    if counted and all(x.is_integer() for x in counted):
        axes.xaxis.get_major_locator().set_params(integer=True)  # what is counted has no halves
    if len(counted) == 1:
        axes.set_xlim(min(counted) - 1, min(counted) + 1)
    axes.set_xlabel(x_label, color=ink, fontsize=14)
    axes.set_ylabel(y_label, color=ink, fontsize=14)
    axes.set_title(title, color=ink, fontsize=14)
    axes.tick_params(colors=ink, labelsize=13)
    axes.grid(alpha=0.25)
    for spine in axes.spines.values():
        spine.set_color(ink)
    if len(series) > 1:
        # Below the axes, where it covers no line.
        columns = 1 if max(map(len, series)) * len(series) > 70 else min(len(series), 3)
        figure.legend(loc="outside lower center", ncols=columns, fontsize=12, facecolor=figure.get_facecolor(), labelcolor=ink, frameon=False)
    held = io.BytesIO()
    FigureCanvasAgg(figure).print_png(held)
    figure.clear()
    return held.getvalue()
