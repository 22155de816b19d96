"""A JetBot finds out what turning its right wheel does to what it sees; you are asked before every movement.

    python examples/jetbot_world_model_example.py --fake              without a robot: a drawn room that turns
    python examples/jetbot_world_model_example.py --ip 192.168.1.20   a real one; first put it on a box, wheels in the air

Enter does what it proposes, an action's name, number or {"motor_right": 0.12} does that instead, `stop` ends it. With --auto nobody is asked.
What it sees, expected and imagines is drawn before each question, in a window, or without a screen in a file view.png.

Every step is recorded in saved/sessions/jetbot, what it learns is saved in saved/checkpoints/jetbot/example, and the same command goes on where it
was. Ctrl+C stops the robot at once; so does losing it, which ends the program with exit code 3. It also ends after half an hour, when its
battery, where it can be read, is below a fifth, and when 20 movements in a row changed nothing it sees.
"""

import argparse
from pathlib import Path

from motorbabble import AutoencoderLatentPredictorWorldModel
from motorbabble.bounds import CAREFUL
from motorbabble.cli import sentences
from motorbabble.robots.jetbot import PORT, JetBotConfig, jetbot

STEPS = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ip", default="127.0.0.1", help="of the robot; this machine, where an SSH tunnel leads to it")
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument("--token-file", type=Path, help="with the secret that the robot's server was started with, if any")
    parser.add_argument("--fake", action="store_true", help="no robot: a stand-in on this machine")
    parser.add_argument("--auto", action="store_true", help="it acts by itself, nobody is asked; keep an eye on it")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"of the robot, at most; {STEPS} unless given")
    options = parser.parse_args()

    with jetbot(JetBotConfig(options.ip, options.port, options.token_file, options.fake)) as robot:
        print(robot.describe())
        checkpoints = Path("saved/checkpoints") / robot.robot_type / "example"
        sessions = Path("saved/sessions") / robot.robot_type
        asks = not options.auto
        with AutoencoderLatentPredictorWorldModel(robot, checkpoints, session_dir=sessions, interactive=asks, bounds=CAREFUL) as model:
            model.main_loop(options.steps)
            steps, skill = model.life.steps_done, model.life.progress.skill
            print(f"Steps lived: {steps}. Prediction skill: {skill:.2f}; 0 is as if nothing changed, 1 is perfect.")
            print(f"It is saved in {checkpoints}; the same command goes on from here.")


if __name__ == "__main__":
    with sentences("jetbot_world_model_example.py"):
        main()
