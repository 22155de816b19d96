"""One place to read every default: all config classes, presets and directories. Nothing is set here at run time."""

from pathlib import Path

from motorbabble.learning.gate import GateConfig
from motorbabble.learning.learner import ONLINE, LearnerConfig
from motorbabble.learning.replay import ReplayConfig
from motorbabble.learning.schedule import ScheduleConfig
from motorbabble.models.autoencoder import AutoencoderConfig
from motorbabble.models.predictor import PredictorConfig
from motorbabble.recipes import RECIPES, LatentRecipe, ModelChoice, RunnerRecipe
from motorbabble.robots.bodies import BodiesConfig
from motorbabble.robots.toroidal_dot import ToroidalDotConfig
from motorbabble.world_models.latent import PRESETS, AutoencoderLatentPredictorWorldModelConfig

SAVED = Path("saved")  # cards go to saved/cards/ROBOT_TYPE/NAME, unless --out says otherwise

__all__ = [
    "AutoencoderConfig",
    "AutoencoderLatentPredictorWorldModelConfig",
    "BodiesConfig",
    "GateConfig",
    "LatentRecipe",
    "LearnerConfig",
    "ModelChoice",
    "ONLINE",
    "PRESETS",
    "PredictorConfig",
    "RECIPES",
    "ReplayConfig",
    "RunnerRecipe",
    "SAVED",
    "ScheduleConfig",
    "ToroidalDotConfig",
]
