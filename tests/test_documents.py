"""Documents name only what exists: paths, commands, targets, rows and links; and their examples run."""

import re
import tomllib
from pathlib import Path

import pytest
from exams import robot_exam

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*.md"), *(ROOT / "integrations").rglob("*.md")])
BESIDE = ("", "motorbabble/", "tests/", "docs/")  # `life.py` may mean motorbabble/life.py
named = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.relative_to(ROOT).as_posix())


def blocks(text: str) -> list[str]:
    """What stands between ``` and ```."""
    return re.findall(r"^```[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def code(text: str) -> list[str]:
    """Each line of each block, and whatever stands in `backticks`."""
    rest = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [line.strip().removeprefix("$ ") for block in blocks(text) for line in block.splitlines()] + re.findall(r"`([^`\n]+)`", rest)


def rows() -> list[list[str]]:
    lines = (ROOT / "ROWS.md").read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if re.match(r"\| *\d", line)]


def in_the_tree(text: str) -> set[str]:
    """Paths drawn in the block that holds the tree: deeper is further in, and words after two spaces or # are remarks."""
    tree = next((block for block in blocks(text) if re.search(r"^\W*motorbabble/", block, re.MULTILINE)), "")
    found, above = set(), []  # above: (indent, folder)
    for line in tree.splitlines():
        line = re.sub(r"[│├└─|]", " ", line)
        indent, folder = len(line) - len(line.lstrip()), ""
        above = [(i, name) for i, name in above if i < indent]
        folder = above[-1][1] if above else ""
        for word in line.split():
            if not re.fullmatch(r"[\w.-]+/|[\w.-]*\.\w+|Makefile|LICENSE|\.ci/run", word):
                break
            found.add(folder + word)
            if word.endswith("/"):
                folder += word
                above.append((indent, folder))
    return found


def test_the_readme_draws_the_tree():
    drawn = in_the_tree((ROOT / "README.md").read_text())
    assert drawn, "README.md holds no block with a line motorbabble/"
    assert not {path for path in drawn if not (ROOT / path).exists()}
    modules = {file.relative_to(ROOT).as_posix() for file in (ROOT / "motorbabble").rglob("*.py") if not file.name.startswith("__")}
    assert not modules - drawn, "every file of the package has its line in the README's tree"


def test_the_tree_is_read_as_drawn():
    tree = (
        "```\nMakefile  pyproject.toml\ndocs/    robots.md (add your own)\nmotorbabble/\n"
        "  life.py   the loop\n├── robots/  worlds\n│   └── dot.py  x.py\n```"
    )
    inside = {"motorbabble/life.py", "motorbabble/robots/", "motorbabble/robots/dot.py", "motorbabble/robots/x.py"}
    drawn = tree.replace("├── ", "  ").replace("│   └── ", "    ")
    assert in_the_tree(drawn) >= inside | {"docs/robots.md", "Makefile", "pyproject.toml"}


@named
def test_paths_exist(document):
    paths = [word for word in code(document.read_text()) if re.fullmatch(r"[\w./-]+(\.(py|md|toml|txt|ipynb)|/)", word)]
    made_by_runs = ("saved/", "runs/", "dist/", ".venv")
    lost = [path for path in paths if not path.startswith(made_by_runs) and not any((ROOT / base / path).exists() for base in BESIDE)]
    assert not lost


@named
def test_links_lead_somewhere(document):
    links = re.findall(r"\]\(([^)\s]+)\)", document.read_text())
    lost = [link for link in links if not re.match(r"https?:|mailto:|#", link) and not (document.parent / link.partition("#")[0]).exists()]
    assert not lost


@named
def test_commands_exist(document):
    from motorbabble.cli import COMMANDS
    from motorbabble.recipes import RECIPES

    asked = {match[1] for line in code(document.read_text()) if (match := re.match(r"(?:\S*/)?babble ([a-z][a-z-]*)", line))}
    assert not asked - set(COMMANDS)
    run = {match[1] for line in code(document.read_text()) if (match := re.match(r"(?:\S*/)?babble run ([a-z]\w*)", line))}
    assert not run - set(RECIPES)


@named
def test_make_targets_exist(document):
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    asked = {match[1] for line in code(document.read_text()) if (match := re.match(r"make ([a-z][a-z-]*)", line))}
    assert not asked - targets


def test_every_row_is_there_once():
    assert [int(row[0]) for row in rows()] == list(range(1, 121))


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_a_row_names_what_exists(row):
    _, what, where, shown = row
    assert what and where.startswith("open") == shown.startswith("open"), "a row is built and tested, or open"
    for cell in (where, shown):
        paths = re.findall(r"`([^`]+)`", cell)
        assert paths or cell.startswith("open")
        for path in paths:
            file, _, test = path.partition("::")
            assert (ROOT / file).is_file(), f"{file} does not exist"
            assert f"def {test}(" in (ROOT / file).read_text() or not test, f"{file} holds no {test}"


def test_the_robot_of_the_guide_passes_the_exam():
    told: dict = {}
    exec(blocks((ROOT / "docs" / "robots.md").read_text())[0], told)  # as its reader would
    robot_exam(told["Lamp"])


def test_the_guide_runs_as_written(capsys):
    robot, life, *_ = blocks((ROOT / "docs" / "robots.md").read_text())
    assert "steps=300" in life
    exec(robot + life.replace("steps=300", "steps=90, max_updates=1, width=32"), {})  # the shortest life that is worth a card, of a small model
    assert capsys.readouterr().out.strip()


def test_requirements_pin_what_the_project_asks_for():
    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[<>=\[;]", requirement)[0].strip().lower() for requirement in requirements}

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.]+", pin) for pin in pins), "one exact version each"
    asked = [*project["dependencies"], *(each for extra in project["optional-dependencies"].values() for each in extra)]
    assert names(asked) <= names(pins)


def test_requirements_are_what_the_tests_run_with():
    from importlib.metadata import version

    assert version("torch").split("+")[0] == re.search(r"^torch==(\S+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)[1]
