"""A LeRobotDataset v3 as sessions of ours: one camera, what else was sensed, and the continuous actions between.

Decisions: one session per episode, since takes are independent and validation holds out whole sessions; an interrupted import goes on
where it stopped. The last row's action has no outcome, so that row becomes an ending. Decoded frames are kept as PNG: no second
loss. Files are found by their place in the layout; nothing that info.json says is used as a path.
"""

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from motorbabble.errors import ConfigurationError, RecordingError, SessionDamaged
from motorbabble.exchange.aside import made_aside
from motorbabble.exchange.extras import extra
from motorbabble.exchange.video import frame_count, frames_of
from motorbabble.experience import ActionSpace, Channel, Choice, Ending, Observation, Step
from motorbabble.recording.format import check_name, decoded
from motorbabble.recording.reader import RecordingReader
from motorbabble.recording.writer import RecordingWriter

MOST_JSON = 64 * 2**20  # bytes
_TIMES = {"observation.t_ns", "observation.seq"}  # what our own exports add: no states
Row = Mapping[str, Any]


class Episode(NamedTuple):
    number: int
    length: int
    tasks: list[str]
    video: Path | None  # None where the camera is a column of pictures
    first: int  # its first frame in that video


def import_lerobot(source: Path, root: Path, camera: str | None = None, tell: Callable[[str], None] = print) -> list[str]:
    """Copy every episode to a session `root`/<robot type>/<name>, and answer their names; `root` holds the sessions of all robot types.

    `camera`: a feature such as observation.images.front, or its last part; needed where there are several. Raises RecordingError for
    what is no such dataset and where frames and rows do not fit, ConfigurationError for an unknown camera or a missing library.
    """
    for library in ("pyarrow", "av"):
        extra(library)
    dataset = Dataset(Path(source), camera)
    space = dataset.action_space()
    frames, names = _Frames(dataset.fps), []
    for number, rows in itertools.groupby(dataset.rows(), key=lambda row: row["episode_index"]):
        episode = dataset.episodes.get(number)
        if episode is None:
            raise RecordingError(f"{source} has rows of episode {number}, which its metadata does not know; it is damaged")
        name = check_name(f"{dataset.name}_episode_{episode.number:06d}")
        origin = {"format": "LeRobotDataset v3", "folder": str(Path(source).absolute()), "episode": episode.number, "camera": dataset.view}
        about = {"imported_from": {**origin, "fps": dataset.fps, "tasks": episode.tasks}}
        target = Path(root) / check_name(dataset.robot_type) / name
        names.append(name)
        if target.is_dir() and dict(RecordingReader(target).meta.about) == about:
            tell(f"{name} was imported before, and is kept as it is")
            continue
        with (
            made_aside(target, target.with_name(f".importing-{name}")) as aside,
            RecordingWriter.create(aside, dataset.robot_type, space, name=name, about=about) as writer,
        ):
            for moment in _moments(dataset, episode, rows, frames):
                writer.record(moment)
    return names


def _moments(dataset: "Dataset", episode: Episode, rows: Iterator[Row], frames: "_Frames") -> Iterator[Step | Ending]:
    """A step for each row that has a next one, and an ending."""
    seen, before = None, {}
    images = frames.of(episode) if episode.video else None
    count = 0
    for count, row in enumerate(rows, 1):
        if row["frame_index"] != count - 1 or count > episode.length:
            raise RecordingError(
                f"row {count - 1} of episode {episode.number} says frame {row['frame_index']} of {episode.length}; rows are missing or doubled"
            )
        image, encoded = _picture(row[dataset.view], episode) if images is None else (next(images), None)
        at = row["observation.t_ns"] if "observation.t_ns" in row else round((count - 1) * 1e9 / dataset.fps)
        look = Observation(image, encoded, int(at), int(row.get("observation.seq", count - 1)), state=dataset.state(row))
        if seen is not None:
            yield dataset.step(count - 2, seen, before, look)
        seen, before = look, row
    if seen is None or count != episode.length:
        raise RecordingError(f"episode {episode.number} has {count} rows, and its metadata says {episode.length}; rows are missing")
    yield Ending(seen)


class Dataset:
    """What a dataset's metadata says, checked, and its rows."""

    def __init__(self, source: Path, camera: str | None):
        self.source, self.info = source, _json(source / "meta" / "info.json")
        version = self.info.get("codebase_version")
        if not str(version).startswith("v3."):
            raise RecordingError(f"{source} is a LeRobotDataset of version {version!r:.20}, and v3.0 is read here; convert it with LeRobot first")
        try:
            self.fps = int(self.info["fps"])
            self.features: dict[str, dict] = {str(name): dict(feature) for name, feature in self.info["features"].items()}
            self.channels = _names(self.features["action"])
            if self.fps < 1:
                raise ValueError(f"{self.fps} frames per second")
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise RecordingError(f"{source}/meta/info.json lacks or misstates {error}; the dataset is damaged") from None
        self.view = self._camera(camera)
        self.states = {
            name: name.removeprefix("observation.")
            for name, feature in self.features.items()
            if name.startswith("observation.") and name not in _TIMES and _is_number(feature)
        }
        self.episodes = {episode.number: episode for episode in self._episodes()}
        self._check_videos()

    @property
    def name(self) -> str:
        return re.sub(r"[^A-Za-z0-9._-]+", "_", self.source.resolve().name)[:80].lstrip("._-") or "dataset"

    @property
    def robot_type(self) -> str:
        return re.sub(r"[^a-z0-9_]+", "_", str(self.info.get("robot_type") or "lerobot").lower())[:60].strip("_") or "lerobot"

    def action_space(self) -> ActionSpace:
        """Ranges as stats.json says, widened by what was really done; rest is the value nearest to nothing."""
        try:
            done = np.array([np.atleast_1d(row["action"]) for row in self._rows(["action"])], np.float64)
        except (TypeError, ValueError):
            raise RecordingError(f"{self.source} holds actions of several lengths, or some that are no numbers; nothing was imported") from None
        if done.shape[1:] != (len(self.channels),) or not np.isfinite(done).all():
            raise RecordingError(f"{self.source} holds actions of shape {done.shape[1:]}, or some that are no numbers; nothing was imported")
        low, high = done.min(axis=0), done.max(axis=0)
        path = self.source / "meta" / "stats.json"
        known = _json(path).get("action") if path.is_file() else None
        if isinstance(known, Mapping) and "min" in known and "max" in known:
            try:
                least, most = (np.array(known[side], np.float64).reshape(low.shape) for side in ("min", "max"))
            except (TypeError, ValueError):
                raise RecordingError(f"{path} gives {len(self.channels)} channels other ranges than one each; it is damaged") from None
            low, high = np.fmin(low, least), np.fmax(high, most)
        channels = [Channel(name, float(a), float(b)) for name, a, b in zip(self.channels, low, high, strict=True)]
        return ActionSpace.box(channels, {channel.name: min(max(0.0, channel.low), channel.high) for channel in channels})

    def rows(self) -> Iterator[Row]:
        """All of them, with the columns that are needed here."""
        wanted = ["episode_index", "frame_index", "action", *self.states, *(name for name in self.features if name in _ALSO)]
        return self._rows(wanted if self.features[self.view]["dtype"] == "video" else [*wanted, self.view])

    def state(self, row: Row) -> dict[str, np.ndarray]:
        try:
            return {
                name: np.array(row[feature], self.features[feature]["dtype"]).reshape(self.features[feature]["shape"])
                for feature, name in self.states.items()
            }
        except (KeyError, TypeError, ValueError) as error:
            raise RecordingError(f"a row of {self.source} does not hold the states that info.json promises: {error}; it is damaged") from None

    def step(self, index: int, seen: Observation, row: Row, outcome: Observation) -> Step:
        action = {name: float(value) for name, value in zip(self.channels, np.atleast_1d(row["action"]), strict=True)}
        started, ended = row.get("action.t_start_ns", seen.captured_ns), row.get("action.t_end_ns", outcome.captured_ns)
        return Step(index, seen, action, action, Choice(action, why="imported"), int(started), int(ended))

    # Parts

    def _camera(self, wanted: str | None) -> str:
        cameras = [name for name, feature in self.features.items() if feature.get("dtype") in ("video", "image") and re.fullmatch(r"\w[\w.-]*", name)]
        meant = [name for name in cameras if wanted in (None, name, name.rpartition(".")[2])]
        if len(meant) != 1:
            asked = "none was chosen" if wanted is None else f"{wanted!r} is not one of them"
            raise ConfigurationError(f"{self.source} has the cameras {cameras}, and {asked}; give one with --camera")
        return meant[0]

    def _episodes(self) -> Iterator[Episode]:
        is_video, place = self.features[self.view]["dtype"] == "video", f"videos/{self.view}"
        needed = ["episode_index", "length", "tasks"] + [f"{place}/{name}" for name in ("chunk_index", "file_index", "from_timestamp") if is_video]
        for row in self._rows(needed, "meta/episodes"):
            try:
                video = None
                if is_video:
                    chunk, file = int(row[f"{place}/chunk_index"]), int(row[f"{place}/file_index"])
                    video = self.source / "videos" / self.view / f"chunk-{chunk:03d}" / f"file-{file:03d}.mp4"
                first = round(float(row[f"{place}/from_timestamp"]) * self.fps) if is_video else 0
                yield Episode(int(row["episode_index"]), int(row["length"]), [str(task)[:200] for task in row["tasks"] or []], video, first)
            except (TypeError, ValueError, OverflowError) as error:
                raise RecordingError(f"the episodes' metadata of {self.source} cannot be used ({error}); it is damaged") from None

    def _check_videos(self) -> None:
        """Each video holds exactly its episodes' frames, end to end: where one is missing, all behind it would show another action's outcome."""
        videos: dict[Path, list[Episode]] = {}
        for episode in self.episodes.values():
            if episode.video:
                videos.setdefault(episode.video, []).append(episode)
        for path, episodes in videos.items():
            if not path.is_file():
                raise RecordingError(f"there is no video {path}; copy the whole dataset")
            at = 0
            for episode in sorted(episodes, key=lambda episode: episode.first):
                if episode.first != at:
                    raise RecordingError(f"episode {episode.number} begins at frame {episode.first} of {path}, not at {at}; frames are missing")
                at += episode.length
            if (found := frame_count(path)) != at:
                raise RecordingError(f"{path} holds {found} frames for {at} rows, so frames would be shown with other actions; nothing was imported")

    def _rows(self, columns: list[str], folder: str = "data") -> Iterator[Row]:
        """Rows of all parquet files of a folder, in order, a few in memory at a time."""
        pa, parquet = extra("pyarrow"), extra("pyarrow.parquet")
        paths = sorted(self.source.glob(f"{folder}/*/*.parquet"))
        if not paths:
            raise RecordingError(f"{self.source / folder} holds no parquet file; give the folder of a whole LeRobotDataset v3")
        for path in paths:
            try:
                with parquet.ParquetFile(str(path)) as file:
                    if lost := set(columns) - set(file.schema_arrow.names):
                        raise RecordingError(f"{path} has no columns {sorted(lost)}; the dataset is damaged")
                    for batch in file.iter_batches(batch_size=64, columns=columns):
                        yield from batch.to_pylist()
            except (pa.ArrowException, OSError) as error:
                raise RecordingError(f"{path} cannot be read ({error}); the dataset is damaged, or was never finished") from None


_ALSO = {*_TIMES, "action.t_start_ns", "action.t_end_ns"}


class _Frames:
    """Videos decoded from front to back; one of them is open at a time."""

    def __init__(self, fps: int):
        self.fps = fps
        self.path: Path | None = None
        self.frames: Iterator[np.ndarray] = iter(())
        self.at = 0

    def of(self, episode: Episode) -> Iterator[np.ndarray]:
        """Its frames; RecordingError when the video ends before."""
        assert episode.video is not None
        if self.path != episode.video or self.at > episode.first:
            self.path, self.frames, self.at = episode.video, frames_of(episode.video, self.fps), 0
        for frame in self.frames:
            self.at += 1
            if self.at > episode.first:
                yield frame
            if self.at == episode.first + episode.length:
                return
        raise RecordingError(f"{episode.video} ends at frame {self.at}, within episode {episode.number}; frames are missing")


def _picture(stored: Any, episode: Episode) -> tuple[np.ndarray, bytes | None]:
    """A frame from a column of pictures, and its bytes where they are JPEG."""
    data = stored.get("bytes") if isinstance(stored, Mapping) else None
    if not isinstance(data, bytes):
        raise RecordingError(f"episode {episode.number} names a picture instead of holding it; let LeRobot embed its images first")
    try:
        return decoded(data), data if data[:2] == b"\xff\xd8" else None
    except SessionDamaged as error:
        raise RecordingError(f"a picture of episode {episode.number} cannot be used: {error}") from None


def _names(feature: Mapping[str, Any]) -> list[str]:
    """One name for each number of a vector, however the dataset names them."""
    (size,) = feature["shape"]
    named = feature.get("names")
    if isinstance(named, Mapping):
        inner = next(iter(named.values()), None)
        named = inner if isinstance(inner, list) else [name for name, _ in sorted(named.items(), key=lambda item: item[1])]
    if not isinstance(named, list) or len(named) != size or len({str(name) for name in named}) != size:
        named = [f"action_{number}" for number in range(size)]
    return [str(name)[:100] for name in named]


def _is_number(feature: Mapping[str, Any]) -> bool:
    try:
        return np.dtype(feature["dtype"]).kind in "biuf" and all(type(size) is int and size > 0 for size in feature["shape"])
    except (KeyError, TypeError):
        return False


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MOST_JSON:
            raise ValueError("it is larger than any such file")
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("it holds something else")
        return content
    except (OSError, ValueError, RecursionError) as error:
        raise RecordingError(f"{path} cannot be read ({error}); give the folder of a LeRobotDataset v3") from None
