"""Run by LeRobot's own Python: one of our robots, found and made by LeRobot itself, then looked at, driven and let go. Prints one JSON line."""

import json

import numpy as np
from lerobot.robots import RobotConfig, make_robot_from_config
from lerobot.utils.errors import DeviceNotConnectedError
from lerobot_robot_motorbabble import MotorbabbleRobotConfig

assert RobotConfig.get_choice_class("motorbabble") is MotorbabbleRobotConfig
robot = make_robot_from_config(MotorbabbleRobotConfig(recipe="dot_2d_latent", flags="--robot.image-size 48"))
features = {key: list(kind) if isinstance(kind, tuple) else kind.__name__ for key, kind in robot.observation_features.items()}
try:
    robot.get_observation()
    refused = False
except DeviceNotConnectedError:
    refused = True
robot.connect()
before, sent, after = robot.get_observation(), robot.send_action({"action": np.float32(1.0)}), robot.get_observation()
moved = (after["objects.0"] - before["objects.0"]) % 48
robot.disconnect()
print(json.dumps({"features": features, "refused": refused, "sent": sent, "moved": moved, "connected": robot.is_connected}))
