"""RecordingWriter: what a robot saw and did, on disk before anybody hears of it.

Decisions: bytes go to the pack first, then one line commits them; two `write` calls per moment and no buffer of ours, so a
killed process loses nothing it acknowledged; a thread syncs every half second, so a power cut loses at most the last
second and the robot never waits for a disk. After the first error nothing more is written: what is there is whole.
"""

import base64
import secrets
import threading
import time
from collections.abc import Callable, Mapping
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
from motorbabble.recording.recovery import recover

SYNC_SECONDS = 0.5


class RecordingWriter:
    """A session being written. Make one with `create` or `reopen`; `close` it, or die: both leave it readable.

    `on_failure` is called once, from whichever thread met the error, before the error is raised at the next `record`: give
    it robot.stop. `tidy` is called by the syncing thread at every new shard and every 16 MB, and may raise RecordingError.
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
        tidy: Callable[[], None] | None = None,
    ):
        self.folder, self.meta, self.moments = folder, meta, moments
        self._lock, self._disk, self._shard, self._first = lock, disk, shard, moments
        self._episodes = episodes  # that were before this process came: its own are counted behind them
        self._on_failure, self._tidy = on_failure, tidy
        self._failure: RecordingError | None = None
        self._files: tuple[int, int] = (-1, -1)  # pack, lines
        self._finished: list[int] = []  # files of full shards, to be synced and closed by the thread
        self._at, self._untidied = 0, 0
        self._dirty = self._closed = False
        self._mutex, self._wake = threading.Lock(), threading.Event()
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
        meta = SessionMeta(check_name(name or new_name(created)), robot_type, action_space, created, continues=continues, about=dict(about or {}))
        folder, aside = root / meta.session, root / f".new-{secrets.token_hex(6)}"
        try:
            root.mkdir(parents=True, exist_ok=True)
            if folder.exists():
                raise RecordingError(f"there is already a session {meta.session} in {root}; give another name, or none")
            disk.make_folder(aside)
            lock = locked(aside)
            disk.write_new(aside / META, meta.to_bytes())
            disk.rename(aside, folder)
            writer = cls(folder, meta, lock, shard=0, moments=0, disk=disk, **settings)
            writer._begin_shard(0)
            writer._sync()
            disk.sync_folder(root)
        except OSError as error:
            raise _failure(folder, error) from error
        writer._thread.start()
        return writer

    @classmethod
    def reopen(cls, folder: Path | str, *, disk: Disk | None = None, **settings: Any) -> Self:
        """Go on in a session: what is torn at its end is cut first, and a new shard begun."""
        folder, disk = Path(folder), disk or Disk()
        lock = locked(folder)
        try:
            found = recover(folder, disk)
            # Not closed from here on: should it be cut short again, nobody may trust a count in its metadata.
            meta = replace(found.meta, state="live" if found.meta.state == "closed" else "recovered", moments=None, ended_ns=None)
            disk.write_whole(folder / META, meta.to_bytes())
            writer = cls(folder, meta, lock, shard=found.shards, moments=found.moments, episodes=found.episodes, disk=disk, **settings)
            writer._begin_shard(found.shards)
            writer._sync()
        except OSError as error:
            lock.release()
            raise _failure(folder, error) from error
        except BaseException:
            lock.release()
            raise
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
                raise self._failure
            try:
                if self.moments - self._first == MOMENTS_PER_SHARD:
                    self._begin_shard(self._shard + 1)
                packed, placed = _packed(seen, self._at)
                placed["episode"] += self._episodes
                line = to_line({"moment": self.moments, **placed, **content})
                pack, lines = self._files
                self._disk.append(pack, packed)
                self._disk.append(lines, line)
            except OSError as error:
                raise self._fail(_failure(self.folder, error)) from error
            self._at += len(packed)
            self._untidied += len(packed) + len(line)
            self.moments += 1
            self._dirty = True
            if self._untidied > 16 * 2**20:
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
            try:
                if self._failure is None:
                    self._sync()
                    self.meta = self.meta.ended("closed", self.moments)
                    self._disk.write_whole(self.folder / META, self.meta.to_bytes())
            except OSError as error:
                raise self._fail(_failure(self.folder, error)) from error
            finally:
                for file in (*self._finished, *self._files):
                    self._disk.close(file)
                self._lock.release()
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
        pack = self._disk.create(self.folder / frames_file(number))
        lines = self._disk.create(self.folder / events_file(number))
        header = {"header": FORMAT, "shard": number, "first_moment": self.moments, "session": self.meta.to_json()}
        self._disk.append(lines, to_line(header))
        self._finished += [file for file in self._files if file >= 0]
        self._files, self._shard, self._first, self._at = (pack, lines), number, self.moments, 0
        self._dirty, self._untidied = True, 2**63  # tidy at the next turn
        self._wake.set()

    def _keep_synced(self, seconds: float) -> None:
        while True:
            self._wake.wait(seconds)
            self._wake.clear()
            if self._closed or self._failure:
                return
            try:
                self._sync()
                if self._tidy and self._untidied > 16 * 2**20:
                    self._untidied = 0
                    self._tidy()
            except OSError as error:
                self._fail(_failure(self.folder, error))
            except RecordingError as error:
                self._fail(error)

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
        if self._failure is None:
            self._failure = error
            if self._on_failure:
                self._on_failure()
        return self._failure


def locked(folder: Path) -> FileLock:
    """The session's lock, held; RecordingError when somebody is writing it."""
    lock = FileLock(folder / LOCK, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise RecordingError(f"session {folder.name} is being recorded by another process; wait until it ends, or choose another") from None
    return lock


def _packed(seen: Observation, at: int) -> tuple[bytes, dict[str, Any]]:
    """The bytes of one moment for the pack at offset `at`, and the members of its line that speak of them."""
    parts: list[bytes] = []

    def put(data: bytes, codec: str) -> Place:
        place = Place.of(at + sum(map(len, parts)), data, codec)
        parts.append(data)
        return place

    image = np.ascontiguousarray(seen.image)
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
            array = array_to_json(_plain(name, value))
            if len(array["base64"]) > INLINE * 4 // 3:
                array = {**array, **put(base64.b64decode(array.pop("base64")), "raw").to_json(), "shape": array["shape"]}
            state[str(name)] = array
    return b"".join(parts), placed


def _plain(name: str, value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.hasobject:
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


def _failure(folder: Path, error: OSError) -> RecordingError:
    where = error.filename or folder
    return RecordingError(
        f"the session could not be written to {where}: {error.strerror or error}; free the disk or choose another folder, then go on"
    )
