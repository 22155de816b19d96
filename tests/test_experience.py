import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motorbabble.errors import ActionError, ConfigurationError, FrameError
from motorbabble.experience import ActionSpace, Channel, Observation, Window, check_frame

MOTORS = ActionSpace.discrete([{"motor": 0.0}, {"motor": 0.12}, {"motor": -0.12}], units={"motor": ""}, labels=("stop", "forward", "back"))
NAMES = ActionSpace.discrete([{"action": 0}, {"action": 1}, {"action": 2}], ordered=False)
WHEELS = ActionSpace.box([Channel("left", -1, 1), Channel("duration", 0.1, 0.5, "s")], rest={"left": 0, "duration": 0.1})
SPACES = pytest.mark.parametrize("space", [MOTORS, NAMES, WHEELS], ids=["ordered", "unordered", "box"])


def frame(height=4, width=6):
    return np.zeros((height, width, 3), np.uint8)


@SPACES
def test_decode_undoes_encode(space):
    for action in space.candidates(20, np.random.default_rng(0)):
        encoded = space.encode(action)
        assert encoded.shape == (space.size,) and encoded.dtype == np.float32 and np.abs(encoded).max() <= 1
        assert space.decode(encoded) == pytest.approx(dict(action), abs=1e-6)


def test_ordered_actions_are_scaled_and_unordered_ones_one_hot():
    assert [MOTORS.encode(action).tolist() for action in MOTORS.candidates()] == [[0.0], [1.0], [-1.0]]
    assert np.array_equal([NAMES.encode(action) for action in NAMES.candidates()], np.eye(3))
    assert (MOTORS.size, NAMES.size, WHEELS.size) == (1, 3, 2)
    assert WHEELS.encode({"left": 1, "duration": 0.3}) == pytest.approx([1, 0], abs=1e-6)


def test_a_channel_that_cannot_vary_encodes_as_zero():
    space = ActionSpace.discrete([{"motor": 0.0, "duration": 0.2}, {"motor": 1.0, "duration": 0.2}])
    assert [space.encode(action).tolist() for action in space.candidates()] == [[-1, 0], [1, 0]]


def test_ranges_say_more_than_the_actions_span():
    space = ActionSpace.discrete([{"motor": 0.0}, {"motor": 0.5}], ranges={"motor": (-1, 1)})
    assert space.encode({"motor": 0.5}).tolist() == [0.5]


def test_decode_takes_the_nearest_action_and_clips_a_box():
    assert MOTORS.decode(np.array([0.8])) == {"motor": 0.12}
    assert NAMES.decode(np.array([0.1, 0.2, 0.6])) == {"action": 2}
    assert WHEELS.decode(np.array([3.0, -9.0])) == pytest.approx({"left": 1, "duration": 0.1})


@given(st.floats(-1, 1, width=32), st.floats(-1, 1, width=32))
def test_encode_undoes_decode_in_a_box(left, duration):
    vector = np.array([left, duration], np.float32)
    assert WHEELS.encode(WHEELS.decode(vector)) == pytest.approx(vector, abs=1e-5)


@SPACES
def test_a_space_survives_json(space):
    stored = ActionSpace.from_json(json.loads(json.dumps(space.to_json())))
    assert stored == space and stored.fingerprint == space.fingerprint and str(stored) == str(space)


def test_the_fingerprint_tells_spaces_apart_but_not_their_labels():
    renamed = dataclasses.replace(MOTORS, labels=("halt", "on", "off"))
    assert renamed.fingerprint == MOTORS.fingerprint and len(MOTORS.fingerprint) == 12
    faster = ActionSpace.discrete([{"motor": 0.0}, {"motor": 0.13}, {"motor": -0.12}])
    one_hot = dataclasses.replace(MOTORS, ordered=False)
    reordered = ActionSpace.discrete([{"motor": 0.12}, {"motor": 0.0}, {"motor": -0.12}], rest=1)
    assert len({space.fingerprint for space in (MOTORS, NAMES, WHEELS, faster, one_hot, reordered)}) == 6


def test_labels_and_colours():
    assert MOTORS.label({"motor": 0.12}) == "forward" and NAMES.label({"action": 2}) == "action=2"
    assert WHEELS.label({"left": 0.25, "duration": 0.5}) == "left=0.25 duration=0.5s"
    assert len({NAMES.color(action) for action in NAMES.candidates()}) == 3
    for action in WHEELS.candidates(5):
        assert all(0 <= part <= 255 for part in WHEELS.color(action))


def test_candidates_start_with_rest_and_are_drawn_from_the_box():
    drawn = WHEELS.candidates(5, np.random.default_rng(1))
    assert len(drawn) == 5 and drawn[0] == WHEELS.rest and all(WHEELS.check(action) for action in drawn)
    assert drawn == WHEELS.candidates(5, np.random.default_rng(1)) != WHEELS.candidates(5, np.random.default_rng(2))
    assert NAMES.candidates(1) == list(NAMES.actions), "a list of actions is always given whole"


@SPACES
@pytest.mark.parametrize("action", [{}, {"flap": 1}, None, 3, "stop", {"motor": "fast"}, {"motor": None}, {"motor": 0.12, "action": 0}])
def test_an_unknown_action_is_named_with_the_choice(space, action):
    for method in (space.check, space.encode, space.label):
        with pytest.raises(ActionError, match="choose one of"):
            method(action)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1.01, -1.01])
def test_a_value_outside_its_range_is_refused(value):
    with pytest.raises(ActionError, match="choose one of"):
        WHEELS.check({"left": value, "duration": 0.2})
    with pytest.raises(ActionError, match="choose one of"):
        MOTORS.check({"motor": value})


def test_a_vector_of_another_length_is_refused():
    with pytest.raises(ActionError, match="make it with encode"):
        NAMES.decode(np.zeros(2))
    with pytest.raises(ActionError, match="no index"):
        WHEELS.index(WHEELS.rest)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ActionSpace.discrete([]), "at least one action"),
        (lambda: ActionSpace.discrete([{"a": 0}, {"b": 1}]), "same keys"),
        (lambda: ActionSpace.discrete([{"a": 0}, {"a": 0.0}]), "twice"),
        (lambda: ActionSpace.discrete([{"a": 0}, {"a": 1}], rest=2), "rest is 2"),
        (lambda: ActionSpace.discrete([{"a": 0}, {"a": 1}], labels=("one",)), "1 labels for 2"),
        (lambda: ActionSpace.discrete([{"a": 0}, {"a": float("inf")}]), "finite"),
        (lambda: ActionSpace.discrete([{"a": 0}, {"a": float("nan")}]), "finite"),
        (lambda: Channel("speed", 1, -1), "low first"),
        (lambda: Channel("speed", 0, float("inf")), "finite"),
    ],
)
def test_a_space_that_cannot_work_is_refused(make, said):
    with pytest.raises(ConfigurationError, match=said):
        make()


def test_a_box_must_hold_its_rest():
    with pytest.raises(ActionError):
        ActionSpace.box([Channel("left", -1, 1)], rest={"left": 2})


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (None, "numpy array"),
        ([[0]], "numpy array"),
        (np.full((4, 4, 3), np.nan), "NaN"),
        (np.full((4, 4, 3), np.inf, np.float32), "infinite"),
        (np.zeros((4, 4, 3), np.float32), "float32, not uint8"),
        (np.zeros((4, 4, 3), np.int64), "not uint8"),
        (np.zeros((4, 4, 3), bool), "not uint8"),
        (np.zeros((4, 4), np.uint8), "shape"),
        (np.zeros((3, 4, 4), np.uint8), "colour last"),
        (np.zeros((4, 4, 4), np.uint8), "shape"),
        (np.zeros((0, 4, 3), np.uint8), "shape"),
        (np.zeros((1, 4, 4, 3), np.uint8), "shape"),
    ],
)
def test_a_frame_that_is_none_is_refused(image, said):
    with pytest.raises(FrameError, match=said):
        check_frame(image)
    with pytest.raises(FrameError, match=said):
        Observation(image)


def test_an_observation_is_frozen_and_keeps_the_image():
    image = frame()
    seen = Observation(image)
    assert seen.image is image and (seen.sequence, seen.episode, dict(seen.state)) == (0, 0, {})
    with pytest.raises(dataclasses.FrozenInstanceError):
        seen.episode = 1


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 4, 6, 3), np.float32),
        np.full((2, 4, 6, 3), np.nan),
        np.zeros((4, 6, 3), np.uint8),
        np.zeros((2, 3, 4, 6), np.uint8),
        np.zeros((0, 4, 6, 3), np.uint8),
    ],
)
def test_a_window_of_something_else_than_frames_is_refused(images):
    with pytest.raises(FrameError, match="T >= 1"):
        Window(images, np.zeros((1, 2), np.float32))


@pytest.mark.parametrize("actions", [np.zeros((3, 2)), np.zeros((1, 2)), np.zeros(2), np.zeros((2, 1, 2))])
def test_a_window_needs_one_action_between_each_two_images(actions):
    with pytest.raises(ActionError, match="between each two"):
        Window(np.zeros((3, 4, 6, 3), np.uint8), actions.astype(np.float32))


def test_the_last_of_a_window_keeps_the_actions_between_its_frames():
    images = np.stack([np.full((2, 2, 3), i, np.uint8) for i in range(4)])
    actions = np.array([[0], [1], [2]], np.float32)  # action i leads from image i to i + 1
    window = Window(images, actions)
    for frames, kept in ((1, []), (2, [2]), (3, [1, 2]), (4, [0, 1, 2]), (9, [0, 1, 2])):
        last = window.last(frames)
        assert len(last) == min(frames, 4) and last.images[-1, 0, 0, 0] == 3
        assert last.actions[:, 0].tolist() == kept
