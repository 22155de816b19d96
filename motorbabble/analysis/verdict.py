"""The card's numbers in plain words.

An action counts as known only when the lower end of its 95% interval lies above chance (five lucky moments are not
knowledge) and its picture clearly beats the last frame where things moved, or stays clearly still where nothing did.
"""

from collections.abc import Mapping
from typing import Any

from motorbabble.analysis.counterfactuals import counterfactual_sentence
from motorbabble.analysis.levels import level_sentence

_KNOWN, _ROUGH = 0.8, 0.3  # skill on moved transitions
_CALM = 0.1  # of what a movement changes: a still picture may waver so much
_MARGIN = 0.1  # of what a movement changes: pictures of two actions that differ by less are not told apart by eye
_FEW = 30
_FLOORS = {
    "shift": "sliding the whole picture by one fixed amount per action",
    "copy_last": "showing the last picture again",
    "mean_frame": "showing the mean frame",
    "black": "showing black",
}


def sentences_of(numbers: Mapping[str, Any]) -> list[str]:
    """The verdict in plain words; the first sentence is the headline."""
    model, floors = numbers["scores"]["model"], numbers["scores"]
    verdicts = [_about(label, told, numbers["chance"], floors["copy_last"]["moved_mse"]) for label, told in model["by_action"].items()]
    tested = [known for known, _ in verdicts if known is not None]
    said = [
        f"It learned what {sum(tested)} of the {len(tested)} tested actions {'does' if sum(tested) == 1 else 'do'}.",
        *(text for _, text in verdicts),
    ]
    if model["skill_moved"] is None:
        said.append("Nothing moved in any tested moment, so this card cannot show what it learned about movement.")
    else:
        best = max(_FLOORS, key=lambda who: floors[who]["skill_moved"])
        better = model["skill_moved"] > floors[best]["skill_moved"]
        said.append(
            f"Where things moved, its skill is {model['skill_moved']:.2f} (1 is perfect, 0 is showing the last picture again). "
            f"The best floor, {_FLOORS[best]}, reaches {floors[best]['skill_moved']:.2f}: "
            + ("the model understands more than that." if better else "the model has not yet shown that it understands more than that.")
        )
    if any(value is not None for value in model["horizon"]):
        far, tried = model["effective_horizon"], len(model["horizon"])
        if far == 0:
            said.append("It cannot imagine ahead yet: from the first imagined step on, keeping the last real picture is as good.")
        else:
            said.append(
                f"Imagining blindly, it is better than keeping the last real picture for {far} of {tried} steps, "
                f"and better than any picture that never changes (the mean frame, black) for {model['horizon_above_stills']}."
            )
    if ahead := level_sentence(numbers):
        said.append(ahead)
    rho = numbers["uncertainty"]["spearman_within_action"]
    if rho is not None:
        knows = "It feels where it errs" if rho >= 0.3 else "It does not yet feel where it errs"
        said.append(f"{knows}: within an action, its uncertainty and its error have a rank correlation of {rho:.2f} (1 is perfect, 0 is none).")
    if listens := counterfactual_sentence(numbers):
        said.append(listens)
    if numbers["trials"] < _FEW:
        said.append(f"Only {numbers['trials']} moments were tested: read every number with its interval.")
    return said


def _about(label: str, told: Mapping[str, Any], chance: float, copy_moved: float | None) -> tuple[bool | None, str]:
    """Whether the action is known (None: never tested), and the sentence that says so."""
    count = told["trials"]
    if count == 0:
        return None, f"“{label}” was not tested."
    share, (low, high) = told["action_advantage"], told["action_advantage_95"]
    match = f"in {share:.0%} of {count} later moments its picture for the action taken was the best match"
    match = f"{match} (chance {chance:.0%}, 95% interval {low:.0%} to {high:.0%})" if chance < 1 else "there is no other action to compare it with"
    told_apart = chance == 1 or low > chance
    if told_apart and told["action_margin"] is not None and told["action_margin"] < _MARGIN:
        return False, f"It has not learned what “{label}” does: {match}, but only by {told['action_margin']:.1%} of what a movement changes."
    moved = told["skill_moved"]
    if moved is None:
        calm = copy_moved is None or told["stayed_mse"] < _CALM * copy_moved
        if told_apart and calm:
            return True, f"It knows what “{label}” does: nothing moves; {match}."
        if told_apart:
            return False, f"It tells “{label}” from the other actions, but its picture does not stay still, as the world does: {match}."
        return False, f"It has not learned what “{label}” does, which is nothing: {match}."
    placed = f"; it put {told['objects']['within_2px']:.0%} of the things within 2 px of their place" if told["objects"] else ""
    skilled = f"{match}, and its skill where things moved is {moved:.2f}{placed}"
    if told_apart and moved <= 0:
        return False, f"It tells “{label}” from the other actions, but cannot picture it yet: {skilled}."
    if not told_apart:
        return False, f"It has not learned what “{label}” does: {skilled}."
    if moved < _ROUGH:
        return False, f"It has begun to learn what “{label}” does: {skilled}."
    return True, f"It knows {'' if moved >= _KNOWN else 'roughly '}what “{label}” does: {skilled}."
