"""Every robot sits the same exam; a new robot is one line here."""

import tempfile

import numpy as np
import pytest
from counting import Counting, read, write
from exams import ROBOT_RULES, robot_exam
from perfect_minds import PerfectMind, dot_2d, seen
from recordings import onward

from motorbabble.experience import Observation
from motorbabble.robots.bodies import BodiesRobot
from motorbabble.robots.dot_2d import Dot2dRobot
from motorbabble.robots.gymnasium_robot import GymnasiumConfig, GymnasiumRobot
from motorbabble.robots.jetbot import FakeJetBot
from motorbabble.robots.recording_robot import RecordingRobot
from motorbabble.robots.stub import StubRobot
from motorbabble.robots.toroidal_dot import ToroidalDotRobot
from motorbabble.robots.webcam import WebcamConfig, WebcamRobot
from motorbabble.world_models.dream import DreamRobot

ROBOTS = {
    "counting": Counting,
    "counting with episodes": lambda: Counting(episode_steps=5),
    "toroidal dot": lambda: ToroidalDotRobot(seed=3),
    "small toroidal dot": lambda: ToroidalDotRobot(image_size=32, dot_radius=2, move_pixels=7, seed=0),
    "bodies that wrap": lambda: BodiesRobot(7),
    "bodies that stop": lambda: BodiesRobot(0),
    "bodies, short episodes": lambda: BodiesRobot(2, image_size=48, episode_steps=4),
    "bodies, another course": lambda: BodiesRobot(6, course=1),
    "dot in two dimensions": lambda: Dot2dRobot(seed=1),
    "dot in two rooms": lambda: Dot2dRobot(rooms=True, seed=2),
    "dot with a television": lambda: Dot2dRobot(television=True, seed=3),
    "cart pole, two steps an action": lambda: GymnasiumRobot(GymnasiumConfig("CartPole-v1", repeat=2), seed=5),
    "pendulum, whose actions are a box": lambda: GymnasiumRobot(GymnasiumConfig("Pendulum-v1"), seed=0),
    "four rooms": lambda: GymnasiumRobot(GymnasiumConfig("MiniGrid-FourRooms-v0", settings='{"tile_size": 8}'), seed=0),
    "stub": lambda: StubRobot(seed=4),
    "jetbot that is not there": FakeJetBot,
    "webcam in a drawn room": lambda: WebcamRobot(WebcamConfig(fake=True, size=48, duration=0.03), seed=2),
    "dream": lambda: DreamRobot(PerfectMind(dot_2d()), dot_2d().action_space, [seen(dot_2d(seed)) for seed in range(5)], 7, seed=3),
    "recording of a robot": onward,
    "robot that is recorded": lambda: RecordingRobot(Counting(episode_steps=9), tempfile.mkdtemp()),
}


@pytest.mark.parametrize("rule", ROBOT_RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("robot", ROBOTS)
def test_robot_keeps_the_rule(robot, rule):
    rule(ROBOTS[robot])


class StaleFrame(Counting):
    """Broken on purpose: it hands out one buffer again and again."""

    buffer = None

    def get_observation(self):
        fresh = super().get_observation()
        self.buffer = fresh.image if self.buffer is None else self.buffer
        np.copyto(self.buffer, fresh.image)
        return Observation(self.buffer, sequence=self.steps, episode=self.episode, state=fresh.state)


class LooksCount(Counting):
    """Broken on purpose: looking moves it."""

    def get_observation(self):
        self.count += 1
        return super().get_observation()


class NeverStops(Counting):
    """Broken on purpose: it acts on after a stop."""

    def stop(self):
        pass


class Forgetful(Counting):
    """Broken on purpose: it does not save how far it had counted."""

    def load_state_dict(self, state):
        super().load_state_dict({**state, "count": 0})


class DoesAnything(Counting):
    """Broken on purpose: it takes an unknown action for the nearest one."""

    def execute_action(self, action):
        return super().execute_action(action if action in list(self.action_space.actions) else self.action_space.rest)


@pytest.mark.parametrize("broken", [StaleFrame, LooksCount, NeverStops, Forgetful, DoesAnything])
def test_the_exam_notices_a_broken_robot(broken):
    robot_exam(Counting)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        robot_exam(broken)


def test_counting_frames_can_be_read():
    robot = Counting(episode_steps=3)
    read_off = [read(robot.get_observation().image)]
    for value in (1, 2, 2, 1):
        robot.execute_action({"add": value})
        read_off.append(read(robot.get_observation().image))
    assert read_off == [(0, 0), (1, 1), (3, 2), (5, 0), (6, 1)]
    assert [read(write(count, 2)) for count in (0, 255, 256, 16383)] == [(0, 2), (255, 2), (256, 2), (16383, 2)]
