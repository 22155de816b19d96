"""RobotRunner: a robot acts, and nothing learns. It counts what was done and how long it took; a person may look on, or decide."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from threading import Event as Flag
from typing import Any

from motorbabble.bounds import Bounds, BoundsConfig
from motorbabble.display import Display, DisplayConfig
from motorbabble.experience import Choice, Selector, Situation, Step
from motorbabble.life import History, check_delay, live
from motorbabble.robots.interface import RobotInterface
from motorbabble.selectors import InteractiveSelector, RandomSelector
from motorbabble.tracking import timing


class RobotRunner:
    """Acts without learning: no network, no checkpoint.

    action_selector: random unless given. interactive: a person accepts, replaces or stops each action. display_interval: every so
    many steps the frame is shown with step and action, in a window or else in the file `view`; 0: never, unless it is interactive.
    action_delay: seconds that pass after each action. ask, say: like `input` and `print`. bounds: what else ends it; said when it does.
    """

    def __init__(
        self,
        robot: RobotInterface,
        action_selector: Selector | None = None,
        interactive: bool = False,
        display_interval: int = 0,
        action_delay: float = 0.0,
        *,
        view: Path | str | None = None,
        ask: Callable[[str], str] = input,
        say: Callable[[str], Any] = print,
        bounds: BoundsConfig | None = None,
    ):
        self.robot, self.action_selector = robot, action_selector or RandomSelector()
        self.interactive, self.display_interval, self.action_delay = interactive, display_interval, check_delay(action_delay)
        self.view = Path(view) if view else Path("saved/cards") / robot.robot_type / "runner" / "view.png"
        self.ask, self.say = ask, say
        self.bounds = bounds or BoundsConfig()
        self.counts: Counter[str] = Counter()
        self.started_ns: list[int] = []
        self.durations: list[float] = []  # seconds

    def run(self, max_steps: int | None = None, stop: Flag | None = None) -> dict[str, float]:
        """Act until `max_steps`, `stop` or the end of a recording; returns `statistics()`."""
        space, stop = self.robot.action_space, stop or Flag()
        history, select = History(space, frames=1), self.action_selector
        display, bounds = self._display(), Bounds(self.bounds, self.robot, stop)

        def consider(situation: Situation, choice: Choice) -> list[str]:
            done = [f"{label} x {count}" for label, count in sorted(self.counts.items())]
            return [*(display.consider(situation, choice) if display else []), *(["so far: " + ", ".join(done)] if done else [])]

        if self.interactive:
            select = InteractiveSelector(select, stop, self.ask, self.say, consider)
        try:
            for event in live(self.robot, select, stop=stop, steps=max_steps, history=history, action_delay=self.action_delay):
                if isinstance(event, Step):
                    self.counts[space.label(event.executed)] += 1
                    self.started_ns.append(event.started_ns)
                    self.durations.append((event.ended_ns - event.started_ns) / 1e9)
                if why := bounds(event):
                    self.say(why)
                if display:
                    display(event, Situation(history.window(), space, step=event.index if isinstance(event, Step) else 0))
            if stop.is_set():
                self.robot.stop()
        finally:
            if display:
                display.close()
        return self.statistics()

    def _display(self) -> Display | None:
        if not (self.interactive or self.display_interval):
            return None
        return Display(self.view, DisplayConfig(self.interactive, True, self.display_interval or 10), self.say)

    def statistics(self) -> dict[str, float]:
        """Counts and shares of each action, seconds per action and between actions."""
        total = sum(self.counts.values())
        intervals = [(b - a) / 1e9 for a, b in zip(self.started_ns, self.started_ns[1:], strict=False)]
        return {
            "steps": total,
            **{f"count/{label}": count for label, count in self.counts.items()},
            **{f"share/{label}": count / total for label, count in self.counts.items()},
            **timing("action_timing/{}_duration", self.durations),
            **timing("action_timing/{}_interval", intervals),
        }
