"""The floors know exactly what their names say, and nothing more."""

import numpy as np
import pytest

from motorbabble.analysis.floors import Shift, floors_of
from motorbabble.errors import ConfigurationError
from motorbabble.experience import ActionSpace, Channel, Choice, Observation, Step, Window

SPACE = ActionSpace.discrete([{"go": 0.0}, {"go": 1.0}, {"go": 2.0}], labels=["stay", "right", "up"])
SHIFTS = {0: (0, 0), 1: (27, 0), 2: (-3, -11)}


def textured(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def dot() -> np.ndarray:
    image = np.zeros((48, 64, 3), np.uint8)
    image[10:15, 20:25] = (255, 200, 40)
    return image


def stream(image, actions, shifts=SHIFTS, space=SPACE, episode=0) -> list[Step]:
    """A world whose whole picture rolls."""
    steps = []
    for index, action in enumerate(actions):
        steps.append(Step(index, Observation(image, episode=episode), action, action, Choice(action), 0, 0))
        dx, dy = shifts[space.index(action) if space.actions else round(action["go"])]
        image = np.roll(image, (dy, dx), (0, 1))
    return steps


@pytest.mark.parametrize("image", [textured(), dot()])
def test_the_shift_floor_finds_each_shift_exactly(image):
    actions = [SPACE.actions[i] for i in np.random.default_rng(1).integers(0, 3, 20)]
    shift = Shift.of(stream(image, actions), SPACE)
    assert shift.shifts == [(0, 0), (27, 0), (-3, -11)]
    plan = np.stack([SPACE.encode(SPACE.actions[i]) for i in (1, 1, 2)])[None]
    imagined = shift(Window(image[None], np.zeros((0, 1), np.float32)), plan)
    assert imagined.shape == (1, 3, 48, 64, 3)
    np.testing.assert_array_equal((imagined[0, 2] * 255).round().astype(np.uint8), np.roll(image, (-11, 51), (0, 1)))


def test_four_steps_are_enough_for_the_plain_dot():
    assert Shift.of(stream(dot(), [SPACE.actions[i] for i in (1, 0, 2, 0)]), SPACE).shifts == [(0, 0), (27, 0), (-3, -11)]


def test_a_dot_on_a_still_background_is_not_shifted():
    background, steps = textured() // 2, []
    for index in range(12):
        image = background.copy()
        image[10:13, (7 * index) % 60 : (7 * index) % 60 + 3] = 255
        steps.append(Step(index, Observation(image), SPACE.actions[1], SPACE.actions[1], Choice(SPACE.actions[1]), 0, 0))
    assert Shift.of(steps, SPACE).shifts[1] == (0, 0)


def test_shifts_do_not_cross_episodes():
    moves = [SPACE.actions[1]] * 2
    first, second = stream(textured(), moves), stream(textured(5), moves, episode=1)
    joined = first[:1] + [Step(1, second[0].observation, moves[0], moves[0], Choice(moves[0]), 0, 0)]
    assert Shift.of(joined, SPACE).shifts == [(0, 0)] * 3


def test_a_box_counts_an_action_as_its_nearest_candidate():
    space = ActionSpace.box([Channel("go", 0, 1)], {"go": 0.0})
    shift = Shift.of(stream(textured(), [{"go": v} for v in (0.0, 1.0, 0.0, 1.0, 0.0)], {0: (0, 0), 1: (5, 2)}, space), space)
    window = Window(textured()[None], np.zeros((0, 1), np.float32))
    imagined = shift(window, np.array([[[1.0]], [[-1.0]]], np.float32))
    np.testing.assert_allclose(imagined[0, 0] * 255, np.roll(textured(), (2, 5), (0, 1)), atol=1e-3)
    np.testing.assert_allclose(imagined[1, 0] * 255, textured(), atol=1e-3)


def test_the_still_floors():
    steps = stream(textured(), [SPACE.actions[1]] * 4)
    floors = floors_of(steps, SPACE)
    assert list(floors) == ["copy_last", "mean_frame", "black", "shift"]
    window, plans = Window(textured(3)[None], np.zeros((0, 1), np.float32)), np.zeros((2, 5, 1), np.float32)
    frames = np.stack([step.observation.image for step in steps])
    for name, expected in {"copy_last": textured(3) / 255, "mean_frame": frames.mean(0) / 255, "black": np.zeros((48, 64, 3))}.items():
        imagined = floors[name](window, plans)
        assert imagined.shape == (2, 5, 48, 64, 3)
        np.testing.assert_allclose(imagined, np.broadcast_to(expected, imagined.shape), atol=1e-6)


def test_floors_need_a_life():
    with pytest.raises(ConfigurationError, match="0 steps"):
        floors_of([], SPACE)
