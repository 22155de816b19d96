"""Robots that learn, online, what their own movements do.

    run = motorbabble.learn(robot, steps=600)
    for event in run: ...

Importing this package imports numpy and nothing heavier; torch comes with the first world model.
"""

import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from motorbabble.experience import Action, ActionSpace, Channel, Choice, Observation, Situation, Step, Study, Window
from motorbabble.robots.interface import RobotInterface

try:
    __version__ = version("motorbabble")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0"

_LAZY = {  # name -> where it lives; imported when first asked for, so that torch is not paid for by looking at a robot
    "learn": "motorbabble.agents",
    "Run": "motorbabble.agents",
    "RobotRunner": "motorbabble.runner",
    "AutoencoderLatentPredictorWorldModel": "motorbabble.faces",
    "AutoencoderConcatPredictorWorldModel": "motorbabble.faces",
    "live": "motorbabble.life",
    "ToroidalDotRobot": "motorbabble.robots.toroidal_dot",
    "ToroidalDotEnvironment": "motorbabble.robots.toroidal_dot",
    "BodiesRobot": "motorbabble.robots.bodies",
    "DreamRobot": "motorbabble.world_models.dream",
    "GoalSelector": "motorbabble.selectors.goal",
    "GymnasiumRobot": "motorbabble.robots.gymnasium_robot",
}

__all__ = [
    "Action",
    "ActionSpace",
    "Channel",
    "Choice",
    "Observation",
    "RobotInterface",
    "Situation",
    "Step",
    "Study",
    "Window",
    *_LAZY,
]


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'motorbabble' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


class _GymnasiumComes:
    """Registers our environment when Gymnasium is imported after us, since Gymnasium itself loads no plugins."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name != "gymnasium":
            return None
        sys.meta_path.remove(cls)  # or we would be asked again, for ever
        try:
            spec = find_spec(name)
        finally:
            sys.meta_path.insert(0, cls)  # being looked for is not yet being imported
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_register(module):
                load(module)
                import_module("motorbabble.robots.toroidal_dot")

            spec.loader.exec_module = load_and_register  # type: ignore[method-assign]
        return spec


if "gymnasium" in sys.modules:
    import_module("motorbabble.robots.toroidal_dot")
else:
    sys.meta_path.insert(0, _GymnasiumComes)
