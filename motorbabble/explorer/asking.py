"""Asking: a mind is asked about one recorded moment, and its answer becomes a piece of a page.

Each panel is one function of analysis/moments.py, drawn; the line of code under it is that function, called.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from threading import Lock

import numpy as np

from motorbabble.analysis.attention import attention_table, pictures_of, sentence_of
from motorbabble.analysis.moments import attend, mean_frame_of, predict, reconstruct, recorded_plan, sweep, what_if
from motorbabble.analysis.plans import written
from motorbabble.analysis.view import LEAST_RANGE
from motorbabble.errors import MotorbabbleError
from motorbabble.explorer.parts import code_line, gallery, picture, sentence, trouble
from motorbabble.figures import Tile
from motorbabble.learning.checkpoint import Checkpoints
from motorbabble.recording.reader import RecordingReader
from motorbabble.world_models.base import WorldModel

SIDE, STRIP, LOOKS = 224, 112, 336  # pixels of a picture, of one in a strip, and of two above each other
FEW = 4  # actions that are drawn large
SHOWN_PLAN = 8  # recorded actions that an empty plan stands for
BRIGHTER = 3  # times, of a difference, so that an eye sees it
MEANS = 16  # sessions whose mean frame is kept


@dataclass(frozen=True)
class Question:
    """What is asked: of which mind, about which moment, from how many frames, with which plan (words)."""

    mind: WorldModel
    session: RecordingReader
    moment: int
    frames: int
    plan: str = ""


class Answers:
    """Answers questions, one after the other: a mind that is looked into is in another mode meanwhile."""

    def __init__(self):
        self._lock = Lock()
        self._means: OrderedDict[tuple, np.ndarray] = OrderedDict()
        self._newest: tuple[tuple[str, Question], str] | None = None

    def __call__(self, panel: str, asked: Question) -> str:
        """The piece of the page; what cannot be answered is a sentence. A page that fills its controls asks the same once for each of them."""
        try:
            with self._lock:
                if self._newest is None or self._newest[0] != (panel, asked):
                    self._newest = (panel, asked), PANELS[panel](self, asked)
                return self._newest[1]
        except (MotorbabbleError, OSError) as error:
            return trouble(error)
        except Exception as error:  # the log has where it came from
            logging.getLogger(__name__).exception("%s of moment %d failed", panel, asked.moment)
            return sentence(f"{panel} failed: {error!r:.300}; choose another moment or checkpoint, and report this if it comes back.", "bad")

    def mean(self, asked: Question) -> np.ndarray:
        key = (asked.session.folder, len(asked.session), asked.mind.image_shape)
        if key not in self._means:
            self._means[key] = mean_frame_of(asked.session, asked.mind)
            if len(self._means) > MEANS:
                self._means.popitem(last=False)
        return self._means[key]


def reconstruction(answers: Answers, asked: Question) -> str:
    found = reconstruct(asked.mind, asked.session, asked.moment, answers.mean(asked))
    words = f"Error {found.error:.3g}; the mean frame of the session has {found.mean_error:.3g}{_skill(found.skill, 'the mean frame')}."
    tiles = [
        Tile(found.frame, f"moment {asked.moment:,}", "as it was recorded", mark=True),
        Tile(found.decoded, "decoded", f"error {found.error:.3g}"),
        _difference(found.decoded, found.frame),
    ]
    return sentence(words) + gallery(tiles, SIDE) + code_line(f"reconstruct(mind, session, {asked.moment})")


def prediction(answers: Answers, asked: Question) -> str:
    found = predict(asked.mind, asked.session, asked.moment, asked.frames)
    did = written([found.action], asked.session.action_space)
    many = f"{found.frames} frame{'s' * (found.frames != 1)}, moment{'s' * (found.frames != 1)} "
    many += f"{asked.moment - found.frames:,} to {asked.moment - 1:,}" if found.frames > 1 else f"{asked.moment - 1:,}"
    words = f"From {many}. Error {found.error:.3g}; keeping the last frame has {found.copy_error:.3g}{_skill(found.skill, 'that')}."
    tiles = [
        Tile(found.before, f"moment {asked.moment - 1:,}", f"then it did {did}"),
        Tile(found.expected, "expected", f"error {found.error:.3g}, {found.uncertainty:.2f} nats"),
        Tile(found.frame, f"moment {asked.moment:,}", "what came", mark=True),
        _difference(found.expected, found.frame),
    ]
    return sentence(words) + gallery(tiles, SIDE) + code_line(f"predict(mind, session, {asked.moment}, frames={asked.frames})")


def every_action(answers: Answers, asked: Question) -> str:
    found = sweep(asked.mind, asked.session, asked.moment, asked.frames)
    nats = np.array([one.uncertainty for one in found.tried])
    spread = max(float(np.ptp(nats)), LEAST_RANGE)
    first = [Tile(found.now, f"moment {asked.moment:,}", "now")]
    if found.after is not None:
        copied = f"what came; keeping the last frame: error {found.copy_error:.3g}"
        first.append(Tile(found.after, f"moment {asked.moment + 1:,}", copied, mark=True))
    tiles = []
    for one, unsure in zip(found.tried, nats, strict=True):
        error = "" if one.error is None else f"error {one.error:.3g}{', the closest' if one is found.closest else ''}; "
        note = f"{error}{unsure:.2f} nats"
        label = written([one.action], asked.session.action_space)
        title = f"{label} (recorded)" if one.is_recorded else label
        tiles.append(Tile(one.expected, title, note, float((unsure - nats.min()) / spread), mark=one.is_recorded))
    why = "errors are against the frame that came" if found.after is not None else "nothing that can be read came of it, so there are no errors"
    more = f" {found.left_out:,} more actions are not drawn." if found.left_out else ""
    words = f"What each action would lead to from here; {why}. The wider and darker the border, the less sure.{more}"
    return sentence(words) + gallery(first, SIDE) + _fitting(tiles) + code_line(f"sweep(mind, session, {asked.moment}, frames={asked.frames})")


def plan_tried(answers: Answers, asked: Question) -> str:
    typed = asked.plan.strip() or words_for(asked.session, asked.moment)
    if not typed:
        return sentence(f"Nothing was done from moment {asked.moment:,}; type a plan, such as “{example(asked.session)}”.")
    found = what_if(asked.mind, asked.session, asked.moment, typed, asked.frames)
    cells = [_step("now", picture(Tile(found.now, f"moment {asked.moment:,}"), STRIP), "")]
    for h, (action, image, nats) in enumerate(zip(found.plan, found.expected, found.uncertainty, strict=True)):
        label = written([action], asked.session.action_space)
        error = f"error {found.errors[h]:.3g}" if h < len(found.errors) else ""
        imagined = picture(Tile(image, "imagined", ", ".join(part for part in (error, f"{nats:.2f} nats") if part)), STRIP)
        came = ""
        if h < len(found.came):
            came = picture(Tile(found.came[h], f"moment {asked.moment + h + 1:,}", f"held: error {found.copy_errors[h]:.3g}", mark=True), STRIP)
        cells.append(_step(f"{h + 1}. {label}", imagined, came))
    held = f" Held: what keeping moment {asked.moment:,} would score." if found.came else ""
    what = f"“{typed}”" if asked.plan.strip() else "What was really done"
    words = f"{what} from moment {asked.moment:,}, imagined blind: each picture follows from the imagined one before it. {found.why}{held}"
    strip = f'<div class="strip">{"".join(cells)}</div>'
    return sentence(words) + strip + code_line(f"what_if(mind, session, {asked.moment}, {typed!r}, frames={asked.frames})")


def attention(answers: Answers, asked: Question) -> str:
    found = attend(asked.mind, asked.session, asked.moment, asked.frames)
    code = code_line(f"attend(mind, session, {asked.moment}, frames={asked.frames})")
    if found is None:
        why = "they are defined for frames and actions in turn. Choose a latent model with a transformer."
        return sentence(f"Where a {type(asked.mind).__name__} looks is not told in numbers: {why}") + code
    did = written([asked.session.moment(asked.moment).executed], asked.session.action_space)
    changed = "" if found.changed else " Nothing changed next, so all of the frame is asked about."
    words = f"Of the prediction from moment {asked.moment:,} for {did}. {sentence_of(found.look)}{changed}"
    tiles = [Tile(image, title, words) for title, words, image in pictures_of(found.look, LOOKS)]
    return sentence(words) + gallery(tiles, LOOKS) + attention_table(found.numbers) + code


PANELS: dict[str, Callable[[Answers, Question], str]] = {
    "Reconstruction": reconstruction,
    "Prediction": prediction,
    "Every action": every_action,
    "What if": plan_tried,
    "Attention": attention,
}


def mind_facts(folder: Path, mind: WorldModel) -> str:
    """What is known of the mind, and how the library loads it."""
    weights, (height, width) = sum(weight.numel() for weight in mind.parameters()), mind.image_shape
    words = f"{type(mind).__name__} with {weights / 1e6:.2f} million weights; it sees {width} × {height} pixels, {mind.history} frames at most."
    code = f"mind = mind_from({str(folder)!r}, session.robot_type, session.action_space)"
    return sentence(f"{words} {_learned(folder)}") + code_line(code)


def _learned(folder: Path) -> str:
    loaded = Checkpoints(folder).load()
    if loaded is None:
        return ""
    counters, steps = loaded.state.get("counters", {}), loaded.state.get("run", {}).get("steps_done")
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(Checkpoints(folder).manifest(loaded.generation)["saved_ns"] / 1e9))
    lived = f" in a life of {steps:,} steps" if steps else ""
    words = f"It learned for {counters.get('updates', 0):,} updates{lived}, {counters.get('seconds', 0):.0f} s, and was saved {when}."
    return " ".join((words, *(f"{note}." for note in loaded.notes)))


def words_for(session: RecordingReader, moment: int) -> str:
    """What was really done from a moment on, as a plan; nothing where nothing was."""
    return written(recorded_plan(session, moment, SHOWN_PLAN), session.action_space)


def example(session: RecordingReader) -> str:
    """A plan for the session's robot, to show how one is written."""
    *_, first = session.action_space.candidates(2)[:2]
    return written([first] * 3, session.action_space)


# Parts


def _difference(one: np.ndarray, frame: np.ndarray) -> Tile:
    wrong = np.abs(one - frame.astype(np.float32) / 255)
    return Tile(np.clip(BRIGHTER * wrong, 0, 1), "difference", f"{BRIGHTER} times as bright as it is")


def _fitting(tiles: Sequence[Tile]) -> str:
    """The more there are, the smaller."""
    if len(tiles) <= FEW:
        return gallery(tiles, SIDE)
    return f'<div class="small">{gallery(tiles, STRIP)}</div>'


def _skill(skill: float | None, over: str) -> str:
    return "" if skill is None else f": skill {skill:.2f} over {over} (1 is perfect, 0 as good)"


def _step(title: str, above: str, below: str) -> str:
    return f"<div><b>{escape(title)}</b>{above}{below or '<i></i>'}</div>"
