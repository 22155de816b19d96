"""Live through recorded sessions again, of every robot there is, with the same main loop, and learn from them as if they happened now.

    python examples/toroidal_dot_runner_example.py --sequence alternate --record    makes one, if there is none
    python examples/replay_session_example.py

No robot is needed and none moves. Each robot type has a world model and a checkpoint of its own, saved/checkpoints/ROBOT_TYPE/replay, and the same
command goes on with it. Names of sessions, `latest` or `toroidal_dot/all` choose some of them (babble sessions list shows all);
`--filter-action action=1` keeps the moments in which that was done.
"""

import argparse
from itertools import groupby
from pathlib import Path

from motorbabble import AutoencoderLatentPredictorWorldModel
from motorbabble.cli import sentences
from motorbabble.errors import MotorbabbleError
from motorbabble.experience import Action
from motorbabble.recording.reader import RecordingReader
from motorbabble.recording.shelf import find_sessions
from motorbabble.robots.replay import ReplayRobot, create_recorded_action_selector


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("session", nargs="*", default=["all"], help="names, latest, all, or ROBOT_TYPE/all; all unless given")
    parser.add_argument("--sessions", type=Path, default=Path("saved/sessions"), help="where they lie; saved/sessions unless given")
    parser.add_argument("--filter-action", type=wanted, metavar="CHANNEL=VALUE", help="learn only from this action")
    parser.add_argument("--steps", type=int, help="of each robot type, at most")
    options = parser.parse_args()

    readers = sorted((RecordingReader(folder) for folder in find_sessions(options.session, options.sessions)), key=kind)
    for (robot_type, _), some in groupby(readers, key=kind):
        try:
            replay(ReplayRobot(*some, action_filter=options.filter_action), options.sessions / robot_type, options.steps)
        except MotorbabbleError as error:
            print(f"{robot_type} was left out: {error}")


def replay(robot: ReplayRobot, sessions: Path, steps: int | None) -> None:
    checkpoints = Path("saved/checkpoints") / robot.robot_type / "replay"
    selector = create_recorded_action_selector(robot)
    with robot, AutoencoderLatentPredictorWorldModel(robot, checkpoints, session_dir=sessions, action_selector=selector) as model:
        print(f"{robot.robot_type}: sessions {len(robot.sessions)}, moments {robot.left()}")
        model.main_loop(steps)
        print(f"  steps lived: {model.life.steps_done}, prediction skill: {model.life.progress.skill:.2f}; saved in {checkpoints}")


def kind(reader: RecordingReader) -> tuple[str, str]:
    """Sessions that are alike in this can be lived through by one model."""
    return reader.robot_type, reader.action_space.fingerprint


def wanted(text: str):
    channel, _, value = text.partition("=")
    try:
        number = float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} says no value of a channel; give one like action=1") from None

    def filtered(action: Action) -> bool:
        return action.get(channel) == number

    return filtered


if __name__ == "__main__":
    with sentences("replay_session_example.py"):
        main()
