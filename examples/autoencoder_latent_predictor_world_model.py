"""The latent world model's main loop, tried without a robot: a stand-in sees noise and a red square, and has nine actions that change nothing.

    python examples/autoencoder_latent_predictor_world_model.py

You are asked before every action: Enter does what is proposed, another action's name or number does that instead, `stop` ends it. Before each
question there is a picture of what it sees and what it imagines for all nine actions, in a window, or without a screen in a file view.png.
With --auto nobody is asked. The networks are real: they learn the square, and cannot learn the noise. Nothing is recorded or saved.
"""

import argparse

from motorbabble import AutoencoderLatentPredictorWorldModel
from motorbabble.cli import sentences
from motorbabble.experience import Event, Step, Study
from motorbabble.robots.stub import StubRobot

STEPS = 20


def tell(event: Event) -> None:
    """One line for each gradient step and each action."""
    if isinstance(event, Study):
        print(f"  update {event.update}: loss {event.losses['total']:.3f}, the gate says {event.gate}")
    elif isinstance(event, Step):
        print(f"step {event.index}: {event.choice.why}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--auto", action="store_true", help="nobody is asked")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"at most; {STEPS} unless given")
    options = parser.parse_args()

    with StubRobot() as robot, AutoencoderLatentPredictorWorldModel(robot, interactive=not options.auto, display_interval=10) as model:
        model.main_loop(options.steps, tell)


if __name__ == "__main__":
    with sentences("autoencoder_latent_predictor_world_model.py"):
        main()
