"""What a mind sees, expected and imagines, in one picture: each part is what it says it is."""

import math
from dataclasses import replace

import numpy as np
import torch
from counting import Counting, read, write
from torch import nn

from motorbabble.agents import learn
from motorbabble.analysis.view import View, shown_actions
from motorbabble.experience import ActionSpace, Channel, Choice, Situation, Step, Window
from motorbabble.figures import BORDER, bordered, fit
from motorbabble.life import History, live
from motorbabble.robots.toroidal_dot import ToroidalDotRobot
from motorbabble.selectors import RandomSelector
from motorbabble.world_models.base import Imagination, WorldModel

SIZE = 32


class Oracle(WorldModel):
    """Knows the counting robot: its pictures are what will come. `unsure` of the n-th action of a call: n nats."""

    image_shape, action_size, history = (SIZE, SIZE), 1, 2

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.asked: list[tuple[bool, bool]] = []  # (training, gradients) whenever it was

    def reconstruct(self, images):
        return torch.from_numpy(images).movedim(-1, 1).float() / 255

    def imagine(self, window: Window, plans: np.ndarray, *, pictures: bool = True, level: int = 0) -> Imagination:
        self.asked.append((self.training, torch.is_grad_enabled()))
        count, _ = read(window.images[-1])
        adds = [1 if plan[0, 0] < 0 else 2 for plan in plans]
        frames = np.stack([write(count + add, add, SIZE) for add in adds])
        return Imagination(self.reconstruct(frames)[:, None], torch.arange(float(len(plans)))[:, None])

    def losses(self, batch):
        raise AssertionError("nothing learns here")


class Mistaken(Oracle):
    """Imagines the count after two actions instead of one."""

    def imagine(self, window, plans, **settings):
        count, last = read(window.images[-1])
        return super().imagine(replace(window, images=np.stack([write(count + 1, last, SIZE)]), actions=window.actions[:0]), plans, **settings)


class Behind(View):
    """Broken on purpose: it shows the prediction before the last one."""

    before = None

    def _foresee(self, situation, executed):
        super()._foresee(situation, executed)
        seen, self.before = self.before, self._foreseen
        self._foreseen = seen and replace(seen, step=situation.step, episode=situation.episode)


def watched(view: View, model: WorldModel | None = None, robot: Counting | None = None, steps: int = 12) -> list:
    """The outcome the view held after each step."""
    robot, model = robot or Counting(SIZE), model or Oracle()
    history, outcomes = History(robot.action_space, 2), []
    for event in live(robot, RandomSelector(0), world_model=model, steps=steps, history=history):
        view.watch(event, Situation(history.window(), robot.action_space, model))
        outcomes.append(view.last)
    return outcomes


def test_the_last_prediction_is_what_was_imagined_for_what_was_done_beside_what_came():
    first, *outcomes = watched(View())
    assert first is None, "nothing was imagined before the first look"
    assert all(outcome.error == 0 and outcome.copy_error > 0 for outcome in outcomes)
    assert {outcome.prediction.label for outcome in outcomes} == {"one", "two"}
    assert all(outcome.error > 0 for outcome in watched(View(), Mistaken())[1:]), "a model that is off by one is seen to be"
    assert any(outcome and outcome.error > 0 for outcome in watched(Behind())), "a view that is off by one is seen to be"


def test_no_prediction_reaches_into_another_episode():
    outcomes = watched(View(), robot=Counting(SIZE, episode_steps=4))
    assert [outcome is None for outcome in outcomes] == [True, False, False, False] * 3


def test_nothing_is_shown_as_a_prediction_where_a_step_was_not_watched():
    view, robot, model = View(), Counting(SIZE), Oracle()
    history = History(robot.action_space, 2)
    for event in live(robot, RandomSelector(0), world_model=model, steps=9, history=history):
        if event.index not in (3, 4):
            view.watch(event, Situation(history.window(), robot.action_space, model))
        if event.index == 5:
            assert view.last is None
    assert view.last is not None and view.last.error == 0


def test_what_was_expected_is_kept_and_not_imagined_again_in_hindsight():
    """A model that learns its outcome before the next look: what it says then is perfect, what it had said was not."""
    view, robot, model = View(), Counting(SIZE), Mistaken()
    space, history = robot.action_space, History(robot.action_space, 2)
    for event in live(robot, RandomSelector(0), world_model=model, steps=1, history=history):
        view.watch(event, Situation(history.window(), space, model))
    history.add(robot.get_observation())
    view.consider(Situation(history.window(), space, Oracle(), step=1))
    assert view.last is not None and view.last.error > 0


def test_it_looks_in_eval_mode_without_gradients_and_leaves_the_model_as_it_was():
    model, view = Oracle().train(), View()
    watched(view, model)
    view.picture()
    assert set(model.asked) == {(False, False)}
    assert model.training


def test_a_watched_life_is_the_life_that_nobody_watched():
    def life(looking: bool) -> list[float]:
        run = learn(ToroidalDotRobot(seed=0, image_size=32, dot_radius=2, move_pixels=7), steps=5, patch_size=8, max_seconds=math.inf)
        view, losses = View(), []
        for event in run:
            if looking:
                view.watch(event, run.situation)
            if looking and isinstance(event, Step):
                view.picture()
                view.training_picture(run.situation)
            losses.append(event.executed["action"] if isinstance(event, Step) else event.losses["total"])
        return losses

    assert life(looking=True) == life(looking=False)


def tile_at(sheet: np.ndarray, image: np.ndarray) -> tuple[int, int]:
    """Where an image stands in a sheet (row, column); AssertionError where it does not."""
    height, width = image.shape[:2]
    corners = np.argwhere((sheet[: -height + 1 or None, : -width + 1 or None] == image[0, 0]).all(-1))
    for y, x in corners:
        there = sheet[y : y + height, x : x + width]
        if np.array_equal(there[:, 0], image[:, 0]) and np.array_equal(there, image):  # a column first, which is quick
            return y, x
    raise AssertionError("it is not in the picture")


def considered(space: ActionSpace, taken: int | None = 0, frames: int = 1) -> np.ndarray:
    view, window = View(side=64), Window(np.stack([write(5, 1, SIZE)] * frames), np.zeros((frames - 1, 1), np.float32))
    choice = None if taken is None else Choice(space.candidates()[taken], why="as an example")
    view.consider(Situation(window, space, Oracle()), choice)
    return view.picture()


def test_every_action_is_drawn_with_a_border_as_wide_and_dark_as_its_uncertainty():
    picture = considered(Counting(SIZE).action_space)
    images = [fit(write(5 + add, add, SIZE), 64) for add in (1, 2)]
    (top, sure), (_, unsure) = (tile_at(picture, image) for image in images)
    middle = top + 32
    widths = [int((picture[middle, left - BORDER : left] < 255).any(-1).sum()) for left in (sure, unsure)]
    assert widths == [3, BORDER]
    pale, dark = (picture[middle, left - 1].mean() for left in (sure, unsure))
    assert pale - dark > 80, "also in grey"


def test_what_is_written_differs_with_who_was_chosen_and_who_is_unsure():
    space = Counting(SIZE).action_space
    one, two, none = (considered(space, taken) for taken in (0, 1, None))
    assert not np.array_equal(one, two) and not np.array_equal(one, none)
    assert one.shape == two.shape == none.shape


def test_equal_doubts_have_equal_borders():
    space = ActionSpace.discrete([{"add": 1}])
    picture = considered(space)
    (top, left) = tile_at(picture, fit(write(5 + 2, 2, SIZE), 64))  # a single action is encoded as 0, which the oracle takes for two
    assert int((picture[top + 32, left - BORDER : left] < 255).any(-1).sum()) == 3


def test_many_actions_wrap_and_stop_at_twelve():
    many = ActionSpace.discrete([{"add": i} for i in range(1000)])
    few = ActionSpace.discrete([{"add": i} for i in range(6)])
    assert considered(many).shape[1] == considered(few).shape[1]
    actions, left_out = shown_actions(many, {"add": 700.0}, {"add=3": 2.0, "add=999": 5.0, "add=4": 1.0}, 12)
    assert len(actions) == 12 and left_out == 988
    assert {700, 999, 3, 4} <= {action["add"] for action in actions}, "what was chosen and what scored highest are among them"


def test_of_ranges_the_same_few_are_drawn_each_time_and_what_was_chosen():
    box = ActionSpace.box([Channel("left", -1, 1), Channel("right", -1, 1)], rest={"left": 0, "right": 0})
    taken = {"left": 0.3, "right": -0.2}
    first, again = (shown_actions(box, taken, {}, 12) for _ in range(2))
    assert first == again and first[0][-1] == taken and first[0][0] == box.rest and first[1] == 0


def test_a_robot_without_a_model_is_shown_as_it_sees():
    view, space = View(), Counting(SIZE).action_space
    window = Window(write(5, 1, SIZE)[None], np.zeros((0, 1), np.float32))
    view.consider(Situation(window, space, step=3), Choice({"add": 2.0}, why="a script"))
    tile_at(view.picture(), fit(write(5, 1, SIZE), 448))
    assert view.sentences() == []


def test_sentences_say_how_well_it_sees_and_how_good_its_last_prediction_was():
    view = View()
    watched(view)
    loss, last = view.sentences()
    assert loss == "reconstruction loss 0" and last.startswith("last prediction (") and "error 0 (copy-last 0." in last


def test_a_border_surrounds_the_untouched_image():
    image = np.full((10, 20, 3), 7, np.uint8)
    for doubt in (None, 0.0, 0.4, 1.0, 3.0):
        drawn = bordered(image, doubt)
        assert drawn.shape == (10 + 2 * BORDER, 20 + 2 * BORDER, 3)
        np.testing.assert_array_equal(drawn[BORDER:-BORDER, BORDER:-BORDER], image)
    assert (bordered(image, None)[:BORDER] == 255).all()
    assert (bordered(image, 3.0) == bordered(image, 1.0)).all()
