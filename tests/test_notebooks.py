"""The notebooks, executed from top to bottom in a kernel of this environment, the JetBot's against its stand-in."""

import json
import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="notebooks are executed where nbclient and ipykernel are installed")
nbclient = pytest.importorskip("nbclient", reason="notebooks are executed where nbclient and ipykernel are installed")
pytest.importorskip("ipykernel", reason="notebooks are executed where nbclient and ipykernel are installed")

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def executed(path: Path, folder: Path):
    """The notebook with its outputs; what it writes goes into `folder`."""
    client = nbclient.NotebookClient(nbformat.read(path, 4), kernel_name="python3", timeout=240, resources={"metadata": {"path": str(folder)}})
    return client.execute()


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """A kernel of this environment, whichever others this user or machine has."""
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    for variable in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR", "HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def text_of(notebook) -> str:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"], outputs
    return "".join(output.get("text", "") for output in outputs)


def pictures_in(notebook) -> int:
    return sum("image/png" in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", []))


def errors_told(text: str) -> list[tuple[float, float]]:
    """Of each action of the plan: the model's error, and that of keeping the picture."""
    return [(float(a), float(b)) for a, b in re.findall(r"error ([\d.]+), of keeping the picture as it is ([\d.]+)", text)]


def test_the_dot_is_tried_and_learned(alone):
    notebook = executed(next(path for path in NOTEBOOKS if path.stem == "toroidal_dot_actions"), alone)
    text = text_of(notebook)
    assert "stay: from (19, 170) to (19, 170), 0.00" in text and "move: from (19, 170) to (46, 170)" in text and pictures_in(notebook) == 7
    assert float(re.findall(r"step 60: skill ([\d.]+)", text)[0]) > 0.6
    assert all(error < copied for error, copied in errors_told(text) if copied) and len(errors_told(text)) == 4


def test_the_jetbot_is_tried_and_learned(alone):
    notebook = executed(next(path for path in NOTEBOOKS if path.stem == "jetbot_actions"), alone)
    text = text_of(notebook)
    assert "0 stop" in text and "1 forward" in text and pictures_in(notebook) == 6
    assert "step 40: skill " in text and len(errors_told(text)) == 3


@each
def test_a_notebook_is_kept_as_it_was_written(path):
    """No outputs, no counts, no traces of the machine it was written on; every cell's code can be read."""
    notebook = json.loads(path.read_text())
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"} and notebook["metadata"]["kernelspec"]["name"] == "python3"
    for cell in notebook["cells"]:
        assert not cell["metadata"] and not cell.get("outputs") and cell.get("execution_count") is None
        if cell["cell_type"] == "code":
            compile("".join(cell["source"]), path.name, "exec")
    assert not re.search(r"/(home|root|Users|tmp|work)/", path.read_text())
