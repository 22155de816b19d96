"""One place to read every default: all config classes, presets and directories. Nothing is set here at run time."""

from pathlib import Path

from motorbabble.bounds import CAREFUL, BoundsConfig
from motorbabble.display import DisplayConfig
from motorbabble.learning.gate import GateConfig
from motorbabble.learning.learner import ONLINE, LearnerConfig
from motorbabble.learning.levels import LevelsConfig
from motorbabble.learning.replay import ReplayConfig
from motorbabble.learning.schedule import ScheduleConfig
from motorbabble.learning.surprise import SurpriseConfig
from motorbabble.models.autoencoder import AutoencoderConfig
from motorbabble.models.predictor import PredictorConfig
from motorbabble.recipes import RECIPES, CanvasChoice, LatentChoice, LearningRecipe, RunnerRecipe
from motorbabble.robots.bodies import BodiesConfig
from motorbabble.robots.dot_2d import Dot2dConfig
from motorbabble.robots.gymnasium_robot import GymnasiumConfig
from motorbabble.robots.jetbot import JetBotConfig
from motorbabble.robots.stub import StubConfig
from motorbabble.robots.toroidal_dot import ToroidalDotConfig
from motorbabble.robots.webcam import WebcamConfig
from motorbabble.tracking import TrackingConfig
from motorbabble.world_models.canvas import CANVAS_PRESETS, AutoencoderConcatPredictorWorldModelConfig
from motorbabble.world_models.dream import DreamConfig
from motorbabble.world_models.latent import PRESETS, AutoencoderLatentPredictorWorldModelConfig

SAVED = Path("saved")  # cards go to saved/cards/ROBOT_TYPE/NAME, unless --out says otherwise

__all__ = [
    "AutoencoderConcatPredictorWorldModelConfig",
    "AutoencoderConfig",
    "AutoencoderLatentPredictorWorldModelConfig",
    "BodiesConfig",
    "BoundsConfig",
    "CANVAS_PRESETS",
    "CAREFUL",
    "CanvasChoice",
    "Dot2dConfig",
    "DreamConfig",
    "DisplayConfig",
    "GateConfig",
    "GymnasiumConfig",
    "JetBotConfig",
    "LatentChoice",
    "LearnerConfig",
    "LearningRecipe",
    "LevelsConfig",
    "ONLINE",
    "PRESETS",
    "PredictorConfig",
    "RECIPES",
    "ReplayConfig",
    "RunnerRecipe",
    "SAVED",
    "ScheduleConfig",
    "StubConfig",
    "SurpriseConfig",
    "ToroidalDotConfig",
    "TrackingConfig",
    "WebcamConfig",
]
