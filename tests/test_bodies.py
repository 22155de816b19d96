import numpy as np
import pytest

from motorbabble.errors import ConfigurationError, FrameError
from motorbabble.robots.bodies import _SHAPES, _TEXTURES, BodiesConfig, BodiesRobot

SEEDS = range(40)


def live(robot, steps, seed=0):
    rng, seen = np.random.default_rng(seed), [robot.get_observation()]
    for _ in range(steps):
        actions = robot.action_space.candidates()
        robot.execute_action(actions[rng.integers(len(actions))])
        seen.append(robot.get_observation())
    return seen


@pytest.mark.parametrize("seed", SEEDS)
def test_a_world_holds_what_it_promises(seed):
    robot = BodiesRobot(seed)
    moves, count = robot.displacements, len(robot.bodies)
    assert 1 <= count <= 3 and 2 <= len(moves) <= 6 and moves.shape[1:] == (count, 2)
    assert all(9 <= max(body.extent) <= 27 for body in robot.bodies) and 7 <= max(robot.distractor.extent) <= 15
    lengths = np.linalg.norm(moves, axis=-1)
    resting = (lengths == 0).all(axis=1)
    assert ((lengths[~resting] > 5) & (lengths[~resting] < 21)).all()
    rest = robot.action_space.index(robot.action_space.rest)
    if robot.wraps:
        assert rest == 0 and resting.tolist() == [True] + [False] * (len(moves) - 1)
    else:
        assert resting.sum() == len(moves) % 2
        assert all(any((move == -other).all() for other in moves) for move in moves), "every displacement has its opposite"
    assert len(set(robot.action_space.labels)) == len(moves) and not robot.action_space.ordered
    said = robot.describe()
    assert said.endswith(".") and said.count(".") == 1 and all(body.name in said for body in robot.bodies)


@pytest.mark.parametrize("seed", SEEDS)
def test_bodies_stand_out(seed):
    robot = BodiesRobot(seed)
    ground = robot.background.reshape(-1, 3).mean(axis=0)
    for body in (*robot.bodies, robot.distractor):
        contrast = np.linalg.norm(body.colors[body.mask[..., 0]] - ground, axis=-1)
        assert contrast.mean() > 50


def test_worlds_differ():
    robots = [BodiesRobot(seed) for seed in SEEDS]
    assert {robot.wraps for robot in robots} == {True, False}
    assert {len(robot.bodies) for robot in robots} == {1, 2, 3} and {len(robot.displacements) for robot in robots} == {2, 3, 4, 5, 6}
    assert len({robot.describe() for robot in robots}) == len(robots)
    names = " ".join(body.name for robot in robots for body in robot.bodies)
    assert all(word in names for word in (*_SHAPES, *_TEXTURES))


@pytest.mark.parametrize("seed", [2, 6, 7])  # these wrap
def test_an_action_displaces_each_body_by_its_own_amount(seed):
    robot = BodiesRobot(seed, episode_steps=1000)
    assert robot.wraps
    for index, action in enumerate(robot.action_space.candidates() * 3):
        before = robot.get_observation().state["objects"]
        robot.execute_action(action)
        expected = before + robot.displacements[index % len(robot.displacements)]
        assert robot.distance(robot.get_observation().state["objects"], expected).max() < 1e-4


@pytest.mark.parametrize("seed", [0, 1, 3, 4])  # these stop
def test_where_edges_stop_a_body_stays_wholly_inside_and_comes_back(seed):
    robot = BodiesRobot(seed, episode_steps=1000)
    assert not robot.wraps
    extents = np.array([body.extent for body in robot.bodies])
    away = robot.action_space.candidates()[-1]
    back = next(i for i, move in enumerate(robot.displacements) if (move == -robot.displacements[-1]).all())
    for _ in range(30):
        robot.execute_action(away)
        corners = robot.get_observation().state["objects"] - (extents - 1) / 2
        assert (corners >= 0).all() and (corners + extents <= 112).all()
    stuck = robot.get_observation().state["objects"]
    robot.execute_action(robot.action_space.candidates()[back])
    assert (robot.distance(robot.get_observation().state["objects"], stuck) > 5).all()


def test_the_distractor_drifts_straight_turns_rarely_and_stays_inside():
    for seed in (0, 7):
        robot = BodiesRobot(seed, episode_steps=10_000, turn_probability=0.0)
        room = 112 if robot.wraps else 112 - robot.distractor.extent
        rest, way = robot.action_space.rest, [robot._drifter]
        for _ in range(400):
            robot.execute_action(rest)
            way.append(robot._drifter)
        steps = np.diff(way, axis=0)
        lengths = np.linalg.norm(steps, axis=1)
        usual = np.isclose(lengths, robot._speed)
        assert 1 <= robot._speed <= 4 and usual.mean() > 0.8, "constant speed, save where it bounces or wraps"
        assert (np.array(way) >= 0).all() and (np.array(way) <= room).all()
    robot = BodiesRobot(7, episode_steps=10_000)
    headings = []
    for _ in range(1000):
        robot.execute_action(robot.action_space.rest)
        headings.append(robot._heading)
    assert 60 < (np.diff(headings) != 0).sum() < 140


def test_an_episode_ends_after_its_steps():
    robot = BodiesRobot(7, episode_steps=5)
    assert [seen.episode for seen in live(robot, 11)] == [0] * 5 + [1] * 5 + [2] * 2
    robot = BodiesRobot(7, episode_steps=1)
    starts = [tuple(seen.state["objects"].ravel()) for seen in live(robot, 10)]
    assert len(set(starts)) == 11, "each episode starts somewhere else"


def test_another_course_is_another_life_in_the_same_world():
    one, other, third = BodiesRobot(9), BodiesRobot(9, course=0), BodiesRobot(9, course=1)
    assert np.array_equal(one.background, other.background) and np.array_equal(one.displacements, other.displacements)
    assert one.action_space.fingerprint == other.action_space.fingerprint and one.describe() == third.describe()
    firsts = [robot.get_observation().image for robot in (one, other, third)]
    assert not np.array_equal(firsts[0], firsts[1]) and not np.array_equal(firsts[1], firsts[2])
    assert np.array_equal(firsts[2], BodiesRobot(config=BodiesConfig(seed=9, course=1)).get_observation().image)


@pytest.mark.parametrize("size", [32, 64, 112, 224])
def test_lengths_grow_with_the_picture(size):
    robot = BodiesRobot(4, image_size=size)
    assert robot.get_observation().image.shape == (size, size, 3)
    lengths = np.linalg.norm(robot.displacements, axis=-1)
    assert 5 * size / 112 - 1 < lengths.max() < 21 * size / 112 + 1
    live(robot, 40)


def test_locate_finds_what_is_in_sight_and_admits_what_is_not():
    total = missed = 0
    for seed in SEEDS:
        robot = BodiesRobot(seed)
        assert np.isnan(robot.locate(robot.background)).all(), "nothing but background"
        for seen in live(robot, 5):
            gap = robot.distance(robot.locate(seen.image), seen.state["objects"])
            assert not (gap > 0.5).any(), "a body is found where it is, or not at all"
            total, missed = total + len(gap), missed + np.isnan(gap).sum()
    assert missed / total < 0.03


def test_locate_sees_through_noise_and_fading():
    robot = BodiesRobot(8)  # its bodies start well apart
    seen = robot.get_observation()
    noise = np.random.default_rng(0).normal(0, 12, seen.image.shape)
    fading = 0.7 * seen.image + 0.3 * robot.background
    for image in (seen.image + noise, fading):
        gap = robot.distance(robot.locate(image.clip(0, 255).astype(np.uint8)), seen.state["objects"])
        assert (gap < 1).all()
    faded = 0.2 * seen.image + 0.8 * robot.background
    assert np.isnan(robot.locate(faded.astype(np.uint8))).all()
    with pytest.raises(FrameError, match="resize"):
        robot.locate(np.zeros((64, 64, 3), np.uint8))


@pytest.mark.parametrize(
    ("setting", "value"), [("seed", -1), ("course", 1.5), ("image_size", 16), ("episode_steps", 0), ("turn_probability", 2), ("gravity", 1)]
)
def test_a_setting_that_cannot_work_is_refused(setting, value):
    with pytest.raises(ConfigurationError, match=setting):
        BodiesRobot(**{setting: value})


def test_a_state_of_another_world_is_refused():
    with pytest.raises(ConfigurationError, match="saved settings"):
        BodiesRobot(1).load_state_dict(BodiesRobot(0).state_dict())
