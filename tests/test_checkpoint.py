"""Checkpoints: whole or not there, never mixed, never unpickled, refused before a weight is touched. Each safety test also meets a broken saver."""

import ast
import json
import math
import os
import pickle
import random
import re
import shutil
import struct
import sys
import time
import zipfile
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from checkpoint_exam import IDENTITY, BriefConfig, BriefMind, Kind, Wavering, corrupt, cut_power, dot, kill_saves, number_in, saved_of
from counting import Counting, read
from disks import ERRORS, SHORT, FaultDisk
from kills import killed

import motorbabble
from motorbabble import memory
from motorbabble.agents import Run, learn
from motorbabble.disk import Disk
from motorbabble.errors import CheckpointError, CheckpointMismatch, MotorbabbleError, RecordingError
from motorbabble.experience import Step
from motorbabble.learning import checkpoint as checkpoint_module
from motorbabble.learning.checkpoint import Checkpoints, Saved, put_aside
from motorbabble.memory import MemoryConfig

PACKAGE = Path(motorbabble.__file__).parent


def save(folder: Path, *numbers: int, disk: Disk | None = None) -> Checkpoints:
    with Checkpoints(folder, disk) as checkpoints:
        for number in numbers:
            checkpoints.save(number, saved_of(number))
    return checkpoints


def flip(path: Path) -> None:
    good = path.read_bytes()
    path.write_bytes(good[:-9] + bytes([good[-9] ^ 1]) + good[-8:])


# Kills, power cuts, rot: ours and broken ones


class InPlace(Checkpoints):
    """Writes where readers look."""

    def save(self, number: int, saved: Saved) -> int:
        self.path(number).mkdir()
        whole, place = self._disk, self.path(number)
        self._disk = Straight(whole, place)  # type: ignore[assignment]
        try:
            return super().save(number - 1, saved)
        finally:
            self._disk = whole


class Straight(Disk):
    """Leads what is written aside to its last place at once."""

    def __init__(self, disk: Disk, place: Path):
        self.disk, self.place = disk, place

    def make_folder(self, path: Path) -> None:
        pass

    def write_new(self, path: Path, data: bytes) -> None:
        self.disk.write_new(self.place / path.name, data)

    def sync_folder(self, path: Path) -> None:
        pass

    def rename(self, old: Path, new: Path) -> None:
        if ".new-" not in old.name:
            self.disk.rename(old, new)

    def remove(self, path: Path) -> None:
        self.disk.remove(path)

    def remove_folder(self, path: Path) -> None:
        self.disk.remove_folder(path)


class Unsealed(Checkpoints):
    """Takes the files as they are."""

    def _file(self, folder: Path, name: str, promised) -> bytes:
        return (folder / name).read_bytes()

    def _verified(self, generation: int):
        try:
            manifest = json.loads((self.path(generation) / "manifest.json").read_bytes())
            return {name: self._file(self.path(generation), name, {}) for name in manifest["files"]}, manifest
        except (OSError, ValueError) as error:
            raise CheckpointError(str(error)) from None


class UnsyncedFiles(Checkpoints):
    """Renames before the files are synced."""

    def __init__(self, folder: Path, disk: Disk | None = None):
        super().__init__(folder, disk)
        self._disk.write_new = self._unsynced  # type: ignore[method-assign]

    def _unsynced(self, path: Path, data: bytes) -> None:
        file = self._disk.create(path)
        self._disk.append(file, data)
        self._disk.close(file)


class UnsyncedName(Checkpoints):
    """Says that it is saved before the name lasts."""

    def __init__(self, folder: Path, disk: Disk | None = None):
        super().__init__(folder, disk)
        synced = self._disk.sync_folder
        self._disk.sync_folder = lambda path: None if path == self.folder else synced(path)  # type: ignore[method-assign]


class Spendthrift(Checkpoints):
    """Removes the backup to make room for the new one."""

    def save(self, number: int, saved: Saved) -> int:
        for generation in self.generations()[1:]:
            self._disk.rename(self.path(generation), self.folder / f".trash-{generation}-abc")
        return super().save(number, saved)


def broken(found: dict[str, int]) -> set[str]:
    return {name for name, count in found.items() if count and name not in ("kills", "states", "corruptions", "clean_fallbacks")}


def test_a_killed_save_leaves_the_one_before_or_the_new_one_whole():
    found = kill_saves(8, seed=1, each=1)
    assert found["kills"] > 40 and not broken(found), found


@pytest.mark.parametrize(("saver", "found"), [(InPlace, {"unbacked"}), (Spendthrift, {"unbacked"})])
def test_the_kill_exam_notices_a_saver_that(saver, found):
    assert broken(kill_saves(0, seed=1, saver=saver, each=1)) >= found


def test_a_power_cut_leaves_what_was_said_to_be_saved():
    found = cut_power(150, seed=2)
    assert found["states"] == 150 and not broken(found), found


@pytest.mark.parametrize("saver", [UnsyncedFiles, UnsyncedName])
def test_the_power_exam_notices_a_saver_that_renames_before_it_syncs(saver):
    assert broken(cut_power(150, seed=2, saver=saver)) & {"lost", "unbacked"}


def test_every_damage_falls_back_to_the_generation_before_and_says_so_once():
    found = corrupt(80, seed=3)
    assert found == {"corruptions": 80, "clean_fallbacks": 80, "wrong": 0}


def test_the_rot_exam_notices_a_saver_without_a_manifest():
    assert corrupt(80, seed=3, saver=Unsealed)["wrong"] > 20


@pytest.mark.soak
def test_kills_cuts_and_rot_in_full():
    assert not broken(kill_saves(200, seed=4))
    assert not broken(cut_power(5000, seed=4))
    assert corrupt(200, seed=4)["clean_fallbacks"] == 200


# Generations


def test_two_generations_are_kept_and_the_newest_is_used(tmp_path):
    checkpoints = save(tmp_path, 3, 7, 12)
    assert checkpoints.generations() == [12, 7]
    loaded = checkpoints.load(IDENTITY)
    assert loaded and (number_in(loaded), loaded.generation, loaded.notes) == (12, 12, ())


def test_the_number_only_rises(tmp_path):
    with save(tmp_path, 9) as checkpoints:
        assert checkpoints.save(2, saved_of(2)) == 10
        loaded = checkpoints.load(IDENTITY)
    assert loaded and number_in(loaded) == 2


def test_the_backup_is_used_and_kept_when_the_newest_is_damaged(tmp_path):
    checkpoints = save(tmp_path, 3, 7)
    flip(checkpoints.path(7) / "optimizer.safetensors")
    loaded = checkpoints.load(IDENTITY)
    assert loaded and number_in(loaded) == 3
    assert loaded.notes == ("gen-00000007 was not used: optimizer.safetensors is not what was written",)
    save(tmp_path, 8)
    assert checkpoints.generations() == [8, 3], "the damaged one went, the backup that is whole stayed"


def test_nothing_usable_is_an_error_that_names_both_and_never_a_fresh_start(tmp_path):
    checkpoints = save(tmp_path, 3, 7)
    flip(checkpoints.path(7) / "optimizer.safetensors")
    (checkpoints.path(3) / "state.json").unlink()
    before = contents(tmp_path)
    with pytest.raises(CheckpointError, match=r"gen-00000007 .*gen-00000003 .*--fresh"):
        checkpoints.load(IDENTITY)
    with pytest.raises(CheckpointError, match=r"gen-00000007 .*gen-00000003 "):
        brief(tmp_path)
    assert contents(tmp_path) == before


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "checkpoint.lock"
    }


def test_what_killed_saves_left_is_swept_and_what_is_foreign_stays(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "state.json").write_text("mine")
    folder = tmp_path / "life"
    save(folder, 1, 2)
    for name in (".new-0123456789ab", ".trash-2-abcdef", ".new-fedcba987654"):
        (folder / name).mkdir()
        (folder / name / "state.json").write_bytes(b"{")
    foreign = [".new-fedcba987654/photo.png", "notes.txt", ".trash", "gen-00000001.txt", ".new-12"]
    for name in foreign:
        (folder / name).write_text("mine")
    (folder / ".trash-9-aaaaaa").symlink_to(elsewhere)
    (folder / "gen-00000000").symlink_to(elsewhere)
    assert number_in(save(folder, 3).load(IDENTITY)) == 3  # type: ignore[arg-type]
    assert [(folder / name).read_text() for name in foreign] == ["mine"] * len(foreign)
    assert (elsewhere / "state.json").read_text() == "mine", "nothing is removed through a link"
    assert not (folder / ".new-0123456789ab").exists() and not (folder / ".trash-2-abcdef").exists()


def test_a_second_process_is_refused_and_told_who_holds_it(tmp_path):
    def holds(say):
        with Checkpoints(tmp_path):
            say(os.getpid())
            for _ in range(2):  # the second refusal must know it too
                other = killed(lambda also: also(refused(tmp_path, os.getppid())))
                say(other.acknowledged[0])

    said = killed(holds).acknowledged
    assert said[1:] == [1, 1]
    save(tmp_path, 1)


def refused(folder: Path, holder: int) -> bool:
    try:
        Checkpoints(folder).__enter__()
    except CheckpointError as error:
        return bool(re.search(rf"in use by process {holder} since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d; .*--name", str(error)))
    return False


def test_a_folder_that_cannot_be_used_is_one_sentence_and_holds_no_lock(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(CheckpointError, match="cannot be used for checkpoints"):
            Checkpoints(folder).__enter__()
    (tmp_path / "life" / "checkpoint.lock").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="cannot be used for checkpoints"):
        Checkpoints(tmp_path / "life").__enter__()


def test_putting_aside_frees_the_name_and_keeps_everything(tmp_path):
    folder = tmp_path / "life"
    assert put_aside(folder) is None
    save(folder, 1, 2)
    before = contents(folder)
    with Checkpoints(folder), pytest.raises(CheckpointError, match="in use"):
        put_aside(folder)
    aside = put_aside(folder)
    assert aside and aside.name.startswith("life-until-") and contents(aside) == before and not folder.exists()
    with Checkpoints(folder) as fresh:
        assert fresh.load(IDENTITY) is None


# Failing disks


@pytest.mark.parametrize(("error", "lasting"), [("ENOSPC", True), ("EIO", False), (SHORT, False)])
def test_a_save_that_fails_anywhere_spares_what_was_there_and_the_next_one_works(folder, error, lasting):
    fails_everywhere(folder, error, lasting)


@pytest.mark.soak
@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize("error", [*ERRORS, SHORT])
def test_a_save_that_fails_with_any_error(folder, error, lasting):
    fails_everywhere(folder, error, lasting)


def fails_everywhere(root: Path, error: str, lasting: bool) -> None:
    n, failed, said = 0, True, 0
    while failed:
        n += 1
        folder, disk = root / str(n), FaultDisk(n, error, lasting)
        save(folder, 1, 2)
        with Checkpoints(folder, disk) as checkpoints:
            try:
                checkpoints.save(3, saved_of(3))
                promised = 3
            except CheckpointError as trouble:
                assert str(folder) in str(trouble) and str(trouble).endswith("the one before still holds")
                promised, said = 2, said + 1
        failed = disk.failed is not None
        loaded = checkpoints.load(IDENTITY)
        assert loaded and promised <= (number_in(loaded) or 0) <= 3, disk.failed
        assert sum(map(checkpoints._is_whole, checkpoints.generations())) >= 2
        assert number_in(save(folder, 4).load(IDENTITY)) == 4  # type: ignore[arg-type]
        assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]
    assert said > 10 and n > 20


def test_a_folder_that_vanishes_is_a_checkpoint_error(tmp_path):
    with save(tmp_path / "life", 1) as checkpoints:
        (tmp_path / "life").rename(tmp_path / "gone")
        with pytest.raises(CheckpointError, match="could not be written"):
            checkpoints.save(2, saved_of(2))


def test_a_full_disk_is_one_note_the_life_goes_on_and_the_next_save_works(tmp_path, monkeypatch):
    disk = FaultDisk(0, "ENOSPC", for_good=True)
    monkeypatch.setattr(memory, "Checkpoints", partial(Checkpoints, disk=disk))
    run = brief(tmp_path, steps=20, save_updates=7)
    reached = []
    for event in run:
        if isinstance(event, Step):
            reached.append(event.index)
            if event.index == 2:
                disk.n = disk.count + 1  # full from here ...
            if event.index == 8:
                disk.n = 0  # ... to here
    assert reached == list(range(20))
    told = [note for note in run.notes if "not saved" in note]
    assert 1 <= len(told) <= 2 and "No space left" in told[0], run.notes
    loaded = Checkpoints(tmp_path / "c").load()
    assert loaded and loaded.state["run"]["steps_done"] == 20


# Mismatches


def brief(folder: Path, mind: BriefMind | None = None, robot=None, steps: int = 6, save_updates: int = 500, **settings) -> Run:
    robot = robot or dot()
    torch.manual_seed(0)
    keeps = MemoryConfig(folder / "c" if not list(folder.glob("gen-*")) else folder, folder / "s", save_updates=save_updates)
    mind = mind or BriefMind(robot.action_space.size)
    return learn(robot, mind, Wavering(), steps, memory=keeps, max_seconds=math.inf, **{"batch_size": 2, **settings})


def ended(run: Run) -> Run:
    for _ in run:
        pass
    return run


def weights(mind: torch.nn.Module) -> bytes:
    return b"".join(tensor.numpy().tobytes() for tensor in mind.state_dict().values())


def test_another_action_space_is_refused_with_both(tmp_path):
    ended(brief(tmp_path, robot=Counting()))
    mind = BriefMind(dot().action_space.size)
    before = weights(mind)
    with pytest.raises(CheckpointMismatch) as refusal:
        brief(tmp_path, mind)
    assert str(Counting().action_space) in str(refusal.value) and str(dot().action_space) in str(refusal.value)
    assert weights(mind) == before
    Checkpoints(tmp_path / "c").__enter__().__exit__()  # the refused one let go of the lock


def test_another_architecture_is_refused_with_keys_and_both_values(tmp_path):
    ended(brief(tmp_path))
    mind = BriefMind(dot().action_space.size, BriefConfig(width=9))
    before = weights(mind)
    with pytest.raises(CheckpointMismatch, match="width: 8 there, 9 here"):
        brief(tmp_path, mind)
    assert weights(mind) == before


def forged(folder: Path, change) -> None:
    """The newest generation again, with every hash right, after `change(tensors, state)`."""
    with Checkpoints(folder) as checkpoints:
        loaded = checkpoints.load()
        assert loaded
        tensors = {stem: dict(named) for stem, named in loaded.tensors.items()}
        state = json.loads(json.dumps(loaded.state))
        change(tensors, state)
        told = checkpoints.manifest(loaded.generation)
        identity = checkpoint_module.Identity(told["robot_type"], dot().action_space, told["architecture"])
        checkpoints.save(loaded.generation + 1, Saved(identity, tensors, state))


def put(stem: str, name: str, tensor: torch.Tensor | None):
    def change(tensors, state):
        if tensor is None:
            del tensors[stem][name]
        else:
            tensors[stem][name] = tensor

    return change


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (put("autoencoder", "trained/autoencoder.bias", torch.zeros(9)), ["autoencoder.bias", "[9]", "[8]"]),
        (put("autoencoder", "averaged/autoencoder.bias", torch.zeros(8, dtype=torch.float64)), ["autoencoder.bias", "float64", "float32"]),
        (put("predictor_0", "trained/predictor.weight", None), ["predictor.weight", "absent there"]),
        (put("predictor_0", "trained/extra", torch.zeros(2)), ["extra", "absent here"]),
        (put("optimizer", "predictor.bias/exp_avg", torch.zeros(3)), ["predictor.bias/exp_avg", "[3]", "[48]"]),
        (put("optimizer", "nobody/exp_avg", torch.zeros(3)), ["nobody/exp_avg", "absent here"]),
    ],
)
def test_other_weights_are_refused_by_name_before_one_is_touched(tmp_path, change, names):
    ended(brief(tmp_path))
    forged(tmp_path / "c", change)
    mind = BriefMind(dot().action_space.size)
    before = weights(mind)
    with pytest.raises(CheckpointMismatch) as refusal:
        brief(tmp_path, mind)
    assert all(name in str(refusal.value) for name in names), refusal.value
    assert weights(mind) == before


def test_a_newer_format_is_refused_and_kept(tmp_path, monkeypatch):
    with monkeypatch.context() as later:
        later.setattr(checkpoint_module, "FORMAT", 2)
        ended(brief(tmp_path))
    mind = BriefMind(dot().action_space.size)
    before, files = weights(mind), contents(tmp_path / "c")
    with pytest.raises(CheckpointMismatch, match="format 2, this program knows 1"):
        brief(tmp_path, mind)
    assert weights(mind) == before and contents(tmp_path / "c") == files
    with Checkpoints(tmp_path / "c") as checkpoints:
        newest = checkpoints.generations()[0]
        checkpoints.save(0, saved_of(1))
        assert newest in checkpoints.generations(), "what a newer program saved is nothing to prune"


def test_how_to_learn_comes_from_the_command_and_a_difference_is_said(tmp_path):
    ended(brief(tmp_path, learning_rate=1e-3, warmup_steps=1))
    run = brief(tmp_path, BriefMind(dot().action_space.size, BriefConfig(copy_w=0.9)), learning_rate=5e-4, warmup_steps=1)
    assert "From now on schedule.learning_rate: 0.001 before, 0.0005 now." in run.notes
    assert "From now on copy_w: 0.3 before, 0.9 now." in run.notes
    assert run.learner.updates > 0 and run.learner.optimizer.state, "all else went on"
    ended(run)
    rates = {group["lr"] for group in run.learner.optimizer.param_groups}
    assert len(rates) == 1 and rates.pop() == run.learner.config.schedule.at(run.learner.updates - 1) <= 5e-4


# Hostile files

UNPICKLED: list[str] = []
sys.addaudithook(lambda event, arguments: UNPICKLED.append(str(arguments)) if event == "pickle.find_class" else None)


class Bomb:
    def __reduce__(self):
        return os.system, ("touch exploded",)


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
STATE_KEYS = ["life", "trail", "counters", "generators", "selector", "robot", "history", "run", "remembered", "taught", "about"]


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


# When, and what of it


def test_the_file_names_in_the_document_are_those_of_a_real_checkpoint(tmp_path):
    ended(Kind(dot, latent=True, steps=2).learn(tmp_path))
    document = (PACKAGE.parent / "docs" / "checkpoint-format.md").read_text()
    told = re.search(r"```\n(.*?)```", document, re.DOTALL)
    assert told
    files = set(re.findall(r"^    ([a-z0-9_]+\.\w+) ", told[1], re.MULTILINE))
    newest = max((tmp_path / "checkpoint").glob("gen-*"))
    assert {path.name for path in newest.iterdir()} == files and len(files) == 7
    assert {path.name for path in (tmp_path / "checkpoint").iterdir() if path.is_file()} == {"checkpoint.lock"} and "checkpoint.lock" in told[1]


def test_every_500_updates_every_minute_and_at_the_end_unless_told_otherwise():
    assert (MemoryConfig().save_updates, MemoryConfig().save_seconds) == (500, 60.0)


def saves_of(folder: Path, monkeypatch, tick: float = 0.0, **settings) -> list[tuple[int, int]]:
    """(steps, updates) of every save of a life in which a step takes `tick` seconds."""
    told, now = [], [0.0]

    class Told(Checkpoints):
        def save(self, number: int, saved: Saved) -> int:
            told.append((saved.state["run"]["steps_done"], saved.state["counters"]["updates"]))
            return super().save(number, saved)

    class Clock:
        monotonic = staticmethod(lambda: now[0])

    monkeypatch.setattr(memory, "Checkpoints", Told)
    monkeypatch.setattr(memory, "time", Clock)
    for event in brief(folder, **settings):
        now[0] += tick * isinstance(event, Step)
    return told


def test_it_saves_after_so_many_updates_between_two_steps_and_at_both_ends(tmp_path, monkeypatch):
    told = saves_of(tmp_path, monkeypatch, steps=30, save_updates=10)
    updates = [updates for _, updates in told]
    assert told[0] == (0, 0) and told[-1][0] == 30
    assert all(10 <= after - before <= 12 for before, after in pairwise(updates[:-1])) and len(updates) >= 4


def test_it_saves_after_so_many_seconds(tmp_path, monkeypatch):
    told = saves_of(tmp_path, monkeypatch, tick=13.0, steps=15)
    assert [steps for steps, _ in told] == [0, 6, 11, 15], "5 steps of 13 s are the first to make a minute, seen at the next one"


def test_it_saves_when_it_is_stopped_and_when_somebody_stops_listening(tmp_path):
    run = brief(tmp_path / "stopped", steps=50)
    for event in run:
        if isinstance(event, Step) and event.index == 4:
            run.stop.set()
    assert steps_saved(tmp_path / "stopped") == 5
    with brief(tmp_path / "left", steps=50) as run:
        for event in run:
            if isinstance(event, Step) and event.index == 4:
                break
    assert steps_saved(tmp_path / "left") == 5


def steps_saved(folder: Path) -> int:
    loaded = Checkpoints(folder / "c").load()
    assert loaded
    return loaded.state["run"]["steps_done"]


def test_a_step_that_could_not_be_written_down_is_not_saved_as_lived(tmp_path, monkeypatch):
    robot, steps = Counting(), []

    def lives() -> None:
        with brief(tmp_path, robot=robot, steps=30, save_updates=4) as run:
            for event in run:
                steps.extend([event.index] if isinstance(event, Step) else [])
                if len(steps) == 9:
                    monkeypatch.setattr(run._memory.recorder.writer, "_failure", RecordingError("the disk is full; make room"))  # type: ignore[union-attr]

    with pytest.raises(RecordingError, match="disk is full"):
        lives()
    assert steps == list(range(9)) and steps_saved(tmp_path) <= 9
    again = brief(tmp_path, robot=Counting(), steps=30)
    lived = [event.index for event in again if isinstance(event, Step)]
    assert lived[0] <= 9 and lived[-1] == 29 and sorted(set(steps) | set(lived)) == list(range(30))
    counted(again)


def counted(run: Run) -> None:
    """Every two neighbours of a run in replay have the action between them that their frames say."""
    replay = run.learner.replay
    for before, after, led, length in zip(replay._frames, replay._frames[1:], replay._led[1:], replay._runs[1:], strict=False):
        if length > 1:
            (count, _), (then, last) = read(before), read(after)
            assert then - count == last and led is not None, (count, then, last)
            assert run.action_space.decode(led) == {"add": last}


# Pins


def pins(folder: Path) -> set[str]:
    return {path.parent.name for path in (folder / "s").glob("*/pinned_by_*")}


def test_sessions_that_a_kept_generation_refers_to_are_pinned_and_forgotten_ones_are_not(tmp_path):
    for _ in range(5):
        run = ended(brief(tmp_path, steps=6, capacity=8))
        assert not [note for note in run.notes if "cannot be read" in note]
    sessions = sorted(
        (path for path in (tmp_path / "s").iterdir() if path.is_dir()),
        key=lambda path: json.loads((path / "session_meta.json").read_bytes())["created_ns"],
    )
    assert len(sessions) == 5
    checkpoints = Checkpoints(tmp_path / "c")
    generations = [json.loads((checkpoints.path(number) / "state.json").read_bytes()) for number in checkpoints.generations()]
    needed = {name for state in generations for name in state["remembered"]}
    assert pins(tmp_path) == needed == {path.name for path in sessions[-3:]}, "8 frames lie in two sessions, and the backup needs one more"
    assert all(len(segment) and state["remembered"] for state in generations for segment in state["trail"]["segments"])


def test_a_life_that_holds_everything_out_keeps_the_pin_of_what_it_records(tmp_path):
    run = brief(tmp_path, steps=8, save_updates=1, holds_out=lambda observation: True)
    for event in run:
        assert not isinstance(event, Step) or run._memory.recorder.session in pins(tmp_path)  # type: ignore[union-attr]


def test_sessions_of_starts_that_came_to_nothing_do_not_stay_pinned(tmp_path):
    ended(brief(tmp_path))
    for _ in range(3):
        run = brief(tmp_path)
        next(iter(run))  # begins a session, and dies of it
        run._memory.recorder.writer._let_go()  # type: ignore[union-attr]
        run._memory.release()  # type: ignore[union-attr]
    ended(brief(tmp_path, steps=12))
    ended(brief(tmp_path, steps=12))
    empty = {path.parent.name for path in (tmp_path / "s").glob("*/session_meta.json") if json.loads(path.read_bytes())["state"] == "live"}
    assert len(empty) == 3 and not empty & pins(tmp_path)


def test_a_life_that_is_stopped_while_it_catches_up_keeps_the_pins_of_what_it_has_not_reached(tmp_path):
    """Two sessions lie behind the only generation that is whole."""
    for _ in range(2):
        run = brief(tmp_path, steps=40, capacity=4)
        for event in run:
            if isinstance(event, Step) and not run.catching_up and event.index % 6 == 5:
                break
        run._memory.recorder.writer._let_go()  # type: ignore[union-attr]
        run._memory.release()  # type: ignore[union-attr]
        newest = Checkpoints(tmp_path / "c").generations()[0]
        if newest:
            flip(Checkpoints(tmp_path / "c").path(newest) / "optimizer.safetensors")
    run = brief(tmp_path, steps=40, capacity=4)
    for event in run:
        assert run.catching_up
        if isinstance(event, Step) and event.index == 2:
            run.stop.set()
    assert len(pins(tmp_path)) == 2 and steps_saved(tmp_path) == 3
    again = brief(tmp_path, steps=40, capacity=4)
    assert "first learns from what was recorded after that (9 moments)" in again.notes[0]
    again.close()
