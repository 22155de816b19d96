"""The dot on a ring acts by a script, and nothing learns: for trying selectors, and for collecting recordings with a known policy.

    python examples/toroidal_dot_runner_example.py --sequence double_move --record

Ends with how often each action was done and how long it took. `--record` writes every step to saved/sessions/toroidal_dot; `--display` shows
every frame, in a window, or without a screen in a file view.png.
"""

import argparse

from motorbabble import RobotRunner, ToroidalDotRobot
from motorbabble.cli import sentences
from motorbabble.config import ToroidalDotConfig
from motorbabble.robots.recording_robot import RecordingRobot
from motorbabble.selectors import SEQUENCES, create_sequence_action_selector

STEPS = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequence", choices=sorted(SEQUENCES), default="always_move", help="what it does, again and again")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"{STEPS} unless given")
    parser.add_argument("--delay", type=float, default=0.1, help="seconds that pass after each action; 0.1 unless given")
    parser.add_argument("--seed", type=int, help="of where it starts; random unless given")
    parser.add_argument("--record", action="store_true", help="write down every step, as a session in saved/sessions/toroidal_dot")
    parser.add_argument("--display", action="store_true", help="show every frame")
    options = parser.parse_args()

    robot = ToroidalDotRobot(ToroidalDotConfig(), seed=options.seed)
    with RecordingRobot(robot) if options.record else robot as robot:
        selector = create_sequence_action_selector(SEQUENCES[options.sequence])
        runner = RobotRunner(robot, selector, display_interval=int(options.display), action_delay=options.delay)
        for name, value in runner.run(options.steps).items():
            print(f"  {name:32}{value:.6g}")
        if isinstance(robot, RecordingRobot):
            print(f"  recorded in {robot.session}")


if __name__ == "__main__":
    with sentences("toroidal_dot_runner_example.py"):
        main()
