"""Browsing: the sessions there are, one of them, and one of its moments, as pieces of a page.

Whatever cannot be read is said in a sentence where it would have stood; what is beside it is shown all the same.
"""

import time
from collections.abc import Sequence
from html import escape

import numpy as np

from motorbabble.analysis.plans import written
from motorbabble.errors import RecordingError
from motorbabble.experience import Action, ActionSpace, Observation
from motorbabble.explorer.census import Census, Count
from motorbabble.explorer.parts import code_line, facts, picture, sentence, trouble
from motorbabble.explorer.places import STARTER
from motorbabble.figures import Tile
from motorbabble.recording.quota import in_words
from motorbabble.recording.reader import Moment, RecordingReader
from motorbabble.recording.shelf import Entry, duration, extent_of

SIDE = 448  # pixels of the frame that is gone through
WIDTH = 44  # letters of what was done, in a row of the table
LISTED = 12  # actions named of one session
NOTHING = "Nothing was recorded yet. Start a robot in Live: every step that it takes is recorded, and listed here."
GATES = {  # how its wait before the step ended
    "passed": "passed: it saw well enough to act",
    "budget": "budget: what it may learn before it acts was spent",
    "stalled": "stalled: learning on did not let it see better",
    "diverged": "diverged: its loss was no number any more",
}
HEADINGS = ("robot", "session", "recorded", "moments", "time", "size", "what was done", "state", "kept for")


# Sessions


def table_of(listed: Sequence[tuple[str, Entry]], census: Census, chosen: str | None) -> str:
    """A row for each session, which a click or Enter chooses; `listed` as Places.sessions answers it."""
    if not listed:
        return sentence(NOTHING)
    head = "".join(f"<th scope=col>{heading}</th>" for heading in HEADINGS)
    body = "".join(_row(name, entry, census.of(entry), name == chosen) for name, entry in listed)
    return f"<div class=sessions><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _row(name: str, entry: Entry, count: Count | None, is_chosen: bool) -> str:
    moments, seconds = extent_of(entry)
    robot = entry.meta.robot_type if entry.meta else entry.folder.parent.name
    cells = (
        robot,
        entry.name,
        time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.created_ns / 1e9)) if entry.created_ns else "",
        "" if moments is None else f"{moments:,}",
        duration(seconds),
        in_words(entry.bytes),
        _done(entry, count),
        _state(entry, count),
        "comes with the program" if name.startswith(f"{STARTER}/") else _pinned(entry),
    )
    kind = ' class=chosen aria-selected="true"' if is_chosen else ""
    return f'<tr data-session="{escape(name)}" tabindex=0{kind}>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'


def _done(entry: Entry, count: Count | None) -> str:
    """The share of each action."""
    if count is None:
        return "counting ..." if entry.meta and entry.state != "live" else ""
    shares = [f"{label} {times / max(count.steps, 1):.0%}" for label, times in count.actions.items()]
    shown = sum(len(", ".join(shares[:many])) <= WIDTH for many in range(1, len(shares) + 1))
    return ", ".join(shares[:shown]) + (f" and {len(shares) - shown} more" if len(shares) > shown else "")


def _pinned(entry: Entry) -> str:
    """Who needs it, so that the quota leaves it alone."""
    learned = sum(owner.startswith("checkpoint-") for owner in entry.pins)
    others = [owner for owner in entry.pins if not owner.startswith("checkpoint-")]
    return ", ".join([*others, *([f"{learned} checkpoint{'s' * (learned > 1)}"] if learned else [])])


def _state(entry: Entry, count: Count | None) -> str:
    said = "recording now" if entry.state == "live" else entry.state
    return f"{said}, {count.lost:,} moment{'s' * (count.lost != 1)} lost" if count is not None and count.lost else said


def about(entry: Entry, reader: RecordingReader) -> str:
    """What is known of a session as a whole."""
    meta, space = reader.meta, reader.action_space
    actions = ", ".join(map(space.label, space.actions[:LISTED])) if space.actions else str(space)
    actions += f" and {len(space.actions) - LISTED} more" if space.actions and len(space.actions) > LISTED else ""
    told = meta.about
    pairs = [
        ("Robot", f"{meta.robot_type}, which can {actions}"),
        ("Begun", time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(meta.created_ns / 1e9))),
        ("Lived by", ", ".join(str(told[key]) for key in ("recipe", "version") if told.get(key))),
        ("Continues", f"{meta.continues.session}, from its step {meta.continues.first_index}" if meta.continues else ""),
        ("Kept for", ", ".join(f"{owner} ({why})" if why else owner for owner, why in entry.pins.items())),
        ("Metadata", "lost, and made anew from a shard" if reader.remade else ""),
        ("Health", f"babble sessions check {entry.folder} reads every frame, and says what is damaged"),
    ]
    return facts([(key, value) for key, value in pairs if value]) + code_line(f"session = RecordingReader({str(entry.folder)!r})")


# A moment


def shown_of(reader: RecordingReader, number: int) -> tuple[str, str]:
    """The picture of a moment, and what is known of it; in the place of each, why there is none."""
    sensed: list[tuple[str, object]] = []
    try:
        seen = reader.observation(number)
        image, sensed = seen.image, _sensed(seen)
    except RecordingError as error:
        sensed = [("Sensed", str(error))]
        try:
            image = reader.image(number)  # of what was sensed, the picture may be all that can be read
        except RecordingError as error:
            return trouble(error), _known(reader, number, [])
    shown = Tile(image, f"Moment {number:,} of {len(reader):,}", f"{image.shape[1]} × {image.shape[0]} pixels")
    return picture(shown, SIDE), _known(reader, number, sensed)


def _known(reader: RecordingReader, number: int, sensed: list[tuple[str, object]]) -> str:
    try:
        moment = reader.moment(number)
    except RecordingError:  # which stands where the picture would
        return ""
    space = reader.action_space
    before = reader.moment(number - 1) if reader.follows(number) else None
    pairs: list[tuple[str, object]] = [("Episode", f"{moment.episode:,}; moments are counted from 0")]
    if moment.is_step:
        done, asked = _label(moment.executed, space), _label(moment.requested, space)
        pairs += [
            ("Step", f"{moment.index:,} of its life, after {moment.updates:,} updates of its model"),
            ("Gate", GATES.get(moment.gate, moment.gate)),
            ("Chose", asked),
            ("Because", moment.why or "nobody said why"),
            ("Did", done if moment.executed == moment.requested else f"{done}, which is not what was chosen"),
        ]
        if moment.scores:
            best = sorted(moment.scores.items(), key=lambda pair: -np.inf if pair[1] is None else -pair[1])
            shown = ", ".join(f"{label} {'no number' if score is None else f'{score:.3g}'}" for label, score in best[:8])
            pairs.append(("Scores", shown + (f" and {len(best) - 8} more" if len(best) > 8 else "")))
    else:
        pairs.append(("Step", "none: an episode, or the recording, ends here, and nothing was done from it"))
    pairs += [("Led here", _label(before.executed, space) if before else "nothing that was recorded: a stretch begins"), *_times(moment, before)]
    return facts([(name, value) for name, value in [*pairs, *sensed] if value != ""])


def _times(moment: Moment, before: Moment | None) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    at = moment.started_ns or moment.captured_ns
    if at:
        later = f", {(at - (before.started_ns or before.captured_ns)) / 1e9:.3f} s after the one before" if before else ""
        found.append(("When", time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at / 1e9)) + f".{at // 1_000_000 % 1000:03d}{later}"))
    if moment.is_step:
        found.append(("Took", f"{(moment.ended_ns - moment.started_ns) / 1e6:,.1f} ms"))
    found.append(("Frame", f"number {moment.sequence:,} of the camera, {moment.frame.codec}, {in_words(moment.frame.bytes)}"))
    return found


def _sensed(seen: Observation) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for name, value in seen.state.items():
        array = np.asarray(value)
        few = 0 < array.size <= 8 and array.dtype.kind in "iufb"
        shown = ", ".join(f"{value:.5g}" for value in array.ravel().tolist()) if few else f"{' × '.join(map(str, array.shape))} {array.dtype}"
        found.append((f"Sensed {name}", shown))
    return found


def _label(action: Action, space: ActionSpace) -> str:
    try:
        return written([action], space)
    except Exception:  # a stranger's session may hold any action
        return f"{dict(action)}, which its action space does not hold"
