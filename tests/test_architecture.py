"""The house has floors: imports only go down, files stay short, and torch starts at floor 3."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "motorbabble"
HOUSE = {
    -1: "errors",  # the cellar: floor 0 in the drawing, but the nouns beside it raise its errors
    0: "experience disk",
    1: "figures recording",
    1.5: "exchange",  # sessions in other people's formats
    2: "robots",
    3: "models",
    4: "world_models",
    5: "learning selectors analysis tracking",
    6: "life display",
    6.5: "memory watching bounds",  # keeps a life: records it, saves it, resumes it; looks into it for trackers; ends it early
    7: "agents recipes runner __init__",
    7.5: "config faces birth",  # a landing: they only show, or put together, what lies below
    7.75: "fleet",  # whole lives, spread over actors
    8: "explorer commands",
    9: "cli",
    10: "__main__",
}
FLOORS = {name: floor for floor, names in HOUSE.items() for name in names.split()}
FIRST_WITH_TORCH = 3
Imports = dict[str, set[str]]  # "robots.interface" -> what it imports: "experience", "torch", ...


def imported_by(source: str) -> set[str]:
    """Full names of all that a file imports, also inside functions; what is only for the type checker is left out."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = [ast.Pass()]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "write imports in full, from motorbabble..."
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def imports_of(package: Path) -> Imports:
    files = {file.relative_to(package).with_suffix("").as_posix().replace("/", "."): file for file in sorted(package.rglob("*.py"))}

    def ours(name: str) -> str:
        """motorbabble.robots.interface.RobotInterface -> robots.interface; others' names stay as they are."""
        if name.partition(".")[0] != package.name:
            return name
        parts = name.split(".")[1:]
        while parts and ".".join(parts) not in files:
            if ".".join([*parts, "__init__"]) in files:
                return ".".join([*parts, "__init__"])
            parts.pop()
        return ".".join(parts) or "__init__"

    return {module: {ours(name) for name in imported_by(file.read_text())} for module, file in files.items()}


def faults(imports: Imports) -> list[str]:
    found = []
    for module, targets in imports.items():
        place = module.partition(".")[0]
        if place not in FLOORS:
            found.append(f"{place} stands on no floor")
            continue
        for target in targets:
            above = target.partition(".")[0]
            if above == "torch" and FLOORS[place] < FIRST_WITH_TORCH:
                found.append(f"{module} imports torch below floor {FIRST_WITH_TORCH}")
            if target in imports and above != place and FLOORS.get(above, 0) >= FLOORS[place]:
                found.append(f"{module} (floor {FLOORS[place]}) imports {target} (floor {FLOORS[above]})")
    try:
        TopologicalSorter({module: targets & imports.keys() for module, targets in imports.items()}).prepare()
    except CycleError as circle:
        found.append("a circle: " + " <- ".join(circle.args[1]))
    return found


def test_imports_only_go_down():
    assert not (found := faults(imports_of(PACKAGE))), "\n".join(found)


@pytest.mark.parametrize(
    "imports",
    [
        {"robots.dot": {"life"}, "life": set()},
        {"selectors.curious": {"learning.gate"}, "learning.gate": set()},
        {"models.a": {"models.b"}, "models.b": {"models.a"}},
        {"figures": {"torch.nn"}},
        {"attic": set()},
        {"life": {"__init__"}, "__init__": set()},
    ],
)
def test_a_broken_house_is_noticed(imports):
    assert len(faults(imports)) == 1


def test_imports_are_read_wherever_they_stand():
    source = "def f():\n    import torch.nn\nfrom motorbabble.life import live\nif TYPE_CHECKING:\n    import gymnasium\nelse:\n    import rich"
    assert imported_by(source) == {"torch.nn", "motorbabble.life.live", "rich"}


def test_no_file_is_over_500_lines():
    long = {str(file.relative_to(PACKAGE.parent)): lines for file in PACKAGE.rglob("*.py") if (lines := len(file.read_text().splitlines())) > 500}
    assert not long


def test_a_robot_needs_no_torch():
    code = "import sys, motorbabble, motorbabble.robots.toroidal_dot, motorbabble.robots.bodies; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
