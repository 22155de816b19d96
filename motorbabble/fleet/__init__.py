"""Many robots, one learner, over Ray: `from motorbabble.fleet import Fleet, sweep`. docs/scale.md says when it is worth it."""

from motorbabble.fleet.driver import Fleet
from motorbabble.fleet.sweep import sweep

__all__ = ["Fleet", "sweep"]
