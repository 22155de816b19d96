"""(Situation) -> Choice: who decides what the robot does next."""

from motorbabble.selectors.curious import UncertaintySelector
from motorbabble.selectors.scripted import (
    SEQUENCE_ALTERNATE,
    SEQUENCE_ALWAYS_MOVE,
    SEQUENCE_ALWAYS_STAY,
    SEQUENCE_DOUBLE_MOVE,
    SEQUENCE_TRIPLE_MOVE,
    SEQUENCES,
    LeastTriedSelector,
    RandomDurationSelector,
    RandomSelector,
    create_constant_action_selector,
    create_sequence_action_selector,
)

__all__ = [
    "SEQUENCES",
    "SEQUENCE_ALTERNATE",
    "SEQUENCE_ALWAYS_MOVE",
    "SEQUENCE_ALWAYS_STAY",
    "SEQUENCE_DOUBLE_MOVE",
    "SEQUENCE_TRIPLE_MOVE",
    "LeastTriedSelector",
    "RandomDurationSelector",
    "RandomSelector",
    "UncertaintySelector",
    "create_constant_action_selector",
    "create_sequence_action_selector",
]
