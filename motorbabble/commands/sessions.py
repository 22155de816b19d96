"""babble sessions: what was recorded; list, show, check, pin, unpin, prune, import, export.

Decisions: a table ends with the newest, since that is what one looks for above the prompt; colour never says anything alone;
what is shown is what is really so (a session that says `live` whose lock nobody holds was cut short).
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from motorbabble.commands.flags import parse
from motorbabble.errors import ConfigurationError, RecordingError, SessionDamaged
from motorbabble.experience import ActionSpace
from motorbabble.figures import fit
from motorbabble.recording import health
from motorbabble.recording.format import check_name
from motorbabble.recording.quota import MAX_BYTES, in_words
from motorbabble.recording.reader import RecordingReader
from motorbabble.recording.shelf import PERSON, SESSIONS, Entry, Shelf, duration, extent_of, find_session, find_sessions, shelves

_STYLES = {"live": "bold green", "closed": "", "recovered": "", "cut short": "yellow", "unreadable": "red"}


def sessions(arguments: Sequence[str]) -> None:
    """What was recorded: babble sessions list, show, check, pin, unpin, prune, import or export."""
    word, *rest = [*arguments] or ["--help"]
    if word in ("-h", "--help"):
        console = _console()
        for name, (command, _) in _COMMANDS.items():
            console.print(f"  babble sessions {name:8}{(command.__doc__ or '').splitlines()[0]}")
        console.print("\n  SESSION is a name, ROBOT/name, a folder's path, latest or ROBOT/latest. babble sessions COMMAND --help lists the flags.")
        return
    if word not in _COMMANDS:
        raise ConfigurationError(f"babble sessions {word} is not a command; choose one of {', '.join(_COMMANDS)}")
    command, default = _COMMANDS[word]
    asked = parse(default, rest, f"babble sessions {word}")
    try:
        command(asked)
    except OSError as error:
        where = error.filename or asked.sessions
        raise RecordingError(f"{where} cannot be used: {error.strerror or error}; make it accessible, or choose another folder") from error


@dataclass(frozen=True)
class List:
    """Every session, newest last, and how much of the disk they take."""

    robot: str | None = None  # only this robot type's
    max_gb: float = MAX_BYTES / 1e9  # the quota of one robot type, to compare with
    sessions: Path = SESSIONS  # a folder per robot type in it


def list_(asked: List) -> None:
    """Every session, newest last, and how much of the disk they take."""
    console = _console()
    there = [(shelf, entries) for shelf in _shelves(asked.sessions, asked.robot) if (entries := shelf.list())]
    if not there:
        console.print(f"There are no sessions in {asked.sessions / (asked.robot or '')} yet; babble run records one.")
    for number, (shelf, entries) in enumerate(there):
        many = "1 session" if len(entries) == 1 else f"{len(entries):,} sessions"
        used = sum(entry.bytes for entry in entries if not entry.is_link)
        share = f"({used / (asked.max_gb * 1e9):.0%})" if asked.max_gb > 0 else ""
        console.print("\n" * (number > 0) + f"[bold]{escape(shelf.root.name)}[/]  {many}, {in_words(used)} of {asked.max_gb:g} GB {share}")
        console.print(_table(entries, console.width))
        for entry in entries:
            if entry.why:
                console.print(f"{entry.name}: {escape(entry.why)}", style="red")


def _table(entries: Sequence[Entry], width: int) -> Table:
    """Fits a terminal of 80 columns, names uncut, since they are there to be copied."""
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 1 if width < 100 else 2, 0, 0))
    table.add_column("name", no_wrap=True, overflow="fold")
    table.add_column("state", no_wrap=True)
    for heading in ("moments", "time", "size"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("pinned by" if any(entry.pins for entry in entries) else "", overflow="fold")
    for entry in entries:
        moments, seconds = extent_of(entry)
        size = "link" if entry.is_link else in_words(entry.bytes)
        table.add_row(entry.name, Text(entry.state, _STYLES[entry.state]), _count(moments), duration(seconds), size, escape(", ".join(entry.pins)))
    return table


@dataclass(frozen=True)
class One:
    """One session."""

    session: tyro.conf.Positional[str] = tyro.MISSING  # a name, ROBOT/name, a folder's path, or latest
    sessions: Path = SESSIONS  # a folder per robot type in it


def show(asked: One) -> None:
    """One session: when, how it was made, what was done, its first and last frame."""
    console = _console()
    entry = _entry(asked.session, asked.sessions)
    reader = RecordingReader(entry.folder)
    moments, seconds = extent_of(entry)
    meta, steps = reader.meta, health.balance(reader)
    facts: dict[str, Any] = {
        "session": entry.name,
        "robot": f"{meta.robot_type}, can {_abilities(meta.action_space)}",
        "state": entry.state + (", its metadata is lost and was taken from a shard" if reader.remade else ""),
        "began": _when(meta.created_ns),
        "holds": f"{_count(moments)} moments in {duration(seconds) or 'no time'}, {in_words(entry.bytes)}",
        "continues": meta.continues and f"{meta.continues.session}, from step {meta.continues.first_index}",
        **{f"pinned by {owner}": why or "no reason given" for owner, why in entry.pins.items()},
        **_flat(meta.about),
        "executed": ", ".join(f"{label} {count} ({share:.0%})" for label, (count, share) in list(steps.items())[:12]) or None,
    }
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in facts.items():
        if value not in (None, ""):
            grid.add_row(escape(name), escape(str(value)))
    console.print(grid)
    if console.is_terminal:
        _show_frames(console, reader)


@dataclass(frozen=True)
class Check(One):
    """Read all of a session: what is damaged, what is missing, what the robot did wrong."""

    repair: bool = False  # cut off what was never finished at its end; never beside a live writer


def check(asked: Check) -> None:
    """Read all of a session; exit code 0: intact, 5: damaged but partly readable, 1: nothing can be read."""
    console = _console()
    folder = find_session(asked.session, asked.sessions)
    try:
        if asked.repair:
            found = health.repair(folder)
            console.print(f"Repaired: {_count(found.moments)} moments are left{'; what was torn is cut off' if found.cut else ', nothing was cut'}.")
        with _progress(console, "reading") as tell:
            result = health.check(folder, tell)
    except SessionDamaged as error:
        raise RecordingError(str(error)) from None  # 5 would say that something of it can be read
    console.print(f"[bold]{folder.name}[/]")
    for sentence in result.sentences():
        console.print(f"  {escape(sentence)}")
    if result.exit_code:
        raise SystemExit(result.exit_code)


@dataclass(frozen=True)
class Pin(One):
    """Keep a session, however old: the quota leaves it alone."""

    why: str = ""  # written down with the pin
    owner: str = PERSON  # whose pin it is; a session may have several


def pin(asked: Pin) -> None:
    """Keep a session, however old: the quota leaves it alone."""
    folder = find_session(asked.session, asked.sessions)
    Shelf(folder.parent).pin(folder.name, asked.owner, asked.why)
    _console().print(f"{folder.name} is pinned by {asked.owner}; babble sessions unpin {folder.name} undoes it.")


@dataclass(frozen=True)
class Unpin(One):
    """Take a pin away."""

    owner: str = PERSON  # whose pin


def unpin(asked: Unpin) -> None:
    """Take a pin away, so that the quota may remove the session when it is the oldest."""
    folder = find_session(asked.session, asked.sessions)
    shelf = Shelf(folder.parent)
    shelf.unpin(folder.name, asked.owner)
    left = ", ".join(shelf.find(folder.name).pins)
    _console().print(f"{folder.name} is {f'still pinned by {left}' if left else 'no longer pinned'}.")


@dataclass(frozen=True)
class Prune:
    """Remove the oldest sessions that nobody needs until each robot type keeps to its quota."""

    max_gb: float = MAX_BYTES / 1e9  # of disk, for each robot type
    robot: str | None = None  # only this robot type's
    dry_run: bool = False  # only say what would go
    sessions: Path = SESSIONS  # a folder per robot type in it


def prune(asked: Prune) -> None:
    """Remove the oldest sessions that nobody needs until each robot type keeps to its quota."""
    console = _console()
    if not asked.max_gb > 0:
        raise ConfigurationError(f"the quota is {asked.max_gb:g} GB; give a positive number, or record nothing with --no-record")
    for shelf in _shelves(asked.sessions, asked.robot):
        done = shelf.prune(asked.max_gb * 1e9, asked.dry_run)
        for gone in done.removed:
            console.print(f"  {escape(shelf.root.name)}/{escape(gone.name)}  {in_words(gone.bytes)}  {'would go' if asked.dry_run else 'removed'}")
        over = done.used > asked.max_gb * 1e9
        console.print(
            f"{escape(shelf.root.name)}: {in_words(done.used)} of {in_words(asked.max_gb * 1e9)} {'would be' if asked.dry_run else 'are'} in use."
        )
        if over:
            for name, why in done.kept.items():
                console.print(f"  {name} stays: it is {escape(why)}")


@dataclass(frozen=True)
class Import:
    """Sessions from elsewhere: of the code this project grew out of, or a LeRobotDataset."""

    folder: tyro.conf.Positional[Path] = tyro.MISSING  # which is only read
    format: Literal["auto", "original", "lerobot"] = "auto"
    robot: str | None = None  # the robot type to file it under; else what the session says (format original)
    camera: str | None = None  # which camera, where there are several (format lerobot)
    sessions: Path = SESSIONS  # a folder per robot type in it


def import_(asked: Import) -> None:
    """Sessions from elsewhere: of the code this project grew out of, or a LeRobotDataset."""
    from motorbabble.exchange.imports import import_lerobot, import_original

    if not asked.folder.is_dir():
        raise RecordingError(f"there is no folder {asked.folder}; give the folder of a session or dataset")
    is_dataset = (asked.folder / "meta" / "info.json").is_file() if asked.format == "auto" else asked.format == "lerobot"
    if asked.robot is not None:
        check_name(asked.robot)
    if is_dataset:
        names = import_lerobot(asked.folder, asked.sessions, asked.camera)
    else:
        names = [import_original(asked.folder, asked.sessions, asked.robot)]
    for name in names:
        _console().print(f"Imported {name}; babble sessions show {name} tells what it holds.")


@dataclass(frozen=True)
class Export:
    """Sessions for other programs: a LeRobotDataset, one video, an MCAP file or plain pictures."""

    session: tyro.conf.Positional[tuple[str, ...]] = tyro.MISSING  # names, ROBOT/name, paths, latest, all or ROBOT/all
    to: Literal["lerobot", "mp4", "mcap", "png"] = tyro.MISSING
    out: Path = tyro.MISSING  # the file, or the folder (lerobot, png), to make; never replaced
    sessions: Path = SESSIONS  # a folder per robot type in it


def export(asked: Export) -> None:
    """Sessions for other programs: a LeRobotDataset, one video, an MCAP file or plain pictures."""
    from motorbabble.exchange.exports import export_session

    if not asked.session:
        raise ConfigurationError("babble sessions export needs a session; give names, paths, or latest")
    folders = find_sessions(asked.session, asked.sessions)
    made = export_session(folders, asked.out, asked.to)
    _console().print(f"Exported {len(folders)} session{'s' * (len(folders) > 1)} to {made}.")


_COMMANDS: dict[str, tuple[Callable[[Any], None], Any]] = {
    "list": (list_, List()),
    "show": (show, One()),
    "check": (check, Check()),
    "pin": (pin, Pin()),
    "unpin": (unpin, Unpin()),
    "prune": (prune, Prune()),
    "import": (import_, Import()),
    "export": (export, Export()),
}


# Parts


def _console() -> Console:
    """What goes into a pipe is not cut to the width of a terminal that is not there."""
    console = Console(highlight=False, soft_wrap=False)
    return console if console.is_terminal else Console(highlight=False, width=max(console.width, 160))


def _shelves(root: Path, robot: str | None) -> list[Shelf]:
    found = shelves(root)
    if robot is None:
        return found
    mine = [shelf for shelf in found if shelf.root.name == robot]
    if not mine:
        raise RecordingError(f"no {robot!r} has recorded anything in {root}; these have: {', '.join(s.root.name for s in found) or 'none'}")
    return mine


def _entry(text: str, root: Path) -> Entry:
    folder = find_session(text, root)
    return Shelf(folder.parent).find(folder.name)


def _abilities(space: ActionSpace) -> str:
    return ", ".join(map(space.label, space.actions)) if space.actions else str(space)


def _show_frames(console: Console, reader: RecordingReader, side: int = 32) -> None:
    """The first and the last frame side by side, a character per two pixels."""
    table = Table.grid(padding=(0, 2))
    pictures, titles = [], []
    for number in sorted({0, len(reader) - 1} - {-1}):
        try:
            pictures.append(_picture(fit(reader.image(number), side)))
            titles.append(f"moment {number}")
        except RecordingError as error:
            console.print(escape(str(error)), style="yellow")
    if pictures:
        table.add_row(*titles)
        table.add_row(*pictures)
        console.print()
        console.print(table)


def _picture(image: np.ndarray) -> Text:
    """(H, W, 3) uint8 as half blocks: the upper pixel is ink, the lower one paper."""
    text = Text()
    rows = image if len(image) % 2 == 0 else np.concatenate([image, image[-1:]])
    for upper, lower in zip(rows[0::2], rows[1::2], strict=True):
        for ink, paper in zip(upper, lower, strict=True):
            text.append("▀", f"rgb({ink[0]},{ink[1]},{ink[2]}) on rgb({paper[0]},{paper[1]},{paper[2]})")
        text.append("\n")
    return text


def _flat(about: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """{"model": {"dim": 64}} -> {"model.dim": 64}"""
    found: dict[str, Any] = {}
    for name, value in about.items():
        found |= _flat(value, f"{before}{name}.") if isinstance(value, Mapping) else {f"{before}{name}": value}
    return found


@contextmanager
def _progress(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)


class _Rate(TextColumn):
    def __init__(self):
        super().__init__("")

    def render(self, task: Any) -> Text:
        return Text(f"{task.speed:.0f}/s" if task.speed else "")


def _when(ns: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(ns / 1e9))


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"
