"""Plans as people type them: "move*3 stay", "right=2 down=0*4, right=0"; and back, for a line of text to begin from.

An action is one of the space's labels, or channel=value with what it rests at for channels that are not named. *N repeats it. Spaces and
commas part actions; of channel=value those that differ belong together until a comma, a count, or a channel that was named already.
"""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from itertools import groupby
from math import isclose

from motorbabble.errors import ActionError
from motorbabble.experience import Action, ActionSpace

LONGEST = 64  # actions; longer ones are imagined for many seconds, and worse at every step
_COUNTED = re.compile(r"(.*)\*(\d{1,6})")
_PARTS = re.compile(r"[,;]|[^\s,;]+")


def plan_of(text: str, space: ActionSpace, longest: int = LONGEST) -> list[Action]:
    """1 to `longest` actions of the space; ActionError, in a sentence, for what it does not hold."""
    parts = _PARTS.findall(re.sub(r"\s*([*=])\s*", r"\1", text))
    labels = _labels(space)
    plan: list[Action] = []
    named: dict[str, float] = {}  # channels of an action that is not complete yet
    at = 0

    def add(action: Action, count: int) -> None:
        if not 0 < count <= longest - len(plan):
            what = f"makes {len(plan) + count} actions; give at most {longest}" if count else "repeats it 0 times; repeat an action at least once"
            raise ActionError(f"“{parts[at - 1]}” {what}")
        plan.extend([action] * count)

    def complete(count: int = 1) -> None:
        if named:
            add(_meant({**space.rest, **named}, space), count)
            named.clear()

    while at < len(parts):
        found = _label_at(parts, at, labels)
        if found:
            complete()
            action, count, length = found
            at += length
            add(action, count)
            continue
        part, at = parts[at], at + 1
        if part in ",;":
            complete()
            continue
        counted = _COUNTED.fullmatch(part)
        channel, value = _channel_in(counted[1] if counted else part, space)
        if channel in named:
            complete()
        named[channel] = value
        if counted:
            complete(int(counted[2]))
    complete()
    if not plan:
        raise ActionError(f"the plan is empty; type actions such as “{_examples(space)}”")
    return plan


def written(plan: Sequence[Action], space: ActionSpace) -> str:
    """The plan as `plan_of` reads it; values of a box with three digits."""
    runs = [(words, len(list(same))) for words, same in groupby(_one(action, space) for action in plan)]
    between = ", " if space.actions is None else " "
    return between.join(words if count == 1 else f"{words}*{count}" for words, count in runs)


# Parts


def _one(action: Action, space: ActionSpace) -> str:
    if space.actions is not None:
        return space.label(action)
    plain, parts = space.check(action), []
    for channel in [channel for channel in space.channels if channel.low != channel.high] or space.channels:
        value = plain[channel.name]
        short = f"{value:.3g}"
        parts.append(f"{channel.name}={short if channel.low <= float(short) <= channel.high else repr(value)}{channel.unit}")
    return " ".join(parts)


def _labels(space: ActionSpace) -> dict[tuple[str, ...], Action]:
    """Each action that has a name by the parts of it, as it is written and in lower case."""
    found = {tuple(_PARTS.findall(label)): action for label, action in zip(space.labels, space.actions or (), strict=False)}
    return {tuple(part.casefold() for part in label): action for label, action in found.items()} | found


def _label_at(parts: Sequence[str], at: int, labels: Mapping[tuple[str, ...], Action]) -> tuple[Action, int, int] | None:
    """The longest label that begins there: its action, its count, and how many parts it takes."""
    for length in range(min(max(map(len, labels), default=0), len(parts) - at), 0, -1):
        *first, last = parts[at : at + length]
        counted = _COUNTED.fullmatch(last)
        for ending, count in ((last, 1), *([(counted[1], int(counted[2]))] if counted else [])):
            for name in ((*first, ending), tuple(part.casefold() for part in (*first, ending))):
                if name in labels:
                    return labels[name], count, length
    return None


def _channel_in(part: str, space: ActionSpace) -> tuple[str, float]:
    name, equals, value = part.partition("=")
    channel = next((channel for channel in space.channels if channel.name.casefold() == name.casefold()), None)
    if not equals or channel is None:
        raise ActionError(f"“{part}” is no action here; {_advice(part, space)}")
    try:
        return channel.name, float(value.removesuffix(channel.unit))
    except ValueError:
        raise ActionError(f"“{part}” gives {channel.name} no number; type {channel.name}=NUMBER, {channel.low:g} to {channel.high:g}") from None


def _meant(action: Action, space: ActionSpace) -> Action:
    """Of a list, the action that these numbers are when they are written with fewer digits."""
    alike = [known for known in space.actions or () if all(isclose(action[name], known[name], rel_tol=1e-5, abs_tol=1e-9) for name in known)]
    return alike[0] if alike else space.check(action)


def _advice(part: str, space: ActionSpace) -> str:
    if space.actions is None:
        return f"type {' '.join(f'{channel.name}=NUMBER' for channel in space.channels)}, with *N behind it to repeat it"
    names = [space.label(action) for action in space.actions]
    near = get_close_matches(part.partition("*")[0], names, 1)
    if near:
        return f"do you mean {near[0]}?"
    return f"use {', '.join(names[:12])}{f' or {len(names) - 12} others' * (len(names) > 12)}, with *N behind one to repeat it"


def _examples(space: ActionSpace) -> str:
    *_, first = space.candidates(2)[:2]
    return written([first, first, first, space.rest], space)
