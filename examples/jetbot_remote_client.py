"""A JetBot's camera, live, in a window: q or Ctrl+C closes it. Nothing moves.

    python examples/jetbot_remote_client.py --fake               without a robot: a drawn room
    python examples/jetbot_remote_client.py --ip 192.168.1.20    a real one

`--headless` needs no screen and tells pictures per second, their age and how long a look takes. docs/jetbot.md says how to reach the robot.
"""

import argparse
from pathlib import Path

from motorbabble.cli import sentences
from motorbabble.commands.feed import watch, window
from motorbabble.robots.jetbot import PORT, JetBotConfig, jetbot


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ip", default="127.0.0.1", help="of the robot; this machine, where an SSH tunnel leads to it")
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument("--token-file", type=Path, help="with the secret that the robot's server was started with, if any")
    parser.add_argument("--fake", action="store_true", help="no robot: a stand-in on this machine")
    parser.add_argument("--headless", action="store_true", help="numbers instead of a window")
    parser.add_argument("--seconds", type=float, help="how long; until q or Ctrl+C, unless given")
    options = parser.parse_args()

    show, close = (lambda seen: True), (lambda: None)
    if not options.headless:
        show, close = window("JetBot Live Feed")
    try:
        with jetbot(JetBotConfig(options.ip, options.port, options.token_file, options.fake)) as robot:
            print(robot.describe())
            watch(robot, show, options.headless, options.seconds)
    finally:
        close()


if __name__ == "__main__":
    with sentences("jetbot_remote_client.py"):
        main()
