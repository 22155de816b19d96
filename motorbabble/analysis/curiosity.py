"""Whether it knows what it does not know, and what its curiosity was spent on.

Uncertainty is held against the error that a prediction turns out to have. Two floors: knowing only which action was taken (some actions
are harder than others, and that is no insight into a moment), and, for what was chosen while it lived, every action equally often.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from motorbabble.analysis.html import NONE, plot, section
from motorbabble.analysis.scores import Tally, Trial, spearman
from motorbabble.experience import ActionSpace, Step
from motorbabble.world_models.base import WorldModel

MOST_POINTS = 400  # drawn


def uncertainty_numbers(
    world_model: WorldModel, trials: Sequence[Trial], scored: Tally, labels: Sequence[str], lived: Sequence[Step], space: ActionSpace
) -> dict[str, Any]:
    """The card's block. The model is in eval mode already; `labels`: the groups that `scored.action` counts."""
    imagined = [world_model.imagine(trial.window, trial.action[None, None], pictures=False) for trial in trials]
    unsure = np.array([float(one.uncertainty[0, 0]) for one in imagined])
    expected = [None if one.expected_error is None else float(one.expected_error[0, 0]) for one in imagined]
    error, finite = scored.error, bool(np.isfinite(unsure).all())
    usual = np.array([error[scored.action == action].mean() for action in scored.action])  # of the same action
    told = [(rho, int(mine.sum())) for mine in _groups(scored.action) if (rho := spearman(unsure[mine], error[mine])) is not None]
    return {
        "mean_nats": float(unsure.mean()) if finite else None,
        "spearman": spearman(unsure, error),
        "spearman_within_action": sum(rho * count for rho, count in told) / sum(count for _, count in told) if told else None,
        "spearman_action_alone": spearman(usual, error),
        "spearman_expected_error": None if None in expected else spearman(np.array(expected, float), error),
        "top_decile_lift": _lift(unsure, error) if finite else None,
        "top_decile_lift_possible": _lift(error, error),
        "chosen": _shares(lived, space),
        "points": [[float(u), float(e), labels[a]] for u, e, a in zip(unsure, error, scored.action, strict=True) if np.isfinite(u)][:MOST_POINTS],
    }


def _groups(actions: np.ndarray) -> list[np.ndarray]:
    return [actions == action for action in np.unique(actions)]


def _lift(rank: np.ndarray, error: np.ndarray) -> float | None:
    """Mean error of the tenth of moments that `rank` puts highest, over the mean of all."""
    top = np.argsort(-rank, kind="stable")[: max(1, len(rank) // 10)]
    return float(error[top].mean() / error.mean()) if error.mean() > 0 else None


def _shares(lived: Sequence[Step], space: ActionSpace) -> dict[str, float] | None:
    """How often each action was taken while it lived; None where they cannot be counted."""
    if space.actions is None or space.is_long:
        return None
    counts = np.bincount([space.index(step.executed) for step in lived], minlength=len(space.actions))
    return {space.label(action): float(count / max(len(lived), 1)) for action, count in zip(space.actions, counts, strict=True)}


def uncertainty_section(numbers: Mapping[str, Any]) -> str:
    unsure = numbers["uncertainty"]
    by_action = {label: [(u, e) for u, e, a in unsure["points"] if a == label] for label in numbers["actions"]}
    series: dict[str, Any] = {label: tuple(zip(*points, strict=True)) for label, points in by_action.items() if points}
    if not series:
        return ""
    told = {key: NONE if unsure[key] is None else f"{unsure[key]:.2f}" for key in unsure if key not in ("points", "chosen")}
    rows = [
        ("Rank correlation with the error, all moments", told["spearman"], f"{told['spearman_action_alone']} knowing only the action"),
        ("&nbsp;&nbsp;among moments of one action", told["spearman_within_action"], "0 knowing only the action"),
        ("Error of the tenth it is least sure of, over the mean", told["top_decile_lift"], "1 at random"),
        ("&nbsp;&nbsp;if it had known the errors", told["top_decile_lift_possible"], ""),
        ("Rank correlation of the error it expects, noise included", told["spearman_expected_error"], "0 at random"),
    ]
    head = "<tr><th scope=col>number</th><th scope=col>the model</th><th scope=col>floor</th></tr>"
    body = "".join(f"<tr><th scope=row>{title}</th><td>{value}</td><td>{floor}</td></tr>" for title, value, floor in rows)
    note = f"One mark per moment; 1 is a perfect rank correlation, 0 none. Its mean uncertainty is {told['mean_nats']} nats."
    drawn = plot(note, series=series, x_label="uncertainty (nats)", y_label="error (mean squared)", points=True)
    table = f"<div class=wide><table class=scores><thead>{head}</thead><tbody>{body}</tbody></table></div>"
    return section("Does it know what it does not know?", note, f"{table}<div class=plots>{drawn}</div>{_spent(unsure['chosen'])}")


def _spent(chosen: Mapping[str, float] | None) -> str:
    if not chosen:
        return ""
    told = ", ".join(f"“{label}” {share:.0%}" for label, share in chosen.items())
    return f"<p>While it lived it chose {told}; equally often would be {1 / len(chosen):.0%} each.</p>"
