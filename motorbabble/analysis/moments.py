"""Moments: what a mind makes of one moment of a recorded session, beside what was recorded.

    reconstruct(mind, session, 12)            its frame as the mind decodes it
    predict(mind, session, 12, frames=2)      its frame, from the two before it
    sweep(mind, session, 12)                  every action tried on it
    what_if(mind, session, 12, "move*3 stay") a plan tried on it
    attend(mind, session, 12)                 where the prediction from it looks

`mind` is a WorldModel, `session` a RecordingReader. Moments are counted from 0; what is predicted *from* moment m is held to the frame of
m + 1, and what is predicted *for* it comes from m - 1. Frames are those behind the mind's door, (h, w, 3) uint8; pictures are
(h, w, 3) float in [0, 1]; errors are mean squared errors of full brightness, of all pixels; uncertainty is in nats. A moment that is
damaged, or from which nothing was done, is refused in a sentence: SessionDamaged or RecordingError.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from motorbabble.analysis.attention import Look, attention_numbers, look
from motorbabble.analysis.card import imagined, thinking
from motorbabble.analysis.plans import plan_of
from motorbabble.analysis.scores import Trial, mse, on_screen, skill
from motorbabble.analysis.view import reconstruction
from motorbabble.errors import ConfigurationError, RecordingError, SessionDamaged
from motorbabble.experience import Action, ActionSpace, Situation, Window, has_moved
from motorbabble.recording.reader import RecordingReader
from motorbabble.world_models.base import WorldModel

MEAN_OF = 64  # frames, spread evenly over a session
ALIKE = 0.02  # of an encoded channel, which spans 2: a typed number is seldom the recorded one to its last digit


@dataclass(frozen=True)
class Reconstruction:
    """A frame as the mind decodes it. `mean_error`: what the session's mean frame would score."""

    frame: np.ndarray
    decoded: np.ndarray
    error: float
    mean_error: float

    @property
    def skill(self) -> float | None:
        """Over the mean frame: 1 is perfect, 0 as good; None where every frame is the same."""
        return skill(self.error, self.mean_error)


@dataclass(frozen=True)
class Prediction:
    """A recorded frame and what the mind, at the moment before it, expected of the action that was executed."""

    frame: np.ndarray
    expected: np.ndarray
    before: np.ndarray  # the newest frame it was predicted from, which copy-last keeps
    frames: int  # how many it was predicted from
    action: Action
    error: float
    copy_error: float
    uncertainty: float

    @property
    def skill(self) -> float | None:
        """Over copy-last; None where nothing changed."""
        return skill(self.error, self.copy_error)


@dataclass(frozen=True)
class Tried:
    """One action of a sweep. `error` of its picture against the frame that was recorded next, whatever was done; None without one."""

    action: Action
    label: str
    expected: np.ndarray
    uncertainty: float
    error: float | None
    is_recorded: bool


@dataclass(frozen=True)
class Sweep:
    """Every action tried on one moment; `left_out`: how many of a longer list were not."""

    now: np.ndarray
    after: np.ndarray | None  # what came; None where nothing was recorded behind it
    tried: Sequence[Tried]
    copy_error: float | None
    left_out: int

    @property
    def closest(self) -> Tried | None:
        """Whose picture is nearest to what came."""
        return min((one for one in self.tried if one.error is not None), key=lambda one: one.error or 0.0, default=None)


@dataclass(frozen=True)
class WhatIf:
    """A plan of H actions imagined blind, beside the frames that came as long as the recorded actions are those of the plan."""

    now: np.ndarray
    plan: Sequence[Action]
    expected: np.ndarray  # (H, h, w, 3) float
    uncertainty: Sequence[float]  # H
    came: Sequence[np.ndarray]  # up to H
    errors: Sequence[float]  # as many
    copy_errors: Sequence[float]  # of holding `now`
    why: str  # a sentence: how far the recording goes along


@dataclass(frozen=True)
class Attention:
    """`numbers` as on the card (docs/attention.md), of this moment alone; `look` for the pictures. `changed`: whether anything did."""

    numbers: Mapping[str, Any]
    look: Look
    changed: bool


def reconstruct(mind: WorldModel, session: RecordingReader, moment: int, mean: np.ndarray | None = None) -> Reconstruction:
    """`mean`: what `mean_frame_of` answers, where it is known already."""
    image = session.image(moment)
    window = Window(image[None], np.zeros((0, mind.action_size), np.float32))
    decoded, error = reconstruction(Situation(window, session.action_space, mind))
    mean = mean_frame_of(session, mind) if mean is None else mean
    frame = mind.at_the_door(image)
    return Reconstruction(frame, on_screen(decoded), error, float(mse(mean, frame)))


def predict(mind: WorldModel, session: RecordingReader, moment: int, frames: int | None = None) -> Prediction:
    """`frames`: how many earlier ones to predict from, 1 to `mind.history`; fewer where the stretch begins. None: as many as it looks at."""
    image = session.image(moment)
    if not session.follows(moment):
        raise RecordingError(f"moment {moment} of {session.name} begins a stretch, so there is nothing to predict it from; choose a later one")
    window = _window(mind, session, moment - 1, frames)
    action = session.encoded_action(moment - 1)
    with thinking(mind):
        images, nats = imagined(mind, window, action[None, None])
    expected, frame, before = on_screen(images[0, 0]), mind.at_the_door(image), window.images[-1]
    executed = session.moment(moment - 1).executed
    return Prediction(frame, expected, before, len(window), executed, float(mse(expected, frame)), _copied(before, frame), float(nats[0, 0]))


def sweep(mind: WorldModel, session: RecordingReader, moment: int, frames: int | None = None, most: int | None = None) -> Sweep:
    """All actions of a list of up to 64; of a longer one or of a box `most` (64, or 8) of them, always the same. The recorded one is among them."""
    space, window = session.action_space, _window(mind, session, moment, frames)
    recorded = session.moment(moment).executed if session.moment(moment).is_step else None
    actions = space.candidates(most)
    if recorded is not None:
        session.encoded_action(moment)  # which refuses what the space does not hold
        actions += [space.check(recorded)] if space.check(recorded) not in actions else []
    with thinking(mind):
        images, nats = imagined(mind, window, np.stack([space.encode(action) for action in actions])[:, None])
    after, images = _came(mind, session, moment), on_screen(images[:, 0])
    errors = [None] * len(actions) if after is None else mse(images, after).tolist()
    tried = [
        Tried(action, space.label(action), image, float(unsure), error, recorded is not None and dict(action) == space.check(recorded))
        for action, image, unsure, error in zip(actions, images, nats[:, 0], errors, strict=True)
    ]
    now, left_out = window.images[-1], max(len(space.actions or ()) - len(actions), 0)
    return Sweep(now, after, tried, None if after is None else _copied(now, after), left_out)


def what_if(mind: WorldModel, session: RecordingReader, moment: int, plan: str | Sequence[Action], frames: int | None = None) -> WhatIf:
    """`plan`: actions, or words that `plan_of` understands (ActionError where it does not)."""
    space = session.action_space
    actions = plan_of(plan, space) if isinstance(plan, str) else [space.check(action) for action in plan]
    window = _window(mind, session, moment, frames)
    with thinking(mind):
        images, nats = imagined(mind, window, np.stack([space.encode(action) for action in actions])[None])
    now, expected = window.images[-1], on_screen(images[0])
    came, why = _along(mind, session, moment, actions)
    errors = [float(mse(image, frame)) for image, frame in zip(expected, came, strict=False)]
    return WhatIf(now, actions, expected, nats[0].tolist(), came, errors, [_copied(now, frame) for frame in came], why)


def recorded_plan(session: RecordingReader, moment: int, most: int = 8) -> list[Action]:
    """What was executed from a moment on, up to `most` actions; fewer where the stretch ends."""
    plan: list[Action] = []
    while len(plan) < most and (not plan or session.follows(moment + len(plan))):
        try:
            found = session.moment(moment + len(plan))
            if not found.is_step:
                break
            session.encoded_action(moment + len(plan))
        except RecordingError:
            break
        plan.append(found.executed)
    return plan


def attend(mind: WorldModel, session: RecordingReader, moment: int, frames: int | None = None) -> Attention | None:
    """Of the prediction from this moment for the action that was executed; None for models whose attention is not told in numbers."""
    window, action = _window(mind, session, moment, frames), session.encoded_action(moment)
    after = _came(mind, session, moment)
    after = window.images[-1] if after is None else after
    trial = Trial(window, action, after, None, has_moved(window.images[-1], after))
    with thinking(mind):
        numbers = attention_numbers(mind, [trial])
        looked = look(mind, trial, everywhere=True)
    return None if numbers is None or looked is None else Attention(numbers, looked, trial.moved)


def mean_frame_of(session: RecordingReader, mind: WorldModel, most: int = MEAN_OF) -> np.ndarray:
    """(h, w, 3) float: the mean of up to `most` frames, spread evenly over the session; damaged ones are passed over."""
    found = []
    for number in np.unique(np.linspace(0, len(session) - 1, most).round().astype(int)).tolist():
        try:
            found.append(mind.at_the_door(session.image(number)))
        except SessionDamaged:
            continue
    if not found:
        raise SessionDamaged(f"of {most} frames spread over {session.name} none can be read; babble sessions check {session.name} says why")
    return np.stack(found).mean(0, dtype=np.float32) / 255


# Parts


def _window(mind: WorldModel, session: RecordingReader, moment: int, frames: int | None) -> Window:
    """What the mind sees at a moment, through its door."""
    frames = mind.history if frames is None else frames
    if not 1 <= frames <= mind.history:
        raise ConfigurationError(f"frames is {frames}; this model looks at 1 to {mind.history}")
    return mind.check_window(session.window_ending_in(moment, frames))


def _came(mind: WorldModel, session: RecordingReader, moment: int) -> np.ndarray | None:
    """The frame after a moment, if one that can be read came of it."""
    try:
        return mind.at_the_door(session.image(moment + 1)) if session.follows(moment + 1) else None
    except SessionDamaged:
        return None


def _along(mind: WorldModel, session: RecordingReader, moment: int, plan: Sequence[Action]) -> tuple[list[np.ndarray], str]:
    """The frames that came while what was executed is the plan, and a sentence on why there are no more."""
    space, came = session.action_space, list[np.ndarray]()
    for action, executed in zip(plan, recorded_plan(session, moment, len(plan)), strict=False):
        number = moment + len(came)
        if not _alike(action, executed, space):
            return came, f"At moment {number} “{space.label(executed)}” was done instead, so nothing tells what would have come."
        after = _came(mind, session, number)
        if after is None:
            break
        came.append(after)
    if len(came) == len(plan):
        return came, "All of the plan was really done, so every picture has the frame that came beside it."
    return came, f"Nothing that can be read was recorded behind moment {moment + len(came)}, so there is nothing to compare with."


def _alike(one: Action, other: Action, space: ActionSpace) -> bool:
    if space.actions is not None:
        return space.check(one) == space.check(other)
    return bool(np.abs(space.encode(one) - space.encode(other)).max() <= ALIKE)


def _copied(before: np.ndarray, after: np.ndarray) -> float:
    return float(mse(before.astype(np.float32) / 255, after))
