"""The picture of a mind while it lives: when it is drawn, where it goes, and that it never ends a life."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
from counting import Counting, write
from PIL import Image
from test_view import Oracle, tile_at

from motorbabble.analysis.view import View
from motorbabble.display import Display, DisplayConfig, Window
from motorbabble.errors import ConfigurationError
from motorbabble.experience import Choice, Situation, Study
from motorbabble.experience import Window as Seen
from motorbabble.figures import fit
from motorbabble.life import History, live
from motorbabble.selectors import RandomSelector


class Drawn:
    """A screen that keeps what was shown."""

    def __init__(self, breaks: bool = False):
        self.images, self.closed, self.breaks = [], 0, breaks

    def show(self, image):
        if self.breaks:
            raise OSError("the disk is full")
        self.images.append(image)

    def close(self):
        self.closed += 1


def lived(display: Display, steps: int) -> list[int]:
    """The indices of the steps at which it drew."""
    robot, model, at = Counting(32), Oracle(), []
    history = History(robot.action_space, 2)
    for event in live(robot, RandomSelector(0), world_model=model, steps=steps, history=history):
        before = len(display._screen.images)
        display(event, Situation(history.window(), robot.action_space, model, event.index))
        at += [event.index] * (len(display._screen.images) - before)
    return at


def test_it_draws_every_few_steps_with_the_last_prediction(tmp_path):
    screen = Drawn()
    display = Display(tmp_path / "view.png", DisplayConfig(display=True, display_interval=5), screen=screen)
    assert lived(display, 12) == [0, 5, 10]
    assert display.view.last is not None and display.view.last.error == 0, "imagined one step before it is shown"
    assert len({image.shape for image in screen.images[1:]}) == 1
    display.close()
    display.close()
    assert screen.closed == 1


def test_where_a_person_is_asked_it_draws_before_each_question(tmp_path):
    screen, model, space = Drawn(), Oracle(), Counting(32).action_space
    display = Display(tmp_path / "view.png", DisplayConfig(interactive=True, display_interval=5), screen=screen)
    assert lived(display, 7) == []
    window = Seen(write(5, 1, 32)[None], np.zeros((0, 1), np.float32))
    said = display.consider(Situation(window, space, model, 7), Choice({"add": 1.0}))
    assert len(screen.images) == 1 and said[0] == "reconstruction loss 0"
    tile_at(screen.images[0], fit(write(5, 1, 32), 224))


def studies(display: Display, gates: list[str]) -> int:
    window = Seen(write(5, 1, 32)[None], np.zeros((0, 1), np.float32))
    for update, gate in enumerate(gates):
        display(Study(update, {}, gate, 0.0), Situation(window, Counting(32).action_space, Oracle()))
    return len(display._screen.images)


def test_while_the_robot_waits_what_it_sees_is_drawn_beside_its_reconstruction(tmp_path):
    display = Display(tmp_path / "view.png", DisplayConfig(display=True, display_interval=4), screen=Drawn())
    assert studies(display, ["learning"] * 9 + ["passed"]) == 2
    picture, tile = display._screen.images[-1], fit(write(5, 1, 32), 224)
    _, left = tile_at(picture, tile)
    tile_at(picture[:, left + 224 :], tile)  # the oracle decodes what it sees
    assert studies(Display(tmp_path, DisplayConfig(display=True, display_interval=4), screen=Drawn()), ["learning", "passed"] * 9) == 0
    still = DisplayConfig(display=True, display_interval=1, display_training=False)
    assert studies(Display(tmp_path, still, screen=Drawn()), ["learning"] * 9) == 0


def test_without_a_screen_a_file_is_replaced_and_one_sentence_says_so(tmp_path):
    heard, path = [], tmp_path / "cards" / "view.png"
    display = Display(path, DisplayConfig(display=True), heard.append)
    (said,) = heard
    assert str(path) in said and "every 10 steps" in said and said.endswith(".") and "\n" not in said
    view, window = View(), Seen(write(5, 1, 32)[None], np.zeros((0, 1), np.float32))
    for count in (5, 9):
        situation = Situation(Seen(write(count, 1, 32)[None], window.actions), Counting(32).action_space, Oracle())
        display.consider(situation, Choice({"add": 1.0}))
        view.consider(situation, Choice({"add": 1.0}))
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(path.read_bytes()))), view.picture())
    assert [file.name for file in path.parent.iterdir()] == ["view.png"], "nothing half-written stays beside it"
    assert plt.get_fignums() == []


@pytest.mark.parametrize("path", ["/dev/null/view.png", None])
def test_a_display_that_breaks_says_so_once_and_life_goes_on(path, tmp_path):
    heard = []
    display = Display(
        path or tmp_path / "view.png", DisplayConfig(display=True, display_interval=1), heard.append, None if path else Drawn(breaks=True)
    )
    robot, model = Counting(32), Oracle()
    history = History(robot.action_space, 2)
    for event in live(robot, RandomSelector(0), world_model=model, steps=4, history=history):
        display(event, Situation(history.window(), robot.action_space, model))
    assert robot.steps == 4
    assert len([said for said in heard if "The display ends here, the run goes on" in said]) == 1


def test_whoever_wants_no_picture_pays_for_none(tmp_path):
    model, display = Oracle(), Display(tmp_path / "view.png", say=lambda text: pytest.fail(text))
    robot = Counting(32)
    history = History(robot.action_space, 2)
    for event in live(robot, RandomSelector(0), world_model=model, steps=4, history=history):
        display(event, Situation(history.window(), robot.action_space, model))
    assert model.asked == [] and list(tmp_path.iterdir()) == []


def test_a_window_holds_one_image_however_often_it_is_drawn():
    window = Window(plt.figure("a test"))
    pictures = [np.full((50, 80, 3), value, np.uint8) for value in range(30)]
    for picture in [*pictures, np.full((70, 80, 3), 200, np.uint8), pictures[7]]:
        window.show(picture)
        shown = np.asarray(window.figure.canvas.buffer_rgba())[..., :3]
        assert shown.shape == picture.shape and (shown == picture).all(), "borders and all, to the edge"
    assert len(window.figure.axes) == 1 and len(window.figure.axes[0].images) == 1
    window.close()
    assert plt.get_fignums() == []
    with pytest.raises(Exception, match="its window was closed"):
        window.show(pictures[0])


def test_an_interval_that_cannot_be_is_refused():
    with pytest.raises(ConfigurationError, match="display_interval is 0"):
        DisplayConfig(display_interval=0)
