"""The contracts as exams: each rule is a sentence, which is also what a failure says.

`ROBOT_RULES` holds the rules every robot keeps; test_robots.py runs each on each robot. For a robot of your own:

    robot_exam(lambda: MyRobot(...))

`make_robot` takes nothing and gives a new robot; a simulated one must come out the same every time (fix its seed).
"""

import itertools
import json
from collections.abc import Callable

import numpy as np
import pytest

from motorbabble.errors import ActionError, RobotError
from motorbabble.experience import ActionSpace, Observation, check_frame
from motorbabble.robots.interface import RobotInterface

MakeRobot = Callable[[], RobotInterface]
ROBOT_RULES: list[Callable[[MakeRobot], None]] = []
STEPS = 12


def robot_exam(make_robot: MakeRobot) -> None:
    """Every rule, one after the other."""
    for rule in ROBOT_RULES:
        try:
            rule(make_robot)
        except pytest.skip.Exception:  # a rule for other kinds of robot
            continue


def robot_rule(rule: Callable[[MakeRobot], None]) -> Callable[[MakeRobot], None]:
    ROBOT_RULES.append(rule)
    return rule


def look(robot: RobotInterface) -> Observation:
    seen = robot.get_observation()
    return seen if isinstance(seen, Observation) else Observation(seen)


def live(robot: RobotInterface, steps: int = STEPS, seed: int = 0) -> list[tuple]:
    """What was seen before each step, and what was done: the same choices for the same seed."""
    rng, history = np.random.default_rng(seed), []
    for _ in range(steps):
        seen = look(robot)
        choices = robot.action_space.candidates(4, np.random.default_rng(0))
        executed = robot.execute_action(choices[rng.integers(len(choices))])
        history.append((seen, executed))
    return [*history, (look(robot), {})]


def assert_same_life(one: list[tuple], other: list[tuple], rule: str) -> None:
    for step, ((seen, executed), (seen_too, executed_too)) in enumerate(zip(one, other, strict=True)):
        assert dict(executed) == dict(executed_too), f"{rule} (step {step}: other actions)"
        assert np.array_equal(seen.image, seen_too.image), f"{rule} (step {step}: other pictures)"
        assert (seen.episode, seen.sequence) == (seen_too.episode, seen_too.sequence), f"{rule} (step {step}: other counts)"
        assert seen.state.keys() == seen_too.state.keys(), f"{rule} (step {step}: other states)"
        assert all(np.array_equal(seen.state[name], seen_too.state[name]) for name in seen.state), f"{rule} (step {step}: other states)"


def unknown_actions(space: ActionSpace) -> list:
    """Actions that no such space holds."""
    beyond = {channel.name: channel.high + 1 for channel in space.channels}
    not_a_number = {channel.name: float("nan") for channel in space.channels}
    return [beyond, not_a_number, {}, {**space.rest, "a channel nobody has": 0.0}, {channel.name: "far" for channel in space.channels}, 7, None]


@robot_rule
def robot_type_is_a_slug(make_robot):
    with make_robot() as robot:
        slug = robot.robot_type
        assert slug and slug.replace("_", "").isalnum() and slug == slug.lower(), f"robot_type names folders, so {slug!r} must be a lower-case slug"


@robot_rule
def frames_are_legal_and_keep_their_shape(make_robot):
    with make_robot() as robot:
        shapes = {check_frame(seen.image).shape for seen, _ in live(robot)}
        assert len(shapes) == 1, f"every frame of a life has one shape, not {shapes}"


@robot_rule
def looking_changes_nothing(make_robot):
    with make_robot() as robot:
        robot.execute_action(robot.action_space.candidates(2)[-1])
        first, second = look(robot), look(robot)
        assert np.array_equal(first.image, second.image), "looking twice without acting shows the same picture"
        assert (first.sequence, first.episode) == (second.sequence, second.episode), "looking twice without acting is the same moment"
    with make_robot() as seldom, make_robot() as often:
        if hasattr(seldom, "state_dict"):
            plain = live(seldom)
            for seen, executed in plain[:-1]:
                for _ in range(3):
                    assert np.array_equal(look(often).image, seen.image), "looking more often does not change what happens"
                often.execute_action(executed)


@robot_rule
def a_frame_belongs_to_whoever_looked(make_robot):
    with make_robot() as robot:
        first, second = look(robot), look(robot)
        assert not np.shares_memory(first.image, second.image), "two looks are two arrays, or an old frame would change under its owner"
        before = second.image.copy()
        if first.image.flags.writeable:
            first.image[:] = 255 - first.image
        for value in first.state.values():
            if value.flags.writeable:
                value[...] = 0
        third = look(robot)
        assert np.array_equal(third.image, before), "painting on a returned frame does not change the robot"
        for name in second.state:
            assert np.array_equal(third.state[name], second.state[name]), "writing into a returned state does not change the robot"
        robot.execute_action(robot.action_space.candidates(2)[-1])
        assert np.array_equal(second.image, before), "acting does not change a frame that was returned before"


@robot_rule
def sequence_and_episode_never_fall(make_robot):
    with make_robot() as robot:
        seen = [observation for observation, _ in live(robot)]
        for earlier, later in itertools.pairwise(seen):
            assert later.sequence >= earlier.sequence and later.episode >= earlier.episode, "sequence and episode only rise"
            assert later.captured_ns >= earlier.captured_ns, "a later look carries no earlier time"


@robot_rule
def acting_gives_back_what_was_done(make_robot):
    with make_robot() as robot:
        for action in robot.action_space.candidates(4):
            executed = robot.execute_action(action)
            robot.action_space.check(executed)
            assert robot.action_space.encode(executed).shape == (robot.action_space.size,), "what was executed can be encoded"


@robot_rule
def the_action_space_is_constant_and_can_be_saved(make_robot):
    with make_robot() as robot:
        before = robot.action_space.fingerprint
        live(robot)
        assert robot.action_space.fingerprint == before, "the action space is the same for the robot's whole life"
        stored = ActionSpace.from_json(json.loads(json.dumps(robot.action_space.to_json())))
        assert stored.fingerprint == before, "the action space survives being saved"
        for action in robot.action_space.candidates(4):
            encoded = robot.action_space.encode(action)
            assert encoded.dtype == np.float32 and np.abs(encoded).max(initial=0) <= 1, "an encoded action is float32 in [-1, 1]"
            decoded = robot.action_space.decode(encoded)
            assert np.allclose(robot.action_space.encode(decoded), encoded, atol=1e-6), "decoding an encoded action gives it back"


@robot_rule
def an_unknown_action_is_refused_and_does_nothing(make_robot):
    with make_robot() as robot:
        before = look(robot)
        for action in unknown_actions(robot.action_space):
            with pytest.raises(ActionError) as refusal:
                robot.execute_action(action)
            assert "choose one of" in str(refusal.value), "the refusal says what there is to choose from"
        after = look(robot)
        assert np.array_equal(before.image, after.image) and before.sequence == after.sequence, "a refused action does nothing"


@robot_rule
def stop_latches_and_never_raises(make_robot):
    with make_robot() as robot:
        robot.stop()
        robot.stop()
        for action in robot.action_space.candidates(2):
            with pytest.raises(RobotError, match="stopped"):
                robot.execute_action(action)
        robot.stop()
        robot.cleanup()
        robot.stop()


@robot_rule
def cleanup_may_come_twice(make_robot):
    robot = make_robot()
    robot.cleanup()
    robot.cleanup()
    with pytest.raises(RobotError):
        robot.execute_action(robot.action_space.rest)


@robot_rule
def leaving_the_with_block_stops_the_robot(make_robot):
    with make_robot() as robot:
        assert isinstance(robot, RobotInterface), "entering gives the robot itself"
        robot.execute_action(robot.action_space.rest)
    with pytest.raises(RobotError):
        robot.execute_action(robot.action_space.rest)
    with pytest.raises(ZeroDivisionError), make_robot() as robot:  # an error inside comes out unchanged
        _ = 1 / 0
    with pytest.raises(RobotError):
        robot.execute_action(robot.action_space.rest)


def simulated(robot: RobotInterface) -> RobotInterface:
    if not hasattr(robot, "state_dict"):
        pytest.skip("only a simulated robot can live twice")
    return robot


@robot_rule
def same_seed_same_life(make_robot):
    with make_robot() as one, make_robot() as other:
        assert_same_life(live(simulated(one)), live(other), "the same seed and actions give the same life")


@robot_rule
def a_saved_state_lives_on_bit_for_bit(make_robot):
    with make_robot() as robot, make_robot() as resumed, make_robot() as through_json:
        live(simulated(robot))
        state = robot.state_dict()
        stored = json.loads(json.dumps(state))
        expected = live(robot, 3 * STEPS, seed=1)  # also: living on does not change a state already taken
        resumed.load_state_dict(state)
        assert_same_life(expected, live(resumed, 3 * STEPS, seed=1), "a robot that loads a state lives on bit for bit")
        through_json.load_state_dict(stored)
        assert_same_life(expected, live(through_json, 3 * STEPS, seed=1), "a state is plain values, the same after JSON")


@robot_rule
def who_knows_its_objects_points_at_them(make_robot):
    with make_robot() as robot:
        if not hasattr(robot, "locate"):
            pytest.skip("this robot does not know its objects")
        missed = []
        for seen, _ in live(robot):
            truth = seen.state["objects"]
            assert truth.dtype == np.float32 and truth.ndim == 2 and truth.shape[1] == 2, 'state["objects"] is (n, 2) float32'
            found = robot.locate(seen.image)
            assert found.shape == truth.shape, "locate points at as many things as there are"
            gap = robot.distance(found, truth)
            assert gap.shape == (len(truth),), "distance gives one number per thing"
            assert np.array_equal(robot.distance(truth, truth), np.zeros(len(truth))), "a thing is at no distance from itself"
            missed += list(~(gap < 0.5))  # NaN is a miss too
        assert np.mean(missed) < 0.2, "locate finds what is in plain sight"  # things may hide each other
        assert np.isnan(robot.locate(np.zeros_like(seen.image))).any(), "in an empty picture there is nothing to point at"
