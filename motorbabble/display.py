"""Display: the picture of a mind while it lives. In a window where there is a screen, else in a file that a viewer may reload.

It is fed the events of `live` and takes no longer than its own drawing. Where a person decides, it is drawn before the question
is put. What it shows is analysis/view.py; the borders are painted into the picture, so no axis can hide them. A display that
breaks (the window is closed, the disk is full) says so once, and life goes on.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

from motorbabble.analysis.view import View
from motorbabble.disk import Disk
from motorbabble.errors import ConfigurationError
from motorbabble.experience import Choice, Event, Situation, Step, Study
from motorbabble.figures import png_bytes
from motorbabble.selectors import InteractiveSelector

if TYPE_CHECKING:
    from motorbabble.agents import Run


@dataclass(frozen=True)
class DisplayConfig:
    interactive: bool = False  # a person is asked before every action: Enter, another action, or stop
    display: bool = False  # draw what it sees and imagines, in a window, or else in view.png beside the card
    display_interval: int = 10  # steps between two pictures; where a person is asked there is one before each question
    display_training: bool = True  # draw also while the robot waits and only learns to see, after so many updates

    def __post_init__(self):
        if self.display_interval < 1:
            raise ConfigurationError(f"display_interval is {self.display_interval}; give a positive number of steps")


class Screen(Protocol):
    def show(self, image: np.ndarray) -> None:
        """(H, W, 3) uint8, in place of what was there."""
        ...

    def close(self) -> None: ...


class Display:
    """Draws the first step and every tenth after it (`display_interval`); where a person is asked, each moment as it is considered.

    path: the picture's file, where there is no screen. say: hears where the picture is, and when there is no more of it.
    """

    def __init__(self, path: Path | str, config: DisplayConfig = DisplayConfig(), say: Callable[[str], Any] = print, screen: Screen | None = None):
        self.path, self.config, self.say, self.view = Path(path), config, say, View()
        self._screen, self._waited = screen, 0
        if screen is None and (config.display or config.interactive):
            self._screen = self._found()

    def __call__(self, event: Event, situation: Situation) -> None:
        """`situation` is the one the event came from, its window ending in the newest frame."""
        if self._screen is None:
            return
        interval, asked = self.config.display_interval, self.config.interactive
        if isinstance(event, Study):
            self._waited = self._waited + 1 if event.gate == "learning" else 0
            if self.config.display_training and self._waited and self._waited % interval == 0:
                note = f"Update {event.update}, the robot waits until it sees well enough."
                self._show(lambda: self.view.training_picture(situation, note))
            return
        due, next_due = (isinstance(event, Step) and not asked and (event.index + ahead) % interval == 0 for ahead in (0, 1))
        if asked or due or next_due or not isinstance(event, Step):  # what is shown next must have been imagined before
            self.view.watch(event, situation)
        if due:
            self._show(self.view.picture)

    def consider(self, situation: Situation, choice: Choice) -> list[str]:
        """Draw the moment in which `choice` is proposed; answers what should be said with it."""
        self.view.consider(situation, choice)
        self._show(self.view.picture)
        return self.view.sentences()

    def close(self) -> None:
        screen, self._screen = self._screen, None
        if screen:
            with suppress(Exception):  # a window that broke may not close either
                screen.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info) -> None:
        self.close()

    def _found(self) -> Screen:
        try:
            return Window.opened()
        except NoScreen as why:
            every = "before each question" if self.config.interactive else f"every {self.config.display_interval} steps"
            self.say(f"There is no window to draw in ({why}): what it sees and imagines goes into {self.path}, anew {every}.")
            return PictureFile(self.path)

    def _show(self, draw: Callable[[], np.ndarray]) -> None:
        if self._screen is None:
            return
        try:
            self._screen.show(draw())
        except Exception as error:  # of a picture, a window system or a disk: no reason to end a life
            self.say(f"The display ends here, the run goes on: {error}.")
            self.close()


def shown(run: "Run", path: Path | str, config: DisplayConfig, ask: Callable[[str], str] = input, say: Callable[[str], Any] = print) -> Display:
    """A display for `run`, to be fed its events. Where it is interactive, a person decides from now on."""
    display = Display(path, config, say)

    def consider(situation: Situation, choice: Choice) -> list[str]:
        return [*display.consider(situation, choice), f"lookahead {run.lookahead} (actions ahead that it predicts well at present)"]

    if config.interactive:
        run.select = InteractiveSelector(run.select, run.stop, ask, say, consider)
    return display


class NoScreen(Exception):
    pass


class Window:
    """A matplotlib figure that holds one image, however often it is drawn."""

    def __init__(self, figure: Any):
        self.figure, self.shape = figure, None

    @classmethod
    def opened(cls) -> "Window":
        """A new window; NoScreen where there is nothing to open it on."""
        try:
            import matplotlib.pyplot as plt

            figure = plt.figure("motorbabble")
        except Exception as error:  # no such backend, no library under it, no display: each raises another kind
            raise NoScreen(str(error).splitlines()[0]) from None
        if figure.canvas.required_interactive_framework is None:
            plt.close(figure)
            raise NoScreen(f"matplotlib's backend here is {plt.get_backend()}")
        return cls(figure)

    def show(self, image: np.ndarray) -> None:
        import matplotlib.pyplot as plt

        if not plt.fignum_exists(self.figure.number):
            raise NoScreen("its window was closed")
        if image.shape != self.shape:
            self.figure.clear()
            axes = self.figure.add_axes((0, 0, 1, 1))
            axes.set_axis_off()
            self.drawn = axes.imshow(image)
            self.figure.set_size_inches(image.shape[1] / self.figure.dpi, image.shape[0] / self.figure.dpi)
            if self.shape is None:
                self.figure.show(warn=False)  # once: later it would push itself before other windows
            self.shape = image.shape
        self.drawn.set_data(image)
        self.figure.canvas.draw_idle()
        self.figure.canvas.flush_events()

    def close(self) -> None:
        import matplotlib.pyplot as plt

        plt.close(self.figure)


class PictureFile:
    """A PNG that is replaced whole, so that whoever opens it never meets half a picture."""

    def __init__(self, path: Path):
        self.path = path

    def show(self, image: np.ndarray) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        Disk().write_whole(self.path, png_bytes(image, quick=True))

    def close(self) -> None:
        """What was shown last stays."""
