"""Where a prediction looks: attention of the newest frame's tokens, at which the next frame is read, as five numbers and as pictures.

Each number has one definition (docs/attention.md), taken over those rows only, per layer and head, the same for the card and for a running life.
Beside each stands its value for attention that looks everywhere alike, since 0.5 % on one token is much where there are 400. Numbers of
a world model whose `predictor` is not of blocks {frame tokens, action token} do not exist: None.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from motorbabble.analysis.html import picture, section
from motorbabble.analysis.scores import Trial
from motorbabble.experience import MOVED
from motorbabble.figures import spotlit
from motorbabble.models.attention import record_attention
from motorbabble.models.predictor import TokenIndex, TransformerActionConditionedPredictor
from motorbabble.world_models.base import WorldModel

RECENT = 16  # keys of RI@16
TRIALS = 24  # looked at for a card
METRICS = ("apa", "alf", "ttar", "ri16", "entropy", "entropy_share")


@dataclass(frozen=True)
class Look:
    """Where the last layer's heads looked for the place that will change, `changed` (rows, columns) bool, in the newest frame and the one before."""

    frames: np.ndarray  # (1 or 2, H, W, 3) uint8, the newest last
    changed: np.ndarray
    heads: Sequence[np.ndarray]  # (1 or 2, rows, columns) each: attention on the patches of these frames
    actions: Sequence[float]  # of each head, on all action tokens
    earlier: Sequence[float]  # on the patches of all frames but the newest


def attention_in(world_model: WorldModel, trial: Trial) -> tuple[Tensor, TokenIndex] | None:
    """(layers, heads, N, M): the rows at which the trial's prediction is read, over all keys; None where there is no such predictor."""
    predictor = getattr(world_model, "predictor", None)
    if not isinstance(predictor, TransformerActionConditionedPredictor):
        return None
    with torch.no_grad(), record_attention(predictor) as recorded:
        world_model.imagine(trial.window, trial.action[None, None], pictures=False)
    maps = torch.stack([calls[-1][0] for calls in recorded.values()])
    index = predictor.index(maps.shape[-1])
    return index.asking(maps), index


def metrics(rows: Tensor, index: TokenIndex) -> dict[str, float]:
    """Of attention rows (..., N, M): all rows count alike, and sums are made over all of them before they are divided."""
    return _named(_parts(rows, index), index)


def uniform(index: TokenIndex) -> dict[str, float]:
    """What the metrics are where every row looks at every key alike."""
    return metrics(torch.full((index.frame_tokens, index.keys), 1 / index.keys, dtype=torch.float64), index)


def attention_numbers(world_model: WorldModel, trials: Sequence[Trial]) -> dict[str, Any] | None:
    """The card's block: per layer, its heads and their mean. Of up to 24 trials, spread evenly, whose windows are the longest there are."""
    longest = max(len(trial.window) for trial in trials)
    whole = [trial for trial in trials if len(trial.window) == longest]
    picked = [whole[i] for i in np.unique(np.linspace(0, len(whole) - 1, TRIALS).round().astype(int))]
    total, index = None, None
    for trial in picked:
        looked = attention_in(world_model, trial)
        if looked is None:
            return None
        rows, index = looked
        parts = _parts(rows, index)
        total = parts if total is None else total + parts
    assert total is not None and index is not None
    mean = (total / len(picked)).cpu()
    layers = [{**_named(layer, index), "heads": [_named(head, index) for head in layer]} for layer in mean]
    return {
        "trials": len(picked),
        "moments": index.moments,
        "keys": index.keys,
        "uniform": uniform(index),
        "last_layer": _named(mean[-1], index),
        "all_layers": _named(mean, index),
        "layers": layers,
    }


def look(world_model: WorldModel, trial: Trial, everywhere: bool = False) -> Look | None:
    """None without attention, and where nothing changed, unless what all of the frame looks at is then asked for (`everywhere`)."""
    looked = attention_in(world_model, trial)
    if looked is None:
        return None
    rows, index = looked[0][-1].cpu(), looked[1]  # (heads, N, M)
    now = trial.window.images[-1]
    differs = (np.abs(now.astype(np.int16) - trial.truth) > MOVED).any(-1)
    height, width = differs.shape
    changed = differs.reshape(index.rows, height // index.rows, index.columns, width // index.columns).any((1, 3))
    if not changed.any():
        if not everywhere:
            return None
        changed = np.ones_like(changed)
    mean = rows[:, torch.from_numpy(changed.flatten())].mean(1)  # (heads, M)
    heads = [head[index.frames[-2:]].unflatten(1, (index.rows, index.columns)).numpy() for head in mean]
    earlier = mean[:, index.frames[:-1].flatten()].sum(1)
    return Look(trial.window.images[-2:], changed, heads, mean[:, index.actions].sum(1).tolist(), earlier.tolist())


_PARTS = ("apa", "alf", "ri16", "entropy", "actions", "frames")  # means over the rows; the last two are what TTAR is made of


def _parts(rows: Tensor, index: TokenIndex) -> Tensor:
    """(..., 6) of rows (..., N, M): _PARTS, a mean over N each."""
    frames, actions, recent = (tokens.to(rows.device) for tokens in (index.frames, index.actions, index.newest_first()[:, :RECENT]))
    rows = rows.double()
    parts = (
        rows[..., actions[-1]],
        rows[..., frames[-1]].sum(-1),
        rows.gather(-1, recent.expand(*rows.shape[:-1], -1)).sum(-1),
        torch.special.entr(rows).sum(-1),  # -p ln p, and 0 where p is 0
        rows[..., actions].sum(-1),
        rows[..., frames.flatten()].sum(-1),
    )
    return torch.stack(parts, -1).mean(-2)


def _named(parts: Tensor, index: TokenIndex) -> dict[str, Any]:
    told = dict(zip(_PARTS, parts.reshape(-1, len(_PARTS)).mean(0).tolist(), strict=True))
    actions, frames = told.pop("actions"), told.pop("frames")
    ttar = actions / frames if frames else None
    return {**told, "ttar": ttar, "entropy_share": told["entropy"] / float(np.log(index.keys))}


# On the page

_ROWS = {
    "apa": ("APA: on the action", "of all attention, the share on the token of the action whose outcome is predicted", "{:.2%}"),
    "alf": ("ALF: on the last frame", "the share on its patches", "{:.0%}"),
    "ttar": ("TTAR: actions to frames", "attention on all action tokens, divided by that on all patches", "{:.4f}"),
    "ri16": ("RI@16: here and now", "the share on the 16 newest and nearest tokens", "{:.0%}"),
    "entropy": ("Entropy", "nats; 0 looks at one token only", "{:.2f}"),
    "entropy_share": ("&nbsp;&nbsp;of what is possible", "100% looks everywhere alike", "{:.0%}"),
}


def attention_section(numbers: Mapping[str, Any], looks: Sequence[Look]) -> str:
    """A section of the page; nothing for a model without attention."""
    found = numbers.get("attention")
    if found is None:
        return ""
    note = (
        f"When it predicts, each patch of the last frame looks at {found['keys']} tokens: the patches and the action of {found['moments']} "
        f"moment{'s' * (found['moments'] != 1)}. Mean of {found['trials']} moments and all heads, beside attention that looks everywhere alike. "
        "Attention says what is read, not what it does to the picture; the section before this one says that."
    )
    pictures = "".join(map(_look, looks))
    return section("Where it looks", note, attention_table(found) + pictures)


def attention_table(found: Mapping[str, Any]) -> str:
    """The numbers of `attention_numbers`, per layer, beside attention that looks everywhere alike."""
    layers = found["layers"]
    names = [f"layer {i}{' (last)' * (i == len(layers))}" for i in range(1, len(layers) + 1)]
    head = "".join(f"<th scope=col>{name}</th>" for name in ("number", names[-1], "everywhere alike", *names[:-1]))
    body = ""
    for key, (title, note, form) in _ROWS.items():
        values = [of[key] for of in (layers[-1], found["uniform"], *layers[:-1])]
        cells = "".join(f"<td>{'–' if value is None else form.format(value)}</td>" for value in values)
        body += f"<tr><th scope=row>{title}<br><span class=quiet>{note}</span></th>{cells}</tr>"
    return f"<div class=wide><table class=scores><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _look(look: Look) -> str:
    tiles = [picture(image, title, f"<br>{words}") for title, words, image in pictures_of(look)]
    return f"<div><div class=scene>{''.join(tiles)}</div><p class=quiet>{sentence_of(look)}</p></div>"


def pictures_of(look: Look, height: int = 224) -> list[tuple[str, str, np.ndarray]]:
    """(title, words, (at most `height`, W, 3) uint8) of the place that is asked about, and of where each head looked for it."""
    title, words = ("now", "all of it asks") if look.changed.all() else ("outlined", "what will change")
    tiles = [(title, words, _stacked(look, np.zeros_like(look.heads[0]), height))]
    for number, (heat, actions, earlier) in enumerate(zip(look.heads, look.actions, look.earlier, strict=True), 1):
        words = f"{heat[-1].sum():.0%} on this frame, {earlier:.0%} on earlier ones, {actions:.1%} on actions"
        tiles.append((f"head {number}", words, _stacked(look, heat / max(heat.max(), 1e-9), height)))
    return tiles


def sentence_of(look: Look) -> str:
    two, spots = len(look.frames) > 1, int(look.changed.sum())
    asked = f"the {spots} patch{'es' * (spots != 1)} where something changed next" if not look.changed.all() else f"all {spots} patches"
    return f"What the last layer looked at for {asked}: the brighter, the more attention.{' Above the frame before, below the newest one.' * two}"


def _stacked(look: Look, heat: np.ndarray, height: int) -> np.ndarray:
    """The older frame above the newest one, in which the place is framed."""
    drawn: list[np.ndarray] = []
    side = (height - 6) // len(look.frames)
    for number, (frame, on) in enumerate(zip(look.frames, heat, strict=True)):
        newest = number == len(look.frames) - 1
        lit = spotlit(frame, on, look.changed & newest, side=side)
        drawn += [*([np.full((6, lit.shape[1], 3), 255, np.uint8)] if drawn else []), lit]
    return np.concatenate(drawn)
