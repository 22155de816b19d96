"""Which network is meant: the settings that choose between an autoencoder or predictor and another."""

from motorbabble.errors import ConfigurationError
from motorbabble.models.autoencoder import AutoencoderConfig, MaskedAutoencoderViT, PatchAutoencoder
from motorbabble.models.convolutional import CNNAutoencoder
from motorbabble.models.predictor import ActionConditionedPredictor, PredictorConfig, TransformerActionConditionedPredictor
from motorbabble.models.recurrent import LSTMPredictor


def make_autoencoder(height: int, width: int, config: AutoencoderConfig) -> PatchAutoencoder:
    if config.autoencoder_type == "vit":
        return MaskedAutoencoderViT(height, width, config)
    if config.autoencoder_type == "cnn":
        return CNNAutoencoder(height, width, config)
    raise ConfigurationError(f"autoencoder_type is {config.autoencoder_type!r}; choose vit or cnn")


def make_predictor(
    rows: int, columns: int, width: int, action_size: int, config: PredictorConfig, action_tokens: int = 1
) -> ActionConditionedPredictor:
    if config.predictor_type == "transformer":
        return TransformerActionConditionedPredictor(rows, columns, width, action_size, config, action_tokens)
    if config.predictor_type == "lstm":
        return LSTMPredictor(rows, columns, width, action_size, config, action_tokens)
    raise ConfigurationError(f"predictor_type is {config.predictor_type!r}; choose transformer or lstm")
