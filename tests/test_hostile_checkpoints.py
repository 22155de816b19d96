"""Files that somebody made to do harm: refused in one sentence, soon, without unpickling, and before a weight is touched."""

import ast
import json
import math
import os
import pickle
import random
import shutil
import struct
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
from brief_lives import BriefMind, brief, dot, ended, forged, put, weights

import motorbabble
from motorbabble.errors import CheckpointError, MotorbabbleError
from motorbabble.learning import checkpoint as checkpoint_module
from motorbabble.learning.checkpoint import Checkpoints

PACKAGE = Path(motorbabble.__file__).parent

UNPICKLED: list[str] = []
sys.addaudithook(lambda event, arguments: UNPICKLED.append(str(arguments)) if event == "pickle.find_class" else None)


class Bomb:
    def __reduce__(self):
        return os.system, ("touch exploded",)


def test_the_hook_notices_unpickling():
    UNPICKLED.clear()
    pickle.loads(pickle.dumps(Path("x")))
    assert UNPICKLED


def safetensors(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def weight(begin: int, end: int) -> dict:
    return {"dtype": "F32", "shape": [(end - begin) // 4], "data_offsets": [begin, end]}


def zipped(folder: Path) -> bytes:
    with zipfile.ZipFile(folder / "archive", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.pkl", pickle.dumps(Bomb()) + bytes(10**7))
    return (folder / "archive").read_bytes()


HOSTILE_FILES = {
    "a pickle": lambda folder: pickle.dumps(Bomb()),
    "a zip": zipped,
    "nothing": lambda folder: b"",
    "a header of 99 MB": lambda folder: safetensors(b"{" + b" " * 99_000_000 + b"}"),
    "a header longer than the file": lambda folder: struct.pack("<Q", 2**63) + b"{}",
    "a deep header": lambda folder: safetensors(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "100,000 tensors": lambda folder: safetensors({f"trained/{i}": weight(0, 0) for i in range(100_000)}),
    "30,000 tensors": lambda folder: safetensors({f"trained/{i}": weight(0, 0) for i in range(30_000)}),
    "overlapping tensors": lambda folder: safetensors({"a": weight(0, 8), "b": weight(4, 12)}, bytes(12)),
    "a tensor behind the end": lambda folder: safetensors({"a": weight(0, 8)}, bytes(4)),
    "a shape of 2 ** 60": lambda folder: safetensors({"a": {"dtype": "F32", "shape": [2**60, 2**4], "data_offsets": [0, 0]}}),
    "an unknown type": lambda folder: safetensors({"a": {"dtype": "OBJECT", "shape": [], "data_offsets": [0, 8]}}, bytes(8)),
    "numbers of eight bits": lambda folder: safetensors({"a": {"dtype": "F8_E5M2", "shape": [2], "data_offsets": [0, 2]}}, b"\x7f\x7f"),
    "NaN": lambda folder: safetensors({"a": weight(0, 4)}, struct.pack("<f", math.nan)),
    "a complex infinity": lambda folder: safetensors({"a": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}}, struct.pack("<ff", 0, math.inf)),
}


def replaced(folder: Path, name: str, data: bytes) -> None:
    """A file of the newest generation with a manifest that vouches for it."""
    newest = Checkpoints(folder).path(Checkpoints(folder).generations()[0])
    (newest / name).write_bytes(data)
    manifest = json.loads((newest / "manifest.json").read_bytes())
    manifest["files"][name] = {"size": len(data), "sha256": checkpoint_module._hash(data)}
    sealed(newest, manifest)


def sealed(generation: Path, manifest: object) -> None:
    data = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    (generation / "manifest.json").write_bytes(data)
    (generation / "manifest.sha256").write_text(checkpoint_module._hash(data))


def is_refused(folder: Path) -> str:
    """By load or by a life, in a sentence, within 2 s, without unpickling; answers the sentence."""
    UNPICKLED.clear()
    mind = BriefMind(dot().action_space.size)
    before, began = weights(mind), time.process_time()  # of this process: others may keep the machine busy
    with pytest.raises(CheckpointError) as refusal:
        brief(folder, mind)
    assert time.process_time() - began < 2
    assert not UNPICKLED and not Path("exploded").exists()
    assert weights(mind) == before
    sentence = str(refusal.value)
    assert "\n" not in sentence and 20 < len(sentence) < 1500
    return sentence


@pytest.fixture(scope="module")
def lived(tmp_path_factory) -> Path:
    """A short life of which one generation is left."""
    folder = tmp_path_factory.mktemp("lived")
    ended(brief(folder))
    with Checkpoints(folder / "c") as checkpoints:
        oldest = checkpoints.generations()[-1]
        for path in checkpoints.path(oldest).iterdir():
            path.unlink()
        checkpoints.path(oldest).rmdir()
    return folder


@pytest.fixture
def life(lived, tmp_path) -> Path:
    """A copy of it."""
    shutil.copytree(lived, tmp_path / "life")
    return tmp_path / "life"


@pytest.mark.parametrize("what", HOSTILE_FILES)
def test_a_file_of_weights_is_refused_that_holds(what, life, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    replaced(life / "c", "autoencoder.safetensors", HOSTILE_FILES[what](tmp_path))
    is_refused(life)


def entry(name: str) -> dict:
    return {"format": 1, "files": {name: {"size": 6, "sha256": "00"}}}


HOSTILE_MANIFESTS = {
    **{f"naming {name!r}": entry(name) for name in ("../x", "/etc/passwd", "a/b.json", "..", "", "state.json\n", "x" * 200, ".json", "c:x.json")},
    "a list": [],
    "a word": "manifest",
    "nothing": None,
    "empty": b"",
    "not text": b"\xff\xfe\x00",
    "deep": b"[" * 200_000 + b"]" * 200_000,
    "a huge number": b'{"format": ' + b"9" * 5000 + b', "files": {}}',
    "an infinite format": b'{"format": 1e999, "files": {}}',
    "a format of NaN": b'{"format": NaN, "files": {}}',
    "no format": {"files": {}},
    "a list of files": {"format": 1, "files": ["state.json"]},
    "no files": {"format": 1, "files": {}},
    "a size in words": {"format": 1, "files": {"state.json": {"size": "big", "sha256": ""}}},
    "a file in a word": {"format": 1, "files": {"state.json": "all of it"}},
}


@pytest.mark.parametrize("what", HOSTILE_MANIFESTS)
def test_a_manifest_is_refused_that_is(what, life):
    with Checkpoints(life / "c") as checkpoints:
        sealed(checkpoints.path(checkpoints.generations()[0]), HOSTILE_MANIFESTS[what])
    is_refused(life)


@pytest.mark.parametrize("key", ["action_space", "architecture", "robot_type"])
@pytest.mark.parametrize("value", [None, 5, "x", [], {}, {"channels": 3}, {"channels": [["a", 1, 0, ""]], "actions": [5]}], ids=repr)
def test_a_manifest_is_refused_that_says_of_itself(key, value, life):
    with Checkpoints(life / "c") as checkpoints:
        newest = checkpoints.generations()[0]
        told = {**checkpoints.manifest(newest), key: value}
        sealed(checkpoints.path(newest), told)
    if key == "robot_type":  # a name for people; the actions decide
        brief(life).close()
    else:
        is_refused(life)


@pytest.mark.parametrize("how", ["a link", "a pipe", "a folder", "a linked generation", "a pipe for a manifest"])
def test_what_is_no_plain_file_is_refused(how, life, tmp_path):
    newest = next((life / "c").glob("gen-*"))
    state, manifest = newest / "state.json", newest / "manifest.json"
    if how == "a link":
        state.rename(tmp_path / "state.json")
        state.symlink_to(tmp_path / "state.json")
    elif how == "a linked generation":
        newest.rename(tmp_path / "moved")
        newest.symlink_to(tmp_path / "moved")
    elif how == "a folder":
        state.unlink()
        state.mkdir()
    else:
        path = state if how == "a pipe" else manifest
        path.unlink()
        os.mkfifo(path)
    is_refused(life)


STRANGE = [None, 5, -1.5, "x", [], {}, [[]], {"state": 3}, True]
STATE_KEYS = ["life", "trail", "counters", "levels", "surprise", "generators", "selector", "robot", "history", "run", "remembered", "taught", "about"]


@pytest.mark.parametrize("key", STATE_KEYS)
def test_a_state_of_other_kinds_is_refused_in_a_sentence_or_does_no_harm(key, lived, folder):
    good = json.loads(next((lived / "c").glob("gen-*/state.json")).read_bytes())
    assert sorted(good) == sorted(STATE_KEYS)
    for value in (*STRANGE, "absent"):
        bad = {**good, key: value}
        if value == "absent":
            del bad[key]
        survives(lived, folder, bad)


def test_a_state_with_anything_strange_inside_is_refused_in_a_sentence_or_does_no_harm(lived, folder):
    rng = random.Random(5)
    for _ in range(60):
        bad = json.loads(next((lived / "c").glob("gen-*/state.json")).read_bytes())
        at, depth = bad, rng.randrange(1, 5)
        while True:
            key = rng.choice(list(at) if isinstance(at, dict) else range(len(at)))
            if depth == 0 or not isinstance(at[key], dict | list) or not at[key]:
                at[key] = rng.choice(STRANGE)
                break
            at, depth = at[key], depth - 1
        survives(lived, folder, bad)


def survives(lived: Path, folder: Path, state: dict) -> None:
    """A life that is offered this state begins, or says in a sentence why not, with its weights as they were."""
    shutil.rmtree(folder / "life", ignore_errors=True)
    shutil.copytree(lived, folder / "life")
    replaced(folder / "life" / "c", "state.json", json.dumps(state).encode())
    mind = BriefMind(dot().action_space.size)
    before = weights(mind)
    try:
        brief(folder / "life", mind)._memory.release()  # type: ignore[union-attr]
    except MotorbabbleError as refusal:
        assert "\n" not in str(refusal) and weights(mind) == before


@pytest.mark.parametrize("stem", ["autoencoder", "predictor_0", "optimizer", "memory"])
def test_a_generation_without_one_of_its_files_is_refused(stem, life):
    forged(life / "c", lambda tensors, state: tensors.pop(stem))
    is_refused(life)


def test_memories_of_other_kinds_are_refused_or_do_no_harm(lived, folder):
    strange = [torch.zeros(0), torch.zeros(3, 3), torch.full((7,), 2**40), torch.tensor(5.0), torch.zeros(2, dtype=torch.bool)]
    names = ["replay/moments", "replay/runs", "replay/led", "replay/sum", "replay/seen", "history/0"]
    for name, value in [(name, value) for name in names for value in (*strange, None)]:
        shutil.rmtree(folder / "life", ignore_errors=True)
        shutil.copytree(lived, folder / "life")
        forged(folder / "life" / "c", put("memory", name, value))
        mind = BriefMind(dot().action_space.size)
        before = weights(mind)
        try:
            brief(folder / "life", mind)._memory.release()  # type: ignore[union-attr]
        except MotorbabbleError as refusal:
            assert "\n" not in str(refusal) and weights(mind) == before


FORBIDDEN = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


def unpickling(source: str) -> list[str]:
    """What could run code that came in a file."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.partition(".")[0] in FORBIDDEN]
        elif isinstance(node, ast.ImportFrom):
            names = {alias.name for alias in node.names}
            found += [node.module or ""] * ((node.module or "").partition(".")[0] in FORBIDDEN or (node.module == "torch" and "load" in names))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            called = f"{node.value.id}.{node.attr}"
            found += [called] * (called in ("torch.load", "torch.jit", "builtins.eval", "builtins.exec", "pandas.read_pickle", "pd.read_pickle"))
        elif isinstance(node, ast.Name):
            found += [node.id] * (node.id in ("eval", "exec", "__import__"))
        elif isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "weights_only"):
            found += [node.arg] * (not isinstance(node.value, ast.Constant) or node.value.value is (node.arg == "allow_pickle"))
    return found


def test_nothing_in_the_package_can_unpickle():
    for path in PACKAGE.rglob("*.py"):
        assert not unpickling(path.read_text("utf-8")), path


@pytest.mark.parametrize(
    "source",
    [
        *("import pickle", "import joblib.hashing", "from marshal import loads", "torch.load(path)", "from torch import load", "eval(text)"),
        *("exec(text)", "np.load(path, allow_pickle=True)", "np.load(path, allow_pickle=wish)", "load(path, weights_only=False)", "f = eval"),
    ],
)
def test_the_search_for_unpickling_finds(source):
    assert unpickling(source)
