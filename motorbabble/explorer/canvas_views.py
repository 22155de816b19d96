"""What the canvas tab shows of a run: how far it is, frames, canvases, the loss of every gradient step, four plots over iterations.

Everything is drawn once for all browsers; what stands beside an error is what keeping the frame before would have scored on the same frame.
"""

import math

from motorbabble.explorer.canvas_job import CANVAS_SIDE, SIDE, CanvasJob, Iteration, OnCanvas, OnShow
from motorbabble.explorer.parts import code_line, facts, gallery, plot, sentence
from motorbabble.explorer.redrawn import Redrawn, thinned
from motorbabble.explorer.workshop import Job, Workshop
from motorbabble.figures import Tile, curve_png

BIG = (6.4, 3.2)  # inches


class Stage:
    """What all browsers see of the newest run."""

    def __init__(self):
        self._canvas: OnCanvas | None = None
        self._losses, self._plots = Redrawn(), Redrawn()
        self._frames, self._canvases = Redrawn(0.0), Redrawn(0.0)

    def newest(self, workshop: Workshop) -> OnCanvas | None:
        """Still there when something else is worked on."""
        if isinstance(workshop.job, CanvasJob):
            self._canvas = workshop.job.canvas
        return self._canvas

    def pictures(self, canvas: OnCanvas, show: OnShow) -> tuple[str, str]:
        key = (id(canvas), show.drawn)
        frames = self._frames(key, lambda: gallery(show.frames, SIDE) if show.frames else "")[1]
        return frames, self._canvases(key, lambda: canvases_of(show.canvases))[1]

    def losses(self, canvas: OnCanvas, goes_on: bool) -> tuple[int, str]:
        return self._losses((id(canvas), len(canvas.losses)), lambda: losses_of(canvas), at_once=not goes_on)

    def plots(self, canvas: OnCanvas, goes_on: bool) -> tuple[int, str]:
        lived = canvas.show.iterations
        return self._plots((id(canvas), len(lived)), lambda: plots_of(lived), at_once=not goes_on)


def canvases_of(canvases: tuple[Tile, ...]) -> str:
    return f"<h3 class=part>On the canvas: each bar is an action, in its colour and in words</h3>{gallery(canvases, CANVAS_SIDE)}" if canvases else ""


def progress_of(canvas: OnCanvas, show: OnShow, job: Job | None) -> str:
    """How far it is, and the numbers of the newest iteration. `job`: the one at work, if it is this canvas's."""
    pairs: list[tuple[str, object]] = [("Session", f"{canvas.session}, with {canvas.checkpoint or 'a new model'}"), ("Now", show.doing)]
    lived, bar = show.iterations, ""
    if isinstance(job, CanvasJob):
        done = len(lived) - job.before
        bar = f'<progress class="lesson" max="{job.iterations}" value="{done}" aria-label="iterations done"></progress>'
        pairs.append(("Iterations", f"{done} of {job.iterations}, {len(lived)} in all{_left(lived, job.iterations - done)}"))
    else:
        pairs.append(("Iterations", f"{len(lived)} in all"))
    if lived:
        last = lived[-1]
        trained = (
            f"{last.updates} update{'s' * (last.updates != 1)}, loss {last.loss:.3g} (1 is showing the mean frame), {GATES.get(last.gate, last.gate)}"
        )
        pairs.append(("Training", trained if last.updates else "nothing to train on yet: a canvas needs a frame before"))
        pairs.append(("Prediction", predicted(last)))
        pairs.append(("Time", f"{last.seconds:.2f} s for this iteration, {sum(i.seconds for i in lived):.1f} s in all"))
    return bar + facts(pairs) + (sentence(f"It is saved as {show.saved}.", "good") if show.saved else "")


GATES = {
    "passed": "which was good enough",
    "budget": "which is all it may have per iteration",
    "stalled": "which brought no more progress",
    "learning": "stopped in between",
}


def predicted(last: Iteration) -> str:
    if last.error is None or last.copy_error is None:
        return "none yet: it needs some frames of one episode first"
    against = f"keeping the frame before: {last.copy_error:.2g}"
    skill = f", skill {1 - last.error / last.copy_error:.2f}" if last.copy_error > 0 else ", where nothing moved"
    return f"squared error {last.error:.2g} ({against}{skill})"


def losses_of(canvas: OnCanvas) -> str:
    line = thinned(list(canvas.losses))
    if not line[0]:
        return ""
    png = curve_png({"loss": line}, x_label="gradient step", y_label="training loss (log)", log=True, level=1.0, inches=BIG)
    words = f"Training loss of every gradient step on a log scale, now {line[1][-1]:.3g}; 1 is showing the mean frame"
    zeros = sum(loss == 0 for _, loss in list(canvas.losses))
    unseen = f"{zeros} losses are exactly 0, which a log scale cannot show: nothing moved, and the model begins by keeping the last frame."
    return plot(png, words) + (sentence(unseen) if zeros else "")


def plots_of(lived: tuple[Iteration, ...]) -> str:
    """Training loss, updates, prediction error and time of every iteration."""
    if not lived:
        return ""
    number = list(range(1, len(lived) + 1))

    def line(values: list[float | None]) -> tuple[list[float], list[float]]:
        return thinned([(x, y) for x, y in zip(number, values, strict=True) if y is not None and math.isfinite(y)])

    def drawn(what: dict[str, list[float | None]], label: str, log: bool = False) -> str:
        lines = {name: line(values) for name, values in what.items()}
        if not any(y > (0 if log else -math.inf) for _, ys in lines.values() for y in ys):
            return sentence(f"No {label.partition(' (')[0]} that could be drawn yet.")
        return plot(curve_png(lines, x_label="iteration", y_label=label, log=log, inches=BIG), f"{label} over {len(lived)} iterations")

    errors: dict[str, list[float | None]] = {"the model": [i.error for i in lived], "keeping the frame before": [i.copy_error for i in lived]}
    four = (
        drawn({"loss": [i.loss for i in lived]}, "training loss (log)", log=True),
        drawn({"updates": [float(i.updates) for i in lived]}, "training updates"),
        drawn(errors, "prediction error (squared)"),
        drawn({"seconds": [i.seconds for i in lived]}, "seconds of the iteration"),
    )
    return f'<div class="four">{"".join(four)}</div>'


def code_of(canvas: OnCanvas) -> str:
    first = f", first={canvas.settings.first}" if canvas.settings.first else ""
    robot = f'robot = ReplayRobot("{canvas.reader.folder}"{first})'
    return code_line(
        f"{robot}; AutoencoderConcatPredictorWorldModel(robot, create_recorded_action_selector(robot), max_updates={canvas.settings.updates}).run(10)"
    )


def _left(lived: tuple[Iteration, ...], more: int) -> str:
    if not lived or more < 1:
        return ""
    seconds = more * sum(i.seconds for i in lived[-10:]) / len(lived[-10:])
    return f", about {seconds:.0f} s left" if seconds < 90 else f", about {seconds / 60:.0f} min left"
