"""LeRobotDatasets become sessions in which every action lies between the frames it lay between; what does not fit is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from counting import read
from test_exports import CAMERA, record
from test_imports import check_alignment, lived, only, write_original

from motorbabble.errors import ConfigurationError, RecordingError
from motorbabble.exchange import video
from motorbabble.exchange.exports import export_session
from motorbabble.exchange.imports import import_lerobot, import_original
from motorbabble.experience import ActionSpace
from motorbabble.recording.format import to_png
from motorbabble.recording.reader import RecordingReader


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """40 rows in episodes of 13, 13, 13 and 1."""
    folder = tmp_path_factory.mktemp("lerobot")
    pytest.importorskip("pyarrow", reason="imports from LeRobot were not tested; pip install motorbabble[export]")
    return export_session([record(folder / "s", name="counted")], folder / "dataset", "lerobot")


def sessions(root: Path, names: list[str]) -> list[RecordingReader]:
    return [RecordingReader(next(root.glob(f"*/{name}"))) for name in names]


def test_each_episode_becomes_a_session(dataset, tmp_path):
    names = import_lerobot(dataset, tmp_path)
    assert names == [f"dataset_episode_{number:06d}" for number in range(4)]
    readers = sessions(tmp_path, names)
    assert [check_alignment(reader) for reader in readers] == [12, 12, 12, 0] and [len(reader) for reader in readers] == [13, 13, 13, 1]
    original = RecordingReader(dataset.parent / "s" / "counted")
    number = 0
    for reader in readers:
        assert reader.robot_type == "counting" and [channel.name for channel in reader.action_space.channels] == ["add"]
        assert reader.action_space.actions is None and (reader.action_space.channels[0].low, reader.action_space.channels[0].high) == (1, 2)
        assert reader.meta.about["imported_from"]["camera"] == CAMERA
        for moment in map(reader.moment, range(len(reader))):
            was, seen = original.moment(number), reader.observation(moment.moment)
            assert (moment.captured_ns, moment.sequence) == (was.captured_ns, was.sequence), "int64, to the nanosecond"
            assert seen.state["count"] == read(seen.image)[0] and set(seen.state) == {"count"}
            assert not moment.is_step or (moment.executed, moment.started_ns, moment.ended_ns) == (was.executed, was.started_ns, was.ended_ns)
            number += 1
        assert reader.moment(len(reader) - 1).kind == "ending", "what its action led to is not there"


def test_an_interrupted_import_goes_on(dataset, tmp_path, monkeypatch):
    right = video.frames_of

    def dies(path, fps):
        for number, frame in enumerate(right(path, fps)):
            if number == 20:
                raise KeyboardInterrupt
            yield frame

    monkeypatch.setattr("motorbabble.exchange.from_lerobot.frames_of", dies)
    with pytest.raises(KeyboardInterrupt):
        import_lerobot(dataset, tmp_path)
    assert [path.name for path in tmp_path.glob("*/*")] == ["dataset_episode_000000"]
    monkeypatch.undo()
    said: list[str] = []
    readers = sessions(tmp_path, import_lerobot(dataset, tmp_path, tell=said.append))
    assert [len(reader) for reader in readers] == [13, 13, 13, 1] and len(said) == 1 and "000000 was imported before" in said[0]
    assert sum(map(check_alignment, readers)) == 36


def pictured(folder: Path, frames: list[np.ndarray], **features) -> Path:
    """A dataset by hand: pictures in columns, two cameras, nothing this program adds."""
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    image = {"dtype": "image", "shape": [32, 32, 3], "names": ["height", "width", "channels"]}
    known = {
        "observation.images.top": image,
        "observation.images.wrist": image,
        "observation.state": {"dtype": "float32", "shape": [2], "names": ["x", "y"]},
        "action": {"dtype": "float32", "shape": [2], "names": {"motors": ["pan", "lift"]}},
        **{name: {"dtype": "int64", "shape": [1], "names": None} for name in ("frame_index", "episode_index", "index")},
    }
    rows = len(frames)
    columns = {
        "observation.images.top": [{"bytes": to_png(frame), "path": "x.png"} for frame in frames],
        "observation.images.wrist": [{"bytes": to_png(255 - frame), "path": "x.png"} for frame in frames],
        "observation.state": pa.array([[float(row), -1.0] for row in range(rows)], pa.list_(pa.float32())),
        "action": pa.array([[row / 8, -row / 4] for row in range(rows)], pa.list_(pa.float32())),
        "frame_index": list(range(rows)),
        "episode_index": [0] * rows,
        "index": list(range(rows)),
    }
    for name in ("data/chunk-000", "meta/episodes/chunk-000"):
        (folder / name).mkdir(parents=True)
    parquet.write_table(pa.table(columns), folder / "data/chunk-000/file-000.parquet")
    episodes = pa.table({"episode_index": [0], "length": [rows], "tasks": [["look"]]})
    parquet.write_table(episodes, folder / "meta/episodes/chunk-000/file-000.parquet")
    info = {"codebase_version": "v3.0", "fps": 20, "robot_type": "SO-101", "features": {**known, **features}}
    (folder / "meta/info.json").write_text(json.dumps(info))
    (folder / "meta/stats.json").write_text(json.dumps({"action": {"min": [-1.0, -0.5], "max": [0.1, 0.75]}}))
    return folder


def test_pictures_in_columns_come_over_to_the_bit(tmp_path):
    frames = list(np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8))
    source = pictured(tmp_path / "arm", frames)
    (reader,) = sessions(tmp_path / "root", import_lerobot(source, tmp_path / "root", "wrist"))
    assert all(np.array_equal(reader.image(number), 255 - frame) for number, frame in enumerate(frames))
    assert reader.observation(3).state["state"].tolist() == [3, -1] and reader.observation(3).state["state"].dtype == np.float32
    assert [dict(reader.moment(number).executed) for number in (0, 4)] == [{"pan": 0, "lift": 0}, {"pan": 0.5, "lift": -1}]
    ranges = [(channel.name, channel.low, channel.high) for channel in reader.action_space.channels]
    assert ranges == [("pan", -1.0, 0.625), ("lift", -1.25, 0.75)], "as stats.json says, widened by what was done"
    assert reader.action_space.rest == {"pan": 0, "lift": 0} and reader.robot_type == "so_101"
    assert [reader.moment(number).captured_ns for number in (0, 1, 5)] == [0, 50_000_000, 250_000_000]
    with pytest.raises(ConfigurationError, match=r"top.*wrist.*none was chosen"):
        import_lerobot(source, tmp_path / "root")
    with pytest.raises(ConfigurationError, match="'front' is not one"):
        import_lerobot(source, tmp_path / "root", "front")


def test_frames_that_do_not_fit_the_rows_are_refused(dataset, tmp_path):
    """LeRobot's own streaming encoder can lose frames and save the episode anyway; every row behind would show a wrong frame."""
    source = shutil.copytree(dataset, tmp_path / "dataset")
    (path,) = source.glob("videos/*/*/*.mp4")
    frames = list(video.frames_of(path, 10))
    for kept in (frames[:7] + frames[8:], [*frames, frames[-1]]):
        path.unlink()
        writer = video.VideoWriter(path, 10, 32, 32, 2)
        for frame in kept:
            writer.add(frame)
        writer.close()
        with pytest.raises(RecordingError, match=f"{len(kept)} frames for 40 rows"):
            import_lerobot(source, tmp_path / "root")
    path.write_bytes(b"no video")
    with pytest.raises(RecordingError, match="cannot be read as a video"):
        import_lerobot(source, tmp_path / "root")
    path.unlink()
    with pytest.raises(RecordingError, match="there is no video"):
        import_lerobot(source, tmp_path / "root")
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    "fault", ["rows", "order", "episode", "picture", "nan", "ragged", "footer", "column", "version", "info", "shape", "names a path"]
)
def test_a_damaged_dataset_is_refused(tmp_path, fault):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    source = pictured(tmp_path / "arm", list(np.zeros((4, 32, 32, 3), np.uint8)))
    data = source / "data/chunk-000/file-000.parquet"
    table = parquet.read_table(data)

    def put(name: str, column) -> None:
        parquet.write_table(table.set_column(table.column_names.index(name), name, column), data)

    info = json.loads((source / "meta/info.json").read_text())
    if fault == "rows":
        parquet.write_table(table.slice(0, 3), data)
    elif fault == "order":
        put("frame_index", pa.array([0, 2, 1, 3]))
    elif fault == "episode":
        put("episode_index", pa.array([0, 0, 0, 1]))
    elif fault == "picture":
        put("observation.images.top", pa.array([{"bytes": b"no picture", "path": ""}] * 4))
    elif fault == "nan":
        put("action", pa.array([[float("nan"), 0.0]] * 4))
    elif fault == "ragged":
        put("action", pa.array([[0.0, 1.0], [0.0], [], [1.0, 2.0]]))
    elif fault == "footer":
        data.write_bytes(data.read_bytes()[:-9])
    elif fault == "column":
        parquet.write_table(table.drop_columns(["action"]), data)
    elif fault == "version":
        info["codebase_version"] = "v2.1"
    elif fault == "info":
        del info["features"]["action"]
    elif fault == "shape":
        info["features"]["action"]["shape"] = [3]
    else:
        put("observation.images.top", pa.array([{"bytes": None, "path": "/etc/passwd"}] * 4, pa.struct({"bytes": pa.binary(), "path": pa.string()})))
    (source / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(RecordingError):
        import_lerobot(source, tmp_path / "root", "top")
    assert not [path for path in (tmp_path / "root").rglob("*") if path.is_file()]


def test_a_round_trip_through_both(tmp_path):
    """The original's JPEGs, our session, a LeRobotDataset, our sessions again: still every action between its frames."""
    pytest.importorskip("av", reason="imports from LeRobot were not tested; pip install motorbabble[export]")
    import_original(write_original(tmp_path / "s", lived([1, 2, 2, 1, 1, 2])), tmp_path / "root")
    target = export_session([only(tmp_path / "root").folder], tmp_path / "dataset", "lerobot")
    (reader,) = sessions(tmp_path / "again", import_lerobot(target, tmp_path / "again"))
    assert check_alignment(reader) == 5 and isinstance(reader.action_space, ActionSpace)
