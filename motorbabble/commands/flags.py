"""Settings from the command line: every flag is a field of a frozen dataclass."""

from collections.abc import Sequence
from typing import Any


def parse(default: Any, arguments: Sequence[str], program: str) -> Any:
    """`default` with what the flags change; exits with 2 and a sentence where they cannot be read."""
    import tyro

    return tyro.cli(type(default), default=default, args=list(arguments), prog=program, config=(tyro.conf.AvoidSubcommands,))


def words_and_flags(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """What comes before the first flag, and the rest."""
    first = next((i for i, word in enumerate(arguments) if word.startswith("-")), len(arguments))
    return list(arguments[:first]), list(arguments[first:])
