"""Sessions from elsewhere, as sessions of ours: from the code this project grew out of, and from LeRobotDatasets."""

from motorbabble.exchange.from_lerobot import import_lerobot
from motorbabble.exchange.from_original import import_original

__all__ = ["import_lerobot", "import_original"]
