"""fleet: several robots that one learner learns from, and sweeps over recipes and seeds, over Ray. Ctrl+C stops at the next beat, robots first."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from motorbabble.commands.flags import parse, words_and_flags
from motorbabble.commands.together import interrupts
from motorbabble.errors import ConfigurationError
from motorbabble.fleet import Fleet, sweep
from motorbabble.recipes import RECIPES, LearningRecipe

SAID_EVERY = 10.0  # seconds from one line about all robots to the next


@dataclass(frozen=True)
class FleetFlags:
    """Several robots live, one learner learns from all of them; in the end one of them sits the exam."""

    robots: int = 4  # all as the recipe's, each with a seed of its own
    devices: int = 1  # that the learner spreads each batch over, all of one machine; where it has no GPUs, processes on its cores
    address: str | None = None  # of a Ray cluster that is there already; None: one of this machine's own
    recipe: Annotated[LearningRecipe, tyro.conf.arg(name="")] = field(default_factory=lambda: _recipe("toroidal_dot_latent"))


@dataclass(frozen=True)
class SweepFlags:
    """Each recipe with each seed, a life of its own from nothing, as many at once as there are cores; a table in the end."""

    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int | None = None  # of the robot; None: as the recipe says
    address: str | None = None  # of a Ray cluster that is there already; None: one of this machine's own
    out: Path = Path("saved/sweep.json")  # where the rows go


def fleet(arguments: Sequence[str]) -> None:
    words, flags = words_and_flags(arguments)
    if words and words[0] == "sweep":
        _sweep(words[1:], flags)
        return
    if len(words) != 1 and not {"-h", "--help"} & set(flags):
        raise ConfigurationError(f"babble fleet takes one recipe, not {len(words)}; choose one of {', '.join(_learning())}")
    name = words[0] if words else "toroidal_dot_latent"
    chosen: FleetFlags = parse(FleetFlags(recipe=_recipe(name)), flags, f"babble fleet {name}")
    console = Console()
    where = {"address": chosen.address, "devices": chosen.devices}
    with interrupts() as stop:
        lives = Fleet(chosen.recipe, chosen.robots, name=chosen.recipe.name or f"{name}-fleet", stop=stop, **where)
        with lives:
            spread = f" The learner spreads each batch over {chosen.devices} processes." if chosen.devices > 1 else ""
            console.print(f"{chosen.robots} robots live; what is learned from all of them is saved in {lives.folder}.{spread}", highlight=False)
            said = 0.0
            for beat in lives:
                while lives.notes:
                    console.print(lives.notes.pop(0), highlight=False, markup=False, soft_wrap=True)
                if lives.seconds - said >= SAID_EVERY or beat.over:
                    said = lives.seconds
                    console.print(lives.told(), highlight=False)
            if not stop.is_set():
                console.print(f"Now one of them does {chosen.recipe.exam_steps} steps it will not learn from ...", highlight=False)
                page, sentences, _ = lives.exam(chosen.recipe.exam_steps, chosen.recipe.out.absolute() / lives.name)
                for sentence in sentences:
                    console.print(Padding(sentence, (0, 2)), highlight=False)
                console.print(f"\nOpen {page} to see what it imagines.", highlight=False)
    for note in lives.notes:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    console.print(_table(lives.result["robots"]))
    console.print(f"{lives.result['steps']} steps and {lives.result['updates']} updates in {lives.result['seconds']:.0f} s.", highlight=False)
    if stop.is_set():
        console.print("The robots are at rest; the same command goes on from here.", highlight=False)
        raise SystemExit(130)


def _sweep(names: Sequence[str], flags: Sequence[str]) -> None:
    chosen: SweepFlags = parse(SweepFlags(), flags, "babble fleet sweep RECIPE...")
    changes = {} if chosen.steps is None else {"steps": chosen.steps}
    rows = []
    console = Console()
    for row in sweep({name: _recipe(name, changes) for name in names}, chosen.seeds, address=chosen.address):
        rows.append(row)
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        chosen.out.write_text(json.dumps(rows, indent=1))
        console.print(" ".join(f"{key} {_short(value)}" for key, value in row.items()), highlight=False)
    console.print(_table(sorted(rows, key=lambda row: (row["recipe"], row["seed"]))))
    console.print(f"The rows are in {chosen.out}.", highlight=False)


def _recipe(name: str, changes: Mapping[str, Any] | None = None) -> LearningRecipe:
    recipe = RECIPES.get(name)
    if not isinstance(recipe, LearningRecipe):
        raise ConfigurationError(f"{name!r} is no recipe of one that learns; choose one of {', '.join(_learning())}")
    return replace(recipe, **(changes or {}))


def _learning() -> list[str]:
    return [name for name, recipe in RECIPES.items() if isinstance(recipe, LearningRecipe)]


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = Table(*columns)
    for row in rows:
        table.add_row(*(_short(row.get(column, "")) for column in columns))
    return table


def _short(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
