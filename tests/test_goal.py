"""Reaching a picture by planning: the distance that leads there, the search, and when it says that it is there."""

import itertools
import json

import numpy as np
import pytest
import torch
from perfect_minds import SIZE, Glider, Ignorant, PerfectMind, dot_2d, picture_of, ring, seen

from motorbabble.agents import learn
from motorbabble.errors import ConfigurationError, FrameError
from motorbabble.experience import ActionSpace, Situation, Step, Window
from motorbabble.life import live
from motorbabble.models.distance import distance
from motorbabble.recipes import LearningRecipe, goal_picture
from motorbabble.robots.dot_2d import Dot2dConfig, Dot2dRobot
from motorbabble.selectors import GoalSelector, RandomSelector
from motorbabble.world_models.base import Imagination


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).movedim(-1, 0).float() / 255


def picture_at(robot, x: float, y: float) -> np.ndarray:
    robot.place(x, y)
    return picture_of(robot)


def situation(robot, mind, step: int = 0) -> Situation:
    return Situation(seen(robot), robot.action_space, mind, step)


# The distance


def squared_error(images: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return (images - other).square().mean((1, 2, 3))


def falls_all_the_way(measure) -> bool:
    """Whether every pixel towards a goal counts, from the far side of the picture, for several goals, rows and ways to go."""
    robot = Dot2dRobot(seed=0)
    for goal, row in itertools.product((4, 20, 33), (5, 32)):
        ways = measure(torch.stack([tensor(picture_at(robot, x, row)) for x in range(goal, 60)]), tensor(picture_at(robot, goal, row)))
        if not (ways.diff() > 0).all():
            return False
    return True


def test_the_distance_falls_with_every_pixel_of_the_way_and_a_squared_error_does_not():
    assert falls_all_the_way(distance)
    assert not falls_all_the_way(squared_error)


def test_every_move_towards_the_goal_is_felt_wherever_both_are():
    robot, rng = Dot2dRobot(seed=0), np.random.default_rng(0)
    for _ in range(40):
        goal, here = rng.integers(3, 61, (2, 2))
        wanted, there = tensor(picture_at(robot, *goal)), np.clip(here + rng.integers(-5, 6, 2), 3, 60)
        ways = distance(torch.stack([tensor(picture_at(robot, *here)), tensor(picture_at(robot, *there))]), wanted)
        before, after = np.hypot(*(here - goal)), np.hypot(*(there - goal))
        if abs(after - before) > 1:
            assert (ways[1] < ways[0]) == (after < before), (goal, here, there)


def test_equal_pictures_are_at_no_distance_and_any_size_will_do():
    images = torch.rand(3, 3, 40, 24)
    assert distance(images, images[1])[1] == 0
    one_by_one = torch.cat([distance(image[None], other) for image, other in zip(images, images.flip(0), strict=True)])
    torch.testing.assert_close(distance(images, images.flip(0)), one_by_one)
    assert distance(images, torch.zeros(3, 40, 24)).min() > 0


# Plans


@pytest.mark.parametrize("moves", [1, 3, 5])
def test_on_a_ring_all_64_plans_are_imagined_and_the_best_is_chosen(moves):
    robot, mind = ring(), PerfectMind(ring())
    y = 10
    goal = picture_at(robot, 3 + 5 * moves, y)
    robot.place(3, y)
    select = GoalSelector(goal, horizon=6)
    choice = select(situation(robot, mind))
    assert [plans.shape for plans, _ in mind.asked] == [(64, 6, 1)] and len(np.unique(mind.asked[0][0], axis=0)) == 64
    assert choice.action == {"action": 1} and choice.scores["move"] > choice.scores["stay"]
    assert choice.why.startswith("move would" if moves == 1 else f"move {moves} times would") and "100%" in choice.why


def test_in_two_dimensions_all_25_plans_are_imagined_and_every_first_step_is_a_shortest_one():
    robot, mind = dot_2d(), PerfectMind(dot_2d())
    for dx, dy in itertools.product((-1, 0, 1), repeat=2):
        goal = picture_at(robot, 16 + 5 * dx, 16 + 5 * dy)
        robot.place(16, 16)
        select = GoalSelector(goal, horizon=2)
        for _ in range(abs(dx) + abs(dy)):
            assert not select.reached
            robot.execute_action(select(situation(robot, mind)).action)
        assert robot.picture().tobytes() == goal.tobytes(), (dx, dy)
        choice = select(situation(robot, mind))
        assert select.reached and select.distance == 0 and choice.action == robot.action_space.rest and "reached" in choice.why
    assert {plans.shape for plans, _ in mind.asked} == {(25, 2, 5)}


def reached(robot, mind, goal: np.ndarray, steps: int, **planning) -> int | None:
    """After how many actions it says that it has arrived."""
    select = GoalSelector(goal, **planning)
    for event in live(robot, select, world_model=mind, steps=steps + 1):
        assert isinstance(event, Step)
        if select.reached:
            return event.index
    return None


def test_far_goals_are_reached_by_the_shortest_way_also_across_the_edge():
    robot, mind = Dot2dRobot(seed=0), PerfectMind(Dot2dRobot(seed=0))
    mind.image_shape = (64, 64)
    for start, way in (((30, 30), (3, -3)), ((2, 40), (-2, 1)), ((60, 61), (1, 5))):
        goal = picture_at(robot, start[0] + 5 * way[0], start[1] + 5 * way[1])
        robot.place(*start)
        assert reached(robot, mind, goal, 12) == sum(map(abs, way)), (start, way)


def test_over_ranges_rounds_of_redrawing_come_closer_than_as_many_plans_drawn_once():
    def left(rounds: int, plans: int) -> float:
        found = []
        for seed in range(6):
            robot, rng = Glider(), np.random.default_rng(seed)
            goal = picture_at(robot, *rng.uniform(5, 26, 2))
            robot.place(*rng.uniform(5, 26, 2))
            select = GoalSelector(goal, horizon=4, plans=plans, rounds=rounds, seed=seed)
            found.append(1 - max(select(situation(robot, PerfectMind(Glider()))).scores.values()))
        return float(np.mean(found))

    assert left(rounds=4, plans=12) < 0.8 * left(rounds=1, plans=48)


def test_over_ranges_a_goal_is_reached():
    robot = Glider()
    goal = picture_at(robot, 8, 24)
    robot.place(22, 7)
    after = reached(robot, PerfectMind(Glider()), goal, 12, horizon=4, plans=16)
    assert after is not None and after >= 5, "it is 17 pixels down, 4 of them an action"
    assert np.hypot(robot.x - 8, robot.y - 24) < 3


class Deluded(PerfectMind):
    """Sees the goal more sharply after a detour than where it is."""

    def imagine(self, window: Window, plans: np.ndarray, *, pictures: bool = True, level: int = 0) -> Imagination:
        imagined = super().imagine(window, plans, pictures=pictures, level=level)
        imagined.images[:, 0] *= 0.97
        return imagined


def test_where_it_has_arrived_it_stays_whatever_a_detour_promises():
    robot, mind = dot_2d(), Deluded(dot_2d())
    select = GoalSelector(picture_at(robot, 9, 9))
    for event in live(robot, select, world_model=mind, steps=8):
        assert select.reached and event.executed == robot.action_space.rest and "keeps closest" in event.choice.why


def test_the_rest_of_the_last_plan_is_among_the_next_ones_and_survives_being_saved():
    robot, mind = dot_2d(), PerfectMind(dot_2d())
    goal = picture_at(robot, 26, 21)
    robot.place(6, 6)
    select = GoalSelector(goal, horizon=5, plans=6, rounds=2, seed=3)
    choice = select(situation(robot, mind))
    rest = select.state_dict()["next"]
    assert len(rest) == 4
    resumed = GoalSelector(goal, horizon=5, plans=6, rounds=2, seed=99)
    resumed.load_state_dict(json.loads(json.dumps(select.state_dict())))
    robot.execute_action(choice.action)
    for one in (select, resumed):
        mind.asked.clear()
        answer = one(situation(robot, mind, 1))
        first = mind.asked[0][0].argmax(-1).tolist()
        assert [*rest, rest[-1]] in first
        assert answer.action == choice.action or answer.why
    assert select.state_dict() == resumed.state_dict()


def test_many_actions_are_tried_in_turn():
    """A thousand actions: no plan for each, and no time lost on making them."""
    space = ActionSpace.discrete([{"n": i} for i in range(1000)], ordered=False)
    robot, mind = dot_2d(), Ignorant(dot_2d())
    mind.action_size = 1000
    choice = GoalSelector(picture_at(robot, 3, 3))(Situation(seen(dot_2d(1)), space, mind))
    assert space.index(choice.action) < 1000 and len(choice.scores) <= 65


def test_the_highest_level_that_still_shows_four_moments_plans_and_single_actions_arrive():
    robot, mind = ring(), PerfectMind(ring(), spans=(1, 2, 4))
    goal = picture_at(robot, 1 + 5 * 5, 10)
    robot.place(1, 10)
    select = GoalSelector(goal, horizon=16, plans=8)
    for event in live(robot, select, world_model=mind, steps=6):
        assert isinstance(event, Step)
    assert select.reached and picture_of(robot).tobytes() == goal.tobytes()
    assert mind.asked[0][1] == 2, "16 actions are four moments of level 2"
    assert mind.asked[-1][0].shape[1] == 4 and mind.asked[-1][1] == 0, "the last leap is planned action by action"
    for horizon, highest, level in ((8, None, 1), (7, None, 0), (16, 1, 1), (16, 0, 0), (64, None, 2)):
        mind.asked.clear()
        GoalSelector(goal, horizon, highest=highest)(situation(ring(3), mind))
        assert mind.asked[0][1] == level, (horizon, highest)


# What it cannot do


def test_where_no_plan_leads_closer_it_acts_at_random_and_has_not_arrived():
    robot = dot_2d()
    goal = picture_at(robot, 3, 3)
    robot.place(20, 20)
    select = GoalSelector(goal, seed=1)
    choices = [select(situation(robot, Ignorant(dot_2d()), step)) for step in range(40)]
    assert {choice.action["action"] for choice in choices} == {0, 1, 2, 3, 4}
    assert all("random" in choice.why for choice in choices) and not select.reached
    robot.place(3, 3)
    select(situation(robot, Ignorant(dot_2d())))
    assert select.reached, "equal pictures need no model"


def test_it_says_what_is_missing_or_cannot_work():
    robot = dot_2d()
    with pytest.raises(ConfigurationError, match="plans with a world model"):
        GoalSelector(robot.picture())(situation(robot, None))
    with pytest.raises(FrameError, match="sees frames of shape"):
        GoalSelector(np.zeros((48, 48, 3), np.uint8))(situation(robot, PerfectMind(dot_2d())))
    with pytest.raises(FrameError, match="uint8"):
        GoalSelector(np.zeros((SIZE, SIZE, 3)))
    for wrong in ({"horizon": 0}, {"plans": 1}, {"rounds": 0}, {"tolerance": float("nan")}, {"highest": -1}):
        with pytest.raises(ConfigurationError):
            GoalSelector(robot.picture(), **wrong)
    with pytest.raises(ConfigurationError, match="needs a goal"):
        learn(robot, selector="goal")


# As a person uses it


def test_a_goal_is_a_picture_file_or_a_recorded_moment(tmp_path):
    from recordings import recorded

    from motorbabble.figures import png_bytes

    robot = dot_2d()
    (tmp_path / "goal.png").write_bytes(png_bytes(robot.picture()))
    assert np.array_equal(goal_picture(str(tmp_path / "goal.png"), tmp_path), robot.picture())
    session = recorded(tmp_path / "dot_2d", dot_2d(4), steps=3)
    images = [event.observation.image for event in live(dot_2d(4), RandomSelector(0), steps=3) if isinstance(event, Step)]
    assert np.array_equal(goal_picture(f"{session.name}:2", tmp_path), images[2])
    (tmp_path / "no.png").write_bytes(b"no picture")
    for text in (str(tmp_path / "no.png"), str(tmp_path / "absent.png"), str(tmp_path)):
        with pytest.raises(ConfigurationError, match="cannot be read"):
            goal_picture(text, tmp_path)
    for wrong in ({"selector": "goal"}, {"goal": "a.png"}):
        with pytest.raises(ConfigurationError, match="or neither"):
            LearningRecipe(Dot2dConfig(), **wrong)
    recipe = LearningRecipe(Dot2dConfig(), selector="goal", goal=str(tmp_path / "goal.png"))
    assert isinstance(recipe.select(), GoalSelector) and LearningRecipe(Dot2dConfig()).select() == "uncertainty"


def test_it_plugs_into_learn_as_any_selector_does():
    robot = dot_2d()
    goal = picture_at(robot, 3, 3)
    robot.place(20, 20)
    events = list(learn(robot, selector=GoalSelector(goal, horizon=2, plans=4), steps=4, patch_size=16))
    assert sum(isinstance(event, Step) for event in events) == 4
