"""Settings from the command line: every flag is a field of a frozen dataclass."""

from collections.abc import Sequence
from typing import Any


def parse(default: Any, arguments: Sequence[str], program: str) -> Any:
    """`default` with what the flags change; exits with 2 and a sentence where they cannot be read."""
    import tyro

    return tyro.cli(type(default), default=default, args=list(arguments), prog=program, config=(tyro.conf.AvoidSubcommands,))
