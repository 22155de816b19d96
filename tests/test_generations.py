"""Generations of a checkpoint, one promise of docs/checkpoint-format.md at a time, on a few small tensors."""

import hashlib
import json
import os
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from disks import TraceDisk

from motorbabble.disk import Disk
from motorbabble.errors import CheckpointError, CheckpointMismatch, ConfigurationError
from motorbabble.experience import ActionSpace
from motorbabble.learning import checkpoint as generations
from motorbabble.learning.checkpoint import Checkpoints, Identity, Saved, check_actions, differences, newest_in, put_aside

SPACE = ActionSpace.discrete([{"add": 1}, {"add": 2}], labels=("one", "two"))
IDENTITY = Identity("counting", SPACE, {"model": "Toy", "history": (1, 2)})
TENSORS = {"weights": {"w": torch.tensor([1.5, -2.0]), "n": torch.tensor(3)}, "optimizer": {"step": torch.tensor([7])}}
NAMES = ["manifest.json", "manifest.sha256", "optimizer.safetensors", "state.json", "weights.safetensors"]


class Quick(Disk):
    def sync(self, file: int) -> None:
        pass


def saved(number: int = 0, **given) -> Saved:
    return replace(Saved(IDENTITY, TENSORS, {"number": number, "words": ["nō", None, 1.5]}), **given)


def filled(folder: Path, *numbers: int) -> Checkpoints:
    with Checkpoints(folder, Quick()) as checkpoints:
        for number in numbers:
            checkpoints.save(number, saved(number))
    return checkpoints


def spoil(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def reseal(folder: Path, change) -> None:
    """Another manifest, sealed as its writer would have."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    data = json.dumps(change(manifest)).encode()
    (folder / "manifest.json").write_bytes(data)
    (folder / "manifest.sha256").write_text(hashlib.sha256(data).hexdigest())


# What is saved


def test_what_was_saved_comes_back(tmp_path):
    loaded = filled(tmp_path, 5).load(IDENTITY)
    assert loaded is not None and (loaded.generation, loaded.notes) == (5, ())
    assert loaded.state == {"number": 5, "words": ["nō", None, 1.5]} and loaded.tensors.keys() == TENSORS.keys()
    for stem, named in TENSORS.items():
        assert loaded.tensors[stem].keys() == named.keys()
        assert all(
            torch.equal(loaded.tensors[stem][name], tensor) and loaded.tensors[stem][name].dtype == tensor.dtype for name, tensor in named.items()
        )


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(12.0).reshape(3, 4).T,
        torch.tensor([True, False]),
        torch.zeros(0, 3),
        torch.tensor([1.0], dtype=torch.bfloat16),
        torch.tensor([1 + 2j]),
        torch.nn.Parameter(torch.ones(2)),
        torch.arange(6)[::2],
    ],
    ids=["transposed", "bool", "empty", "bfloat16", "complex", "parameter", "strided"],
)
def test_every_kind_of_tensor_comes_back(tmp_path, tensor):
    with Checkpoints(tmp_path, Quick()) as checkpoints:
        checkpoints.save(1, saved(tensors={"weights": {"a": tensor, "tied": tensor}}))
        loaded = checkpoints.load()
    assert loaded is not None
    for name in ("a", "tied"):
        found = loaded.tensors["weights"][name]
        assert torch.equal(found, tensor.detach()) and found.dtype == tensor.dtype and not found.requires_grad


def test_a_generation_is_what_the_document_says(tmp_path):
    before = time.time_ns()
    folder = filled(tmp_path, 42).path(42)
    assert folder == tmp_path / "gen-00000042" and sorted(path.name for path in folder.iterdir()) == NAMES
    sealed = (folder / "manifest.json").read_bytes()
    assert (folder / "manifest.sha256").read_text() == hashlib.sha256(sealed).hexdigest()
    manifest = json.loads(sealed)
    assert before <= manifest.pop("saved_ns") <= time.time_ns()
    data = {name: (folder / name).read_bytes() for name in NAMES if "manifest" not in name}
    assert manifest == {
        "format": 1,
        "generation": 42,
        "files": {name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()} for name, content in data.items()},
        "robot_type": "counting",
        "action_space": SPACE.to_json(),
        "architecture": {"model": "Toy", "history": [1, 2]},
    }
    assert json.loads(data["state.json"])["number"] == 42
    assert filled(tmp_path).manifest(42)["generation"] == 42


def test_every_file_lasts_before_the_generation_has_its_name(tmp_path):
    disk = TraceDisk()
    with Checkpoints(tmp_path / "life", disk) as checkpoints:
        checkpoints.save(1, saved())
    ops = [(op.what, op.path.name) for op in disk.ops]
    assert ops[:2] == [("make_folder", "life"), ("sync_folder", tmp_path.name)], "the name of its folder lasts too"
    renamed = next(at for at, op in enumerate(disk.ops) if op.what == "rename")
    assert disk.ops[renamed].data.name == "gen-00000001" and disk.ops[renamed].path.name.startswith(".new-")
    for name in NAMES:
        assert ops.index(("create", name)) < ops.index(("sync", name)) < renamed
    assert ops[renamed - 1] == ("sync_folder", disk.ops[renamed].path.name) and ops[renamed + 1] == ("sync_folder", "life")
    assert ops.index(("create", "manifest.json")) > max(ops.index(("sync", name)) for name in NAMES if "manifest" not in name)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_refused_and_nothing_is_written(tmp_path, value):
    checkpoints = filled(tmp_path, 1)
    for tensor in (torch.tensor([1.0, value]), torch.tensor([complex(0, value)]), torch.tensor([value], dtype=torch.float16)):
        with checkpoints, pytest.raises(CheckpointError, match=r"weights.safetensors holds numbers in bad that are not finite"):
            checkpoints.save(2, saved(tensors={"weights": {"good": torch.ones(1), "bad": tensor}}))
    with checkpoints, pytest.raises(ConfigurationError, match=r"no plain value"):
        checkpoints.save(2, saved(state={"loss": value}))
    assert checkpoints.generations() == [1]


@pytest.mark.parametrize("state", [{"a": {1, 2}}, {"a": b"x"}, {"a": torch.ones(1)}, {("a",): 1}])
def test_a_state_is_plain_values(tmp_path, state):
    with Checkpoints(tmp_path, Quick()) as checkpoints, pytest.raises(ConfigurationError, match=r"no plain value .*state_dict\(\)"):
        checkpoints.save(1, saved(state=state))
    assert checkpoints.generations() == []


def test_more_tensors_than_are_read_back_are_not_written(tmp_path, monkeypatch):
    checkpoints = filled(tmp_path, 1)
    size = int.from_bytes((checkpoints.path(1) / "weights.safetensors").read_bytes()[:8], "little")
    monkeypatch.setattr(generations, "MOST_HEADER", size)
    assert checkpoints.load() is not None
    with checkpoints:
        assert checkpoints.save(2, saved()) == 2
        monkeypatch.setattr(generations, "MOST_HEADER", size - 1)
        with pytest.raises(CheckpointError, match=r"weights.safetensors would hold 2 tensors, more than are read back"):
            checkpoints.save(3, saved())
    with pytest.raises(CheckpointError, match=rf"the header is longer than {size - 1} bytes"):
        checkpoints.load()


# Which are kept


def test_numbers_only_rise_and_two_are_kept(tmp_path):
    with Checkpoints(tmp_path, Quick()) as checkpoints:
        assert [checkpoints.save(number, saved(number)) for number in (5, 5, 3, 100, 99)] == [5, 6, 7, 100, 101]
        assert checkpoints.generations() == [101, 100]
    assert {path.name for path in tmp_path.iterdir()} == {"gen-00000100", "gen-00000101", "checkpoint.lock"}


def test_generations_are_told_by_their_names(tmp_path):
    for name in ("gen-00000007", "gen-123456789", "gen-000000012345", "gen-0000003", "gen-00000008.old", ".gen-00000009", "gen-0000000000099"):
        (tmp_path / name).mkdir()
    assert Checkpoints(tmp_path).generations() == [123456789, 7] and Checkpoints(tmp_path / "none").generations() == []
    assert Checkpoints(tmp_path).path(123456789).name == "gen-123456789"


def test_the_backup_is_the_newest_other_that_is_whole(tmp_path):
    checkpoints = filled(tmp_path, 1, 2)
    spoil(checkpoints.path(2) / "state.json")
    filled(tmp_path, 3)
    assert checkpoints.generations() == [3, 1]
    filled(tmp_path, 4)
    assert checkpoints.generations() == [4, 3]


def test_a_newer_programs_generation_and_a_link_are_not_removed(tmp_path):
    checkpoints = filled(tmp_path / "life", 1, 2)
    reseal(checkpoints.path(2), lambda manifest: {**manifest, "format": 2})
    shutil.move(checkpoints.path(1), tmp_path / "elsewhere")
    checkpoints.path(1).symlink_to(tmp_path / "elsewhere")
    filled(tmp_path / "life", 3)
    assert checkpoints.generations() == [3, 2, 1] and (tmp_path / "elsewhere" / "state.json").exists()
    filled(tmp_path / "life", 4)
    assert checkpoints.generations() == [4, 3, 1]


def test_what_killed_saves_left_goes_and_nothing_else(tmp_path):
    checkpoints = filled(tmp_path / "life", 1)
    life = tmp_path / "life"
    for name in (".new-0123456789ab", ".trash-7-abcdef", ".new-ff", ".trash-9-aa"):
        shutil.copytree(checkpoints.path(1), life / name)
    (life / ".new-ff" / "notes.txt").write_text("mine")
    for name in (".news-1", "new-ab", ".new-", ".new-xyz!", ".cache"):
        (life / name).mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "state.json").touch()
    (life / ".new-abcd").symlink_to(tmp_path / "elsewhere")
    filled(life, 2)
    kept = {"gen-00000001", "gen-00000002", "checkpoint.lock", ".new-ff", ".news-1", "new-ab", ".new-", ".new-xyz!", ".cache", ".new-abcd"}
    assert {path.name for path in life.iterdir()} == kept
    assert [path.name for path in (life / ".new-ff").iterdir()] == ["notes.txt"] and (tmp_path / "elsewhere" / "state.json").exists()


def test_a_save_that_fails_leaves_what_was_there(tmp_path):
    class Full(Quick):
        def write(self, file, data):
            raise OSError(28, "No space left on device")

    filled(tmp_path, 1)
    with Checkpoints(tmp_path, Full()) as checkpoints:
        with pytest.raises(CheckpointError, match=rf"to {re.escape(str(tmp_path))}: No space left on device; the one before still holds") as caught:
            checkpoints.save(2, saved())
        assert isinstance(caught.value.__cause__, OSError)
    assert {path.name for path in tmp_path.iterdir()} == {"gen-00000001", "checkpoint.lock"}


# Which is loaded


def test_where_nothing_was_saved_nothing_is_loaded(tmp_path):
    assert Checkpoints(tmp_path).load(IDENTITY) is None and Checkpoints(tmp_path / "none").load() is None


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", ["spoiled", "missing", "longer", "link", "pipe"])
def test_a_damaged_file_falls_back_and_names_itself(tmp_path, name, how):
    checkpoints = filled(tmp_path / "life", 1, 2)
    path = checkpoints.path(2) / name
    content = path.read_bytes()
    path.unlink()
    if how == "spoiled":
        path.write_bytes(content[:-1] + b"?")
    elif how == "longer":
        path.write_bytes(content + b"\n")
    elif how == "link":
        (tmp_path / "same").write_bytes(content)
        path.symlink_to(tmp_path / "same")
    elif how == "pipe":
        os.mkfifo(path)
    loaded = checkpoints.load(IDENTITY)
    assert loaded is not None and (loaded.generation, loaded.state["number"], len(loaded.notes)) == (1, 1, 1)
    assert loaded.notes[0].startswith("gen-00000002 was not used: ") and name.partition(".")[0] in loaded.notes[0]
    wanted = {"missing": "cannot be read: No such file", "link": "cannot be read: "}.get(how, "is not what was written")
    assert wanted in loaded.notes[0]


def test_when_all_are_damaged_each_is_named(tmp_path):
    checkpoints = filled(tmp_path, 1, 2)
    for number in (1, 2):
        spoil(checkpoints.path(number) / "state.json")
    with pytest.raises(CheckpointError, match=r"gen-00000002 was not used: state.json .*; gen-00000001 was not used: state.json .*--fresh"):
        checkpoints.load()


def test_a_generation_that_is_a_link_is_not_used(tmp_path):
    checkpoints = filled(tmp_path / "life", 1, 2)
    shutil.move(checkpoints.path(2), tmp_path / "elsewhere")
    checkpoints.path(2).symlink_to(tmp_path / "elsewhere")
    loaded = checkpoints.load()
    assert loaded is not None and loaded.generation == 1 and "it is a link to another place" in loaded.notes[0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: {**m, "files": {"../state.json": m["files"]["state.json"]}}, "names '../state.json', which is no file of a checkpoint"),
        (lambda m: {**m, "files": {"State.json": m["files"]["state.json"]}}, "no file of a checkpoint"),
        (lambda m: {**m, "files": {"x" * 61 + ".json": m["files"]["state.json"]}}, "no file of a checkpoint"),
        (lambda m: {**m, "files": {"state.json.old": m["files"]["state.json"]}}, "no file of a checkpoint"),
        (lambda m: {**m, "files": {name: told for name, told in m["files"].items() if name != "state.json"}}, "cannot be parsed"),
        (lambda m: {**m, "files": 7}, "says nothing this program knows"),
        (lambda m: {**m, "format": "new"}, "says nothing this program knows"),
        (lambda m: {name: told for name, told in m.items() if name != "format"}, "says nothing this program knows"),
        (lambda m: {name: told for name, told in m.items() if name != "architecture"}, "says nothing this program knows"),
        (lambda m: {**m, "action_space": []}, "says nothing this program knows"),
        (lambda m: [m], "says nothing this program knows"),
    ],
)
def test_a_manifest_that_says_anything_else_is_refused(tmp_path, change, says):
    checkpoints = filled(tmp_path, 1)
    reseal(checkpoints.path(1), change)
    with pytest.raises(CheckpointError, match=re.escape(says)) as caught:
        checkpoints.load(IDENTITY)
    assert not isinstance(caught.value, CheckpointMismatch)


@pytest.mark.parametrize(
    ("name", "content"), [("state.json", b"[]"), ("state.json", b"{"), ("weights.safetensors", b"\0" * 9), ("weights.safetensors", b"")]
)
def test_whole_files_that_hold_something_else_are_refused(tmp_path, name, content):
    checkpoints = filled(tmp_path, 1)
    (checkpoints.path(1) / name).write_bytes(content)
    told = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    reseal(checkpoints.path(1), lambda manifest: {**manifest, "files": {**manifest["files"], name: told}})
    with pytest.raises(CheckpointError, match=r"holds no state|cannot be parsed"):
        checkpoints.load()


def test_numbers_that_are_not_finite_are_not_loaded(tmp_path, monkeypatch):
    checkpoints = filled(tmp_path, 1)
    with monkeypatch.context() as patched, checkpoints:
        patched.setattr(generations, "_check_finite", lambda stem, tensors: None)
        checkpoints.save(2, saved(2, tensors={"weights": {"w": torch.tensor([float("nan")])}}))
    loaded = checkpoints.load()
    assert loaded is not None and loaded.generation == 1 and "weights.safetensors holds numbers in w" in loaded.notes[0]


# Whose it is


def test_another_robot_or_model_is_refused_with_both_values(tmp_path):
    checkpoints = filled(tmp_path, 1, 2)
    other = ActionSpace.discrete([{"add": 1}, {"add": 5}])
    with pytest.raises(CheckpointMismatch, match=re.escape(f"made for a counting with actions {SPACE}, this walker has {other}")):
        checkpoints.load(replace(IDENTITY, robot_type="walker", action_space=other))
    with pytest.raises(CheckpointMismatch, match=r"\(model: Toy there, Grown here\); use another --name"):
        checkpoints.load(replace(IDENTITY, architecture={"model": "Grown", "history": [1, 2]}))
    six = {f"k{n}": n for n in range(6)}
    with pytest.raises(CheckpointMismatch, match=r"k3: absent there, 3 here and 3 more\); use"):
        checkpoints.load(replace(IDENTITY, architecture=six))
    with pytest.raises(CheckpointMismatch, match=r"k2: absent there, 2 here; model: Toy there, absent here\); use"):
        checkpoints.load(replace(IDENTITY, architecture={f"k{n}": n for n in range(3)}))
    with pytest.raises(CheckpointMismatch, match=r"k3: absent there, 3 here and 1 more\); use"):
        checkpoints.load(replace(IDENTITY, architecture={f"k{n}": n for n in range(4)}))
    assert checkpoints.load() is not None and checkpoints.load(IDENTITY) is not None
    check_actions(checkpoints.manifest(1), "walker", SPACE)


def test_a_newer_format_is_refused_though_an_older_generation_is_there(tmp_path):
    checkpoints = filled(tmp_path, 1, 2)
    reseal(checkpoints.path(2), lambda manifest: {**manifest, "format": 2})
    with pytest.raises(CheckpointMismatch, match=r"gen-00000002 was written in format 2, this program knows 1; use a newer"):
        checkpoints.load()


def test_differences_name_each_key_with_both_values():
    assert differences({"a": 1, "b": [2], "d": None}, {"a": 1, "b": [3], "c": 0, "d": None}) == ["b: [2] there, [3] here", "c: absent there, 0 here"]
    assert differences({"z": 1}, {}) == ["z: 1 there, absent here"] and differences({}, {}) == []


# Who holds it


def test_one_life_at_a_time(tmp_path):
    with Checkpoints(tmp_path / "life", Quick()):
        with pytest.raises(CheckpointError, match=rf"life is in use by process {os.getpid()} since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d; wait"):
            Checkpoints(tmp_path / "life").__enter__()
        with pytest.raises(CheckpointError, match=r"is in use by"):
            put_aside(tmp_path / "life")
    with Checkpoints(tmp_path / "life") as again:
        (tmp_path / "life" / "checkpoint.lock").write_text("")
        with pytest.raises(CheckpointError, match=r"in use by another process"):
            Checkpoints(tmp_path / "life").__enter__()
        assert again.generations() == []


def test_a_folder_that_cannot_be_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"file/life cannot be used for checkpoints: .*; choose another folder"):
        Checkpoints(tmp_path / "file" / "life").__enter__()


def test_putting_aside_frees_the_name(tmp_path):
    filled(tmp_path / "life", 1)
    aside = put_aside(tmp_path / "life")
    assert aside is not None and re.fullmatch(r"life-until-\d{8}-\d{6}-[0-9a-f]{4}", aside.name) and aside.parent == tmp_path
    assert not (tmp_path / "life").exists() and Checkpoints(aside).load(IDENTITY) is not None
    assert put_aside(tmp_path / "life") is None
    trace = TraceDisk()
    filled(tmp_path / "life", 1)
    assert put_aside(tmp_path / "life", trace) and [op.what for op in trace.ops] == ["rename"]


def test_the_newest_life_is_the_one_saved_last(tmp_path):
    assert newest_in(tmp_path / "none") is None and newest_in(tmp_path) is None
    saved_at = {name: filled(tmp_path / name, 1).path(1) for name in ("a", "b", "c")}
    (tmp_path / "unsaved").mkdir()
    for age, name in ((5, "a"), (60, "b"), (30, "c")):
        os.utime(saved_at[name], (time.time() - age, time.time() - age))
    assert newest_in(tmp_path) == "a"
    os.utime(saved_at["b"])
    assert newest_in(tmp_path) == "b"
    spoil(saved_at["b"] / "state.json")
    os.utime(saved_at["b"])
    assert newest_in(tmp_path) == "a", "what cannot be read is passed over"
    with Checkpoints(tmp_path / "d", Quick()) as checkpoints:
        checkpoints.save(1, saved(state={"training": {}}))
    assert newest_in(tmp_path) == "a", "and a training is no life"
