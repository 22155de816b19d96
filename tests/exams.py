"""The contracts as exams: each rule is a sentence, which is also what a failure says.

`ROBOT_RULES` holds the rules every robot keeps; test_robots.py runs each on each robot. For a robot of your own:

    robot_exam(lambda: MyRobot(...))

`make_robot` takes nothing and gives a new robot; a simulated one must come out the same every time (fix its seed).
"""

import itertools
import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from motorbabble.errors import ActionError, FrameError, RobotError
from motorbabble.experience import ActionSpace, Observation, Window, check_frame
from motorbabble.robots.interface import RobotInterface
from motorbabble.world_models.base import Batch, WorldModel

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
                if seen.ends:  # to look again is to begin the next episode
                    break
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


# The exam of world models. `make_model` takes nothing and gives an untrained model of 32 x 32 frames and encoded actions of size 2.

MakeModel = Callable[[], WorldModel]
MODEL_RULES: list[Callable[[MakeModel], None]] = []


def model_rule(rule: Callable[[MakeModel], None]) -> Callable[[MakeModel], None]:
    MODEL_RULES.append(rule)
    return rule


def squares(frames: int, seed: int = 0, step: int = 5) -> Window:
    """A grey square on black that moves right by `step` with action (1, -1) and stays with (-1, 1), in turn."""
    rng = np.random.default_rng(seed)
    images = np.zeros((frames, 32, 32, 3), np.uint8)
    x, y = rng.integers(0, 32), rng.integers(0, 24)
    actions = np.where(np.arange(frames - 1)[:, None] % 2 == 0, [1.0, -1.0], [-1.0, 1.0]).astype(np.float32)
    for i in range(frames):
        images[i, y : y + 6][:, (x + np.arange(6)) % 32] = 200
        x += step if i < frames - 1 and actions[i, 0] > 0 else 0
    return Window(images, actions)


PLANS = np.array([[[1.0, -1.0]], [[-1.0, 1.0]]], np.float32)


def taught(model: WorldModel, windows: list[Window], updates: int, rate: float = 2e-3) -> dict[str, float]:
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    batch, rng = Batch.of(windows), np.random.default_rng(0)
    for draw in range(updates):
        losses = model.losses(replace(batch, seeds=rng.integers(2**62, size=len(windows)), draw=draw))
        optimizer.zero_grad()
        losses["total"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return {name: float(value.detach()) for name, value in losses.items()}


@model_rule
def untrained_it_imagines_that_nothing_changes(make_model: MakeModel) -> None:
    model, window = make_model().eval(), squares(model_history(make_model))
    last = torch.from_numpy(window.images[-1]).movedim(-1, 0).float() / 255
    images = model.imagine(window, np.repeat(PLANS, 3, 1)).images
    assert images.shape == (2, 3, 3, 32, 32)
    torch.testing.assert_close(images, last.expand_as(images), atol=1e-4, rtol=0)


@model_rule
def it_overfits_one_window(make_model: MakeModel) -> None:
    model = make_model()
    window = squares(model.history + 1)
    taught(model, [window], 150)
    first = model.eval().imagine(Window(window.images[:1], window.actions[:0]), window.actions[:1][None]).images[0, 0]
    truth, held = (torch.from_numpy(image).movedim(-1, 0).float() / 255 for image in (window.images[1], window.images[0]))
    assert (first - truth).square().mean() < 0.2 * (held - truth).square().mean(), "the transition that moves"
    last = model.imagine(Window(window.images[:-1], window.actions[:-1]), window.actions[-1:][None]).images[0, 0]
    truth = torch.from_numpy(window.images[-1]).movedim(-1, 0).float() / 255
    assert (last - truth).square().mean() < 0.2 * (held - truth).square().mean(), "and the newest one"


@model_rule
def after_learning_it_imagines_another_picture_for_another_action_and_another_context(make_model: MakeModel) -> None:
    model = make_model()
    window = squares(model.history + 1)
    taught(model, [window, squares(model.history + 1, seed=3)], 60)
    model.eval()
    images = model.imagine(window, PLANS).images
    assert (images[0] - images[1]).abs().max() > 0.05, "its picture changes when the action changes"
    elsewhere = model.imagine(squares(model.history + 1, seed=3), PLANS).images
    assert (images - elsewhere).abs().max() > 0.05, "its picture changes when the context changes"


@model_rule
def it_reconstructs_what_it_was_shown(make_model: MakeModel) -> None:
    model = make_model()
    window = squares(model.history + 1)
    taught(model, [window], 100)
    seen = model.eval().reconstruct(window.images)
    truth = torch.from_numpy(window.images).movedim(-1, 1).float() / 255
    assert seen.shape == truth.shape
    assert (seen - truth).square().mean() < 0.3 * (truth.mean() - truth).square().mean()


@model_rule
def all_plans_in_one_batch_are_the_plans_one_by_one(make_model: MakeModel) -> None:
    model, window = make_model(), squares(model_history(make_model) + 1)
    taught(model, [window], 20)
    model.eval()
    plans = np.concatenate((PLANS, PLANS[::-1]), 1)
    together = model.imagine(window, plans)
    for i, plan in enumerate(plans):
        alone = model.imagine(window, plan[None])
        torch.testing.assert_close(together.images[i], alone.images[0], atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(together.uncertainty[i], alone.uncertainty[0], atol=1e-4, rtol=1e-3)


@model_rule
def one_step_alone_is_the_first_of_many(make_model: MakeModel) -> None:
    model, window = make_model(), squares(model_history(make_model) + 1)
    taught(model, [window], 20)
    model.eval()
    torch.testing.assert_close(model.imagine(window, PLANS).images[:, 0], model.imagine(window, np.repeat(PLANS, 4, 1)).images[:, 0])


@model_rule
def uncertainty_needs_no_pictures_and_is_finite(make_model: MakeModel) -> None:
    model, window = make_model().eval(), squares(model_history(make_model))
    plans = np.repeat(PLANS, 2, 1)
    alone = model.imagine(window, plans, pictures=False)
    assert alone.images is None
    assert alone.uncertainty.shape == (2, 2)
    assert torch.isfinite(alone.uncertainty).all()
    torch.testing.assert_close(alone.uncertainty, model.imagine(window, plans).uncertainty)


@model_rule
def imagining_changes_nothing_in_it(make_model: MakeModel) -> None:
    model, window = make_model().eval(), squares(model_history(make_model))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.imagine(window, PLANS)
    model.reconstruct(window.images)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@model_rule
def it_learns_from_windows_of_any_length(make_model: MakeModel) -> None:
    model = make_model()
    for frames in range(1, model.history + 2):
        losses = model.losses(Batch.of([squares(frames)] * 2))
        assert torch.isfinite(losses["total"]), f"{frames} frames"
        assert {"reconstruction", "reconstruction_skill"} <= set(losses)


@model_rule
def it_starts_alike_and_learns_alike_from_the_same_seed(make_model: MakeModel) -> None:
    results = []
    for _ in range(2):
        torch.manual_seed(5)
        model = make_model()
        results.append(taught(model, [squares(model.history + 1)], 5))
    assert results[0] == results[1]


@model_rule
def its_losses_are_a_function_of_weights_and_batch_alone(make_model: MakeModel) -> None:
    model = make_model()
    windows = [squares(model.history + 1, seed=seed) for seed in range(2)]
    one = {name: float(value.detach()) for name, value in model.losses(Batch.of(windows, seeds=np.array([5, 6]), draw=7)).items()}
    torch.manual_seed(99)
    before = torch.get_rng_state()
    again = {name: float(value.detach()) for name, value in model.losses(Batch.of(windows, seeds=np.array([5, 6]), draw=7)).items()}
    assert torch.equal(before, torch.get_rng_state()), "torch's own generator was drawn from"
    assert one == again


@model_rule
def it_refuses_other_frames_and_other_actions_in_one_sentence(make_model: MakeModel) -> None:
    model, window = make_model(), squares(model_history(make_model))
    other = Window(np.zeros((1, 48, 32, 3), np.uint8), np.zeros((0, 2), np.float32))
    with pytest.raises(FrameError, match="this model sees frames of shape"):
        model.imagine(other, PLANS)
    with pytest.raises(FrameError, match="uint8"):
        model.reconstruct(window.images.astype(np.float32))
    with pytest.raises(ActionError, match="plans have shape"):
        model.imagine(window, np.zeros((2, 1, 3), np.float32))
    with pytest.raises(ActionError, match="NaN"):
        model.imagine(window, PLANS * np.nan)


def model_history(make_model: MakeModel) -> int:
    return make_model().history
