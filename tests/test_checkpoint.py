"""Checkpoints: whole or not there, never mixed, never unpickled, refused before a weight is touched. Each safety test also meets a broken saver."""

import json
import os
import re
from functools import partial
from pathlib import Path

import pytest
import torch
from brief_lives import BriefConfig, BriefMind, brief, dot, ended, flip, forged, put, weights
from checkpoint_exam import IDENTITY, corrupt, cut_power, kill_saves, number_in, saved_of
from counting import Counting
from disks import ERRORS, SHORT, FaultDisk
from kills import killed

from motorbabble import memory
from motorbabble.disk import Disk
from motorbabble.errors import CheckpointError, CheckpointMismatch
from motorbabble.experience import Step
from motorbabble.learning import checkpoint as checkpoint_module
from motorbabble.learning.checkpoint import Checkpoints, Saved, put_aside


def save(folder: Path, *numbers: int, disk: Disk | None = None) -> Checkpoints:
    with Checkpoints(folder, disk) as checkpoints:
        for number in numbers:
            checkpoints.save(number, saved_of(number))
    return checkpoints


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
    assert (folder / "gen-00000000").is_symlink() and (folder / ".trash-9-aaaaaa").is_symlink()
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
