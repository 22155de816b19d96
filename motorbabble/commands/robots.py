"""babble robots list|check: which robots there are, and how one of them looks, acts and stops."""

import statistics
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from motorbabble.commands.flags import parse, words_and_flags
from motorbabble.errors import ConfigurationError, MotorbabbleError, RobotError, RobotLost
from motorbabble.experience import Action
from motorbabble.life import live, look
from motorbabble.recipes import RECIPES, LearningRecipe, RunnerRecipe, robot_from
from motorbabble.robots.interface import RobotInterface
from motorbabble.robots.webcam import WebcamConfig
from motorbabble.selectors import RandomSelector

LOOKS = 20
EACH = 3  # times that each action is done
MOST_ACTIONS = 8


def robots(arguments: Sequence[str]) -> None:
    words, flags = words_and_flags(arguments)
    if words[:1] == ["check"] and len(words) == 2:
        check(words[1], flags)
    elif words in ([], ["list"], ["check"]) and not flags:
        everyone(acts=words == ["check"])
    else:
        raise ConfigurationError(
            f"babble robots {' '.join(arguments)} is not a command; use babble robots list, or babble robots check, or babble robots check RECIPE"
        )


def everyone(acts: bool) -> None:
    """Each robot of the recipes, as they set it; with `acts` a short life of each that is only simulated: a real one has to be named."""
    for config in {type(recipe.robot): recipe.robot for recipe in RECIPES.values()}.values():
        if isinstance(config, WebcamConfig):  # nobody's camera is switched on by a list
            print(f"  {'webcam':16}sees {config.size} x {config.size}, can what you do, or a motor board: babble robots check webcam tries it")
            continue
        try:
            made = robot_from(config, seed=0)
        except (ConfigurationError, RobotLost) as absent:  # it needs something that only some people have
            print(f"  not here: {absent}")
            continue
        with made as robot:
            seen = look(robot)
            height, width, _ = seen.image.shape
            actions = ", ".join(map(robot.action_space.label, robot.action_space.candidates()))
            print(f"  {robot.robot_type:16}sees {height} x {width}, can {actions}")
            if acts and not hasattr(robot, "state_dict"):
                print(f"  {'':16}is real: babble robots check {robot.robot_type} moves it, with room around it")
            elif acts:
                done = sum(1 for _ in live(robot, RandomSelector(), steps=20))
                print(f"  {'':16}looked and acted {done} times as the contract says")


def check(name: str, flags: Sequence[str]) -> None:
    """Looks, does each action a few times, stops one in its middle, and says how long everything took."""
    recipe = _recipe(name)
    recipe = parse(RECIPES[recipe], flags, f"babble robots check {recipe}")
    with robot_from(recipe.robot, recipe.seed) as robot:
        print(robot.describe())
        if not hasattr(robot, "state_dict"):
            print("It moves now, gently: wheels in the air, or room around it. Ctrl+C stops it.")
        _looking(robot)
        _acting(robot)
        _stopping(robot)


def _recipe(name: str) -> str:
    """The recipe of this name, or the first whose name begins so: jetbot means jetbot_latent."""
    for known in (name, *sorted(known for known in RECIPES if known.startswith(f"{name}_"))):
        if isinstance(RECIPES.get(known), LearningRecipe | RunnerRecipe):
            return known
    raise ConfigurationError(f"there is no robot or recipe {name!r}; choose one of {', '.join(RECIPES)}")


def _looking(robot: RobotInterface) -> None:
    took, ages = [], []
    for _ in range(LOOKS):
        asked = time.monotonic()
        seen = look(robot)
        took.append(time.monotonic() - asked)
        if seen.captured_ns:
            ages.append(max(0.0, (time.time_ns() - seen.captured_ns) / 1e9))
        time.sleep(0.02)
    height, width, _ = look(robot).image.shape
    _say("a look", took, f"{height} x {width} pixels")
    if ages:
        _say("age of a picture", ages)


def _acting(robot: RobotInterface) -> None:
    for action in robot.action_space.candidates(MOST_ACTIONS):
        took = []
        for _ in range(EACH):
            if look(robot).ends:
                look(robot)  # begins the next episode
            asked = time.monotonic()
            robot.execute_action(action)
            took.append(time.monotonic() - asked)
        _say(f"action {robot.action_space.label(action)}", took)


def _stopping(robot: RobotInterface) -> None:
    """From another thread, while it acts; then it must refuse to act."""
    action = max(robot.action_space.candidates(MOST_ACTIONS), key=lambda each: sum(map(abs, each.values())))

    def acts() -> None:
        with suppress(MotorbabbleError):
            robot.execute_action(action)

    acting = threading.Thread(target=acts)
    acting.start()
    time.sleep(0.1)
    asked = time.monotonic()
    robot.stop()
    _say("stop, until it answered", [time.monotonic() - asked])
    acting.join()
    _say("stop, until the action had ended", [time.monotonic() - asked])
    print(f"  {_refuses(robot, action)}")


def _refuses(robot: RobotInterface, action: Action) -> str:
    try:
        robot.execute_action(action)
    except RobotError:
        return "After it, it refuses to act, as it must."
    raise RobotError("it acted after it was stopped; do not let it learn before its stop() latches (tests/exams.py)")


def _say(what: str, seconds: Sequence[float], note: str = "") -> None:
    worst = f", worst {1e3 * max(seconds):.0f}" if len(seconds) > 1 else ""
    print(f"  {what:34}{1e3 * statistics.median(seconds):6.0f} ms{worst}{f'; {note}' if note else ''}")
