"""A person decides: what another selector proposes is accepted, replaced or stopped, before anything moves.

Enter accepts. An action replaces: by its label, by its number in the list, or as JSON, {"motor_right": 0.12}, where what is left
out stays as proposed. `stop`, or the end of the input, ends the run. Anything else is answered in a sentence, and asked again.
What is typed is read as JSON and never evaluated, so it can hold nothing but numbers.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from threading import Event as Flag
from typing import Any

from motorbabble.errors import ActionError
from motorbabble.experience import Action, ActionSpace, Choice, Selector, Situation, Step, as_choice

LONGEST = 2000  # characters of an answer; a whole book is no action
MOST_TRIES = 100  # answers in a row that were none: nobody is reading what it says
NAMED = 12  # actions or scores that a line lists


class InteractiveSelector:
    """Asks before every action of `select`. `stop` is the flag of the life it decides for: `live` looks at it before it acts.

    ask: like `input`; EOFError is an answer, and means stop. say: like `print`. consider: called with the situation and the
    proposal before the question is put, to show them; what it returns is said, a line each.
    """

    def __init__(
        self,
        select: Selector,
        stop: Flag,
        ask: Callable[[str], str] = input,
        say: Callable[[str], Any] = print,
        consider: Callable[[Situation, Choice], Iterable[str]] = lambda situation, choice: (),
    ):
        self.select, self.stop, self.ask, self.say, self.consider = select, stop, ask, say, consider
        self._explained = False

    def __call__(self, situation: Situation) -> Choice:
        space = situation.action_space
        proposal = as_choice(self.select(situation), space)
        self._tell(situation, proposal)
        for _ in range(MOST_TRIES):
            try:
                answer = self.ask(f"Enter for {space.label(proposal.action)}, another action, or stop: ").strip()
            except EOFError:
                self.say("")  # the question had no answer, so its line has no end
                break
            except UnicodeDecodeError:
                self.say("That was no text; type it in letters and digits.")
                continue
            if answer.lower() == "stop":
                break
            try:
                action = action_from(answer, space, proposal.action)
            except ActionError as refused:
                self.say(f"{refused}.")
                continue
            return proposal if action == proposal.action else Choice(action, proposal.scores, "a person chose it")
        self.stop.set()
        return proposal  # which is not done any more

    def observe(self, event: Step) -> None:
        if observe := getattr(self.select, "observe", None):
            observe(event)

    def _tell(self, situation: Situation, proposal: Choice) -> None:
        shown = list(self.consider(situation, proposal))
        self.say(f"Step {situation.step}: {situation.action_space.label(proposal.action)} is proposed, {proposal.why}.")
        if proposal.scores:
            ranked = sorted(proposal.scores.items(), key=lambda item: -item[1])
            more = f", and {len(ranked) - NAMED} more" if len(ranked) > NAMED else ""
            shown = ["scores: " + ", ".join(f"{label} {score:.3g}" for label, score in ranked[:NAMED]) + more, *shown]
        for line in shown:
            self.say(f"  {line}")
        if not self._explained:
            self._explained = True
            self.say(explanation(situation.action_space, proposal.action))


def explanation(space: ActionSpace, proposed: Action) -> str:
    """What may be typed."""
    example = json.dumps({name: float(f"{value:.6g}") for name, value in proposed.items()})
    if space.actions is None:
        return f"An action is typed as JSON, like {example}, within {space}; what is left out stays as proposed."
    named = ", ".join(f"{number} {space.label(action)}" for number, action in enumerate(space.actions[:NAMED]))
    more = f", ... {len(space.actions) - 1}" if len(space.actions) > NAMED else ""
    return f"An action is typed as its name, as its number ({named}{more}), or as JSON, like {example}."


def action_from(answer: str, space: ActionSpace, proposed: Action) -> Action:
    """The action that somebody typed; the proposed one for nothing. ActionError, one sentence, where it is none."""
    if len(answer) > LONGEST:
        raise ActionError(f"That is {len(answer):,} characters long, too much for an action; {_what_to_do(space)}")
    if not answer:
        return proposed
    for action in space.actions or ():
        if answer.lower() == space.label(action).lower():
            return action
    if space.actions is not None and answer.isascii() and answer.isdigit() and len(answer) < 10:
        if int(answer) >= len(space.actions):
            raise ActionError(f"There is no action number {answer}; {_what_to_do(space)}")
        return space.actions[int(answer)]
    return _checked({**proposed, **_read(answer, space)}, space)


def _read(answer: str, space: ActionSpace) -> Action:
    """The channels and numbers that JSON names."""
    names = [channel.name for channel in space.channels]

    def constant(name: str) -> float:
        raise ActionError(f"{name} is no number that a channel can hold; {_what_to_do(space)}")

    def once(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ActionError(f"A channel is named twice in {_cut(answer)}; name each once")
        return dict(pairs)

    try:
        read = json.loads(answer, parse_constant=constant, parse_int=float, object_pairs_hook=once)
    except ActionError:
        raise
    except (ValueError, RecursionError):
        read = None
    if not isinstance(read, dict):
        raise ActionError(f"{_cut(answer)} is no action; {_what_to_do(space)}")
    for name, value in read.items():
        if name not in names:
            raise ActionError(f"There is no channel {_cut(name)}; the channels are {', '.join(names)}")
        if not isinstance(value, float) or not math.isfinite(value):  # neither true, "1" nor 1e999
            raise ActionError(f"{name} is {_cut(value)}, which is no finite number; {_what_to_do(space)}")
    return read


def _checked(action: Action, space: ActionSpace) -> Action:
    for channel in space.channels:
        if not channel.low <= action[channel.name] <= channel.high:
            raise ActionError(f"{channel.name} is {action[channel.name]:g}, outside {channel.low:g} to {channel.high:g}; {_what_to_do(space)}")
    if space.actions is not None and action not in space.actions:
        raise ActionError(f"{json.dumps(action)} is none of its {len(space.actions)} actions; {_what_to_do(space)}")
    return action


def _what_to_do(space: ActionSpace) -> str:
    number = f", a number from 0 to {len(space.actions) - 1}" if space.actions else ""
    return f"press Enter, or type an action as JSON{number}, or stop"


def _cut(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:56] + " ..."
