"""Named runs: a frozen dataclass holds every setting of a run; a recipe is one with a name.

`babble run NAME --help` lists a recipe's settings; each flag is a field here. A new recipe is one entry in RECIPES.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import tyro

from motorbabble.bounds import CAREFUL, BoundsConfig
from motorbabble.display import DisplayConfig
from motorbabble.errors import ConfigurationError, SessionDamaged
from motorbabble.experience import Selector
from motorbabble.learning.dreaming import dream_from
from motorbabble.learning.learner import ONLINE, LearnerConfig
from motorbabble.learning.schedule import ScheduleConfig
from motorbabble.life import check_delay, check_period
from motorbabble.memory import MemoryConfig
from motorbabble.recording.format import check_name, decoded
from motorbabble.recording.reader import RecordingReader
from motorbabble.recording.shelf import find_session
from motorbabble.robots.bodies import BodiesConfig, BodiesRobot
from motorbabble.robots.dot_2d import Dot2dConfig, Dot2dRobot
from motorbabble.robots.gymnasium_robot import GymnasiumConfig, GymnasiumRobot
from motorbabble.robots.interface import RobotInterface
from motorbabble.robots.jetbot import JetBotConfig, jetbot
from motorbabble.robots.stub import StubConfig, StubRobot
from motorbabble.robots.toroidal_dot import ToroidalDotConfig, ToroidalDotRobot
from motorbabble.robots.webcam import WebcamConfig, WebcamRobot
from motorbabble.selectors import SEQUENCES, GoalSelector, RandomSelector, create_sequence_action_selector
from motorbabble.tracking import TrackingConfig
from motorbabble.world_models.dream import DreamConfig

Tracked = Annotated[TrackingConfig, tyro.conf.arg(name="")]  # its flags stand by themselves: --wandb PROJECT
Shown = Annotated[DisplayConfig, tyro.conf.arg(name="")]
RobotConfig = ToroidalDotConfig | BodiesConfig | GymnasiumConfig | StubConfig | Dot2dConfig | DreamConfig | JetBotConfig | WebcamConfig


def robot_from(config: RobotConfig, seed: int) -> RobotInterface:
    """The robot a configuration describes. The configuration makes the world; `seed` says where in it life begins."""
    if isinstance(config, BodiesConfig):
        return BodiesRobot(course=seed if config.course is None else config.course, config=config)
    if isinstance(config, GymnasiumConfig):
        return GymnasiumRobot(config, seed=seed)
    if isinstance(config, StubConfig):
        return StubRobot(config, seed=seed)
    if isinstance(config, Dot2dConfig):
        return Dot2dRobot(config, seed=seed)
    if isinstance(config, DreamConfig):
        return dream_from(config, seed)
    if isinstance(config, JetBotConfig):
        return jetbot(config, seed)
    if isinstance(config, WebcamConfig):
        return WebcamRobot(config, seed)
    return ToroidalDotRobot(config, seed=seed)


@dataclass(frozen=True)
class LatentChoice:
    """The latent world model, by those of its settings that a recipe may change."""

    kind: ClassVar[str] = "latent"
    preset: Literal["tiny", "base", "large"] = "tiny"  # tiny: CPU; base: the mission's size; large: GPU
    autoencoder_type: Literal["vit", "cnn"] = "vit"  # what sees: a masked transformer, or convolutions
    predictor_type: Literal["transformer", "lstm"] = "transformer"  # what predicts
    image_size: tuple[int, int] | None = None  # height and width that it sees; frames are resized to it. None: as the robot gives them
    patch_size: int = 16  # pixels; must divide the height and width that it sees
    prediction_history_size: int = 2  # newest frames the predictor looks at
    moved_layers: int = 3  # layers the decoder may move; 0: it only paints
    pred_patch_w: float = 0.2  # weight of the picture loss
    pred_latent_w: float = 0.8  # weight of the latent loss
    pred_action_w: float = 1.0  # weight of the action loss


@dataclass(frozen=True)
class CanvasChoice:
    """The canvas world model, likewise."""

    kind: ClassVar[str] = "canvas"
    preset: Literal["tiny", "base", "large"] = "tiny"  # tiny: CPU; base: the mission's size; large: GPU
    image_size: tuple[int, int] | None = None  # height and width of a frame on the canvas; frames are resized to it. None: as the robot gives them
    patch_size: int = 16  # pixels; must divide the height and width of a frame
    canvas_history_size: int = 3  # frames side by side, the next one included
    separator_width: int = 16  # pixels of the bar between two frames; a multiple of the patch
    residual: bool = True  # the empty slot starts as the frame before it
    action_token: bool = True  # the action enters beside its colour; else as a colour only
    moved_layers: int = 3  # layers of the last frame that may be moved; 0: it only paints


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
class LearningRecipe:
    """A robot acts, a world model learns online from that one stream, and a card says what it learned."""

    robot: RobotConfig
    model: LatentChoice | CanvasChoice = field(default_factory=LatentChoice)
    learner: LearnerConfig = ONLINE
    selector: Literal["uncertainty", "learning_progress", "prediction_error", "random", "random_duration", "least_tried", "goal"] = "uncertainty"
    goal: str = ""  # what selector goal wants to see: a picture's file, or SESSION:MOMENT
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
    out: Path = Path("saved/cards")  # where the card and the metrics go, in a folder of their own
    track: Tracked = field(default_factory=TrackingConfig)
    show: Shown = field(default_factory=DisplayConfig)
    action_delay: float = 0.0  # seconds that pass after each action
    action_period: float | None = None  # seconds from the start of an action to that of the next, where it can be kept; None: as fast as it goes
    beside: bool = False  # it learns in a process of its own, while the robot acts
    gate: Literal["act", "wait"] = "act"  # of one that learns beside: the robot acts on time, or waits until the newest frame was learned from
    bounds: BoundsConfig = field(default_factory=BoundsConfig)  # that stop the robot before its steps are done; the exam's steps too

    def __post_init__(self):
        if self.exam_steps < 2 or self.seed < 0:
            raise ConfigurationError(f"exam_steps is {self.exam_steps} and seed {self.seed}; an exam needs at least 2 steps, a seed is 0 or more")
        if (self.selector == "goal") != bool(self.goal):
            raise ConfigurationError(
                f"the selector is {self.selector} and the goal {self.goal or 'missing'}; give both, --selector goal and --goal PICTURE or "
                "--goal SESSION:MOMENT, or neither"
            )
        check_delay(self.action_delay)
        check_period(self.action_period)

    def select(self) -> str | Selector:
        """The selector's name, or, where it wants something, the selector."""
        return GoalSelector(goal_picture(self.goal, self.keep.sessions), seed=self.seed) if self.selector == "goal" else self.selector


@dataclass(frozen=True)
class RunnerRecipe:
    """A robot acts by a script, without learning; statistics of its actions at the end."""

    robot: RobotConfig
    sequence: Literal["always_move", "always_stay", "alternate", "double_move", "triple_move", "random"] = "always_move"
    steps: int = 100
    seed: int = 0
    record: bool = True  # every step, as a session in saved/sessions
    sessions: Path = Path("saved/sessions")  # a folder per robot type in it
    max_disk_gb: float = 10.0  # for all sessions of a robot type; the oldest that nobody needs go first
    interactive: bool = False  # a person is asked before every action: Enter, another action, or stop
    display: bool = False  # draw what it sees, in a window, or else in a file view.png
    display_interval: int = 10  # steps between two pictures; where a person is asked there is one before each question
    action_delay: float = 0.0  # seconds that pass after each action
    bounds: BoundsConfig = field(default_factory=BoundsConfig)  # that stop the robot before its steps are done
    out: Path = Path("saved/cards")  # where view.png goes, in a folder of its own

    def __post_init__(self):
        DisplayConfig(display_interval=self.display_interval)  # which refuses one that cannot be
        check_delay(self.action_delay)

    def selector(self) -> Any:
        return RandomSelector(self.seed) if self.sequence == "random" else create_sequence_action_selector(SEQUENCES[self.sequence])


def goal_picture(text: str, sessions: Path) -> np.ndarray:
    """(H, W, 3) uint8: a PNG or JPEG file, or SESSION:MOMENT, a frame that was recorded in `sessions`."""
    session, _, moment = text.rpartition(":")
    if session and moment.isdecimal():
        return RecordingReader(find_session(session, sessions)).image(int(moment))
    try:
        return decoded(Path(text).read_bytes())
    except (OSError, SessionDamaged) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no PNG or JPEG"
        raise ConfigurationError(f"the goal {text!r} cannot be read: {why}; give a picture's file, or SESSION:MOMENT") from None


RECIPES: dict[str, LearningRecipe | RunnerRecipe] = {
    "toroidal_dot_latent": LearningRecipe(ToroidalDotConfig()),
    "toroidal_dot_canvas": LearningRecipe(ToroidalDotConfig(), CanvasChoice()),
    "toroidal_dot_runner": RunnerRecipe(ToroidalDotConfig()),
    "bodies_latent": LearningRecipe(BodiesConfig(), steps=600),
    "bodies_canvas": LearningRecipe(BodiesConfig(), CanvasChoice(), steps=600),
    "dot_2d_latent": LearningRecipe(Dot2dConfig()),
    "dream_latent": LearningRecipe(DreamConfig()),
    "dream_runner": RunnerRecipe(DreamConfig(), sequence="random"),
    "gym_latent": LearningRecipe(GymnasiumConfig(), LatentChoice(image_size=(64, 64), patch_size=8), replace(ONLINE, shift=(0, 0)), steps=2000),
    "jetbot_latent": LearningRecipe(JetBotConfig(), exam_steps=60, action_period=0.5, beside=True, bounds=CAREFUL),
    "jetbot_canvas": LearningRecipe(JetBotConfig(), CanvasChoice(), exam_steps=60, action_period=0.5, beside=True, bounds=CAREFUL),
    "jetbot_runner": RunnerRecipe(JetBotConfig(), sequence="random", bounds=CAREFUL),
    "webcam_latent": LearningRecipe(WebcamConfig(), LatentChoice(image_size=(112, 112)), steps=300, exam_steps=40, bounds=BoundsConfig(stall=20)),
    "stub": LearningRecipe(StubConfig(), steps=60, exam_steps=20, show=DisplayConfig(display=True)),
    # The mission's own numbers: a larger model, a slower rate, a longer warm-up than a short life can use.
    "mission": LearningRecipe(
        ToroidalDotConfig(),
        LatentChoice("base", prediction_history_size=3, moved_layers=0),
        replace(ONLINE, batch_size=1, shift=(0, 0), ema_decay=0.0, schedule=ScheduleConfig("cosine", 1e-4)),
        steps=2000,
        track=TrackingConfig(log_interval=100),
    ),
}

ABOUT = {
    "toroidal_dot_latent": "a white dot on a ring; learned in about a minute on two cores",
    "toroidal_dot_canvas": "the same dot, its next frame painted beside the last ones; learned in minutes on two cores",
    "toroidal_dot_runner": "the same dot, acting by a script, without learning",
    "bodies_latent": "bodies of random shape and texture, a distractor, 2 to 6 actions; another world for every --robot.seed",
    "bodies_canvas": "the same worlds, the next frame painted beside the last ones",
    "dot_2d_latent": "a dot that goes four ways on 64 x 64 pixels; --robot.rooms and --robot.television make it harder",
    "dream_latent": "another model's imagination, learned like a world: --robot.checkpoint ROBOT_TYPE/NAME",
    "dream_runner": "the same dream, acting at random, without learning",
    "gym_latent": "any Gymnasium environment with pictures: --robot.env ALE/Breakout-v5; needs pip install 'motorbabble[gym]'",
    "jetbot_latent": "a JetBot at --robot.ip (docs/jetbot.md), or with --robot.fake a stand-in on this machine",
    "jetbot_canvas": "the same JetBot, its next frame painted beside the last ones",
    "jetbot_runner": "the same JetBot, acting at random, without learning",
    "webcam_latent": "any camera; you do the actions, or a motor board (docs/webcam.md); with --robot.fake a drawn room",
    "stub": "a stand-in without hardware: noise and a red square, nine actions, and a picture of what it imagines for each",
    "mission": "the dot with the original description's numbers; slow, for comparison",
}
