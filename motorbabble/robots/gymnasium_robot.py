"""GymnasiumRobot: any Gymnasium environment with pictures, as a robot.

Decisions: the picture is the observation where that is one (Atari), else what `render` draws; it is made once per action, so
looking changes nothing. Discrete actions are names, one-hot; several short lists of choices become one list of their combinations.
Every episode begins with a seed of its own, grown from the robot's, so a world is saved as its seed and the actions of
the episode so far: they are done again, and what is shown then is compared with what was. Rewards are recorded, never learned from.
"""

import importlib
import itertools
import json
import os
import re
import sys
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec, load_env_creator

from motorbabble.errors import ConfigurationError, MotorbabbleError, RobotError
from motorbabble.experience import Action, ActionSpace, Channel, Observation, check_frame
from motorbabble.robots.interface import RobotInterface

MOST_COMBINED = 64  # actions made out of several lists of choices
WIDEST = 1e6  # of a channel; a wider range is a way to say that there is no limit
MOST_SENSED = 1024  # numbers of an observation that is no picture
MOST_RELIVED = 20_000  # actions of an episode that are done again to bring a world back
RESTS = {"noop", "no-op", "done", "stay", "idle"}  # what environments call the action that does least
HOMES = {"ALE": ("ale_py", "ale-py"), "MiniGrid": ("minigrid", "minigrid"), "BabyAI": ("minigrid", "minigrid")}  # module, package


@dataclass(frozen=True)
class GymnasiumConfig:
    env: str = "Acrobot-v1"  # as in gymnasium.make; "module:Name-v0" imports the module first
    repeat: int = 1  # steps of the environment that one action lasts
    settings: str = ""  # further ones for gymnasium.make, as JSON: {"frameskip": 1}

    def __post_init__(self):
        if self.repeat < 1:
            raise ConfigurationError(f"repeat is {self.repeat}; an action lasts at least 1 step of the environment")
        self.further()

    def further(self) -> dict[str, Any]:
        try:
            told = json.loads(self.settings or "{}")
        except ValueError:
            told = None
        if not isinstance(told, dict):
            raise ConfigurationError(f'settings are {self.settings!r}, which is no JSON object; write them like {{"frameskip": 1}}')
        return told


class GymnasiumRobot(RobotInterface):
    """A Gymnasium environment; what it offers as actions is what the robot can do.

    An ended episode shows its last frame with `ends`; the next look, or action, begins another. Observation.state: "reward" (1,)
    float32 of the last action, and "observation" (n,) float32 where the environment tells numbers beside its pictures.
    """

    def __init__(self, config: GymnasiumConfig = GymnasiumConfig(), seed: int | None = None):
        self.config = config
        self.robot_type = re.sub(r"[^a-z0-9]+", "_", config.env.lower()).strip("_")
        self.environment = environment_of(config)
        self._action_space, self._as_its_own = actions_of(self.environment, config.env)
        self._seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
        self._stopped, self._closed = threading.Event(), False
        self._sequence, self._episode = 0, -1
        self._begin_episode()

    @property
    def action_space(self) -> ActionSpace:
        return self._action_space

    def get_observation(self) -> Observation:
        if self._ended and self._end_was_seen:
            self._begin_episode()
        self._end_was_seen = self._ended
        state = {name: value.copy() for name, value in self._sensed.items()}
        return Observation(self._frame.copy(), None, time.time_ns(), self._sequence, self._episode, self._ended, state)

    def execute_action(self, action: Action) -> Action:
        plain = self._action_space.check(action)
        if self._stopped.is_set():
            raise RobotError(f"action {plain} came after the robot was stopped; make a new robot to go on")
        if self._ended:
            self._begin_episode()
        executed = self._do(plain)
        self._sequence += 1
        return executed

    def stop(self) -> None:
        self._stopped.set()

    def cleanup(self) -> None:
        self.stop()
        if not self._closed:
            self._closed = True
            self.environment.close()

    def state_dict(self) -> dict:
        """All that its future depends on, where the environment keeps Gymnasium's promise that a seed decides everything."""
        return {
            "config": asdict(self.config),
            "seed": self._seed,
            "counts": [self._sequence, self._episode],
            "end_was_seen": self._end_was_seen,
            "done": list(self._done) if len(self._done) <= MOST_RELIVED else None,
            "shown": zlib.crc32(self._frame.tobytes()),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> bool:
        """Live the episode so far once more. False, with a new episode, where it is too long for that or shows something else this time."""
        if state["config"] != asdict(self.config):
            raise ConfigurationError(f"the saved world is {state['config']}, this one {asdict(self.config)}; make the robot with the saved settings")
        self._seed = state["seed"]
        self._sequence, episode = state["counts"]
        self._episode = episode - 1
        self._begin_episode()
        names = [channel.name for channel in self._action_space.channels]
        for values in state["done"] or ():
            if not self._ended:
                self._do(dict(zip(names, values, strict=True)))
        self._end_was_seen = state["end_was_seen"]
        repeated = state["done"] == self._done and state["shown"] == zlib.crc32(self._frame.tobytes())
        if not repeated:
            self._begin_episode()
        return repeated

    # Parts

    def _begin_episode(self) -> None:
        self._episode += 1
        seed = int(np.random.SeedSequence([self._seed, self._episode]).generate_state(1)[0])
        self._done: list[list[float]] = []  # actions of this episode
        self._ended = self._end_was_seen = False
        with _blaming(self.config.env):
            observation, _ = self.environment.reset(seed=seed)
            self._perceive(observation, 0.0)

    def _do(self, action: Action) -> Action:
        """Answers what was really executed: a box of whole numbers rounds."""
        own, reward, observation = self._as_its_own(action), 0.0, None
        with _blaming(self.config.env):
            for _ in range(self.config.repeat):
                observation, gained, terminated, truncated, _ = self.environment.step(own)
                reward += float(gained)
                self._ended = bool(terminated or truncated)
                if self._ended:
                    break
            self._perceive(observation, reward)
        self._done.append(list(action.values()))
        return dict(zip(action, map(float, np.ravel(own)), strict=True)) if isinstance(own, np.ndarray) else action

    def _perceive(self, observation: Any, reward: float) -> None:
        space = self.environment.observation_space
        self._frame = _picture(observation if _is_picture(space) else self.environment.render(), self.config.env)
        self._sensed = {"reward": np.array([reward], np.float32)}
        if isinstance(space, spaces.Box) and not _is_picture(space) and observation.size <= MOST_SENSED:
            self._sensed["observation"] = np.asarray(observation, np.float32).ravel()


class _blaming:
    """Whatever an environment raises is a RobotError that names it; what we found ourselves is said already."""

    def __init__(self, name: str):
        self.name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, gymnasium.error.DependencyNotInstalled):
            raise ConfigurationError(f"{self.name} needs a package that is not installed ({error}); pip install 'motorbabble[gym]'") from error
        if isinstance(error, Exception) and not isinstance(error, MotorbabbleError):
            raise RobotError(f"the environment {self.name} failed: {error!r:.300}; try it alone with gymnasium.make") from error


def environment_of(config: GymnasiumConfig) -> gymnasium.Env:
    """The environment, with a picture to be had; ConfigurationError, in one sentence, where there is none."""
    _without_a_screen()
    home, _, name = config.env.rpartition(":")
    try:
        _at_home(home, name)
        spec = gymnasium.spec(name)
        drawn = "rgb_array" in _render_modes(spec)
        environment = gymnasium.make(spec, render_mode="rgb_array" if drawn else None, disable_env_checker=True, **config.further())
    except Exception as error:  # whatever a stranger's constructor raises
        module, package = HOMES.get(_family(name), ("", ""))
        to_do = f"pip install {package}" if module and find_spec(module) is None else "check its name and settings, and install the package it is in"
        raise ConfigurationError(f"the environment {config.env!r} cannot be made ({_first_line(error)}); {to_do}") from error
    if not (drawn or _is_picture(environment.observation_space)):
        environment.close()
        raise ConfigurationError(f"the environment {config.env!r} gives no pictures, neither as observations nor as rgb_array; choose one that does")
    return environment


def actions_of(environment: gymnasium.Env, name: str) -> tuple[ActionSpace, Callable[[Action], Any]]:
    """What it can do as our actions, and how one of ours is said in its own words; ConfigurationError for what we cannot say."""
    offered = environment.action_space
    if isinstance(offered, spaces.Discrete):
        numbers = range(int(offered.start), int(offered.start + offered.n))
        labels = _labels(environment, len(numbers))
        rest = next((i for i, label in enumerate(labels) if label.lower() in RESTS), 0)
        listed = ActionSpace.discrete([{"action": number} for number in numbers], rest, ordered=False, labels=labels)
        return listed, lambda action: int(action["action"])
    if isinstance(offered, spaces.MultiDiscrete | spaces.MultiBinary):
        counts = np.full(offered.shape, 2) if isinstance(offered, spaces.MultiBinary) else offered.nvec
        starts = np.zeros(counts.shape, int) if isinstance(offered, spaces.MultiBinary) else offered.start
        if counts.prod(dtype=float) > MOST_COMBINED:
            raise ConfigurationError(
                f"{name} has {counts.prod(dtype=float):.0f} combinations of choices as actions, more than {MOST_COMBINED}; choose another"
            )
        choices = [range(int(start), int(start + count)) for start, count in zip(starts.ravel(), counts.ravel(), strict=True)]
        combined = [{f"a{i}": value for i, value in enumerate(values)} for values in itertools.product(*choices)]
        listed = ActionSpace.discrete(combined, ordered=False)
        return listed, lambda action: np.array(list(action.values()), offered.dtype).reshape(counts.shape)
    if isinstance(offered, spaces.Box):
        lows, highs = offered.low.ravel().astype(float), offered.high.ravel().astype(float)
        if not (np.isfinite([lows, highs]).all() and np.abs([lows, highs]).max() <= WIDEST):
            raise ConfigurationError(f"{name} has actions without limits ({offered}); wrap it in one whose action space has bounds")
        channels = [Channel(f"a{i}", low, high) for i, (low, high) in enumerate(zip(lows, highs, strict=True))]
        box = ActionSpace.box(channels, rest={channel.name: min(max(0.0, channel.low), channel.high) for channel in channels})
        whole = np.issubdtype(offered.dtype, np.integer)

        def said(action: Action) -> np.ndarray:
            values = np.array([action[channel.name] for channel in channels])
            return (values.round() if whole else values).astype(offered.dtype).clip(offered.low.ravel(), offered.high.ravel()).reshape(offered.shape)

        return box, said
    raise ConfigurationError(f"{name} has actions of the kind {type(offered).__name__}; choose one with Discrete, MultiDiscrete, MultiBinary or Box")


# Parts


def _labels(environment: gymnasium.Env, count: int) -> list[str]:
    """What the environment calls its actions; nothing where it does not say."""
    own: Any = environment.unwrapped
    if hasattr(own, "get_action_meanings"):
        told = [str(meaning).lower() for meaning in own.get_action_meanings()]
    else:
        told = [str(getattr(action, "name", "")) for action in getattr(own, "actions", None) or ()]  # an enumeration
    return told if len(told) == count == len(set(told) - {""}) else []


def _is_picture(space: spaces.Space) -> bool:
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) == 3 and space.shape[2] == 3


def _picture(drawn: Any, name: str) -> np.ndarray:
    """A new array of our own."""
    if isinstance(drawn, list):  # of all frames since the last call
        drawn = drawn[-1] if drawn else None
    if drawn is None:
        raise RobotError(f"the environment {name} drew no picture; try it alone with gymnasium.make and render")
    return np.array(check_frame(np.asarray(drawn)), order="C")


def _render_modes(spec: EnvSpec) -> list[str]:
    creator = load_env_creator(spec.entry_point) if isinstance(spec.entry_point, str) else spec.entry_point
    return getattr(creator, "metadata", {"render_modes": ["rgb_array"]}).get("render_modes", [])  # a function cannot say


def _at_home(module: str, name: str) -> None:
    """Import the package that registers the environment, where it is named, or its name tells which."""
    known = HOMES.get(_family(name), ("", ""))[0]
    if module or (known and find_spec(known)):
        home = importlib.import_module(module or known)
        if known == "ale_py":  # which greets on stderr with every game
            home.ALEInterface.setLoggerMode(home.LoggerMode.Error)


def _family(name: str) -> str:
    """ALE of ALE/Breakout-v5, MiniGrid of MiniGrid-FourRooms-v0."""
    return re.split("[/-]", name)[0]


def _without_a_screen() -> None:
    """Pictures are drawn into memory; where there is no screen, the library that draws must not look for one."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
