"""`FromLeRobot` is a LeRobot robot that learns here, `MotorbabbleRobot` one of our robots in LeRobot's tools.

LeRobot finds its robots by importing this package and registering MotorbabbleRobotConfig as robot type "motorbabble".
"""

from importlib.util import find_spec

from lerobot_robot_motorbabble.from_lerobot import FromLeRobot

__all__ = ["FromLeRobot"]

if find_spec("lerobot"):  # which FromLeRobot can do without: it only wants a robot that behaves like one
    from lerobot_robot_motorbabble.to_lerobot import MotorbabbleRobot, MotorbabbleRobotConfig

    __all__ += ["MotorbabbleRobot", "MotorbabbleRobotConfig"]
