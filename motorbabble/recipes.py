"""Named runs: a frozen dataclass holds every setting of a run; a recipe is one with a name.

`babble run NAME --help` lists a recipe's settings; each flag is a field here. A new recipe is one entry in RECIPES.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from motorbabble.errors import ConfigurationError
from motorbabble.learning.learner import ONLINE, LearnerConfig
from motorbabble.learning.schedule import ScheduleConfig
from motorbabble.memory import MemoryConfig
from motorbabble.recording.format import check_name
from motorbabble.robots.bodies import BodiesConfig, BodiesRobot
from motorbabble.robots.interface import RobotInterface
from motorbabble.robots.toroidal_dot import ToroidalDotConfig, ToroidalDotRobot
from motorbabble.selectors import SEQUENCES, create_sequence_action_selector

RobotConfig = ToroidalDotConfig | BodiesConfig


def robot_from(config: RobotConfig, seed: int) -> RobotInterface:
    """The robot a configuration describes. The configuration makes the world; `seed` says where in it life begins."""
    if isinstance(config, BodiesConfig):
        return BodiesRobot(course=seed if config.course is None else config.course, config=config)
    return ToroidalDotRobot(config, seed=seed)


@dataclass(frozen=True)
class ModelChoice:
    preset: Literal["tiny", "base", "large"] = "tiny"  # tiny: CPU; base: the mission's size; large: GPU
    patch_size: int = 16  # pixels; must divide the frame's height and width
    prediction_history_size: int = 2  # newest frames the predictor looks at
    moved_layers: int = 3  # layers the decoder may move; 0: it only paints
    pred_patch_w: float = 0.2  # weight of the picture loss
    pred_latent_w: float = 0.8  # weight of the latent loss
    pred_action_w: float = 1.0  # weight of the action loss


@dataclass(frozen=True)
class KeepConfig:
    """Where a life is kept, and how often."""

    sessions: Path = Path("saved/sessions")  # a folder per robot type in it
    checkpoints: Path | None = Path("saved/checkpoints")  # likewise; None: nothing is saved, nothing resumed
    save_updates: int = 500  # a checkpoint after so many updates ...
    save_seconds: float = 60.0  # ... and after so many seconds, and at the end
    max_disk_gb: float = 10.0  # for all sessions of a robot type; the oldest that nobody needs go first

    def memory(self, robot_type: str, name: str, record: bool) -> MemoryConfig:
        folder = None if self.checkpoints is None else self.checkpoints / robot_type / check_name(name)
        return MemoryConfig(folder, self.sessions / robot_type, record, self.save_updates, self.save_seconds, self.max_disk_gb * 1e9)


@dataclass(frozen=True)
class LatentRecipe:
    """A robot acts, the latent world model learns online from that one stream, and a card says what it learned."""

    robot: RobotConfig
    model: ModelChoice = field(default_factory=ModelChoice)
    learner: LearnerConfig = ONLINE
    selector: Literal["uncertainty", "random", "random_duration", "least_tried"] = "uncertainty"
    steps: int = 400  # of the robot
    seconds: float | None = None  # of learning, at most; None: no limit
    exam_steps: int = 100  # lived afterwards without learning, with random actions, for the card
    seed: int = 0
    device: str = "auto"  # auto, cpu or cuda
    threads: int | None = None  # of the CPU; None: as torch finds it
    record: bool = True  # every step, as a session in saved/sessions
    name: str = ""  # of its checkpoint; empty: the recipe's. The same name again goes on where it was
    fresh: bool = False  # begin anew; what was saved under this name is put aside, not deleted
    keep: KeepConfig = field(default_factory=KeepConfig)
    out: Path = Path("saved/cards")  # where the card goes, in a folder of its own

    def __post_init__(self):
        if self.exam_steps < 2 or self.seed < 0:
            raise ConfigurationError(f"exam_steps is {self.exam_steps} and seed {self.seed}; an exam needs at least 2 steps, a seed is 0 or more")


@dataclass(frozen=True)
class RunnerRecipe:
    """A robot acts by a script, without learning; statistics of its actions at the end."""

    robot: RobotConfig
    sequence: Literal["always_move", "always_stay", "alternate", "double_move", "triple_move"] = "always_move"
    steps: int = 100
    seed: int = 0
    record: bool = True  # every step, as a session in saved/sessions
    sessions: Path = Path("saved/sessions")  # a folder per robot type in it
    max_disk_gb: float = 10.0  # for all sessions of a robot type; the oldest that nobody needs go first

    def selector(self) -> Any:
        return create_sequence_action_selector(SEQUENCES[self.sequence])


RECIPES: dict[str, LatentRecipe | RunnerRecipe] = {
    "toroidal_dot_latent": LatentRecipe(ToroidalDotConfig()),
    "toroidal_dot_runner": RunnerRecipe(ToroidalDotConfig()),
    "bodies_latent": LatentRecipe(BodiesConfig(), steps=600),
    # The mission's own numbers: a larger model, a slower rate, a longer warm-up than a short life can use.
    "mission": LatentRecipe(
        ToroidalDotConfig(),
        ModelChoice("base", prediction_history_size=3, moved_layers=0),
        replace(ONLINE, batch_size=1, shift=(0, 0), ema_decay=0.0, schedule=ScheduleConfig("cosine", 1e-4)),
        steps=2000,
    ),
}

ABOUT = {
    "toroidal_dot_latent": "a white dot on a ring; learned in about a minute on two cores",
    "toroidal_dot_runner": "the same dot, acting by a script, without learning",
    "bodies_latent": "bodies of random shape and texture, a distractor, 2 to 6 actions; another world for every --robot.seed",
    "mission": "the dot with the original description's numbers; slow, for comparison",
}
