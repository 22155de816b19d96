"""Pieces of a page: sections, pictures with their words, tables with the floors beside the model, plots for light and for dark.

Every picture carries its description, and captions are text and not painted into pictures, because painted letters shrink
with the screen. Plots come twice, and the browser picks.
"""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from motorbabble.figures import curve_png, data_uri, fit, png_bytes

COLUMNS = {"model": "the model", "copy_last": "copy-last", "mean_frame": "mean frame", "black": "black", "shift": "shift floor"}
NONE = "–"
Row = tuple[str, str, Callable[[Mapping], Any], str, bool | None]  # title, note, value of one column, its form, whether more is better


def section(title: str, note: str, body: str) -> str:
    return f"<section><h2>{title}</h2><p class=quiet>{note}</p>{body}</section>"


def image_of(image: np.ndarray, words: str, side: int = 224) -> str:
    return f'<img src="{data_uri(png_bytes(fit(image, side)))}" alt="{escape(words)}">'


def picture(image: np.ndarray, text: str, words: str, kind: str = "", side: int = 224) -> str:
    return f'<figure class="{kind}">{image_of(image, text, side)}<figcaption><b>{escape(text)}</b>{words}</figcaption></figure>'


def table(scores: Mapping[str, Mapping], rows: Sequence[Row]) -> str:
    """The model and the floors beside it; `scores` holds one mapping for each of COLUMNS."""
    head = "".join(f"<th scope=col>{title}</th>" for title in COLUMNS.values())
    body = "".join(_row(scores, *row) for row in rows)
    return f"<div class=wide><table class=scores><thead><tr><th scope=col>number</th>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _row(scores: Mapping, title: str, note: str, value: Callable[[Mapping], Any], form: str, more_is_better: bool | None) -> str:
    values = [value(scores[who]) for who in COLUMNS]
    shown = [NONE if v is None else form.format(v) for v in values]
    known = [v for v in values if v is not None]
    best = None if more_is_better is None or len(known) < 2 else form.format(max(known) if more_is_better else min(known))
    only = sum(text == best for text in shown) < len(known)  # "best" says nothing where all are the same
    cells = "".join(f"<td>{text}{'<br><b>best</b>' if only and text == best else ''}</td>" for text in shown)
    return f"<tr><th scope=row>{title}{f'<br><span class=quiet>{note}</span>' if note else ''}</th>{cells}</tr>"


def plot(words: str, **drawn: Any) -> str:
    light, dark = (data_uri(curve_png(**drawn, dark=dark)) for dark in (False, True))
    return f'<picture><source srcset="{dark}" media="(prefers-color-scheme: dark)"><img class=plot src="{light}" alt="{escape(words)}"></picture>'


def numbers_of(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else float(value) for value in values]


def get(key: str) -> Callable[[Mapping], Any]:
    return lambda scores: scores[key]


def times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


STYLE = """
:root{color-scheme:light dark;--ink:#202124;--quiet:#55585e;--paper:#fff;--line:#c9ccd1;--mark:#1f5fbf;--soft:#f3f5f8}
@media(prefers-color-scheme:dark){:root{--ink:#e8e8e8;--quiet:#abafb6;--paper:#1b1c1f;--line:#4a4d53;--mark:#7db2ff;--soft:#26282c}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:60rem;margin:auto;padding:1rem}
h1{margin:.3rem 0;font-size:1.6rem}h2{margin:2.2rem 0 .3rem;font-size:1.25rem}
.headline{font-size:1.25rem;font-weight:600;margin:.2rem 0}
.quiet{color:var(--quiet);font-size:.9rem;margin:.2rem 0 .8rem}
.scenes{display:grid;gap:.3rem 1.5rem}.few{grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr))}
.scene{display:grid;grid-template-columns:repeat(auto-fit,minmax(4.6rem,1fr));gap:.4rem;margin-top:1rem}
.canvases{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));gap:.4rem;margin-top:1rem}.canvases figure{max-width:none}
figure{margin:0;max-width:10rem;padding:4px;border:2px solid var(--line);border-radius:6px}
figure.taken{border-color:var(--mark)}figure.truth{border-style:dashed;border-color:var(--ink)}
figure img,.film img{width:100%;display:block;image-rendering:pixelated}
figcaption{font-size:.85rem;line-height:1.3;padding:.2rem .1rem}
.wide{overflow-x:auto;margin:.8rem 0}
table{border-collapse:collapse;min-width:40rem;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:.35rem .5rem;border-bottom:1px solid var(--line);text-align:right;vertical-align:top;font-weight:400}
thead th{font-weight:600}th:first-child{text-align:left;position:sticky;left:0;background:var(--paper)}
.film th,.film td{border:0;padding:.15rem;text-align:center;width:6.5rem}.film tbody th{vertical-align:middle;font-size:.85rem}
th .quiet{font-size:.8rem}.scores td:nth-child(2){background:var(--soft);font-weight:600}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));gap:.8rem}.plot{width:100%;max-width:36rem;height:auto}
"""
