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

SAVED = Path("saved")
TOROIDAL_DOT_CARD_DIR = SAVED / "cards" / "toroidal_dot"
BODIES_CARD_DIR = SAVED / "cards" / "bodies"

__all__ = [
    "AutoencoderConfig",
    "AutoencoderLatentPredictorWorldModelConfig",
    "BODIES_CARD_DIR",
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
    "TOROIDAL_DOT_CARD_DIR",
    "ToroidalDotConfig",
]
