"""How cost grows with what a robot gathers: `python benchmarks/growth.py`, a part of `make bench`.

Imagining 32 plans with 1 to 8 frames of history, and 2 to 128 plans with 8; opening a session of 1,000 to 100,000 moments and reading one
frame from its middle; and, with 1 to 1,000 recorded sessions of a few moments, listing them as the explorer does, opening one of them by its id and
reading a frame, and preparing what `babble train all` learns from. Everything takes turns, and the median of each is told. A table of
milliseconds goes to stderr, one JSON line to stdout, the section `growth` to benchmarks/results.json and the picture to
docs/performance.png, unless `--quick`; `--show` prints the table and draws the picture of what was found last.
"""

import io
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from measuring import RESULTS, Facts, flags, keep, kept, machine, markdown, timed
from memory import hundred_thousand
from variants import Variant, lived, plans_of

from motorbabble.agents import Run
from motorbabble.commands.train import Train, _windows
from motorbabble.experience import Step
from motorbabble.explorer.places import Places
from motorbabble.life import live
from motorbabble.recording.reader import RecordingReader
from motorbabble.recording.writer import RecordingWriter
from motorbabble.robots.toroidal_dot import ToroidalDotConfig, ToroidalDotRobot
from motorbabble.selectors import RandomSelector

HISTORIES, PLANS, MOMENTS, SESSIONS = (1, 2, 4, 8), (2, 8, 32, 128), (1_000, 10_000, 100_000), (1, 10, 100, 1_000)
FEW = 6  # moments of each of many sessions, enough for some windows
PICTURE = RESULTS.parent.parent / "docs" / "performance.png"
WORDS = {  # what grows; what is done then
    "history": ("frames of history", "32 plans imagined"),
    "plans": ("plans", "imagined with 8 frames of history"),
    "moments": ("moments in a session", "opened, one frame read"),
    "sessions_listed": ("sessions", "all listed, as the explorer does"),
    "sessions_opened": ("sessions", "one opened by id, one frame read"),
    "sessions_prepared": ("sessions", "made ready for `babble train all`"),
}
Grown = dict[str, list[list[float]]]  # of each thing that grows: (how many, milliseconds)


def growth(folder: Path, threads: int, rounds: int, sizes: Sequence[Sequence[int]] = (HISTORIES, PLANS, MOMENTS, SESSIONS), side: int = 224) -> Grown:
    """`sizes`: of histories, plans, moments and sessions."""
    histories, plans, moments, sessions = sizes
    minds = {many: lived(Variant("latent", side=side), threads, prediction_history_size=many) for many in histories}
    long = {many: hundred_thousand(folder / f"long{many}", many) for many in moments}
    shelves = {many: recorded_sessions(folder / f"many{many}", many) for many in sessions}
    works: dict[tuple[str, int], Callable[[], Any]] = {}
    works |= {("history", many): imagining(run, 32) for many, run in minds.items()}
    works |= {("plans", many): imagining(minds[max(histories)], many) for many in plans}
    works |= {("moments", many): lambda many=many: RecordingReader(long[many]).image(many // 2) for many in moments}
    for many, shelf in shelves.items():
        works["sessions_listed", many] = lambda shelf=shelf: Places(shelf, shelf, shelf / "none").sessions()
        works["sessions_opened", many] = lambda shelf=shelf, many=many: opened(shelf, many // 2)
        works["sessions_prepared", many] = lambda shelf=shelf: prepared(shelf)
    taken: dict[tuple[str, int], list[float]] = {which: [] for which in works}
    for _ in range(rounds):
        for which, work in works.items():
            taken[which] += timed(work, 1)
    found: Grown = {name: [] for name in WORDS}
    for (name, many), seconds in taken.items():
        found[name].append([many, round(1e3 * statistics.median(seconds), 2)])
    return found


def imagining(run: Run, many: int) -> Callable[[], Any]:
    plans = plans_of(run, many)
    return lambda: run.world_model.imagine(run.window, plans, pictures=False)


def recorded_sessions(root: Path, many: int) -> Path:
    """A folder of sessions of one robot, each of a few moments of 32 x 32 pixels, recorded as always."""
    for number in range(many):
        with (
            ToroidalDotRobot(ToroidalDotConfig(image_size=32, dot_radius=3, move_pixels=4), seed=number) as robot,
            RecordingWriter.create(root / robot.robot_type, robot.robot_type, robot.action_space, name=f"life{number}") as writer,
        ):
            for event in live(robot, RandomSelector(number), steps=FEW):
                assert isinstance(event, Step)
                writer.record(event)
    return root


def opened(shelf: Path, number: int) -> Any:
    """By its id, in a fresh explorer."""
    return Places(shelf, shelf, shelf / "none").session(f"toroidal_dot/life{number}").image(FEW // 2)


def prepared(shelf: Path) -> Any:
    """What `babble train all` does before its first update: sessions opened, some held out, windows counted and put in order."""
    windows, _, _ = _windows(["all"], Train(sessions=shelf, checkpoints=shelf / "none", patch_size=8))
    return windows.at(0)


def table(grown: Grown) -> str:
    """As it stands in docs/performance.md."""
    rows = []
    for name, points in grown.items():
        least, most = points[0], points[-1]
        sizes = ", ".join(f"{many:,.0f}" for many, _ in points)
        costs = ", ".join(f"{cost:,.0f}" if cost >= 100 else f"{cost:.1f}" for _, cost in points)
        grew = f"{most[0] / least[0]:,.0f} times", f"{most[1] / least[1]:.1f} times"
        rows.append((f"{WORDS[name][0]}: {WORDS[name][1]}", sizes, costs, *grew))
    return markdown(("what grows, and what is done", "how many", "milliseconds", "it grew", "the cost grew"), rows)


def picture(grown: Grown) -> bytes:
    """A PNG: a panel for each thing that grows, multiples of its least size and cost, both axes alike, so that linear growth is the diagonal."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    figure = Figure(figsize=(10.2, 7.4), dpi=120, layout="constrained", facecolor="#ffffff")
    panels: Any = figure.subplots(2, -(-len(grown) // 2), squeeze=False)
    for axes in panels.flat[len(grown) :]:
        axes.axis("off")
    for axes, (name, points) in zip(panels.flat, grown.items(), strict=False):
        sizes, costs = zip(*points, strict=True)
        across, up = [size / sizes[0] for size in sizes], [cost / costs[0] for cost in costs]
        most = max(*across, *up) * 1.35
        low = min(0.74, 0.8 * min(up))
        axes.plot([1, most], [1, most], "--", color="#555555", linewidth=1.4)
        axes.plot(across, up, "-o", color="#1f5fbf", linewidth=2.4, markersize=6)
        for scale, locator, limits in ((axes.set_xscale, axes.xaxis, axes.set_xlim), (axes.set_yscale, axes.yaxis, axes.set_ylim)):
            scale("log", base=2)
            limits(low, most)
            every = 2 if most > 40 else 1
            locator.set_major_locator(FixedLocator([2**power for power in range(-4, 12, every)]))
            locator.set_minor_locator(NullLocator())
            locator.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        middle = most**0.62
        axes.annotate("linear", (middle, middle), xytext=(-4, 4), textcoords="offset points", ha="right", fontsize=11, color="#555555")
        aside = (4, -36) if up[-1] > across[-1] / 16 else (4, 9)  # clear of the diagonal
        words = f"{up[-1]:.{1 if up[-1] < 100 else 0}f}"
        axes.annotate(words, (across[-1], up[-1]), xytext=aside, textcoords="offset points", ha="right", fontsize=12, color="#1f5fbf")
        grows, done = WORDS[name]
        axes.set_title(f"{grows}:\n{done.replace('`', '')}", fontsize=12)
        axes.set_xlabel(f"how many, times {sizes[0]:,.0f}", fontsize=12)
        axes.set_ylabel(f"time, times {costs[0]:.{1 if costs[0] < 10 else 0}f} ms", fontsize=12)
        axes.tick_params(labelsize=11)
        axes.grid(alpha=0.25)
        axes.set_aspect("equal")
    held = io.BytesIO()
    FigureCanvasAgg(figure).print_png(held)
    figure.clear()
    return held.getvalue()


def main() -> None:
    chosen = flags(__doc__, "two rounds, the least sizes", "the table and the picture", rounds=9)
    if chosen.show:
        grown = {name: kept("growth")[name] for name in WORDS}
        PICTURE.write_bytes(picture(grown))
        return print(table(grown))
    torch.set_num_threads(chosen.threads)
    facts = machine(chosen.threads)
    everything = (HISTORIES, PLANS, MOMENTS, SESSIONS)
    with tempfile.TemporaryDirectory() as folder:
        sizes = [some[:2] for some in everything] if chosen.quick else everything
        grown = growth(Path(folder), chosen.threads, 2 if chosen.quick else chosen.rounds, sizes)
    told: Facts = {"machine": facts, **grown}
    print(table(grown), file=sys.stderr)
    if not chosen.quick:
        keep("growth", told)
        PICTURE.write_bytes(picture(grown))
    print(json.dumps(told))


if __name__ == "__main__":
    main()
