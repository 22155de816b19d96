"""The kinds of world model there are, by name, each with its class, its presets and its settings; and settings changed by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from motorbabble.errors import ConfigurationError
from motorbabble.world_models.base import WorldModel
from motorbabble.world_models.canvas import CANVAS_PRESETS, AutoencoderConcatPredictorWorldModelConfig, CanvasWorldModel
from motorbabble.world_models.latent import PRESETS, AutoencoderLatentPredictorWorldModelConfig, LatentWorldModel


@dataclass(frozen=True)
class Kind:
    """`make((height, width), action_size, config)` is a model; its config is one of `presets`, or `settings` with anything set anew."""

    make: Callable[..., WorldModel]
    presets: Mapping[str, Any]
    settings: Any
    history: Callable[[Any], int]  # how many newest frames a model of this config looks at


KINDS = {
    "latent": Kind(LatentWorldModel, PRESETS, AutoencoderLatentPredictorWorldModelConfig(), lambda config: config.prediction_history_size),
    "canvas": Kind(CanvasWorldModel, CANVAS_PRESETS, AutoencoderConcatPredictorWorldModelConfig(), lambda config: config.canvas_history_size - 1),
}
CLASSES = {"LatentWorldModel": KINDS["latent"], "CanvasWorldModel": KINDS["canvas"]}  # as checkpoints name them


def preset_of(model: str, preset: str) -> tuple[Kind, Any]:
    """The kind of that name, and its config of that size."""
    if model not in KINDS or preset not in KINDS[model].presets:
        sizes = sorted({size for kind in KINDS.values() for size in kind.presets})
        raise ConfigurationError(
            f"there is no model {model!r} with preset {preset!r}; choose {' or '.join(KINDS)}, with one of {sizes}, or give a WorldModel"
        )
    return KINDS[model], KINDS[model].presets[preset]


def names_in(config: Any) -> set[str]:
    """Names of every plain field of a configuration and of those inside it."""
    found: set[str] = set()
    for field in fields(config):
        value = getattr(config, field.name)
        found |= names_in(value) if is_dataclass(value) else {field.name}
    return found


def with_settings(config: Any, values: Mapping[str, Any]) -> Any:
    """The configuration with every field of that name, wherever it stands, set anew; other names change nothing."""
    changes = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            changes[field.name] = with_settings(value, values)
        elif field.name in values:
            changes[field.name] = values[field.name]
    return replace(config, **changes)
