"""Whether a prediction depends on the action it is told: told another moment's action, or none, it should err more.

No picture is imagined again for the exchange: a tally already holds the error of every candidate's picture in every trial. All sides
are in eval mode. Two gaps carry the mission's names: asg, where two moments exchange their actions, and azg, where a vector of
zeros stands in for the action. docs/card.md gives formulas, and what a gap can and cannot show.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from motorbabble.analysis.html import get, section, table, times
from motorbabble.analysis.scores import Predict, Tally, Trial, candidates_of, groups_of, mse, predicted
from motorbabble.experience import ActionSpace

SHUFFLES = 2000
ZEROED = 32  # trials imagined again for a vector of zeros that is no action
_TIE = 1e-9  # relative: sums in another order


def counterfactual_numbers(
    predicts: Mapping[str, Predict], tallies: Mapping[str, Tally], trials: Sequence[Trial], space: ActionSpace, change: float | None
) -> dict[str, Any]:
    """The card's block; `change`: what copy-last gets wrong when something moves (MSE), the unit of the relative gaps."""
    candidates = candidates_of(space)
    names = [space.label(action) for action in space.candidates(len(candidates))]
    # Of a box, candidates only stand for what lies near them; of a long list, for nothing but themselves.
    zero = [i for i, candidate in enumerate(candidates) if space.actions is not None and not candidate.any()]
    rest = next(i for i, candidate in enumerate(candidates) if np.array_equal(candidate, space.encode(space.rest)))
    exchangeable = len(groups_of(space)) > 1
    told = {}
    for who, scored in tallies.items():
        zeroed = scored.errors[:, zero[0]] - scored.error if zero else _zeroed(predicts[who], scored, trials)
        told[who] = {
            **_exchanged(scored if exchangeable else scored.where(np.zeros(len(scored), bool)), change),
            **_replaced("azg", zeroed[scored.taken != zero[0]] if zero else zeroed, change),
            **_replaced("rest", (scored.errors[:, rest] - scored.error)[scored.taken != rest], change),
        }
    middle = space.label(space.decode(np.zeros(space.size))) if space.actions is None else None  # of a box, always one of its actions
    return {"shuffles": SHUFFLES, "zero_is": names[zero[0]] if zero else middle, "rest_is": names[rest], "scores": told}


def exchange_gap(errors: np.ndarray, taken: np.ndarray) -> float | None:
    """By how much the error grows when two trials that acted differently exchange their actions: the mean over all such pairs.

    errors (T, A) of each candidate's picture, taken (T,) its index. Since every pair is exchanged both ways, a picture that is worse
    for one action in every trial, or a trial that is hard whatever is done, adds nothing. None where all acted alike.
    """
    counts = np.bincount(taken, minlength=errors.shape[1])
    others = len(taken) - counts[taken]  # partners of each trial
    if not others.any():
        return None
    mine = errors[np.arange(len(taken)), taken]
    return float(((errors - mine[:, None]) @ counts).sum() / others.sum())


def exchange_p(errors: np.ndarray, taken: np.ndarray, shuffles: int = SHUFFLES, seed: int = 0) -> float:
    """Permutation test: how often actions dealt out anew among the trials do at least as well as the true ones; (1 + count) / (1 + shuffles)."""
    rng, rows = np.random.default_rng(seed), np.arange(len(taken))
    true, count = errors[rows, taken].sum(), 0
    for dealt in _chunks(shuffles):
        count += (errors[rows, rng.permuted(np.tile(taken, (dealt, 1)), axis=1)].sum(1) <= true * (1 + _TIE)).sum()
    return float((1 + count) / (1 + shuffles))


def paired_p(differences: np.ndarray, shuffles: int = SHUFFLES, seed: int = 0) -> float:
    """Sign-flip test of paired differences (T,): how often a mean with random signs is at least as large; (1 + count) / (1 + shuffles)."""
    rng = np.random.default_rng(seed)
    least, count = differences.sum() - _TIE * np.abs(differences).sum(), 0
    for dealt in _chunks(shuffles):
        count += ((2.0 * rng.integers(0, 2, (dealt, len(differences))) - 1) @ differences >= least).sum()
    return float((1 + count) / (1 + shuffles))


def _chunks(shuffles: int, most: int = 200) -> list[int]:
    """All shuffles, few at a time: a test may hold thousands of trials."""
    return [min(most, shuffles - done) for done in range(0, shuffles, most)]


def _exchanged(scored: Tally, change: float | None) -> dict[str, Any]:
    gap = exchange_gap(scored.errors, scored.taken) if len(scored) else None
    p = None if gap is None else exchange_p(scored.errors, scored.taken)
    return {"asg": gap, "asg_relative": gap / change if change and gap is not None else None, "asg_p": p}


def _replaced(name: str, differences: np.ndarray, change: float | None) -> dict[str, Any]:
    gap = float(differences.mean()) if len(differences) else None
    relative = gap / change if change and gap is not None else None
    return {name: gap, f"{name}_relative": relative, f"{name}_p": None if gap is None else paired_p(differences)}


def _zeroed(predict: Predict, scored: Tally, trials: Sequence[Trial]) -> np.ndarray:
    """(n,) of up to 32 trials, spread evenly: the error of the picture for a vector of zeros, less that for the action taken."""
    picks = np.unique(np.linspace(0, len(trials) - 1, ZEROED).round().astype(int))
    errors = [float(mse(predicted(predict, trials[i].window, np.zeros_like(trials[i].action)[None, None])[0, 0], trials[i].truth)) for i in picks]
    return np.array(errors) - scored.error[picks]


# On the page


def counterfactual_section(numbers: Mapping[str, Any]) -> str:
    found = numbers["counterfactuals"]
    scores = {who: {**numbers["scores"][who], **found["scores"][who]} for who in found["scores"]}
    zero = f"“{found['zero_is']}” is encoded so, a legal action" if found["zero_is"] else "no action is encoded so"
    tested = f"in {found['shuffles']} tries; at least {1 / (1 + found['shuffles']):.4f}"
    rows = [
        ("Two moments exchange their actions", "ASG, of a whole movement", get("asg_relative"), "{:+.1%}", None),
        ("&nbsp;&nbsp;p, how often luck does as well", tested, get("asg_p"), "{:.4f}", None),
        ("Zeros instead of the action", f"AZG; {zero}", get("azg_relative"), "{:+.1%}", None),
        ("&nbsp;&nbsp;p", "", get("azg_p"), "{:.4f}", None),
        (f"“{found['rest_is']}” instead", "where another action was taken", get("rest_relative"), "{:+.1%}", None),
        ("&nbsp;&nbsp;p", "", get("rest_p"), "{:.4f}", None),
        ("Variance between actions' pictures", "per pixel, millionths", lambda s: times(s["action_sensitivity"], 1e6), "{:.1f}", None),
        ("Pixels that depend on the action", f"really changing: {_share(numbers['pixels_changed'])}", get("pixels_by_action"), "{:.1%}", None),
    ]
    note = (
        "Errors with another action than the one taken, less those with the true one: 0 for whoever does not listen. 100% is what copy-last gets "
        "wrong when something moves. A small p says that the gap is no luck. Zeros a model never met may confuse it even where it learned nothing; "
        "exchanged actions it knows."
    )
    return section("Does it listen to the action?", note, table(scores, rows))


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def counterfactual_sentence(numbers: Mapping[str, Any]) -> str | None:
    found = numbers["counterfactuals"]["scores"]["model"]
    gap, p = found["asg_relative"], found["asg_p"]
    if gap is None or p is None:
        return None
    said = f"when two moments exchange their actions, its error grows by {gap:.1%} of what a movement changes (p = {p:.4f})"
    if p > 0.01:
        return f"Nothing shows yet that it listens to the action: {said}."
    return f"It listens to the action: {said}." if gap >= 0.1 else f"It listens to the action, but hardly: {said}."
