"""The card as one HTML page: no script, no outside address, readable on a phone, in light and in dark.

Whatever a colour says is also said in words. A block with numbers of its own draws its section beside them, out of the pieces in html.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from motorbabble.analysis.attention import Look, attention_section
from motorbabble.analysis.canvas import Canvases, canvas_section
from motorbabble.analysis.counterfactuals import counterfactual_section
from motorbabble.analysis.curiosity import uncertainty_section
from motorbabble.analysis.html import COLUMNS, STYLE, get, image_of, numbers_of, picture, plot, section, table, times
from motorbabble.analysis.levels import level_section


@dataclass(frozen=True)
class Scene:
    """A moment: `now`, one imagined picture per action, what really happened. All (H, W, 3) uint8."""

    now: np.ndarray
    imagined: Sequence[np.ndarray]
    labels: Sequence[str]
    taken: int  # index of the action taken
    closest: int  # index of the picture nearest to the truth
    truth: np.ndarray
    moved: bool


@dataclass(frozen=True)
class Film:
    """A blind rollout from `start`: at each step h in `steps`, what was imagined and what was true."""

    start: np.ndarray
    steps: Sequence[int]
    imagined: Sequence[np.ndarray]
    truth: Sequence[np.ndarray]


def page(
    name: str,
    numbers: Mapping[str, Any],
    sentences: Sequence[str],
    scenes: Sequence[Scene],
    films: Sequence[Film],
    looks: Sequence[Look] = (),
    canvases: Sequence[Canvases] = (),
) -> str:
    """The whole page as text; `numbers` as in docs/card.md."""
    title = escape(name or "World-model card")
    moved, trials = numbers["trials_moved"], numbers["trials"]
    parts = [
        f"<h1>{title}</h1><p class=headline>{escape(sentences[0])}</p>",
        "<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences[1:]) + "</ul>",
        f"<p class=quiet>Tested on {trials} moments; something moved in {moved}, nothing in {trials - moved}. "
        f"It had lived {numbers['lived_steps']} steps before.</p>",
        section("Now, every action imagined, and what happened", _SCENES_NOTE, _scenes(scenes)) if scenes else "",
        canvas_section(canvases),
        section("Numbers, with four floors beside them", _FLOORS_NOTE.format(shifts=_shifts(numbers)), _table(numbers)),
        _learning(numbers),
        section("Imagining ahead, blindly", _FILM_NOTE, "".join(map(_film, films)) + _horizon(numbers)) if films else "",
        level_section(numbers),
        uncertainty_section(numbers),
        counterfactual_section(numbers),
        attention_section(numbers, looks),
    ]
    return (
        '<!doctype html><html lang=en><head><meta charset=utf-8><meta name=viewport content="width=device-width, initial-scale=1">'
        f'<meta name=color-scheme content="light dark"><title>{title}</title><style>{STYLE}</style></head>'
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


_SCENES_NOTE = (
    "Each group is a moment the model did not learn from. It imagined one picture per action; "
    "<b>taken</b> marks the action the robot then took, <b>closest</b> the picture that was nearest to what happened."
)
_FLOORS_NOTE = (
    "Each floor is a trick that understands nothing. <b>Copy-last</b> shows the last picture again, <b>mean frame</b> the average of all it lived, "
    "<b>black</b> nothing at all, and the <b>shift floor</b> slides the whole picture by one fixed amount per action ({shifts}). "
    "The best number of a row says so in words. A dash means that the number does not exist for that column or that test."
)
_FILM_NOTE = (
    "From the start on, the model saw nothing more: it only knew which actions followed. Upper rows are imagined, lower rows are what happened."
)


def _shifts(numbers: Mapping[str, Any]) -> str:
    def said(dx: int, dy: int) -> str:
        ways = [f"{abs(d)} px {more if d > 0 else less}" for d, more, less in ((dx, "right", "left"), (dy, "down", "up")) if d]
        return " and ".join(ways) or "not at all"

    return "; ".join(f"“{escape(label)}”: {said(*shift)}" for label, shift in numbers["shifts_px"].items())


def _scenes(scenes: Sequence[Scene]) -> str:
    """Two moments beside each other where the screen is wide and the actions are few."""
    return f'<div class="scenes{" few" * (len(scenes[0].labels) <= 2)}">{"".join(map(_scene, scenes))}</div>'


def _scene(scene: Scene) -> str:
    tiles = [picture(scene.now, "now", "")]
    for index, (image, label) in enumerate(zip(scene.imagined, scene.labels, strict=True)):
        words = ["taken"] * (index == scene.taken) + ["closest"] * (index == scene.closest and len(scene.labels) > 1)
        tiles.append(picture(image, f"if “{label}”", "".join(f"<br>{word}" for word in words), "taken" if index == scene.taken else ""))
    right = "and its picture came closest" if scene.taken == scene.closest else "but another action's picture came closer"
    tiles.append(picture(scene.truth, "what happened", "<br>" + ("a change" if scene.moved else "no change"), "truth"))
    said = f"<p class=quiet>“{escape(scene.labels[scene.taken])}” was taken, {right}.</p>"
    return f"<div><div class=scene>{''.join(tiles)}</div>{said}</div>"


def _film(film: Film) -> str:
    head = "".join(f"<th scope=col>{'start' if h == 0 else f'after {h}'}</th>" for h in (0, *film.steps))
    rows = ""
    for words, images in (("imagined", film.imagined), ("what happened", film.truth)):
        cells = (
            f"<td>{image_of(image, f'{words}, {h} steps after the start')}</td>"
            for h, image in zip((0, *film.steps), (film.start, *images), strict=True)
        )
        rows += f"<tr><th scope=row>{words}</th>{''.join(cells)}</tr>"
    return f"<div class=wide><table class=film><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table></div>"


def _table(numbers: Mapping[str, Any]) -> str:
    scores = numbers["scores"]
    rows: list[Any] = [
        ("Skill where things moved", "1 is perfect, 0 is copy-last", get("skill_moved"), "{:.2f}", True),
        ("Gain over copy-last", "decibels", get("db_over_copy"), "{:.1f}", True),
        ("Error where nothing moved", "mean squared, millionths", lambda s: times(s["stayed_mse"], 1e6), "{:.1f}", False),
        ("Action advantage", f"chance {numbers['chance']:.0%}; a tie is a loss", get("action_advantage"), "{:.0%}", True),
        ("&nbsp;&nbsp;95% interval", "", lambda s: "{:.0%} to {:.0%}".format(*s["action_advantage_95"]), "{}", None),
        ("&nbsp;&nbsp;margin", "lead over the next action; 100% is a whole movement", get("action_margin"), "{:.0%}", True),
        *_objects(numbers),
        ("Skill 8 steps ahead", "against holding the start", get("skill_horizon_8"), "{:.2f}", True),
        ("Effective horizon", f"steps, {len(scores['model']['horizon'])} tried", get("effective_horizon"), "{}", True),
        ("Reconstruction skill", "0 is the mean frame", get("reconstruction_skill"), "{:.2f}", True),
    ]
    return table(scores, rows)


def _objects(numbers: Mapping[str, Any]) -> list[tuple]:
    if numbers["scores"]["model"]["objects"] is None:
        return []

    def within(part: Callable[[Mapping], Mapping]) -> Callable[[Mapping], Any]:
        return lambda scores: (part(scores)["objects"] or {}).get("within_2px")

    def median(scores: Mapping) -> Any:
        return scores["objects"]["median_px"]

    by_action = [
        (f"&nbsp;&nbsp;“{escape(label)}”", "", within(lambda s, label=label: s["by_action"][label]), "{:.0%}", True) for label in numbers["actions"]
    ]
    return [
        ("Things within 2 px of their place", "share, all moments", within(lambda s: s), "{:.0%}", True),
        ("&nbsp;&nbsp;where something moved", "", within(lambda s: s["moved"]), "{:.0%}", True),
        ("&nbsp;&nbsp;where nothing moved", "", within(lambda s: s["stayed"]), "{:.0%}", True),
        *by_action,
        ("Things' median error", "px, of those seen", median, "{:.1f}", False),
        ("Things' 95th percentile", "px, of those seen", lambda s: s["objects"]["p95_px"], "{:.1f}", False),
        ("Things missing", "share", lambda s: s["objects"]["missing"], "{:.0%}", False),
    ]


def _learning(numbers: Mapping[str, Any]) -> str:
    if not numbers["curve"]:
        return ""
    seconds, steps, skills = zip(*numbers["curve"], strict=True)
    values = numbers_of(skills)
    final = next((v for v in reversed(values) if v == v), float("nan"))
    words = f"Skill against {{}}: {len(values)} measurements, the last one {final:.2f}."
    shared: dict[str, Any] = {"y_label": "skill where things moved", "y_low": -1.0, "level": 0.0}
    plots = plot(words.format("seconds of learning"), series={"skill": (seconds, values)}, x_label="seconds of learning", **shared)
    plots += plot(words.format("robot steps"), series={"skill": (steps, values)}, x_label="robot steps", **shared)
    note = f"1 is perfect, 0 is showing the last picture again. After {seconds[-1]:.0f} seconds and {steps[-1]} robot steps it stood at {final:.2f}."
    return section("How it learned", note, f"<div class=plots>{plots}</div>")


def _horizon(numbers: Mapping[str, Any]) -> str:
    scores = numbers["scores"]
    hs = range(1, len(scores["model"]["horizon"]) + 1)
    series = {COLUMNS[who]: (hs, numbers_of(scores[who]["horizon"])) for who in COLUMNS}
    reached = scores["model"]["effective_horizon"]
    words = f"Skill at each imagined step: the model stays above a held picture for {reached} of {len(hs)} steps, "
    words += f"the shift floor for {scores['shift']['effective_horizon']}."
    starts = numbers["horizon_starts"]
    note = f"{words} Measured from {starts[0]} start{'s' * (starts[0] != 1)} (the last step from {starts[-1]})."
    drawn = plot(words, series=series, x_label="steps imagined ahead", y_label="skill", y_low=-1.0, level=0.0)
    return f"<p>{note}</p><div class=plots>{drawn}</div>"
