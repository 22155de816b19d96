"""A LeRobotDataset v3.0, written without LeRobot, which cannot be installed beside a current torch.

Decisions: a row is a frame and the action executed from it, so a frame from which nothing was done gets no row; every
number LeRobot computes while recording is computed here exactly. LeRobot adds a row's time to its episode's place in the video in float32 and
tolerates 0.1 ms, which holds up to 1,024 s: no second episode goes into a video that would become longer.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from motorbabble.errors import RecordingError
from motorbabble.exchange.episodes import Episode, frame_rate, nominal, one_size
from motorbabble.exchange.extras import extra
from motorbabble.exchange.video import PIXELS, VideoWriter, codec, even
from motorbabble.recording.reader import Moment

CAMERA = "observation.images.front"
TASK = "find out what its own movements do"
MOST_SECONDS = 1000
FILES_IN_CHUNK, DATA_MB, VIDEO_MB = 1000, 100, 200
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
QUANTILES = (0.01, 0.10, 0.50, 0.90, 0.99)
# Says that `task` is the table's index: without it pandas, and so LeRobot, takes a task's number for its name.
_TASKS_INDEX = {
    "index_columns": ["task"],
    "column_indexes": [{"name": None, "field_name": None, "pandas_type": "unicode", "numpy_type": "object", "metadata": {"encoding": "UTF-8"}}],
    "columns": [
        {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64", "metadata": None},
        {"name": "task", "field_name": "task", "pandas_type": "unicode", "numpy_type": "object", "metadata": None},
    ],
    "pandas_version": "2.2.3",
}
Columns = dict[str, np.ndarray]


def write_dataset(folder: Path, episodes: list[Episode]) -> list[str]:
    """All episodes as one dataset; answers what was left out, in sentences. RecordingError when they do not fit together."""
    first = episodes[0].reader
    for reader in {episode.reader.name: episode.reader for episode in episodes}.values():
        if reader.action_space.fingerprint != first.action_space.fingerprint or reader.robot_type != first.robot_type:
            raise RecordingError(
                f"{reader.name} is of {reader.robot_type} with actions {reader.action_space}, {first.name} of {first.robot_type} with "
                f"{first.action_space}; a dataset has one robot, so export them apart"
            )
    size, rate = one_size(episodes), frame_rate(episodes)
    fps = nominal(rate)
    rows = [steps for episode in episodes if len((steps := episode.steps()).numbers)]
    if not rows:
        raise RecordingError(f"nothing was ever done in {first.name}, so there is no row to export; use png or mp4")
    dataset = _Dataset(folder, fps, size, rows)
    try:
        for number, episode in enumerate(rows):
            dataset.add(number, episode)
        dataset.finish(rate)
    except BaseException:
        dataset.abandon()
        raise
    return dataset.said


class _Dataset:
    def __init__(self, folder: Path, fps: int, size: tuple[int, int], rows: list[Episode]):
        self.folder, self.fps, self.size, self.rows = folder, fps, size, rows
        self.states, self.said = _shared_states(rows)
        self.has_scores = any(_score(episode, moment) is not None for episode in rows for moment in episode.moments())
        self.features: dict[str, dict[str, Any]] = {}
        self.metadata: list[dict[str, Any]] = []
        self.columns: list[Columns] = []
        self.pixels = np.zeros((3, 256), np.int64)  # how often each value was seen, per colour
        self.data: Any = None
        self.video: VideoWriter | None = None
        self.data_file = self.video_file = -1
        self.data_bytes = 0

    def add(self, number: int, episode: Episode) -> None:
        length, written = len(episode.numbers), sum(row["length"] for row in self.metadata)
        video, start, pixels, states = self._add_frames(episode)
        columns = self._columns(number, episode, written, states)
        if not self.features:
            self.features = self._features(columns)
        data = self._add_rows(columns)
        self.pixels += pixels
        self.columns.append(columns)
        stats = {name: _statistics(values) for name, values in columns.items()} | {CAMERA: _picture_statistics(pixels, length)}
        self.metadata.append(
            {
                "episode_index": number,
                "tasks": [TASK],
                "length": length,
                **_place("data", data),
                "dataset_from_index": written,
                "dataset_to_index": written + length,
                **_place(f"videos/{CAMERA}", video),
                f"videos/{CAMERA}/from_timestamp": start / self.fps,  # counted, never summed: sums of seconds drift
                f"videos/{CAMERA}/to_timestamp": (start + length) / self.fps,
                **_place("meta/episodes", 0),
                # For every feature, the five every dataset has included: without them LeRobot loads this, but cannot add to it.
                **{f"stats/{name}/{stat}": value for name, each in stats.items() for stat, value in each.items()},
            }
        )

    def finish(self, rate: float) -> None:
        self.data.close()
        if self.video is not None:
            self.video.close()
            self.video = None
        pa, parquet = extra("pyarrow"), extra("pyarrow.parquet")
        frames = sum(row["length"] for row in self.metadata)
        whole = {name: np.concatenate([columns[name] for columns in self.columns]) for name in self.columns[0]}
        stats = {name: _statistics(values) for name, values in whole.items()} | {CAMERA: _picture_statistics(self.pixels, frames)}
        tasks = pa.table({"task_index": pa.array([0], pa.int64()), "task": [TASK]})
        meta = self.folder / "meta"
        (meta / "episodes" / "chunk-000").mkdir(parents=True)
        parquet.write_table(tasks.replace_schema_metadata({"pandas": json.dumps(_TASKS_INDEX)}), meta / "tasks.parquet")
        parquet.write_table(pa.Table.from_pylist(self.metadata), meta / "episodes" / "chunk-000" / "file-000.parquet")
        (meta / "stats.json").write_text(json.dumps(stats, indent=1))
        (meta / "info.json").write_text(json.dumps(self._info(frames), indent=1))
        (meta / "motorbabble.json").write_text(json.dumps(self._about(rate), indent=1))

    def abandon(self) -> None:
        if self.video is not None:
            self.video.abandon()

    # Parts

    def _columns(self, number: int, episode: Episode, written: int, states: Columns) -> Columns:
        length, moments = len(episode.numbers), list(episode.moments())
        channels = [channel.name for channel in episode.reader.action_space.channels]
        columns = {
            "action": executed(moments, channels),
            **states,
            "observation.t_ns": _whole([moment.captured_ns for moment in moments]),
            "observation.seq": _whole([moment.sequence for moment in moments]),
            "action.requested": np.array([[moment.requested[name] for name in channels] for moment in moments], np.float32),
            "action.index": _whole([moment.index for moment in moments]),
            "action.t_start_ns": _whole([moment.started_ns for moment in moments]),
            "action.t_end_ns": _whole([moment.ended_ns for moment in moments]),
            "model.train_steps": _whole([moment.updates for moment in moments]),
            "timestamp": (np.arange(length) / self.fps).astype(np.float32)[:, None],
            "frame_index": _whole(np.arange(length)),
            "episode_index": _whole(np.full(length, number)),
            "index": _whole(np.arange(written, written + length)),
            "task_index": _whole(np.zeros(length)),
        }
        if self.has_scores:
            scores = [_score(episode, moment) for moment in moments]
            columns["curiosity.uncertainty"] = np.array([[np.nan if score is None else score] for score in scores], np.float32)
        return columns

    def _features(self, columns: Columns) -> dict[str, dict[str, Any]]:
        channels = [channel.name for channel in self.rows[0].reader.action_space.channels]
        features: dict[str, dict[str, Any]] = {
            name: {
                "dtype": values.dtype.name,
                "shape": list(values.shape[1:]),
                "names": channels if name in ("action", "action.requested") else None,
            }
            for name, values in columns.items()
        }
        height, width = map(even, self.size)
        known = {"height": height, "width": width, "pix_fmt": PIXELS, "fps": self.fps, "channels": 3, "codec": "av1" if "av1" in codec() else "h264"}
        info = {**{f"video.{name}": value for name, value in known.items()}, "is_depth_map": False, "has_audio": False}
        return {CAMERA: {"dtype": "video", "shape": [height, width, 3], "names": ["height", "width", "channels"], "info": info}, **features}

    def _add_rows(self, columns: Columns) -> int:
        """Write an episode's rows; answers the number of the file."""
        pa, parquet = extra("pyarrow"), extra("pyarrow.parquet")
        table = pa.table({name: _column(values) for name, values in columns.items()})
        if self.data is None or self.data_bytes + table.nbytes > DATA_MB * 2**20:
            if self.data is not None:
                self.data.close()
            self.data_file, self.data_bytes = self.data_file + 1, 0
            path = self.folder / DATA_PATH.format(**_indices(self.data_file))
            path.parent.mkdir(parents=True, exist_ok=True)
            self.data = parquet.ParquetWriter(str(path), table.schema)
        self.data.write_table(table)
        self.data_bytes += table.nbytes
        return self.data_file

    def _add_frames(self, episode: Episode) -> tuple[int, int, np.ndarray, Columns]:
        """Write an episode's frames; answers the video's number, the frames in it before these, how often each value was seen, and the states."""
        full = self.video is not None and (self.video.frames + len(episode.numbers) > MOST_SECONDS * self.fps or self.video.bytes > VIDEO_MB * 2**20)
        if self.video is None or full:
            if self.video is not None:
                self.video.close()
            self.video_file += 1
            path = self.folder / VIDEO_PATH.format(video_key=CAMERA, **_indices(self.video_file))
            path.parent.mkdir(parents=True, exist_ok=True)
            self.video = VideoWriter(path, self.fps, *self.size, keyframe_every=2)
        start, pixels, states = self.video.frames, np.zeros((3, 256), np.int64), []
        for seen in map(episode.reader.observation, episode.numbers):
            self.video.add(seen.image)
            pixels += np.stack([np.bincount(seen.image[..., colour].ravel(), minlength=256) for colour in range(3)])
            states.append([np.atleast_1d(seen.state[name]) for name in self.states])
        names = [f"observation.{_plain(name)}" for name in self.states]
        return self.video_file, start, pixels, {name: np.stack(each) for name, each in zip(names, zip(*states, strict=True), strict=True)}

    def _info(self, frames: int) -> dict[str, Any]:
        return {
            "codebase_version": "v3.0",
            "robot_type": self.rows[0].reader.robot_type,
            "total_episodes": len(self.rows),
            "total_frames": frames,
            "total_tasks": 1,
            "chunks_size": FILES_IN_CHUNK,
            "data_files_size_in_mb": DATA_MB,
            "video_files_size_in_mb": VIDEO_MB,
            "fps": self.fps,
            "splits": {"train": f"0:{len(self.rows)}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH,
            "features": self.features,
        }

    def _about(self, rate: float) -> dict[str, Any]:
        """Where each episode comes from; beside the dataset, for LeRobot allows no further column there."""
        origins = [{"session": episode.reader.name, "moments": [episode.numbers[0], episode.numbers[-1] + 1]} for episode in self.rows]
        space = self.rows[0].reader.action_space.to_json()
        return {"frames_per_second": rate, "size": list(self.size), "action_space": space, "left_out": self.said, "episodes": origins}


def executed(moments: list[Moment], channels: list[str]) -> np.ndarray:
    """(n, C) float32, in the channels' own units: row i is what was done from frame i."""
    return np.array([[moment.executed[name] for name in channels] for moment in moments], np.float32)


def _shared_states(rows: list[Episode]) -> tuple[list[str], list[str]]:
    """States that every row has, as numbers of one type and shape; and a sentence for each of the others."""
    count, seen = 0, {}
    for episode in rows:
        for moment in episode.moments():
            count += 1
            for name, stored in moment.state.items():
                kinds = seen.setdefault(name, {})
                kind = (stored["dtype"], tuple(stored["shape"]))
                kinds[kind] = kinds.get(kind, 0) + 1
    fits = {name: len(kinds) == 1 and sum(kinds.values()) == count and _is_column(*next(iter(kinds))) for name, kinds in seen.items()}
    return (
        [name for name in seen if fits[name]],
        [f"state {name!r} is not in every row with one type and shape, and was left out" for name in seen if not fits[name]],
    )


def _is_column(dtype: str, shape: tuple[int, ...]) -> bool:
    return np.dtype(dtype).kind in "biuf" and len(shape) <= 5 and 0 not in shape


def _plain(name: str) -> str:
    """A state's name as part of a feature's, which may not hold a slash, nor be one of ours."""
    plain = name.replace("/", "_")
    return plain + "_" if plain in ("t_ns", "seq") or plain.startswith("images.") else plain


def _score(episode: Episode, moment: Moment) -> float | None:
    """What the selector gave the action it asked for."""
    return moment.scores.get(episode.reader.action_space.label(moment.requested)) if moment.scores else None


def _whole(values: Any) -> np.ndarray:
    return np.array(values, np.int64)[:, None]


def _column(values: np.ndarray) -> Any:
    """(n, 1) becomes plain numbers, as LeRobot has it; more become lists of a fixed length."""
    pa = extra("pyarrow")
    if values.shape[1:] == (1,):
        return pa.array(np.ascontiguousarray(values[:, 0]))
    column = pa.array(np.ascontiguousarray(values).ravel())
    for depth, length in enumerate(reversed(values.shape[1:])):
        if depth == values.ndim - 2 == 0:
            return pa.FixedSizeListArray.from_arrays(column, length)
        column = pa.ListArray.from_arrays(pa.array(np.arange(0, len(column) + 1, length), pa.int32()), column)
    return column


def _indices(file: int) -> dict[str, int]:
    return {"chunk_index": file // FILES_IN_CHUNK, "file_index": file % FILES_IN_CHUNK}


def _place(what: str, file: int) -> dict[str, int]:
    return {f"{what}/{name}": index for name, index in _indices(file).items()}


def _statistics(values: np.ndarray) -> dict[str, list]:
    """Per number of a feature, over the rows where it is finite; of arrays, per last axis, as LeRobot has it."""
    flat = values.astype(np.float64).reshape(-1, values.shape[-1])
    found = [column[np.isfinite(column)] for column in flat.T]
    found = [column if len(column) else np.zeros(1) for column in found]
    spread = {"min": np.min, "max": np.max, "mean": np.mean, "std": np.std}
    stats = {name: [float(function(column)) for column in found] for name, function in spread.items()}
    quantiles = {f"q{round(q * 100):02d}": [float(np.quantile(column, q)) for column in found] for q in QUANTILES}
    return {**stats, "count": [len(values)], **quantiles}


def _picture_statistics(pixels: np.ndarray, frames: int) -> dict[str, list]:
    """Per colour, on 0..1, from how often each of the 256 values was seen; shape (3, 1, 1)."""
    values, stats = np.arange(256) / 255, {}
    for colour in pixels:
        mean = float(np.average(values, weights=colour))
        spread = math.sqrt(float(np.average((values - mean) ** 2, weights=colour)))
        seen, below = np.flatnonzero(colour), np.cumsum(colour) / colour.sum()
        each = {
            "min": values[seen[0]],
            "max": values[seen[-1]],
            "mean": mean,
            "std": spread,
            **{f"q{round(q * 100):02d}": values[np.searchsorted(below, q)] for q in QUANTILES},
        }
        for name, value in each.items():
            stats.setdefault(name, []).append([[float(value)]])
    return {**stats, "count": [frames]}
