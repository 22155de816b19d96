"""Sessions for other people's programs: a LeRobotDataset, one video, an MCAP file, or plain pictures. docs/exports.md describes each.

An export reads and never touches a session, is made aside and appears whole, and replaces nothing: a killed one is simply started
again. What is damaged ends an episode and is said, never guessed.
"""

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from motorbabble.errors import ConfigurationError, RecordingError
from motorbabble.exchange.aside import check_absent, made_aside
from motorbabble.exchange.episodes import Episode, episodes_of, frame_rate, nominal, one_size, when
from motorbabble.exchange.extras import extra
from motorbabble.exchange.lerobot_writer import write_dataset
from motorbabble.exchange.video import VideoWriter
from motorbabble.experience import Observation
from motorbabble.recording.format import to_png
from motorbabble.recording.reader import Moment, RecordingReader

Kind = Literal["lerobot", "mp4", "mcap", "png"]


def export_session(folders: list[Path], target: Path, kind: Kind, tell: Callable[[str], None] = print) -> Path:
    """Write these sessions to `target` (a folder for lerobot and png, else a file), and answer it.

    `tell` hears, in sentences, what was left out. Raises RecordingError when `target` exists or nothing can be read,
    ConfigurationError when a library is missing; nothing is left behind then.
    """
    folders, target = [Path(folder) for folder in folders], Path(target)
    if kind not in _WRITERS:
        raise ConfigurationError(f"there is no export of kind {kind!r}; choose one of {', '.join(_WRITERS)}")
    write, libraries = _WRITERS[kind]
    for library in libraries:
        extra(library)
    check_absent(target)
    inside = next((folder for folder in folders if folder.resolve() in (target.resolve(), *target.resolve().parents)), None)
    if inside is not None:
        raise RecordingError(f"{target} lies inside the session {inside}, which exports never touch; give a target elsewhere")
    episodes, said = episodes_of(folders)
    with made_aside(target, target.with_name(target.name + ".partial")) as aside:
        said += write(aside / target.name, episodes) or []
    for sentence in said:
        tell(sentence)
    return target


def _write_pictures(target: Path, episodes: list[Episode]) -> None:
    """frame_NNNNNN.png, named by the moment, and actions.jsonl; of several sessions in a folder each."""
    names = {episode.reader.name for episode in episodes}
    for number, (reader, numbers) in enumerate(episodes):
        folder = target / reader.name if len(names) > 1 else target
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "actions.jsonl", "a", encoding="utf-8") as lines:
            for moment in map(reader.moment, numbers):
                name = f"frame_{moment.moment:06d}.png"
                (folder / name).write_bytes(to_png(reader.image(moment.moment)))
                lines.write(json.dumps({"frame": name, "episode": number, **_told(reader, moment)}) + "\n")


def _write_video(target: Path, episodes: list[Episode]) -> None:
    """Every frame of every session, end to end."""
    fps = nominal(frame_rate(episodes))
    video = VideoWriter(target, fps, *one_size(episodes), keyframe_every=max(fps, 1))
    try:
        for reader, numbers in episodes:
            for number in numbers:
                video.add(reader.image(number))
    except BaseException:
        video.abandon()
        raise
    video.close()


def _write_mcap(target: Path, episodes: list[Episode]) -> None:
    writer = extra("mcap.writer").Writer(str(target))
    writer.start(profile="", library="motorbabble")
    channels = {}
    for topic, (name, schema) in _TOPICS.items():
        known = writer.register_schema(name=name, encoding="jsonschema", data=json.dumps(schema).encode())
        channels[topic] = writer.register_channel(topic=topic, message_encoding="json", schema_id=known)
    written = 0
    for number, (reader, numbers) in enumerate(episodes):
        for moment in map(reader.moment, numbers):
            for topic, at, content in _messages(number, moment, reader.observation(moment.moment), reader):
                at = max(at, 0)
                writer.add_message(channels[topic], log_time=at, publish_time=at, sequence=moment.moment, data=json.dumps(content).encode())
                written += 1
    for reader in {episode.reader.name: episode.reader for episode in episodes}.values():
        about = {"robot_type": reader.robot_type, "action_space": json.dumps(reader.action_space.to_json())}
        writer.add_metadata(f"session {reader.name}", about)
    writer.finish()
    with open(target, "rb") as file:
        summary = extra("mcap.reader").make_reader(file).get_summary()
    if summary is None or summary.statistics is None or summary.statistics.message_count != written:
        raise RecordingError(f"{target.name} does not hold the {written} messages that were written; the export is given up, try it again")


def _messages(episode: int, moment: Moment, seen: Observation, reader: RecordingReader) -> list[tuple[str, int, dict[str, Any]]]:
    """(topic, nanoseconds, content) of one moment; the action comes behind the frame from which it was done."""
    picture = seen.encoded if moment.frame.codec == "jpeg" and seen.encoded is not None else to_png(seen.image)
    stamp = {"sec": when(moment) // 10**9, "nsec": when(moment) % 10**9}
    image = {"timestamp": stamp, "frame_id": reader.robot_type, "format": "jpeg" if picture[:2] == b"\xff\xd8" else "png"}
    found = [("/camera", when(moment), {**image, "data": base64.b64encode(picture).decode()})]
    if seen.state:
        state = {
            name: {"dtype": value.dtype.str, "shape": list(value.shape), "values": _plain(value.ravel().tolist())}
            for name, value in seen.state.items()
        }
        found.append(("/state", when(moment), {"moment": moment.moment, "episode": episode, "state": state}))
    told = {"episode": episode, "session": reader.name, **_told(reader, moment)}
    return [*found, ("/action" if moment.is_step else "/ending", moment.started_ns or when(moment), told)]


def _told(reader: RecordingReader, moment: Moment) -> dict[str, Any]:
    """What is known of a moment, for people and programs that read JSON."""
    seen = {"moment": moment.moment, "kind": moment.kind, "sequence": moment.sequence, "captured_ns": moment.captured_ns}
    if not moment.is_step:
        return seen
    names = ("index", "requested", "executed", "started_ns", "ended_ns", "monotonic_ns", "scores", "why", "gate", "updates")
    return {**seen, "label": reader.action_space.label(moment.executed), **{name: _plain(getattr(moment, name)) for name in names}}


def _plain(value: Any) -> Any:
    """NaN and infinity are no JSON."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value if not isinstance(value, float) or abs(value) < float("inf") else None


_DEED = {"type": "object", "properties": {"moment": {"type": "integer"}, "episode": {"type": "integer"}, "executed": {"type": "object"}}}
_TOPICS = {
    "/camera": (
        "foxglove.CompressedImage",
        {
            "title": "foxglove.CompressedImage",
            "type": "object",
            "properties": {
                "timestamp": {"type": "object", "title": "time", "properties": {"sec": {"type": "integer"}, "nsec": {"type": "integer"}}},
                "frame_id": {"type": "string"},
                "data": {"type": "string", "contentEncoding": "base64"},
                "format": {"type": "string"},
            },
        },
    ),
    "/action": ("motorbabble.Action", _DEED),
    "/ending": ("motorbabble.Ending", _DEED),
    "/state": ("motorbabble.State", {"type": "object", "properties": {"moment": {"type": "integer"}, "state": {"type": "object"}}}),
}
_WRITERS: dict[str, tuple[Callable[[Path, list[Episode]], list[str] | None], tuple[str, ...]]] = {
    "lerobot": (write_dataset, ("pyarrow", "av")),
    "mp4": (_write_video, ("av",)),
    "mcap": (_write_mcap, ("mcap.writer",)),
    "png": (_write_pictures, ()),
}
