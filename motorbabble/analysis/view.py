"""View: what a mind sees, what it expected, and what it imagines for every action, in one picture.

    view = View()
    for event in run:
        view.watch(event, run.situation)  # one imagination of one action per Step
        if worth_showing:
            view.picture()  # (H, W, 3) uint8

"Last prediction" is meant literally: the picture of the action that was then done, imagined before its outcome was seen or
learned from, beside the frame that came. So it is kept, and never imagined again. Looking changes nothing: a life that is
watched is, bit for bit, the life nobody watched.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from motorbabble.analysis.canvas import SIDE, canvas_of, drawn, reconstructed_canvas, with_frame, words_of
from motorbabble.analysis.card import thinking
from motorbabble.experience import Action, ActionSpace, Choice, Ending, Event, Situation, Step, Window
from motorbabble.figures import Tile, sheet, to_uint8
from motorbabble.world_models.base import WorldModel
from motorbabble.world_models.canvas import CanvasWorldModel

MOST = 12  # actions drawn at once
_CANVASES = 4  # actions drawn on canvases of their own
LEAST_RANGE = 0.1  # nats: actions that differ by less are about equally uncertain, and their borders look it


@dataclass(frozen=True)
class Prediction:
    """What one action was expected to show: `image` (h, w, 3) float as the model gives it; `before` (h, w, 3) uint8 as it saw it."""

    label: str
    image: np.ndarray
    before: np.ndarray
    step: int
    episode: int


@dataclass(frozen=True)
class Outcome:
    """A prediction beside what came: mean squared errors of full brightness, of the prediction and of keeping the frame before."""

    prediction: Prediction
    error: float
    copy_error: float


class View:
    """`watch` every event, or `consider` a moment before anything is done in it; then ask for the `picture`.

    A situation without a world model (a robot that runs by a script) is drawn as its frame alone.
    """

    def __init__(self, most: int = MOST, side: int = 224):
        self.most, self.side = most, side
        self.situation: Situation | None = None  # the newest moment considered
        self.choice: Choice | None = None
        self.last: Outcome | None = None  # of the action that led here; None where an episode begins or nothing was imagined
        self._foreseen: Prediction | None = None
        self._left: tuple[Situation, np.ndarray] | None = None  # the moment before, and the encoded action that was done in it
        self._lived: Window | None = None  # that moment's window and the newest frame: a canvas with nothing left to predict

    def watch(self, event: Event, situation: Situation) -> None:
        """`situation` is the one the event came from, its window ending in the event's frame."""
        if isinstance(event, Step):
            situation = replace(situation, step=event.index, episode=event.observation.episode)
            self.consider(situation, event.choice)
            self._foresee(situation, event.executed)
            self._left = (situation, situation.action_space.encode(event.executed))
        elif isinstance(event, Ending):
            self._foreseen = None

    def consider(self, situation: Situation, choice: Choice | None = None) -> None:
        """The newest moment, and what was chosen, or is proposed, in it."""
        self.situation, self.choice, self.last, self._lived = situation, choice, None, None
        before = self._left
        if before and (before[0].step + 1, before[0].episode) == (situation.step, situation.episode):
            self._lived = with_frame(before[0].window, situation.window.images[-1], before[1])
        model, seen = situation.world_model, self._foreseen
        if model and seen and (seen.step + 1, seen.episode) == (situation.step, situation.episode):
            frame = model.at_the_door(situation.window.images[-1])
            self.last = Outcome(seen, _mse(seen.image, frame), _mse(seen.before, frame))

    def picture(self) -> np.ndarray:
        """(H, W, 3) uint8: now, decoded, the last prediction; then each action with its uncertainty, which its border shows too."""
        assert self.situation is not None, "consider a moment first"
        chosen = f", chose {self.situation.action_space.label(self.choice.action)}: {self.choice.why}" if self.choice else ""
        side = self.side if self.situation.world_model else 2 * self.side
        return sheet(self.groups(), f"Step {self.situation.step}{chosen}", side=side)

    def groups(self) -> list[tuple[str, list[Tile]]]:
        """What `picture` puts on one sheet, group by group under a title each."""
        assert self.situation is not None, "consider a moment first"
        situation, model = self.situation, self.situation.world_model
        if model is None:
            return [("", [Tile(situation.window.images[-1], "now")])]
        with thinking(model):
            groups = [("What it sees", self._seen(situation, model)), self._imagined(situation, model)]
            if isinstance(model, CanvasWorldModel) and (tiles := self._on_canvas(situation, model)):
                groups.append(("On the canvas: each bar is an action, in its colour and in words", tiles))
        return groups

    def training_picture(self, situation: Situation, note: str = "") -> np.ndarray:
        """(H, W, 3) uint8: now beside its reconstruction, for the time in which the robot waits and only learns to see."""
        assert situation.world_model is not None, "there is nothing to train"
        with thinking(situation.world_model):
            return sheet([("", self._seen(situation, situation.world_model)[:2])], f"Step {situation.step}, learning to see. {note}", side=self.side)

    def sentences(self) -> list[str]:
        """Of the moment considered: how well it is seen, and how good the last prediction was."""
        assert self.situation is not None, "consider a moment first"
        if self.situation.world_model is None:
            return []
        loss = reconstruction(self.situation)[1]
        said = [f"reconstruction loss {loss:.4g}"]
        if self.last:
            said.append(f"last prediction ({self.last.prediction.label}) error {self.last.error:.4g} (copy-last {self.last.copy_error:.4g})")
        return said

    # Parts

    def _foresee(self, situation: Situation, executed: Action) -> None:
        self._foreseen, model, space = None, situation.world_model, situation.action_space
        if model is None:
            return
        with thinking(model):
            images = model.imagine(situation.window, space.encode(executed)[None, None]).images
        assert images is not None
        before = model.at_the_door(situation.window.images[-1])
        self._foreseen = Prediction(space.label(executed), _array(images[0, 0]), before, situation.step, situation.episode)

    def _seen(self, situation: Situation, model: WorldModel) -> list[Tile]:
        decoded, loss = reconstruction(situation)
        tiles = [Tile(model.at_the_door(situation.window.images[-1]), "now"), Tile(decoded, "decoded", f"reconstruction loss {loss:.2g}")]
        if self.last:
            note = f"error {self.last.error:.2g} (copy-last {self.last.copy_error:.2g})"
            tiles.append(Tile(self.last.prediction.image, f"last prediction: {self.last.prediction.label}", note))
        return tiles

    def _imagined(self, situation: Situation, model: WorldModel) -> tuple[str, list[Tile]]:
        space, taken = situation.action_space, self.choice.action if self.choice else None
        scores = self.choice.scores if self.choice else {}
        actions, left_out = shown_actions(space, taken, scores, self.most)
        imagined = model.imagine(situation.window, np.stack([space.encode(action) for action in actions])[:, None])
        assert imagined.images is not None
        nats = imagined.uncertainty[:, 0].float().cpu().numpy()
        spread = max(float(np.ptp(nats)), LEAST_RANGE)
        tiles = []
        for action, image, unsure in zip(actions, imagined.images[:, 0], nats, strict=True):
            word = ""
            if len(actions) > 1 and np.ptp(nats) >= LEAST_RANGE:
                word = ", least sure" if unsure == nats.max() else ", surest" if unsure == nats.min() else ""
            mark = " (chosen)" if action == taken else ""
            tiles.append(Tile(_array(image), space.label(action) + mark, f"{unsure:.2f} nats{word}", float((unsure - nats.min()) / spread)))
        more = f"; {left_out} more actions are not drawn" if left_out else ""
        return f"What it imagines for each action: the wider and darker the border, the less sure{more}", tiles

    def _on_canvas(self, situation: Situation, model: CanvasWorldModel) -> list[Tile]:
        """What it is trained on, its reconstruction, and what it is asked for every action; as soon as enough was lived."""
        space, count, tiles = situation.action_space, model.config.canvas_history_size, []
        if self._lived is not None and len(self._lived) == count:
            words = words_of(space, self._lived.actions)
            hidden = drawn(model, canvas_of(model, self._lived), words, hidden=True)
            painted = drawn(model, reconstructed_canvas(model, self._lived), words)
            tiles = [Tile(hidden, "what it is trained on", side=SIDE), Tile(painted, "its reconstruction", side=SIDE)]
        if len(situation.window) < model.history:
            return tiles
        actions, _ = shown_actions(space, self.choice.action if self.choice else None, self.choice.scores if self.choice else {}, _CANVASES)
        encoded = np.stack([space.encode(action) for action in actions])
        images = model.imagine(situation.window, encoded[:, None]).images
        assert images is not None
        for action, code, image in zip(actions, encoded, images[:, 0], strict=True):
            asked = with_frame(situation.window.last(model.history), to_uint8(_array(image)), code, model)
            canvas = drawn(model, canvas_of(model, asked), words_of(space, asked.actions), "next")
            tiles.append(Tile(canvas, f"if {space.label(action)}", side=SIDE))
        return tiles


def reconstruction(situation: Situation) -> tuple[np.ndarray, float]:
    """The newest frame as the model decodes it, (h, w, 3) float, and the mean squared error."""
    assert situation.world_model is not None
    frame = situation.world_model.at_the_door(situation.window.images[-1])
    with thinking(situation.world_model):
        decoded = _array(situation.world_model.reconstruct(frame[None])[0])
    return decoded, _mse(decoded, frame)


def shown_actions(space: ActionSpace, taken: Action | None, scores: Mapping[str, float], most: int) -> tuple[list[Action], int]:
    """The actions worth drawing, and how many others there are: all of a short list; else what was taken and what scored highest.

    Of ranges: at rest, some others, always the same ones, and what was taken.
    """
    actions = list(space.actions or space.candidates(min(8, most)))
    wanted = [] if taken is None else [dict(taken)]
    others = [action for action in actions if action not in wanted]
    if space.actions is None:
        return others[: most - len(wanted)] + wanted, 0
    if len(actions) <= most:
        return actions, 0
    ranked = sorted(others, key=lambda action: -scores.get(space.label(action), -np.inf))  # unscored ones keep their order, at the end
    kept = wanted + ranked[: most - len(wanted)]
    return [action for action in actions if action in kept], len(actions) - most


def _array(image) -> np.ndarray:
    """A tensor (3, h, w) as (h, w, 3) float on the CPU."""
    return image.float().cpu().numpy().transpose(1, 2, 0)


def _mse(a: np.ndarray, b: np.ndarray) -> float:
    one, other = (image / 255.0 if image.dtype == np.uint8 else image.astype(float) for image in (a, b))
    return float(np.square(one - other).mean())
