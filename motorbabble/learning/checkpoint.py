"""Checkpoints: generations of one life, each whole or not there. docs/checkpoint-format.md is the format.

    with Checkpoints(folder) as checkpoints:             # holds the folder's lock
        loaded = checkpoints.load(identity)               # None when there is none yet; notes say what was wrong with newer ones
        checkpoints.save(updates, Saved(identity, tensors, state))

Decisions: a generation is built aside, synced, and renamed; what is loaded is verified as bytes before it is parsed and
agreed upon before a weight is touched; nothing is unpickled; a damaged generation falls back to the one before and says so.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self

import safetensors.torch
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError

from motorbabble.disk import Disk
from motorbabble.errors import CheckpointError, CheckpointMismatch, ConfigurationError
from motorbabble.experience import ActionSpace

FORMAT = 1
MOST_MANIFEST, MOST_HEADER = 2**24, 2**20  # bytes; a manifest has a few kilobytes, a file's header about 100 bytes per tensor
KEPT = 2  # generations: the newest and its backup
LOCK, STATE, MANIFEST, SEAL = "checkpoint.lock", "state.json", "manifest.json", "manifest.sha256"
_GENERATION = re.compile(r"gen-(\d{8}|[1-9]\d{8,11})")
_LEFT = re.compile(r"\.(new|trash)-[0-9a-f-]+")
_FILE = re.compile(r"[a-z0-9_]{1,60}\.(safetensors|json|sha256)")
LATER = {"autoencoder.autoencoder_type": "vit", "predictor.predictor_type": "transformer"}  # settings that older checkpoints do not name
# What reading something that is not ours may raise, ConfigurationError of a strange action space included.
_MALFORMED = (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError)


@dataclass(frozen=True)
class Identity:
    """What must agree before a weight is touched. `architecture`: every setting that shapes what the model computes."""

    robot_type: str
    action_space: ActionSpace
    architecture: Mapping[str, Any]

    def to_json(self) -> dict:
        return {"robot_type": self.robot_type, "action_space": self.action_space.to_json(), "architecture": dict(self.architecture)}


@dataclass(frozen=True)
class Saved:
    """Everything of one moment: tensors by file stem and name, and a state of plain values (what JSON can hold)."""

    identity: Identity
    tensors: Mapping[str, Mapping[str, torch.Tensor]]
    state: Mapping[str, Any]


@dataclass(frozen=True)
class Loaded:
    tensors: Mapping[str, Mapping[str, torch.Tensor]]
    state: Mapping[str, Any]
    generation: int
    notes: tuple[str, ...] = ()  # one sentence for each newer generation that could not be used


class Checkpoints:
    """The folder of one life's checkpoints. Entering it takes its lock, so that two lives never write into each other."""

    def __init__(self, folder: Path | str, disk: Disk | None = None):
        self.folder, self._disk = Path(folder), disk or Disk()
        self._lock = FileLock(self.folder / LOCK, thread_local=False)

    def __enter__(self) -> Self:
        try:
            self._disk.make_folders(self.folder)
            self._lock.acquire(blocking=False)
            (self.folder / LOCK).write_text(f"process {os.getpid()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
        except Timeout:
            holder = (self.folder / LOCK).read_text() or "another process"
            raise CheckpointError(f"{self.folder} is in use by {holder}; wait until it ends, or choose another name with --name") from None
        except OSError as error:
            self._lock.release()
            raise CheckpointError(f"{self.folder} cannot be used for checkpoints: {error.strerror}; choose another folder") from None
        return self

    def __exit__(self, *exc_info) -> None:
        self._lock.release()

    def generations(self) -> list[int]:
        """Their numbers, newest first, damaged ones included."""
        if not self.folder.is_dir():
            return []
        found = (_GENERATION.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted((int(match[1]) for match in found if match), reverse=True)

    def path(self, generation: int) -> Path:
        return self.folder / f"gen-{generation:08d}"

    # Saving

    def save(self, number: int, saved: Saved) -> int:
        """Write a generation, numbered `number` or higher, and remove those before its backup; answers its number.

        CheckpointError when it could not be written: what was there before is untouched, and a later save may succeed.
        """
        number = max([number, *(generation + 1 for generation in self.generations())])
        files = {f"{stem}.safetensors": _packed(stem, tensors) for stem, tensors in saved.tensors.items()}
        files[STATE] = _plain(saved.state)
        manifest = _plain(
            {
                "format": FORMAT,
                "generation": number,
                "saved_ns": time.time_ns(),
                "files": {name: {"size": len(data), "sha256": _hash(data)} for name, data in files.items()},
                **saved.identity.to_json(),
            }
        )
        aside = self.folder / f".new-{secrets.token_hex(6)}"
        try:
            self._sweep()
            self._disk.make_folder(aside)
            for name, data in {**files, MANIFEST: manifest, SEAL: _hash(manifest).encode()}.items():
                self._disk.write_new(aside / name, data)
            self._disk.sync_folder(aside)
            self._disk.rename(aside, self.path(number))
            self._disk.sync_folder(self.folder)
        except OSError as error:
            self._sweep()
            why = error.strerror or error
            raise CheckpointError(f"the checkpoint could not be written to {self.folder}: {why}; the one before still holds") from error
        self._prune(number)
        return number

    def _prune(self, newest: int) -> None:
        """Keep the newest and the newest other that verifies; the rest goes, renamed before it is deleted."""
        kept = 1
        for generation in self.generations():
            if generation == newest or self.path(generation).is_symlink():  # a link is somebody else's
                continue
            if kept < KEPT and self._is_whole(generation):
                kept += 1
                continue
            with suppress(OSError):  # one generation too many harms nobody
                self._disk.rename(self.path(generation), self.folder / f".trash-{generation}-{secrets.token_hex(3)}")
        self._sweep()

    def _sweep(self) -> None:
        """Remove what killed saves left: hidden folders of ours, and in them only files named as ours are. What stays harms nobody."""
        with suppress(OSError):
            left = [path for path in self.folder.iterdir() if _LEFT.fullmatch(path.name) and not path.is_symlink()]
            for folder in left:
                with suppress(OSError):
                    for path in list(folder.iterdir()):
                        if _FILE.fullmatch(path.name):
                            self._disk.remove(path)
                    self._disk.remove_folder(folder)

    def _is_whole(self, generation: int) -> bool:
        try:
            self._verified(generation)
        except CheckpointMismatch:  # of a newer program
            return True
        except CheckpointError:
            return False
        return True

    # Loading

    def load(self, identity: Identity | None = None) -> Loaded | None:
        """The newest generation that is whole; None when there has never been one.

        CheckpointMismatch, before anything is parsed into weights, when it is of another action space, architecture or a newer
        version; CheckpointError when none is whole. With `identity` None nothing is compared.
        """
        notes: list[str] = []
        for generation in self.generations():
            try:
                files, manifest = self._verified(generation)
                if identity is not None:
                    _check_identity(manifest, identity)
                return _parsed(files, generation, tuple(notes))
            except CheckpointMismatch:
                raise
            except CheckpointError as error:
                notes.append(f"{self.path(generation).name} was not used: {error}")
        if notes:
            raise CheckpointError(f"{self.folder} holds no usable checkpoint ({'; '.join(notes)}); begin anew with --fresh, which keeps these files")
        return None

    def manifest(self, generation: int) -> dict:
        """What a generation says of itself, verified."""
        return self._verified(generation)[1]

    def _verified(self, generation: int) -> tuple[dict[str, bytes], dict]:
        """The bytes of every file, exactly as the manifest promises."""
        folder = self.path(generation)
        if folder.is_symlink():
            raise CheckpointError("it is a link to another place")
        sealed, seal = _bytes_of(folder / MANIFEST, MOST_MANIFEST), _bytes_of(folder / SEAL, 64)
        if _hash(sealed).encode() != seal:
            raise CheckpointError(f"{MANIFEST} is not what was written")
        try:
            manifest = json.loads(sealed)
            if int(manifest["format"]) > FORMAT:
                raise CheckpointMismatch(
                    f"{folder} was written in format {manifest['format']}, this program knows {FORMAT}; use a newer motorbabble, or another --name"
                )
            return {name: self._file(folder, name, promised) for name, promised in manifest["files"].items()}, manifest
        except _MALFORMED as error:
            raise CheckpointError(f"{MANIFEST} says nothing this program knows ({error!r:.200})") from None

    def _file(self, folder: Path, name: str, promised: Mapping[str, Any]) -> bytes:
        if not _FILE.fullmatch(name):
            raise CheckpointError(f"{MANIFEST} names {name!r}, which is no file of a checkpoint")
        data = _bytes_of(folder / name, promised["size"])
        if len(data) != promised["size"] or _hash(data) != promised["sha256"]:
            raise CheckpointError(f"{name} is not what was written")
        return data


def find_checkpoint(text: str, root: Path = Path("saved/checkpoints")) -> Path:
    """The folder of a checkpoint: a path, ROBOT_TYPE/NAME, or a NAME that only one robot type has."""
    known = sorted(path for path in root.glob("*/*") if Checkpoints(path).generations())
    given = Path(text)
    if Checkpoints(given).generations():
        return given
    if (root / text) in known:
        return root / text
    same = [path for path in known if path.name == text]
    if len(same) == 1:
        return same[0]
    if same:
        raise ConfigurationError(f"{text} is the name of {len(same)} checkpoints; choose {' or '.join(f'{p.parent.name}/{p.name}' for p in same)}")
    near = get_close_matches(text, [path.name for path in known], 1)
    raise ConfigurationError(
        f"there is no checkpoint {text!r} in {root}; {f'do you mean {near[0]}?' if near else 'babble checkpoints list shows all'}"
    )


def newest_in(folder: Path) -> str | None:
    """The name of the life that was saved last among the checkpoints in a robot type's folder; None when there is none.

    Trainings are no lives, and what cannot be read is passed over.
    """
    newest_first = sorted(folder.glob("[!.]*/gen-*"), key=lambda path: path.stat().st_mtime, reverse=True) if folder.is_dir() else []
    for checkpoint in dict.fromkeys(path.parent for path in newest_first):
        with suppress(CheckpointError):
            loaded = Checkpoints(checkpoint).load()
            if loaded and "training" not in loaded.state:
                return checkpoint.name
    return None


def kept_copy(folder: Path) -> Path:
    """A copy of all generations under another name beside them; answers the name."""
    copy = _aside(folder)
    unfinished = copy.with_name(f".{copy.name}")
    try:
        shutil.copytree(folder, unfinished, ignore=shutil.ignore_patterns(LOCK, ".*"))
        unfinished.rename(copy)
    except OSError as error:
        raise CheckpointError(
            f"{folder} could not be copied to {copy}: {error.strerror or error}; free the disk, or choose another --name"
        ) from error
    return copy


def _aside(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}-until-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}")


def put_aside(folder: Path, disk: Disk | None = None) -> Path | None:
    """Give a life's folder another name, so that its own is free for a new one; None when there was none."""
    if not folder.is_dir():
        return None
    aside = _aside(folder)
    with Checkpoints(folder):  # refuses while somebody is learning there
        (disk or Disk()).rename(folder, aside)
    return aside


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Each key whose value differs, with both values."""
    keys = sorted({*theirs, *ours})
    return [f"{key}: {theirs.get(key, 'absent')} there, {ours.get(key, 'absent')} here" for key in keys if theirs.get(key) != ours.get(key)]


def check_actions(manifest: Mapping[str, Any], robot_type: str, ours: ActionSpace) -> None:
    """CheckpointMismatch, with both action spaces, when a checkpoint was made for other actions."""
    theirs = ActionSpace.from_json(manifest["action_space"])
    if theirs.fingerprint != ours.fingerprint:
        raise CheckpointMismatch(
            f"the checkpoint was made for a {manifest['robot_type']} with actions {theirs}, this {robot_type} has {ours}; "
            "use another --name, or the robot it was made for"
        )


def _check_identity(manifest: Mapping[str, Any], ours: Identity) -> None:
    try:
        check_actions(manifest, ours.robot_type, ours.action_space)
        # through JSON, as the other came: tuples become lists
        here = json.loads(json.dumps(ours.architecture))
        found = differences({name: LATER[name] for name in LATER.keys() & here.keys()} | manifest["architecture"], here)
    except _MALFORMED as error:
        raise CheckpointError(f"{MANIFEST} says nothing this program knows ({error!r:.200})") from None
    if found:
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        raise CheckpointMismatch(f"the checkpoint is of another model ({'; '.join(found[:5])}{more}); use another --name, or the same settings")


def _parsed(files: Mapping[str, bytes], generation: int, notes: tuple[str, ...]) -> Loaded:
    try:
        tensors = {name.removesuffix(".safetensors"): _unpacked(data) for name, data in files.items() if name.endswith(".safetensors")}
        state = json.loads(files[STATE])
        for stem, named in tensors.items():
            _check_finite(stem, named)
    except (SafetensorError, RuntimeError, *_MALFORMED) as error:
        raise CheckpointError(f"it cannot be parsed ({error!r:.200})") from None
    if not isinstance(state, dict):
        raise CheckpointError(f"{STATE} holds no state")
    return Loaded(tensors, state, generation, notes)


def _unpacked(data: bytes) -> dict[str, torch.Tensor]:
    if int.from_bytes(data[:8], "little") > MOST_HEADER:  # parsing it would take longer than a person waits
        raise ValueError(f"the header is longer than {MOST_HEADER} bytes")
    return safetensors.torch.load(data)


def _packed(stem: str, tensors: Mapping[str, torch.Tensor]) -> bytes:
    plain = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}  # tied weights are stored twice
    _check_finite(stem, plain)
    data = safetensors.torch.save(plain)
    if int.from_bytes(data[:8], "little") > MOST_HEADER:
        raise CheckpointError(f"{stem}.safetensors would hold {len(plain)} tensors, more than are read back")
    return data


def _check_finite(stem: str, tensors: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        if (tensor.is_floating_point() or tensor.is_complex()) and not torch.isfinite(tensor).all():
            raise CheckpointError(f"{stem}.safetensors holds numbers in {name} that are not finite")


def _plain(content: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(content, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"something to be saved is no plain value ({error}); let state_dict() give numbers, words, lists and mappings"
        ) from None


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _bytes_of(path: Path, most: int) -> bytes:
    """A file's bytes, if it is a plain file (no link, no pipe) of at most `most` of them."""
    try:
        with open(path, "rb", opener=_opened) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_size > most:
                raise CheckpointError(f"{path.name} is not what was written")
            return file.read()
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error.strerror}") from None


def _opened(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
