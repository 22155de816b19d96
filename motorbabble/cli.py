"""babble: the command line, a thin skin over the library. Each command imports what it needs when it runs."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from motorbabble.errors import ConfigurationError, MotorbabbleError

USAGE = 2
INTERRUPTED = 130


def demo(arguments: Sequence[str]) -> None:
    """A simulated robot learns, from nothing, what its movements do; ends with a card."""
    from motorbabble.commands import living

    living.demo(arguments)


def run(arguments: Sequence[str]) -> None:
    """A named recipe, with any of its settings changed: babble run RECIPE [flags]."""
    from motorbabble.recipes import RECIPES

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
    from motorbabble.commands import living

    living.run(name, flags)


def replay(arguments: Sequence[str]) -> None:
    """Live through recorded sessions with the same loop: babble replay SESSION... [flags]."""
    from motorbabble.commands import living

    living.replay(arguments)


def train(arguments: Sequence[str]) -> None:
    """Learn offline from recorded sessions, shuffled: babble train SESSION... [flags]."""
    from motorbabble.commands import train

    train.train(arguments)


def fleet(arguments: Sequence[str]) -> None:
    """Several robots, one learner: babble fleet RECIPE --robots 4, or babble fleet sweep RECIPE... --seeds 0 1 2."""
    from motorbabble.commands import fleets

    fleets.fleet(arguments)


def sessions(arguments: Sequence[str]) -> None:
    """What was recorded: babble sessions list, show, check, pin, unpin, prune, import or export."""
    from motorbabble.commands import sessions

    sessions.sessions(arguments)


def checkpoints(arguments: Sequence[str]) -> None:
    """What was learned: babble checkpoints list, or show NAME."""
    from motorbabble.commands import checkpoints

    checkpoints.checkpoints(arguments)


def recipes(arguments: Sequence[str]) -> None:
    """The named runs, a line each."""
    from motorbabble.recipes import ABOUT, RECIPES

    for name in RECIPES:
        print(f"  {name:22}{ABOUT[name]}")


def robots(arguments: Sequence[str]) -> None:
    """The robots there are; `robots check RECIPE` exercises one gently: latency, age of pictures, stop."""
    from motorbabble.commands import robots

    robots.robots(arguments)


def feed(arguments: Sequence[str]) -> None:
    """A robot's camera to look at, nothing moves: babble feed jetbot, or webcam [--headless]."""
    from motorbabble.commands import feed

    feed.feed(arguments)


def explore(arguments: Sequence[str]) -> None:
    """The web explorer on 127.0.0.1:7860: watch a life, go through recordings, ask what if."""
    from motorbabble.commands.flags import parse
    from motorbabble.explorer.server import serve
    from motorbabble.explorer.settings import ExplorerConfig

    serve(parse(ExplorerConfig(), arguments, "babble explore"))


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    command.__name__: command for command in (demo, run, replay, train, fleet, sessions, checkpoints, recipes, robots, feed, explore)
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Exit codes: 0 done, 1 error, 2 usage, 3 robot lost, 4 diverged, 5 damaged but partly readable, 130 Ctrl+C."""
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
    with sentences("babble", debug):
        COMMANDS[words[0]](words[1:])


@contextmanager
def sentences(program: str, debug: bool = False) -> Iterator[None]:
    """What ends the program is told in one sentence, and by its exit code: our errors, the disk's, Ctrl+C. `debug` shows where it came from."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"{program}: stopped by Ctrl+C", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    except OSError as error:
        if debug:
            raise
        print(f"{program}: {error.strerror or error}: {error.filename}; choose a folder that can be written (--help tells how)", file=sys.stderr)
        raise SystemExit(1) from None
    except MotorbabbleError as error:
        if debug:
            raise
        print(f"{program}: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


def _overview() -> str:
    lines = ["babble: a robot that learns, online, what its own movements do", ""]
    lines += [f"  babble {name:12}{(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items()]
    return "\n".join([*lines, "", "  babble COMMAND --help lists its settings; --debug shows where an error came from."])
