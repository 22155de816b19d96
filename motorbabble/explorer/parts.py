"""Parts of a page that all tabs share: pictures with their words, sentences, the line of code that does the same.

Pictures travel inside the page as data and never as files, so nothing is left in a temporary folder and no path is ever served.
"""

from collections.abc import Sequence
from html import escape

import numpy as np

from motorbabble.figures import BORDER, Tile, bordered, data_uri, fit, png_bytes

SIDE = 224  # pixels of a picture on the page


def uri(image: np.ndarray, side: int = SIDE, doubt: float | None = None) -> str:
    drawn = fit(image, side)
    return data_uri(png_bytes(drawn if doubt is None else bordered(drawn, doubt), quick=True))


def picture(tile: Tile, side: int = SIDE) -> str:
    words = f"{tile.title}, {tile.note}" if tile.note else tile.title
    kind = ' class="happened"' if tile.mark else ""
    note = f"<span>{escape(tile.note)}</span>" if tile.note else ""
    side = tile.side or side
    wide = side if tile.doubt is None else side + 2 * BORDER
    return (
        f'<figure{kind}><img src="{uri(tile.image, side, tile.doubt)}" alt="{escape(words)}" style="max-width:min({wide}px,100%)">'
        f"<figcaption><b>{escape(tile.title)}</b>{note}</figcaption></figure>"
    )


def gallery(tiles: Sequence[Tile], side: int = SIDE) -> str:
    """Side by side as far as there is room, then in further rows."""
    return f'<div class="gallery">{"".join(picture(tile, side) for tile in tiles)}</div>'


def sentence(text: str, kind: str = "quiet") -> str:
    """A line of text; `kind`: quiet, good or bad."""
    return f'<p class="said {kind}">{escape(text)}</p>'


def trouble(error: Exception) -> str:
    """What went wrong, as its own sentence says it."""
    if isinstance(error, OSError):
        error = RuntimeError(f"{error.filename or 'a file'} cannot be used: {error.strerror or error}; make it accessible")
    return sentence(f"{str(error).removesuffix('.')}.", "bad")


def code_line(code: str) -> str:
    """What does the same in the library."""
    return f'<p class="said code">The same in Python: <code>{escape(code)}</code></p>'


def facts(pairs: Sequence[tuple[str, object]]) -> str:
    """Names and values, a line each."""
    rows = "".join(f"<tr><th scope=row>{escape(name)}</th><td>{escape(str(value))}</td></tr>" for name, value in pairs)
    return f'<div class="wide"><table class="facts">{rows}</table></div>'


def plot(png: bytes, words: str) -> str:
    return f'<img class="plot" src="{data_uri(png)}" alt="{escape(words)}">'
