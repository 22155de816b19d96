"""A simulated dot on a ring learns, from random weights, what its movement does to what it sees; about a minute on two cores.

    python examples/toroidal_dot_world_model_example.py

It always moves, by SEQUENCE_ALWAYS_MOVE; with --curious it picks the action it is least sure of, stay or move. While it lives a line tells
how well it predicts: skill 0 is no better than expecting that nothing changes, 1 is perfect. In the end a card tells what it knows.

Every step is recorded in saved/sessions/toroidal_dot, what it learns is saved in saved/checkpoints/toroidal_dot/example, and the same command goes
on where it was, for as many steps again. `python examples/replay_session_example.py` lives through the recording once more.
"""

import argparse
from pathlib import Path

from motorbabble import AutoencoderLatentPredictorWorldModel, ToroidalDotRobot
from motorbabble.cli import sentences
from motorbabble.config import ToroidalDotConfig
from motorbabble.experience import Event, Step
from motorbabble.selectors import SEQUENCE_ALWAYS_MOVE, create_sequence_action_selector

STEPS = 300
ENOUGH = 100  # steps lived for a card
CHECKPOINTS, SESSIONS = Path("saved/checkpoints/toroidal_dot/example"), Path("saved/sessions/toroidal_dot")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curious", action="store_true", help="it chooses by itself, what it is least sure of")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"of the robot; {STEPS} unless given")
    parser.add_argument("--seed", type=int, default=0, help="another seed, another start and other random weights")
    options = parser.parse_args()

    selector = "uncertainty" if options.curious else create_sequence_action_selector(SEQUENCE_ALWAYS_MOVE)
    with ToroidalDotRobot(ToroidalDotConfig(), seed=options.seed) as robot:
        model = AutoencoderLatentPredictorWorldModel(robot, CHECKPOINTS, session_dir=SESSIONS, action_selector=selector, seed=options.seed)

        def tell(event: Event) -> None:
            if isinstance(event, Step) and event.index % 25 == 24:
                print(f"step {event.index + 1}: skill {model.life.progress.skill:.2f}")

        with model:
            model.main_loop(options.steps, tell)
            if model.life.steps_done >= ENOUGH:
                card = model.life.card(name="example")
                print(*card.sentences(), sep="\n")
                print(f"Open {card.save(Path('saved/cards/toroidal_dot/example'))} to see what it imagines.")


if __name__ == "__main__":
    with sentences("toroidal_dot_world_model_example.py"):
        main()
