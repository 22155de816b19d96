"""babble: the command line, a thin skin over the library. Each command imports what it needs when it runs."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from motorbabble.errors import ConfigurationError, MotorbabbleError

if TYPE_CHECKING:
    from threading import Event

    from rich.console import Console

    from motorbabble.agents import Run
    from motorbabble.memory import MemoryConfig
    from motorbabble.recipes import LatentRecipe, RunnerRecipe

USAGE = 2
INTERRUPTED = 130


def demo(arguments: Sequence[str]) -> None:
    """A simulated robot learns, from nothing, what its movements do; ends with a card."""
    from dataclasses import dataclass, replace
    from pathlib import Path
    from typing import Literal

    from motorbabble.recipes import RECIPES, LatentRecipe
    from motorbabble.robots.bodies import BodiesConfig

    @dataclass(frozen=True)
    class Demo:
        """A simulated robot learns, from nothing, what its own movements do, while you watch."""

        world: Literal["dot", "bodies"] = "dot"  # a dot on a ring, or bodies with textures and a distractor
        seed: int = 0  # another seed, another life (and, for bodies, another world)
        steps: int = 300  # of the robot, at most
        seconds: float = 60.0  # of learning, at most
        exam_steps: int = 100  # lived afterwards without learning, for the card
        out: Path = Path("saved/cards")  # where the card goes

    chosen = _parse(Demo(), arguments, "babble demo")
    recipe = RECIPES["toroidal_dot_latent" if chosen.world == "dot" else "bodies_latent"]
    assert isinstance(recipe, LatentRecipe)
    settings = {"seed": chosen.seed, "steps": chosen.steps, "seconds": chosen.seconds, "exam_steps": chosen.exam_steps, "out": chosen.out}
    if chosen.world == "bodies":
        settings["robot"] = BodiesConfig(seed=chosen.seed)
    _live_and_learn(f"{chosen.world}-demo", replace(recipe, **settings), keeps=False)  # from nothing, each time


def run(arguments: Sequence[str]) -> None:
    """A named recipe, with any of its settings changed: babble run RECIPE [flags]."""
    from motorbabble.recipes import RECIPES, LatentRecipe

    if not arguments or arguments[0].startswith("-"):
        print("babble run RECIPE [flags], where RECIPE is one of:\n")
        recipes([])
        print("\nbabble run RECIPE --help lists its settings.")
        if not arguments or arguments[0] not in ("-h", "--help"):
            raise SystemExit(USAGE)
        return
    name, *flags = arguments
    if name not in RECIPES:
        raise ConfigurationError(f"there is no recipe {name!r}; choose one of {', '.join(RECIPES)}")
    recipe = _parse(RECIPES[name], flags, f"babble run {name}")
    if isinstance(recipe, LatentRecipe):
        _live_and_learn(name, recipe)
    else:
        _act(name, recipe)


def recipes(arguments: Sequence[str]) -> None:
    """The named runs, a line each."""
    from motorbabble.recipes import ABOUT, RECIPES

    for name in RECIPES:
        print(f"  {name:22}{ABOUT[name]}")


def robots(arguments: Sequence[str]) -> None:
    """The robots there are, and what each can do; `robots check` puts them through a short test of the contract."""
    from motorbabble.life import live, look
    from motorbabble.recipes import RECIPES, robot_from
    from motorbabble.selectors import RandomSelector

    if list(arguments) not in ([], ["list"], ["check"]):
        raise ConfigurationError(f"babble robots {' '.join(arguments)} is not a command; use babble robots list, or babble robots check")
    for config in {type(recipe.robot): recipe.robot for recipe in RECIPES.values()}.values():
        with robot_from(config, seed=0) as robot:
            seen = look(robot)
            height, width, _ = seen.image.shape
            actions = ", ".join(map(robot.action_space.label, robot.action_space.candidates()))
            print(f"  {robot.robot_type:16}sees {height} x {width}, can {actions}")
            if list(arguments) == ["check"]:
                done = sum(1 for _ in live(robot, RandomSelector(), steps=20))
                print(f"  {'':16}looked and acted {done} times as the contract says")


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {"demo": demo, "run": run, "recipes": recipes, "robots": robots}


def main(arguments: Sequence[str] | None = None) -> None:
    """Exit codes: 0 done, 1 error, 2 usage, 3 robot lost, 4 diverged, 130 Ctrl+C."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        raise SystemExit(0 if words else USAGE)
    if words[0] == "--version":
        from motorbabble import __version__

        print(f"babble {__version__}")
        return
    if words[0] not in COMMANDS:
        print(f"babble: there is no command {words[0]!r}; choose one of {', '.join(COMMANDS)}", file=sys.stderr)
        raise SystemExit(USAGE)
    try:
        COMMANDS[words[0]](words[1:])
    except KeyboardInterrupt:
        print("babble: stopped by Ctrl+C", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    except OSError as error:
        if debug:
            raise
        print(f"babble: {error.strerror or error}: {error.filename}; choose a folder that can be written with --out", file=sys.stderr)
        raise SystemExit(1) from None
    except MotorbabbleError as error:
        if debug:
            raise
        print(f"babble: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


def _overview() -> str:
    lines = ["babble: a robot that learns, online, what its own movements do", ""]
    lines += [f"  babble {name:10}{(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items()]
    return "\n".join([*lines, "", "  babble COMMAND --help lists its settings; --debug shows where an error came from."])


def _parse(default: Any, arguments: Sequence[str], program: str) -> Any:
    import tyro

    return tyro.cli(type(default), default=default, args=list(arguments), prog=program, config=(tyro.conf.AvoidSubcommands,))


def _live_and_learn(name: str, recipe: "LatentRecipe", keeps: bool = True) -> None:
    """Live with a panel to watch, then a card. Ctrl+C stops at the next step, the robot first, then saves; no exam is lived after it."""
    from dataclasses import asdict

    from rich.console import Console
    from rich.padding import Padding

    from motorbabble import __version__
    from motorbabble.agents import learn
    from motorbabble.experience import Step
    from motorbabble.learning.checkpoint import put_aside
    from motorbabble.life import live
    from motorbabble.recipes import robot_from
    from motorbabble.selectors import RandomSelector
    from motorbabble.tracking import JsonlTracker, Terminal

    console = Console()
    with _stopping() as (stop, interrupted), robot_from(recipe.robot, recipe.seed) as robot:
        memory = recipe.keep.memory(robot.robot_type, recipe.name or name, recipe.record) if keeps else None
        if memory and memory.checkpoint_dir and recipe.fresh and (aside := put_aside(memory.checkpoint_dir)):
            console.print(f"What was saved as {memory.checkpoint_dir.name} is now {aside}.", highlight=False)
        run = learn(
            robot,
            selector=recipe.selector,
            steps=recipe.steps,
            seconds=recipe.seconds,
            seed=recipe.seed,
            preset=recipe.model.preset,
            device=recipe.device,
            threads=recipe.threads,
            holds_out=lambda observation: False,  # the exam below is lived afterwards, so nothing need be kept back
            learner=recipe.learner,
            stop=stop,
            memory=memory,
            about={"recipe": name, "version": __version__},
            **{key: value for key, value in asdict(recipe.model).items() if key != "preset"},
        )
        folder = recipe.out / robot.robot_type / f"{recipe.name or name}-seed{recipe.seed}"
        console.print(robot.describe(), highlight=False)
        console.print(_beginning(run, memory), highlight=False)
        _say(console, run.notes)
        with (
            run,
            JsonlTracker(folder / "metrics.jsonl") as tracker,
            Terminal(name, robot.action_space, run.until, recipe.seconds, console) as terminal,
        ):
            for event in run:
                tracker(event)
                terminal(event, run.progress.skill)
            _say(console, run.notes)
        if interrupted:
            robot.stop()
            kept = f" It is saved in {memory.checkpoint_dir}; the same command goes on from here." if memory and memory.checkpoint_dir else ""
            console.print(f"The robot is at rest after {run.steps_done} steps.{kept}", highlight=False)
            raise SystemExit(128 + interrupted[0])
        console.print(f"Now {recipe.exam_steps} steps it will not learn from, with random actions ...", highlight=False)
        exam = [event for event in live(robot, RandomSelector(recipe.seed + 1), steps=recipe.exam_steps, stop=stop) if isinstance(event, Step)]
        if interrupted:
            raise SystemExit(128 + interrupted[0])
        card = run.card(exam, name=name)
    page = card.save(folder)
    console.print()
    for sentence in card.sentences():
        console.print(Padding(sentence, (0, 2)), highlight=False)
    console.print(f"\nOpen {page} to see what it imagines.", highlight=False)


def _beginning(run: "Run", memory: "MemoryConfig | None") -> str:
    """What will be kept, and where: said before the first step."""
    if memory is None:
        return "It starts from random weights. What it sees and does stays on this machine."
    start = "" if run.learner.updates else "It starts from random weights. "
    recorded = f"Every step is recorded in {memory.session_dir}" if memory.record else "Nothing is recorded"
    saved = f"what it learns is saved in {memory.checkpoint_dir}" if memory.checkpoint_dir else "what it learns is not saved"
    return f"{start}{recorded}; {saved}. It stays on this machine."


def _say(console: "Console", notes: list[str]) -> None:
    while notes:
        console.print(notes.pop(0), highlight=False)


@contextmanager
def _stopping() -> "Iterator[tuple[Event, list[int]]]":
    """A flag that the first Ctrl+C (or a polite kill) sets, and which signal it was; the second one breaks off at once."""
    import signal
    from threading import Event, current_thread, main_thread

    stop, interrupted = Event(), []

    def at_signal(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)
        interrupted.append(number)
        stop.set()

    before = {}
    if current_thread() is main_thread():
        before = {number: signal.signal(number, at_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop, interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _act(name: str, recipe: "RunnerRecipe") -> None:
    from motorbabble.agents import RobotRunner
    from motorbabble.recipes import robot_from
    from motorbabble.robots.recording_robot import RecordingRobot

    robot = robot_from(recipe.robot, recipe.seed)
    if recipe.record:
        robot = RecordingRobot(robot, recipe.sessions, quota=recipe.max_disk_gb * 1e9, about={"recipe": name})
    with _stopping() as (stop, interrupted), robot:
        for key, value in RobotRunner(robot, recipe.selector()).run(recipe.steps, stop).items():
            print(f"  {key:32}{value:.6g}")
        if isinstance(robot, RecordingRobot):
            print(f"  recorded in {robot.session}")
    if interrupted:
        raise SystemExit(128 + interrupted[0])
