"""(Situation) -> Choice: who decides what the robot does next."""

from motorbabble.selectors.curious import PredictionErrorSelector, UncertaintySelector
from motorbabble.selectors.goal import GoalSelector
from motorbabble.selectors.human import InteractiveSelector
from motorbabble.selectors.progress import LearningProgressSelector
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
    "GoalSelector",
    "InteractiveSelector",
    "LearningProgressSelector",
    "LeastTriedSelector",
    "PredictionErrorSelector",
    "RandomDurationSelector",
    "RandomSelector",
    "UncertaintySelector",
    "create_constant_action_selector",
    "create_sequence_action_selector",
]
