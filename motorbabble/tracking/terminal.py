"""A terminal a person likes to look at: how far life is, how skill rises, what was chosen and why."""

import time
from collections import deque
from typing import TYPE_CHECKING

from motorbabble.experience import ActionSpace, Event, Step, Study

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


class Terminal:
    """A live panel: how far life is, how skill rises, what was chosen and why. Plain lines where there is no terminal."""

    def __init__(
        self,
        title: str,
        space: ActionSpace,
        steps: int | None,
        seconds: float | None = None,
        console: "Console | None" = None,
        panel: bool = True,
    ):
        from rich.console import Console
        from rich.live import Live

        self.title, self.space, self.steps, self.seconds = title, space, steps, seconds
        self.console = console or Console()
        self.skills: deque[float] = deque(maxlen=2000)
        self.counts: dict[str, int] = {}
        self.step: Step | None = None
        self.study: Study | None = None
        self.began = self._said = time.monotonic()
        self._live = Live(console=self.console, auto_refresh=False, transient=False) if panel and self.console.is_terminal else None

    def __enter__(self) -> "Terminal":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exc_info) -> None:
        if self._live:
            if self.study:
                self._live.update(self.panel(), refresh=True)
            self._live.stop()

    def __call__(self, event: Event, skill: float) -> None:
        """`skill`: of the newest predictions, each scored before its outcome was learned from."""
        if isinstance(event, Step):
            self.step = event
            label = self.space.label(event.executed)
            self.counts[label] = self.counts.get(label, 0) + 1
        elif isinstance(event, Study):
            self.study = event
            self.skills.append(skill)
        every = 0.25 if self._live else 10.0
        if self.study and time.monotonic() - self._said >= every:
            self._said = time.monotonic()
            if self._live:
                self._live.update(self.panel(), refresh=True)
            else:
                self.console.print(self.line(), highlight=False)

    def line(self) -> str:
        assert self.study
        done = self.step.index + 1 if self.step else 0
        return (
            f"step {done}  update {self.study.update}  {self.study.seconds:.0f} s learning  prediction skill {_skill(self.skills)}  {self.study.gate}"
        )

    def panel(self) -> "RenderableType":
        from rich.markup import escape
        from rich.panel import Panel
        from rich.table import Table

        assert self.study
        done = self.step.index + 1 if self.step else 0
        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold", no_wrap=True)
        table.add_column()
        table.add_row("life", f"{_bar(self._share(done))}  {self._how_far(done)}")
        table.add_row("prediction skill", f"{_bar(max(0.0, self.skills[-1] if self.skills else 0.0), 'green')}  {_skill(self.skills)}")
        table.add_row("over time", f"[green]{sparkline(self.skills, 40)}[/]  0 = no better than 'nothing changes', 1 = perfect")
        seen = self.study.losses.get("reconstruction_skill")
        if seen is not None:
            clear = f"{seen:.2f}, where 0 is the mean picture" if seen > 0 else "not yet clearer than the mean picture"
            table.add_row("sees", f"{_bar(max(0.0, seen), 'cyan')}  {clear}; {_GATES[self.study.gate]}")
        if self.step:
            table.add_row("did", escape(f"{self.space.label(self.step.executed)}: {self.step.choice.why}"))
            table.add_row("so far", escape("   ".join(f"{label} x {count}" for label, count in sorted(self.counts.items()))))
        return Panel(table, title=self.title, title_align="left", border_style="dim")

    def _share(self, done: int) -> float:
        shares = [done / self.steps if self.steps else 0.0, self.study.seconds / self.seconds if self.seconds and self.study else 0.0]
        return min(1.0, max(shares))

    def _how_far(self, done: int) -> str:
        elapsed = time.monotonic() - self.began
        rate = f"{self.study.update / elapsed:.1f} updates/s" if self.study and elapsed > 1 else ""
        share = self._share(done)
        left = f"about {elapsed * (1 - share) / share:.0f} s left" if 0.02 < share < 1 else ""
        return "   ".join(part for part in (f"{done} steps", f"{elapsed:.0f} s", rate, left) if part)


_GATES = {
    "learning": "the robot waits",
    "passed": "well enough to act",
    "budget": "waited, and acts",
    "stalled": "no longer improving, so it acts",
    "diverged": "diverged, and stopped",
    "beside": "learned beside the robot",
}


def _skill(skills: deque[float]) -> str:
    return f"{skills[-1]:.2f}" if skills else "not yet"


def _bar(share: float, color: str = "blue", width: int = 30) -> str:
    full = round(min(1.0, share) * width)
    return f"[{color}]{'━' * full}[/][dim]{'─' * (width - full)}[/]"


def sparkline(values, width: int) -> str:
    """`values` from 0 to 1 as `width` characters at most; what lies below 0 is drawn as 0."""
    marks = "▁▂▃▄▅▆▇█"
    values = list(values)
    if not values:
        return ""
    step = max(1.0, len(values) / width)
    picked = [values[min(len(values) - 1, int((i + 1) * step) - 1)] for i in range(int(len(values) / step))]
    return "".join(marks[min(7, int(max(0.0, value) * 8))] for value in picked)
