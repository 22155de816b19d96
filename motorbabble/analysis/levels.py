"""Whether levels of prediction pay: each one's skill over its whole span, and its cost, beside rolling out the level below.

Both start from the same real frames and follow the same actions. Skill is over keeping the frame that they start from. Costs are
measured in turns, so that whatever else the machine does meets both, and the median is taken.
"""

import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from motorbabble.analysis.html import NONE, section
from motorbabble.analysis.scores import Journey, journeys_of, mse, predicted, skill
from motorbabble.experience import ActionSpace, Step
from motorbabble.world_models.base import WorldModel

GOOD = 0.8  # skill up to which a look ahead counts
_STARTS = 24
_TURNS = 7


def level_numbers(world_model: WorldModel, test: Sequence[Step], space: ActionSpace, horizon: Sequence[float | None]) -> dict[str, Any]:
    """The card's block; `horizon`: the skill of rolling out level 0 at 1, 2, 3 ... steps. The model is in eval mode already."""
    levels = [_level(world_model, level, test, space) for level in range(1, len(world_model.spans))]
    rolled = next((h for h, value in enumerate(horizon) if value is not None and value < GOOD), len(horizon))
    spans = [told["span"] for told in levels if told["skill"] is not None and told["skill"] >= GOOD]
    return {"levels": levels, "lookahead": max([rolled, *spans])}


def _level(model: WorldModel, level: int, test: Sequence[Step], space: ActionSpace) -> dict[str, Any]:
    span = model.spans[level]
    journeys = [journey for journey in journeys_of(test, space, model.history, span, _STARTS) if len(journey.plan) == span]
    own, below, kept = 0.0, 0.0, 0.0
    for journey in journeys:
        own += float(mse(_last(model, journey, level), journey.truth[-1]))
        below += float(mse(_last(model, journey, level - 1), journey.truth[-1]))
        kept += float(mse(journey.window.images[-1].astype(np.float32) / 255, journey.truth[-1]))
    seconds = [_seconds(model, journeys[0], which) for _ in range(_TURNS) for which in (level, level - 1)] if journeys else []
    mine, rolled = (median(seconds[first::2]) if seconds else None for first in (0, 1))
    return {
        "level": level,
        "span": span,
        "starts": len(journeys),
        "skill": skill(own, kept),
        "skill_rolled_out": skill(below, kept),
        "seconds": mine,
        "seconds_rolled_out": rolled,
        "cost_ratio": mine / rolled if mine and rolled else None,
    }


def _last(model: WorldModel, journey: Journey, level: int) -> np.ndarray:
    def predict(window, plans):
        images = model.imagine(window, plans, level=level).images if level else model.imagine(window, plans).images
        assert images is not None
        return images[:, -1:].float().cpu().numpy().transpose(0, 1, 3, 4, 2)

    return predicted(predict, journey.window, journey.plan[None])[0, 0]


def _seconds(model: WorldModel, journey: Journey, level: int) -> float:
    began = time.perf_counter()
    _last(model, journey, level)
    return time.perf_counter() - began


# On the page


def level_section(numbers: Mapping[str, Any]) -> str:
    found = numbers["levels"]
    if not found["levels"]:
        return ""
    titles = ("level", "actions at once", "skill", "skill rolled out", "ms a plan", "ms rolled out", "share of that time")
    head = "".join(f"<th scope=col>{title}</th>" for title in titles)
    rows = ""
    for told in found["levels"]:
        cells = [str(told["span"]), *(_told(told[key], "{:.2f}") for key in ("skill", "skill_rolled_out"))]
        cells += [_told(told[key] and told[key] * 1e3, "{:.1f}") for key in ("seconds", "seconds_rolled_out")]
        rows += f"<tr><th scope=row>{told['level']}</th>{''.join(f'<td>{cell}</td>' for cell in (*cells, _told(told['cost_ratio'], '{:.0%}')))}</tr>"
    note = (
        "Each level predicts twice as many actions at once as the one below. Its skill over its whole span (1 is perfect, 0 is keeping the frame it "
        f"starts from) stands beside that of rolling out the level below, twice, over the same actions from {found['levels'][0]['starts']} starts. "
        f"Predictions are good, at {GOOD} or more, for {found['lookahead']} actions ahead."
    )
    return section("Several actions at once", note, f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>")


def _told(value: float | None, form: str) -> str:
    return NONE if value is None else form.format(value)


def level_sentence(numbers: Mapping[str, Any]) -> str | None:
    """Of the highest level with a skill."""
    told = [level for level in numbers["levels"]["levels"] if level["skill"] is not None]
    if not told:
        return None
    top = told[-1]
    knows = "It predicts" if top["skill"] >= GOOD else "It has begun to predict"
    return (
        f"{knows} {top['span']} actions at once: skill {top['skill']:.2f}, where rolling out the level below has {top['skill_rolled_out']:.2f}, "
        f"in {top['cost_ratio']:.0%} of the time."
    )
