"""What stands on the canvas of a canvas world model, and the canvas drawn for people: every bar named in words, a hidden slot hatched.

A canvas itself is what the model is made for: (H, W, 3) uint8, frames and coloured bars. Red and green alone exclude some eyes, so
whatever shows one to a person goes through `drawn`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from motorbabble.analysis.html import picture, section
from motorbabble.analysis.scores import Trial, nearest
from motorbabble.errors import FrameError
from motorbabble.experience import ActionSpace, Window
from motorbabble.figures import captioned, hatched, to_uint8
from motorbabble.models.canvas import build_canvas, canvas_slot
from motorbabble.world_models.base import WorldModel
from motorbabble.world_models.canvas import CanvasWorldModel

SIDE = 480  # pixels of a canvas that is drawn


def canvas_of(model: CanvasWorldModel, window: Window) -> np.ndarray:
    """The canvas of a window of K frames."""
    return build_canvas(list(model.at_the_door(window.images)), list(window.actions), model.config.canvas_history_size, model.config.separator_width)


def with_frame(window: Window, frame: np.ndarray, action: np.ndarray, door: WorldModel | None = None) -> Window:
    """The window with one frame (H, W, 3) uint8 more, to which an encoded action (C,) led; a model's `door` makes its frames as small as that one."""
    images = window.images if door is None else door.at_the_door(window.images)
    return Window(np.concatenate((images, frame[None])), np.concatenate((window.actions.reshape(-1, len(action)), action[None])))


def predicted_canvas(model: CanvasWorldModel, window: Window, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The canvas on which the frame after an encoded action (C,) is painted, and that frame (h, w, 3) uint8."""
    seen = window.last(model.history)
    images = model.imagine(seen, action[None, None]).images
    assert images is not None
    frame = _picture(images[0, 0])
    return canvas_of(model, with_frame(seen, frame, action, model)), frame


def reconstructed_canvas(model: CanvasWorldModel, window: Window) -> np.ndarray:
    """A canvas of K frames as the model sees it: earlier frames decoded, the newest one painted from them."""
    seen = Window(window.images[:-1], window.actions[:-1])
    images = model.imagine(seen, window.actions[-1][None, None]).images
    assert images is not None
    decoded = [_picture(image) for image in model.reconstruct(seen.images)]
    return canvas_of(model, Window(np.stack([*decoded, _picture(images[0, 0])]), window.actions))


def frames_on(model: CanvasWorldModel, canvas: np.ndarray) -> np.ndarray:
    """The canvas cut back into its frames, (K, h, w, 3) uint8; FrameError where it is no canvas of this model."""
    (height, width), count, bar = model.image_shape, model.config.canvas_history_size, model.config.separator_width
    shape = (height, count * width + (count - 1) * bar, 3)
    if not isinstance(canvas, np.ndarray) or canvas.shape != shape or canvas.dtype != np.uint8:
        what = f"{canvas.shape} {canvas.dtype}" if isinstance(canvas, np.ndarray) else type(canvas).__name__
        raise FrameError(f"this model's canvas is {shape} uint8, {count} frames and the bars between them, not {what}; make it with build_canvas")
    return np.stack([canvas[:, canvas_slot(width, count, bar, slot)] for slot in range(count)])


def drawn(
    model: CanvasWorldModel, canvas: np.ndarray, bars: Sequence[str], newest: str = "now", *, hidden: bool = False, side: int = SIDE
) -> np.ndarray:
    """The canvas for people, (H, W, 3) uint8, at most `side` pixels wide: `bars` are the words over its K - 1 bars.

    The newest slot, hatched where it is `hidden` and else painted by the model, holds what is "now" or comes "next".
    """
    width, count, bar = model.image_shape[1], model.config.canvas_history_size, model.config.separator_width
    columns = [canvas_slot(width, count, bar, slot) for slot in range(count)]
    ago = [count - 1 - slot - (newest == "next") for slot in range(count - 1)]
    slots = [*("now" if n == 0 else f"{n} before" for n in ago), f"{newest}, {'hidden' if hidden else 'painted'}"]
    names = [((of.start, of.stop), name) for of, name in zip(columns, slots, strict=True)]
    words = [((of.stop, of.stop + bar), f"“{word}”") for of, word in zip(columns, bars, strict=False)]
    return captioned(hatched(canvas, columns[-1]) if hidden else canvas, [names, words], side)


# On the card


@dataclass(frozen=True)
class Canvases:
    """A moment on the canvas, drawn for people: with its newest slot hidden, as the model fills it, and one canvas per action."""

    hidden: np.ndarray
    reconstructed: np.ndarray
    bars: Sequence[str]  # of these two
    predicted: Sequence[np.ndarray]
    labels: Sequence[str]


def canvases_of(world_model: WorldModel, trials: Sequence[Trial], space: ActionSpace, most: int = 6) -> list[Canvases]:
    """Of the first trial before which enough was lived to fill a canvas, if there is one; none for other models."""
    if not isinstance(world_model, CanvasWorldModel):
        return []
    model = world_model
    trial = next((trial for trial in trials if len(trial.window) >= model.history), None)
    if trial is None:
        return []
    seen = trial.window.last(model.history)
    whole = with_frame(seen, trial.truth, trial.action)
    words = words_of(space, whole.actions)
    candidates = np.stack([space.encode(action) for action in space.candidates(most)[:most]])
    candidates[nearest(candidates, trial.action)] = trial.action
    asked = words_of(space, candidates)
    predicted = [predicted_canvas(model, seen, action)[0] for action in candidates]
    return [
        Canvases(
            drawn(model, canvas_of(model, whole), words, hidden=True),
            drawn(model, reconstructed_canvas(model, whole), words),
            words,
            [drawn(model, canvas, [*words[:-1], word], "next") for canvas, word in zip(predicted, asked, strict=True)],
            asked,
        )
    ]


def words_of(space: ActionSpace, actions: np.ndarray) -> list[str]:
    """Encoded actions (n, C) in words."""
    return [space.label(space.decode(action)) for action in actions]


def canvas_section(found: Sequence[Canvases]) -> str:
    """A section of the page; nothing for other models."""
    if not found:
        return ""
    note = (
        "The model sees frames side by side; the bar between two of them is the action that led from one to the next, in its colour and, here, "
        "in words. Where the newest frame is hidden it paints one; for another action only the last bar changes. Where it looks is not told in "
        "numbers: those of other cards are defined for frames and actions in turn, and here bars are patches as well."
    )
    return section("On the canvas", note, "".join(map(_moment, found)))


def _moment(found: Canvases) -> str:
    named = f"<br>bars from left to right: {escape(', '.join(f'“{word}”' for word in found.bars))}"
    tiles = [("what it is shown", found.hidden, named), ("its reconstruction", found.reconstructed, named)]
    tiles += [(f"if “{label}”", canvas, "") for label, canvas in zip(found.labels, found.predicted, strict=True)]
    return f"<div class=canvases>{''.join(picture(canvas, text, words, side=SIDE) for text, canvas, words in tiles)}</div>"


def _picture(image) -> np.ndarray:
    """A tensor (3, h, w) as (h, w, 3) uint8."""
    return to_uint8(image.float().cpu().numpy().transpose(1, 2, 0))
