"""Exports: every frame with its own action, whatever the format, the damage and the files' limits; a session is never touched."""

import base64
import hashlib
import json
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from counting import Counting, read, write

from motorbabble.errors import ConfigurationError, RecordingError
from motorbabble.exchange import lerobot_writer, video
from motorbabble.exchange.aside import made_aside
from motorbabble.exchange.exports import export_session
from motorbabble.experience import Choice, Ending, Observation, Step
from motorbabble.life import live
from motorbabble.recording.format import decoded
from motorbabble.recording.reader import RecordingReader
from motorbabble.recording.writer import RecordingWriter

pyarrow = pytest.importorskip("pyarrow", reason="exports were not tested; pip install motorbabble[export]")
pytest.importorskip("av", reason="exports were not tested; pip install motorbabble[export]")
pytest.importorskip("mcap", reason="exports were not tested; pip install motorbabble[export]")
import pyarrow.parquet as parquet  # noqa: E402

CAMERA = "observation.images.front"


def record(root: Path, steps: int = 40, episode_steps: int | None = 13, seed: int = 0, size: int = 32, name: str | None = None) -> Path:
    """A session of the counting robot, ten frames a second by its clock."""
    rng, robot = np.random.default_rng(seed), Counting(size, episode_steps)

    def at(seen: Observation, step: int) -> Observation:
        return replace(seen, captured_ns=1_700_000_000_123_456_789 + step * 100_000_001)

    with RecordingWriter.create(root, "counting", robot.action_space, name=name) as writer:
        for event in live(robot, lambda situation: situation.action_space.actions[rng.integers(2)], steps=steps):
            assert isinstance(event, Step)
            began = at(event.observation, event.index).captured_ns
            choice = Choice(event.requested, {"one": 0.25, "two": float("nan")} if event.index % 2 else {}, "drawn")
            writer.record(
                replace(event, observation=at(event.observation, event.index), choice=choice, started_ns=began + 7, ended_ns=began + 9),
                updates=event.index,
            )
        writer.close(at(robot.get_observation(), steps))
    return writer.folder


def check_chain(frames: list, actions: list) -> None:
    """Between two frames the count rises by the later one's last action, which is the one said to lie between them."""
    assert frames
    for place, (before, after) in enumerate(pairwise(frames)):
        (count, _), (next_count, last) = read(before), read(after)
        assert next_count - count == last == actions[place], f"frames {place} and {place + 1}: {count} -> {next_count}, {last}, {actions[place]}"


def dataset_of(root: Path) -> tuple[dict, list[dict], list[list[np.ndarray]]]:
    """A LeRobotDataset's columns, its episodes' metadata, and each episode's frames as its metadata finds them."""
    tables = [parquet.read_table(path) for path in sorted(root.glob("data/*/*.parquet"))]
    columns = pyarrow.concat_tables(tables).to_pydict()
    episodes = parquet.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    info = json.loads((root / "meta/info.json").read_text())
    frames, decoded_files = [], {}
    for episode in episodes:
        file = info["video_path"].format(
            video_key=CAMERA, chunk_index=episode[f"videos/{CAMERA}/chunk_index"], file_index=episode[f"videos/{CAMERA}/file_index"]
        )
        if file not in decoded_files:
            decoded_files[file] = list(video.frames_of(root / file, info["fps"]))
        first = round(episode[f"videos/{CAMERA}/from_timestamp"] * info["fps"])
        assert abs(episode[f"videos/{CAMERA}/from_timestamp"] - first / info["fps"]) < 1e-12, "times are counted, not summed"
        frames.append(decoded_files[file][first : first + episode["length"]])
    return columns, episodes, frames


def check_dataset(root: Path) -> int:
    """The whole dataset's alignment; answers its number of rows."""
    columns, episodes, frames = dataset_of(root)
    assert columns["index"] == list(range(len(columns["index"])))
    assert (
        sum(episode["length"] for episode in episodes) == len(columns["index"]) == json.loads((root / "meta/info.json").read_text())["total_frames"]
    )
    at = 0
    for episode, seen in zip(episodes, frames, strict=True):
        rows = slice(episode["dataset_from_index"], episode["dataset_to_index"])
        assert rows.start == at and set(columns["episode_index"][rows]) == {episode["episode_index"]}
        assert len(seen) == episode["length"] and columns["frame_index"][rows] == list(range(len(seen)))
        check_chain(seen, columns["action"][rows])
        assert [read(frame)[0] for frame in seen] == columns["observation.count"][rows]
        at = rows.stop
    return at


def fingerprint(folder: Path) -> dict:
    return {path.name: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> Path:
    return record(tmp_path_factory.mktemp("sessions"))


@pytest.fixture(scope="module")
def dataset(session, tmp_path_factory) -> Path:
    return export_session([session], tmp_path_factory.mktemp("exports") / "dataset", "lerobot")


# Each format


def test_pictures_are_the_recorded_ones_to_the_bit(session, tmp_path):
    target, reader = export_session([session], tmp_path / "pictures", "png"), RecordingReader(session)
    lines = [json.loads(line) for line in (target / "actions.jsonl").read_text().splitlines()]
    assert len(lines) == len(reader) == 41 and len(list(target.glob("frame_*.png"))) == 41
    for number, line in enumerate(lines):
        image = decoded((target / line["frame"]).read_bytes())
        assert line["frame"] == f"frame_{number:06d}.png" and np.array_equal(image, reader.image(number))
    for episode in range(4):
        chosen = [line for line in lines if line["episode"] == episode]
        actions = [line["executed"]["add"] for line in chosen if line["kind"] == "step"]
        check_chain([decoded((target / line["frame"]).read_bytes()) for line in chosen], actions)
    assert lines[-1]["kind"] == "ending" and "executed" not in lines[-1]


def test_a_video_holds_every_frame_in_order(session, tmp_path):
    target = export_session([session], tmp_path / "life.mp4", "mp4")
    counts = [read(frame) for frame in video.frames_of(target, 10)]
    reader = RecordingReader(session)
    assert counts == [read(reader.image(number)) for number in range(len(reader))]
    content = target.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat"), "a browser must be able to begin before it has all"
    import av

    with av.open(str(target)) as file:
        assert file.streams.video[0].codec_context.name in ("h264", "libdav1d", "av1") and file.streams.video[0].pix_fmt == "yuv420p"


def test_mcap_has_frames_actions_and_states_at_their_times(session, tmp_path):
    from mcap.reader import make_reader

    target, reader = export_session([session], tmp_path / "life.mcap", "mcap"), RecordingReader(session)
    with open(target, "rb") as file:
        mcap = make_reader(file)
        messages = [(channel.topic, message, json.loads(message.data)) for _, channel, message in mcap.iter_messages()]
        metadata = {record.name: record.metadata for record in mcap.iter_metadata()}
    pictures = [content for topic, _, content in messages if topic == "/camera"]
    images = [decoded(base64.b64decode(content["data"])) for content in pictures]
    assert len(images) == 41 and all(np.array_equal(image, reader.image(number)) for number, image in enumerate(images))
    assert {content["format"] for content in pictures} == {"png"}
    deeds = [(message, content) for topic, message, content in messages if topic == "/action"]
    assert [content["executed"] for _, content in deeds] == [dict(reader.moment(number).executed) for number in range(40)]
    assert [message.log_time for message, _ in deeds] == [reader.moment(number).started_ns for number in range(40)]
    assert [content["scores"] for _, content in deeds][:2] == [{}, {"one": 0.25, "two": None}]
    states = [content["state"]["count"]["values"] for topic, _, content in messages if topic == "/state"]
    assert states == [[read(image)[0]] for image in images]
    space = json.loads(metadata[f"session {session.name}"]["action_space"])
    assert space == reader.action_space.to_json() and sum(topic == "/ending" for topic, _, _ in messages) == 1


def test_a_robots_own_jpeg_leaves_as_it_came(tmp_path):
    import io

    from mcap.reader import make_reader
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(write(5, 1, 48)).save(buffer, "JPEG")
    with RecordingWriter.create(tmp_path, "counting", Counting().action_space) as writer:
        writer.record(Ending(Observation(decoded(buffer.getvalue()), buffer.getvalue(), captured_ns=5)))
    with open(export_session([writer.folder], tmp_path / "one.mcap", "mcap"), "rb") as file:
        content = json.loads(next(iter(make_reader(file).iter_messages(topics="/camera")))[2].data)
    assert content["format"] == "jpeg" and base64.b64decode(content["data"]) == buffer.getvalue()


# LeRobot


def test_a_dataset_pairs_each_frame_with_its_own_action(dataset):
    assert check_dataset(dataset) == 40


def test_actions_shifted_by_one_are_found(session, tmp_path, monkeypatch):
    right = lerobot_writer.executed
    monkeypatch.setattr(lerobot_writer, "executed", lambda moments, channels: np.roll(right(moments, channels), 1, axis=0))
    target = export_session([session], tmp_path / "shifted", "lerobot")
    with pytest.raises(AssertionError, match="frames"):
        check_dataset(target)


def test_frames_shifted_by_one_are_found(session, tmp_path, monkeypatch):
    right = video.VideoWriter.add

    def late(self, image):
        shown, self.held = getattr(self, "held", image), image
        right(self, shown)

    monkeypatch.setattr(video.VideoWriter, "add", late)
    with pytest.raises(AssertionError, match="frames"):
        check_dataset(export_session([session], tmp_path / "late", "lerobot"))


@pytest.mark.parametrize("kind", ["lerobot", "mp4"])
def test_a_lost_frame_is_refused_and_leaves_nothing(session, tmp_path, monkeypatch, kind):
    right = video.VideoWriter.add

    def lossy(self, image):
        if self.frames == 5:
            self.frames += 1  # an encoder that is too slow, and says nothing
        else:
            right(self, image)

    monkeypatch.setattr(video.VideoWriter, "add", lossy)
    with pytest.raises(RecordingError, match=r"missing|holds"):
        export_session([session], tmp_path / "lossy", kind)
    assert not list(tmp_path.iterdir())


def test_columns_hold_what_was_recorded(session, dataset):
    columns, _, _ = dataset_of(dataset)
    reader = RecordingReader(session)
    moments = [reader.moment(number) for number in range(40)]
    table = parquet.read_table(next(dataset.glob("data/*/*.parquet")))
    for name in ("observation.t_ns", "action.t_start_ns", "action.t_end_ns", "observation.seq", "action.index", "model.train_steps"):
        assert str(table.schema.field(name).type) == "int64"
    assert columns["observation.t_ns"] == [moment.captured_ns for moment in moments], "LeRobot reads float64 as float32, so times are whole numbers"
    assert columns["action.t_start_ns"] == [moment.started_ns for moment in moments]
    assert columns["action.t_end_ns"] == [moment.ended_ns for moment in moments]
    assert columns["model.train_steps"] == columns["action.index"] == list(range(40))
    info = json.loads((dataset / "meta/info.json").read_text())
    assert info["fps"] == 10 and set(columns) == set(info["features"]) - {CAMERA}
    assert not [name for name in info["features"] if "/" in name]
    for name, row in zip(columns["timestamp"], columns["frame_index"], strict=True):
        assert name == np.float32(row / 10)
    scores = columns["curiosity.uncertainty"]
    asked = [(moment.scores or {}).get("one") if moment.requested["add"] == 1 else None for moment in moments]
    assert [None if np.isnan(score) else score for score in scores] == asked and 0.25 in scores


def test_statistics_are_there_for_every_feature_and_right(dataset):
    columns, episodes, _ = dataset_of(dataset)
    info, stats = (json.loads((dataset / "meta" / name).read_text()) for name in ("info.json", "stats.json"))
    assert set(stats) == set(info["features"])
    for episode in episodes:
        rows = slice(episode["dataset_from_index"], episode["dataset_to_index"])
        for name in info["features"]:
            assert episode[f"stats/{name}/count"] == [episode["length"]]
            assert all(f"stats/{name}/{stat}" in episode for stat in ("min", "max", "mean", "std", "q01", "q10", "q50", "q90", "q99"))
        assert episode["stats/observation.count/q90"] == [np.quantile(columns["observation.count"][rows], 0.9)]
        assert np.array(episode[f"stats/{CAMERA}/mean"]).shape == (3, 1, 1)
    assert stats["action"]["max"] == [2.0] and stats["action"]["mean"] == [np.mean(columns["action"])]
    assert np.isfinite(stats["curiosity.uncertainty"]["mean"]).all()
    assert 0 < stats[CAMERA]["mean"][0][0][0] < 1 and stats[CAMERA]["q99"][2] == [[1.0]] and stats[CAMERA]["min"][1] == [[0.0]]


def test_tasks_are_found_by_name(dataset):
    schema = parquet.read_schema(dataset / "meta/tasks.parquet")
    assert json.loads(schema.metadata[b"pandas"])["index_columns"] == ["task"], "else pandas takes the number for the name"


def test_files_are_begun_anew_at_their_limits(session, tmp_path, monkeypatch):
    monkeypatch.setattr(lerobot_writer, "MOST_SECONDS", 2)  # 20 frames, so that two episodes do not fit
    monkeypatch.setattr(lerobot_writer, "FILES_IN_CHUNK", 2)
    monkeypatch.setattr(lerobot_writer, "DATA_MB", 0)
    target = export_session([session], tmp_path / "seconds", "lerobot")
    assert check_dataset(target) == 40 and [episode["length"] for episode in dataset_of(target)[1]] == [13, 13, 13, 1]
    assert len(list(target.glob("videos/*/*/*.mp4"))) == 3 and (target / f"videos/{CAMERA}/chunk-001/file-000.mp4").is_file()
    assert len(list(target.glob("data/*/*.parquet"))) == 4
    monkeypatch.setattr(lerobot_writer, "MOST_SECONDS", 1000)
    monkeypatch.setattr(lerobot_writer, "VIDEO_MB", 0)
    target = export_session([session], tmp_path / "bytes", "lerobot")
    assert check_dataset(target) == 40 and len(list(target.glob("videos/*/*/*.mp4"))) > 1


def test_several_sessions_make_one_dataset_and_odd_sizes_become_even(tmp_path):
    folders = [record(tmp_path / "s", 9, None, seed, 36, f"s{seed}") for seed in (1, 2)]
    target = export_session(folders, tmp_path / "dataset", "lerobot")
    assert check_dataset(target) == 18
    origins = json.loads((target / "meta/motorbabble.json").read_text())["episodes"]
    assert origins == [{"session": "s1", "moments": [0, 9]}, {"session": "s2", "moments": [0, 9]}]
    odd = np.random.default_rng(0).integers(0, 256, (33, 35, 3), np.uint8)
    with RecordingWriter.create(tmp_path / "s", "odd", Counting().action_space) as writer:
        one = {"add": 1.0}
        writer.record(Step(0, Observation(odd), one, one, Choice(one), 1, 2))
    shape = json.loads((export_session([writer.folder], tmp_path / "odd", "lerobot") / "meta/info.json").read_text())["features"][CAMERA]["shape"]
    assert shape == [34, 36, 3]


def test_a_state_that_is_not_always_there_is_left_out_and_said(tmp_path):
    one, said = {"add": 1.0}, []
    with RecordingWriter.create(tmp_path, "counting", Counting().action_space) as writer:
        for number in range(4):
            state = {"arm": np.full((2, 3), number, np.float64), "t_ns": np.float32(number), "word": np.array(["a"])}
            state |= {"sometimes": np.zeros(3)} if number else {}
            writer.record(Step(number, Observation(write(number, 1), state=state), one, one, Choice(one), number * 10**8, 0))
    target = export_session([writer.folder], tmp_path / "dataset", "lerobot", said.append)
    columns, _, _ = dataset_of(target)
    assert columns["observation.arm"][3] == [[3.0] * 3] * 2 and columns["observation.t_ns_"] == [0, 1, 2, 3]
    assert "observation.sometimes" not in columns and len(said) == 2 and "'sometimes'" in "".join(said) and "'word'" in "".join(said)


def test_what_does_not_fit_one_dataset_is_refused(session, tmp_path):
    with RecordingWriter.create(tmp_path / "s", "counting", Counting().action_space) as writer:
        writer.record(Ending(Observation(write(1, 0, 64))))
    with pytest.raises(RecordingError, match="2 sizes"):
        export_session([session, writer.folder], tmp_path / "x", "lerobot")
    with pytest.raises(RecordingError, match="no row"):
        export_session([writer.folder], tmp_path / "x", "lerobot")
    space = Counting().action_space.discrete([{"left": 1.0}])
    with RecordingWriter.create(tmp_path / "s", "counting", space) as other:
        other.record(Ending(Observation(write(1, 0))))
    with pytest.raises(RecordingError, match=r"left.*one robot"):
        export_session([session, other.folder], tmp_path / "x", "lerobot")
    with pytest.raises(RecordingError, match="one name"):
        export_session([session, session], tmp_path / "x", "png")


# Damage, and everything around an export


@pytest.fixture
def damaged(tmp_path) -> tuple[Path, list[int]]:
    """A session with a flipped bit in the frame of moment 6 and in the line of moment 20."""
    folder = record(tmp_path / "hurt", name="hurt")
    pack, lines = folder / "frames_shard_000.pack", folder / "events_shard_000.jsonl"
    place = RecordingReader(folder).moment(6).frame
    for path, at in ((pack, place.at + place.bytes // 2), (lines, lines.read_bytes().index(b'{"moment":20,') + 40)):
        content = bytearray(path.read_bytes())
        content[at] ^= 4
        path.write_bytes(bytes(content))
    return folder, [6, 20]


@pytest.mark.parametrize("kind", ["lerobot", "png"])
def test_damage_ends_an_episode_and_is_said(damaged, tmp_path, kind):
    folder, lost = damaged
    said: list[str] = []
    target = export_session([folder], tmp_path / "out", kind, said.append)
    assert len(said) == 1 and said[0].endswith("6, 20") and "hurt" in said[0]
    if kind == "lerobot":
        assert check_dataset(target) == 38
        assert [episode["length"] for episode in dataset_of(target)[1]] == [6, 6, 7, 5, 13, 1]
    else:
        assert {int(path.stem[6:]) for path in target.glob("*.png")} == set(range(41)) - set(lost)


@pytest.mark.parametrize("kind", ["lerobot", "mp4", "mcap", "png"])
def test_a_session_is_never_touched_and_may_be_live(session, tmp_path, kind):
    before = fingerprint(session)
    export_session([session], tmp_path / "out", kind)
    assert fingerprint(session) == before
    with RecordingWriter.create(tmp_path / "s", "counting", Counting().action_space) as writer:
        one = {"add": 1.0}
        writer.record(Step(0, Observation(write(1, 0)), one, one, Choice(one), 1, 2))
        export_session([writer.folder], tmp_path / "live", kind)
        writer.record(Ending(Observation(write(2, 1))))
    assert len(RecordingReader(writer.folder)) == 2


@pytest.mark.parametrize("kind", ["lerobot", "mp4", "mcap", "png"])
def test_a_killed_export_is_started_again_and_nothing_is_replaced(session, tmp_path, kind):
    target = tmp_path / "out"
    aside = tmp_path / "out.partial"
    (aside / "out").mkdir(parents=True)
    (aside / "out" / "half").write_text("of it")
    (aside / "motorbabble.lock").touch()
    assert export_session([session], target, kind) == target and not aside.exists()
    if target.is_dir():
        assert not (target / "half").exists()
    with pytest.raises(RecordingError, match="already there"):
        export_session([session], target, kind)


def test_what_others_made_is_never_removed(session, tmp_path):
    aside = tmp_path / "out.partial"
    aside.mkdir()
    (aside / "thesis.txt").write_text("mine")
    with pytest.raises(RecordingError, match="not made by this program"):
        export_session([session], tmp_path / "out", "png")
    assert (aside / "thesis.txt").read_text() == "mine"


def test_two_exports_to_one_place_do_not_meet(session, tmp_path):
    target = tmp_path / "out"
    with made_aside(target, tmp_path / "out.partial") as aside:
        with pytest.raises(RecordingError, match="another process"):
            export_session([session], target, "png")
        (aside / "out").write_text("the first one's")
    assert target.read_text() == "the first one's" and not (tmp_path / "out.partial").exists()


def test_a_failure_leaves_nothing(session, tmp_path, monkeypatch):
    monkeypatch.setattr(lerobot_writer._Dataset, "finish", lambda self, rate: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export_session([session], tmp_path / "out", "lerobot")
    assert not list(tmp_path.iterdir())


def test_a_target_in_the_session_is_refused(session):
    before = fingerprint(session)
    with pytest.raises(RecordingError, match="inside the session"):
        export_session([session], session / "out", "png")
    assert fingerprint(session) == before


def test_an_unknown_kind_and_a_missing_library_are_said(session, tmp_path, monkeypatch):
    with pytest.raises(ConfigurationError, match="lerobot, mp4, mcap, png"):
        export_session([session], tmp_path / "out", "gif")  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigurationError, match=r"needs av.*pip install motorbabble\[export\]"):
        export_session([session], tmp_path / "out", "mp4")
    assert export_session([session], tmp_path / "pictures", "png").is_dir(), "pictures need no library"


def test_nothing_readable_is_said(tmp_path):
    with RecordingWriter.create(tmp_path / "s", "counting", Counting().action_space) as writer:
        pass
    with pytest.raises(RecordingError, match="nothing to export"):
        export_session([writer.folder], tmp_path / "out", "png")
