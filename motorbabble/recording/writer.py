"""RecordingWriter: what a robot saw and did, on disk before anybody hears of it.

Decisions: bytes go to the pack first, then one line commits them; two `write` calls per moment and no buffer of ours, so a
killed process loses nothing it acknowledged; a thread syncs every half second, so a power cut loses at most the last
second and the robot never waits for a disk. After the first error nothing more is written: what is there is whole.
"""

import base64
import errno
import json
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from filelock import FileLock, Timeout

from motorbabble.disk import Disk
from motorbabble.errors import FrameError, RecordingError, SessionDamaged
from motorbabble.experience import ActionSpace, Ending, Observation, Step
from motorbabble.recording.format import (
    FORMAT,
    INLINE,
    LOCK,
    META,
    MOMENTS_PER_SHARD,
    MOST_PIXELS,
    PLAIN_KINDS,
    Continues,
    Place,
    SessionMeta,
    array_to_json,
    check_name,
    crc_of,
    decoded,
    events_file,
    finite,
    frames_file,
    new_name,
    to_line,
    to_png,
)
from motorbabble.recording.reader import Shard
from motorbabble.recording.recovery import recover

SYNC_SECONDS = 0.5
CLOSING_SECONDS = 5.0
TIDY_BYTES = 16 * 2**20


class RecordingWriter:
    """A session being written. Make one with `create` or `reopen`; `close` it, or die: both leave it readable.

    `on_failure` is called once, from whichever thread met the error, before the error is raised at the next `record`: give
    it robot.stop. `tidy` is called in a thread of its own, one at a time, at every new shard and every 16 MB, and may raise RecordingError.
    """

    def __init__(
        self,
        folder: Path,
        meta: SessionMeta,
        lock: FileLock,
        *,
        shard: int,
        moments: int,
        episodes: int = 0,
        disk: Disk,
        sync_seconds: float = SYNC_SECONDS,
        on_failure: Callable[[], None] | None = None,
        tidy: Callable[[], object] | None = None,
    ):
        self.folder, self.meta, self.moments = folder, meta, moments
        self._lock, self._disk, self._shard, self._first = lock, disk, shard, moments
        self._episodes = episodes  # that were before this process came: its own are counted behind them
        self._on_failure, self._tidy = on_failure, tidy
        self._failure: RecordingError | None = None
        self._files: tuple[int, ...] = ()  # pack, lines
        self._finished: list[int] = []  # files of full shards, to be synced and closed by the thread
        self._at, self._untidied = 0, 0
        self._dirty = self._closed = self._midway = False
        self._mutex, self._failing, self._wake = threading.Lock(), threading.RLock(), threading.Event()
        self._tidying = threading.Thread()  # the last one that was started; this one never is
        self._thread = threading.Thread(target=self._keep_synced, args=(sync_seconds,), name="session-sync", daemon=True)

    @classmethod
    def create(
        cls,
        root: Path | str,
        robot_type: str,
        action_space: ActionSpace,
        *,
        name: str | None = None,
        continues: Continues | None = None,
        about: Mapping[str, Any] | None = None,
        disk: Disk | None = None,
        **settings: Any,
    ) -> Self:
        """A new session in `root`, the folder of one robot type. It appears there complete and locked, or not at all."""
        root, disk = Path(root), disk or Disk()
        created = time.time_ns()
        told = json.loads(json.dumps(dict(about or {})))  # as it will be read back: every key is text
        name = check_name(new_name(created) if name is None else name)
        meta = SessionMeta(name, robot_type, action_space, created, continues=continues, about=told)
        folder, aside, writer = root / name, root / f".new-{secrets.token_hex(6)}", None
        try:
            disk.make_folders(root)
            disk.make_folder(aside)
            writer = cls(aside, meta, locked(aside), shard=0, moments=0, disk=disk, **settings)
            disk.write_new(aside / META, meta.to_bytes())
            writer._begin_shard(0)
            writer._sync()
            if folder.exists():
                raise FileExistsError
            disk.rename(aside, folder)  # which refuses a folder that holds anything
            writer.folder = folder
            disk.sync_folder(root)
        except BaseException as error:
            if writer:
                writer._let_go()
            shutil.rmtree(aside, ignore_errors=True)
            if not isinstance(error, OSError):
                raise
            if error.errno in (None, errno.ENOTEMPTY, errno.EEXIST):
                raise RecordingError(f"there is already a session {name} in {root}; give another name, or none") from None
            raise _failure(folder, error) from error
        writer._thread.start()
        return writer

    @classmethod
    def reopen(cls, folder: Path | str, *, disk: Disk | None = None, **settings: Any) -> Self:
        """Go on in a session: what is torn at its end is cut first, and a new shard begun."""
        folder, disk = Path(folder), disk or Disk()
        if not folder.is_dir():
            raise RecordingError(f"there is no session at {folder}; list them with babble sessions list")
        lock = locked(folder)
        writer = None
        try:
            found = recover(folder, disk)
            # Not closed from here on: should it be cut short again, nobody may trust a count in its metadata.
            meta = replace(found.meta, state="live" if found.meta.state == "closed" else "recovered", moments=None, ended_ns=None)
            disk.write_whole(folder / META, meta.to_bytes())
            writer = cls(folder, meta, lock, shard=found.shards, moments=found.moments, episodes=found.episodes, disk=disk, **settings)
            writer._begin_shard(found.shards)
            writer._sync()
        except BaseException as error:
            if writer:
                writer._let_go()
            lock.release()
            if not isinstance(error, OSError):
                raise
            raise _failure(folder, error) from error
        writer._thread.start()
        return writer

    def record(self, event: Step | Ending, *, gate: str = "", updates: int = 0) -> int:
        """Write one moment; when this returns, a killed process no longer loses it. Answers the moment's number."""
        seen = event.observation
        content: dict[str, Any] = {"kind": "ending"}
        if isinstance(event, Step):
            content = {
                "kind": "step",
                "index": event.index,
                "requested": dict(event.requested),
                "executed": dict(event.executed),
                "started_ns": event.started_ns,
                "ended_ns": event.ended_ns,
                "monotonic_ns": event.monotonic_ns,
                "scores": finite(event.choice.scores),
                "why": str(event.choice.why),
                "gate": gate,
                "updates": updates,
            }
        with self._mutex:
            if self._closed:
                raise RecordingError(f"session {self.meta.session} is closed; begin a new one")
            if self._failure:
                raise self._fail(self._failure)
            try:
                if self._midway:
                    self._after_interruption()
                if self.moments - self._first >= MOMENTS_PER_SHARD:
                    self._begin_shard(self._shard + 1)
                packed, placed = _packed(seen, self._at)
                placed["episode"] += self._episodes
                line = to_line({"moment": self.moments, **placed, **content})
                pack, lines = self._files
                self._dirty = self._midway = True
                self._disk.append(pack, packed)
                self._disk.append(lines, line)
            except OSError as error:
                raise self._fail(_failure(self.folder, error)) from error
            except RecordingError as error:
                raise self._fail(error) from None
            self._at += len(packed)
            self._untidied += len(packed) + len(line)
            self.moments += 1
            self._midway = False
            if self._untidied > TIDY_BYTES and not self._tidying.is_alive():
                self._wake.set()
            return self.moments - 1

    def close(self, last: Observation | None = None) -> None:
        """Write the newest frame as the session's ending, sync, and say `closed`. May be called twice."""
        if self._closed:
            return
        try:
            if last is not None and self._failure is None:
                self.record(Ending(last))
        finally:
            with self._mutex:
                self._closed = True
            self._wake.set()
            self._thread.join()
            if self._tidying.is_alive():
                self._tidying.join(CLOSING_SECONDS)  # a removal that is broken off is finished by the next
            try:
                if self._failure is None:
                    self._sync()
                    self.meta = self.meta.ended("closed", self.moments)
                    self._disk.write_whole(self.folder / META, self.meta.to_bytes())
            except OSError as error:
                raise self._fail(_failure(self.folder, error)) from error
            finally:
                self._let_go()
        if self._failure:
            raise self._failure

    @property
    def failure(self) -> RecordingError | None:
        return self._failure

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info) -> None:
        self.close()

    # Parts

    def _begin_shard(self, number: int) -> None:
        self._shard = number  # also when this fails: its files may be there
        pack = self._disk.create(self.folder / frames_file(number))
        lines = self._disk.create(self.folder / events_file(number))
        header = {"header": FORMAT, "shard": number, "first_moment": self.moments, "session": self.meta.to_json()}
        self._disk.append(lines, to_line(header))
        self._finished += self._files
        self._files, self._first, self._at = (pack, lines), self.moments, 0
        self._dirty, self._untidied = True, TIDY_BYTES + 1  # tidy at the next turn
        self._wake.set()

    def _after_interruption(self) -> None:
        """Ctrl+C came in the middle of a moment: it counts if its line is whole, and what follows goes into new files."""
        shard = Shard(self.folder, self._shard)
        if shard.trouble:
            raise shard.trouble
        self.moments = self._first if shard.newest is None else shard.newest + 1
        self._first, self._midway = self.moments - MOMENTS_PER_SHARD, False

    def _keep_synced(self, seconds: float) -> None:
        began = time.monotonic()
        while True:
            self._wake.wait(max(0.0, began + seconds - time.monotonic()))  # from start to start: a slow disk has no extra time
            self._wake.clear()
            if self._closed or self._failure:
                return
            began = time.monotonic()
            self._turn()

    def _turn(self) -> None:
        try:
            self._sync()
            if self._untidied > TIDY_BYTES and not self._tidying.is_alive():
                self._untidied = 0
                if self._tidy:  # in a thread of its own: it may wait for others and delete for long, and syncing must go on
                    self._tidying = threading.Thread(target=self._tidy_up, args=(self._tidy,), name="session-tidy", daemon=True)
                    self._tidying.start()
        except RecordingError as error:
            self._fail(error)
        except Exception as error:  # whatever it is: nobody else syncs
            self._fail(_failure(self.folder, error))

    def _tidy_up(self, tidy: Callable[[], object]) -> None:
        try:
            tidy()
        except RecordingError as error:
            self._fail(error)
        except Exception as error:  # whatever it is: the disk's share is no longer watched
            self._fail(_failure(self.folder, error))

    def _sync(self) -> None:
        """Packs, then lines, then the folder: whatever a line speaks of lasts before the line does."""
        with self._mutex:
            if not self._dirty:
                return
            self._dirty = False
            finished, self._finished = self._finished, []
            pack, lines = self._files
        for file in (*finished[0::2], pack, *finished[1::2], lines):
            self._disk.sync(file)
        self._disk.sync_folder(self.folder)
        for file in finished:
            self._disk.close(file)

    def _fail(self, error: RecordingError) -> RecordingError:
        """Answers the first failure; whoever comes second waits until the robot has been told."""
        with self._failing:
            if self._failure is None:
                self._failure = error
                if self._on_failure:
                    self._on_failure()
            return self._failure

    def _let_go(self) -> None:
        for file in (*self._finished, *self._files):
            with suppress(OSError):  # all that is promised was synced, or has failed already
                self._disk.close(file)
        self._finished, self._files = [], ()
        self._lock.release()


def locked(folder: Path) -> FileLock:
    """The session's lock, held; RecordingError when somebody is writing it."""
    lock = FileLock(folder / LOCK, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise RecordingError(f"session {folder.name} is being recorded by another process; wait until it ends, or choose another") from None
    except OSError as error:
        raise _failure(folder, error) from error
    return lock


def _packed(seen: Observation, at: int) -> tuple[bytes, dict[str, Any]]:
    """The bytes of one moment for the pack at offset `at`, and the members of its line that speak of them."""
    parts: list[bytes] = []

    def put(data: bytes, codec: str) -> Place:
        place = Place.of(at + sum(map(len, parts)), data, codec)
        parts.append(data)
        return place

    image = np.ascontiguousarray(seen.image)
    if image.shape[0] * image.shape[1] > MOST_PIXELS:
        raise FrameError(f"the frame is {image.shape}, more than the {MOST_PIXELS} pixels that are read back; make it smaller")
    own = seen.encoded if seen.encoded is not None and _is(seen.encoded, image) else None
    frame = put(own, "jpeg") if own is not None else put(to_png(image), "png")
    placed: dict[str, Any] = {
        "episode": int(seen.episode),
        "sequence": int(seen.sequence),
        "captured_ns": int(seen.captured_ns),
        "frame": {**frame.to_json(), "shape": list(image.shape), "pixels": crc_of(image)},
    }
    if seen.encoded is not None and own is None:
        placed["encoded"] = put(bytes(seen.encoded), "raw").to_json()
    if seen.state:
        placed["state"] = state = {}
        for name, value in seen.state.items():
            plain = _plain(name, value)
            array = array_to_json(plain)
            if plain.nbytes > INLINE:
                place = put(base64.b64decode(array.pop("base64")), "raw")
                array |= place.to_json()
            state[str(name)] = array
    return b"".join(parts), placed


def _plain(name: str, value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in PLAIN_KINDS:
        raise FrameError(f"state {name!r} holds {type(value).__name__}, which is no array of numbers; give numbers, or leave it out")
    return array


def _is(encoded: bytes, image: np.ndarray) -> bool:
    """Whether the robot's bytes are a JPEG of exactly this frame, so that nothing else need be kept."""
    if encoded[:2] != b"\xff\xd8":
        return False
    try:
        return np.array_equal(decoded(encoded), image)
    except SessionDamaged:
        return False


def _failure(folder: Path, error: Exception) -> RecordingError:
    where, why = getattr(error, "filename", None) or folder, getattr(error, "strerror", None) or repr(error)
    return RecordingError(f"the session could not be written to {where}: {why}; free the disk or choose another folder, then go on")
