"""babble checkpoints list|show: what was learned, when, and whether it is whole."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from motorbabble.commands.flags import parse, words_and_flags
from motorbabble.errors import CheckpointError, ConfigurationError
from motorbabble.experience import ActionSpace
from motorbabble.learning.checkpoint import Checkpoints, Loaded, find_checkpoint


@dataclass(frozen=True)
class Where:
    checkpoints: Path = Path("saved/checkpoints")  # a folder per robot type in it


def checkpoints(arguments: Sequence[str]) -> None:
    words, flags = words_and_flags(arguments)
    word, *names = words or [""]
    if word == "list":
        _list(parse(Where(), flags, "babble checkpoints list").checkpoints)
    elif word == "show":
        where: Where = parse(Where(), flags, "babble checkpoints show NAME")
        if len(names) != 1:
            raise ConfigurationError(f"{len(names)} names were given; name one checkpoint: babble checkpoints show NAME")
        _show(find_checkpoint(names[0], where.checkpoints))
    else:
        raise ConfigurationError(f"babble checkpoints {word} is not a command; use babble checkpoints list, or babble checkpoints show NAME")


def _list(root: Path) -> None:
    folders = sorted(path for path in root.glob("*/*") if Checkpoints(path).generations())
    if not folders:
        Console().print(f"There is no checkpoint in {root} yet; babble run makes one.", highlight=False)
        return
    table = Table(box=None, header_style="dim")
    for heading in ("name", "robot", "updates", "steps", "learned for", "saved", "size"):
        table.add_column(heading, justify="left" if heading in ("name", "robot", "saved") else "right")
    for folder in folders:
        try:
            loaded = Checkpoints(folder).load()
            assert loaded
            counters, run = loaded.state["counters"], loaded.state.get("run", {})
            row = [str(counters["updates"]), str(run.get("steps_done", "")), f"{counters['seconds']:.0f} s", _when(folder, loaded), _size(folder)]
            row[3] += f" [yellow]({len(loaded.notes)} damaged)[/]" if loaded.notes else ""
        except CheckpointError:
            row = ["", "", "", "[red]no generation is whole[/]", _size(folder)]
        table.add_row(folder.name, folder.parent.name, *row)
    Console().print(table)


def _show(folder: Path) -> None:
    console = Console()
    checkpoints = Checkpoints(folder)
    for generation in checkpoints.generations():
        try:
            manifest = checkpoints.manifest(generation)
            size = sum(file["size"] for file in manifest["files"].values())
            console.print(f"  {checkpoints.path(generation).name}   whole, {size / 1e6:.1f} MB", highlight=False)
        except CheckpointError as error:
            console.print(f"  {checkpoints.path(generation).name}   [red]damaged[/]: {error}", highlight=False)
    loaded = checkpoints.load()
    assert loaded
    manifest, state = checkpoints.manifest(loaded.generation), loaded.state
    facts = {
        "robot": f"{manifest['robot_type']}, actions {ActionSpace.from_json(manifest['action_space'])}",
        "saved": _when(folder, loaded),
        "updates": f"{state['counters']['updates']} on {state['counters']['samples']} windows in {state['counters']['seconds']:.0f} s",
        "steps": state.get("run", {}).get("steps_done"),
        "lesson": state.get("about", {}).get("lesson"),
        "remembers": ", ".join(state.get("remembered", [])) or None,
        **manifest["architecture"],
        **state.get("about", {}).get("settings", {}),
    }
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    for name, value in facts.items():
        if value is not None:
            table.add_row(name, str(value))
    console.print(table, highlight=False)


def _when(folder: Path, loaded: Loaded) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(Checkpoints(folder).manifest(loaded.generation)["saved_ns"] / 1e9))


def _size(folder: Path) -> str:
    return f"{sum(path.stat().st_size for path in folder.rglob('*') if path.is_file()) / 1e6:.1f} MB"
