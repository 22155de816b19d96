"""An hour in which a JetBot learns and acts in turns, by a simulated clock: its motors turn inside actions, and never else."""

import random

import pytest
from jetbot_clock import check_board, host
from jetbot_simulated import World

from motorbabble.errors import RobotError
from motorbabble.experience import Step, Study
from motorbabble.life import live
from motorbabble.robots.jetbot import DURATION, JetBotInterface

HOUR = 3600.0


class Training:
    """A learner without a model, that takes its time: up to `most` seconds in up to three updates."""

    world_model = None

    def __init__(self, world, draw, most=8.0):
        self.world, self.draw, self.most, self.updates = world, draw, most, 0

    def remember(self, observation, led):
        pass

    def study(self):
        for _ in range(self.draw.randrange(1, 4)):
            self.world.sleep(self.draw.choice([0.0, self.draw.uniform(0.0, self.most)]))
            self.updates += 1
            yield Study(self.updates, {"total": 1.0}, "passed", 0.0)


class Noted(JetBotInterface):
    """Notes from when until when it acted."""

    def __init__(self, world):
        self.world, self.windows = world, []
        super().__init__("127.0.0.1")

    def execute_action(self, action):
        begun = self.world.now
        done = super().execute_action(action)
        if done["motor_right"]:
            self.windows.append((begun, self.world.now))
        return done


def an_hour(world, robot=Noted, seconds=HOUR):
    """Lived with the one loop; every moment at which a wheel was told to turn lies in an action, and every action turns it."""
    draw, steps = random.Random(7), 0
    with robot(world) as jetbot:
        end = world.now + seconds
        for event in live(jetbot, lambda situation: draw.choice(situation.action_space.actions), Training(world, draw)):  # type: ignore[arg-type]
            steps += isinstance(event, Step)
            if world.now > end:
                break
        world.sleep(10.0)
        turning, windows = world.turning(), jetbot.windows
    assert len(windows) > steps / 3 > 3
    assert len(turning) == len(windows), "as often as it acted"
    for (begun, ended), (first, last) in zip(turning, windows, strict=True):
        assert first <= begun and ended <= last, "inside the action"
        assert ended - begun <= DURATION + 0.045 + 0.02, "and no longer than it says, the way down included"
    check_board(world.board.values)


@pytest.mark.parametrize("seconds", [120.0, HOUR])
def test_in_an_hour_of_training_and_acting_the_motors_turn_only_inside_actions(seconds, monkeypatch):
    an_hour(World(monkeypatch, late=0.002), seconds=seconds)


class Endless(host.Motors):
    """The design this was made against: motors keep what they were told."""

    def tick(self, now):
        if not self.resting:
            self.board.write(*self.target)
        return None


class Trusting(Noted):
    """Does not ask whether an action has ended."""

    def _leased(self, left, right, seconds):
        _, left, right = self.remote.drive(left, right, seconds)
        self.world.sleep(seconds + 0.05)
        return left, right


class Hasty(Noted):
    """Says that it has acted while it still acts."""

    def _leased(self, left, right, seconds):
        _, left, right = self.remote.drive(left, right, seconds)
        return left, right


class Doubled(Noted):
    """Acts once more than it was asked, while it learns."""

    def get_observation(self):
        seen = super().get_observation()
        if self._sequence % 5 == 3:
            self._leased(0.0, 0.12, 0.2)
        return seen


@pytest.mark.parametrize("broken", ["endless", "hasty", "doubled"])
def test_motors_that_turn_outside_of_actions_are_noticed(broken, monkeypatch):
    if broken == "endless":
        monkeypatch.setattr(host, "Motors", Endless)
    with pytest.raises(AssertionError):
        an_hour(World(monkeypatch), {"endless": Trusting, "hasty": Hasty, "doubled": Doubled}[broken], seconds=120.0)


def test_an_action_without_an_end_is_an_error(monkeypatch):
    monkeypatch.setattr(host, "Motors", Endless)
    with pytest.raises(RobotError, match="did not end by itself"):
        an_hour(World(monkeypatch), seconds=120.0)
