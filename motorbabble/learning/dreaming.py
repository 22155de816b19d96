"""A checkpoint's dream: the world model saved there as a robot, begun from frames of the sessions it learned from."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from motorbabble.errors import ConfigurationError, RecordingError, SessionDamaged
from motorbabble.experience import ActionSpace, Window
from motorbabble.learning.checkpoint import Checkpoints, find_checkpoint
from motorbabble.learning.state import mind_from
from motorbabble.recording.reader import RecordingReader
from motorbabble.recording.shelf import find_session
from motorbabble.world_models.dream import DreamConfig, DreamRobot


def dream_from(config: DreamConfig, seed: int = 0) -> DreamRobot:
    """The dream that a configuration describes; `seed` says with which beginnings.

    ConfigurationError where no checkpoint, or no session to begin from, can be found; CheckpointMismatch where this program does not know its model.
    """
    if not config.checkpoint:
        raise ConfigurationError("no checkpoint to dream with was named; give --robot.checkpoint ROBOT_TYPE/NAME (babble checkpoints list shows all)")
    folder = find_checkpoint(config.checkpoint, config.checkpoints)
    loaded = Checkpoints(folder).load()
    assert loaded
    manifest = Checkpoints(folder).manifest(loaded.generation)
    robot_type, space = str(manifest["robot_type"]), ActionSpace.from_json(manifest["action_space"])
    model = mind_from(folder, robot_type, space)
    readers = [_session(config, space)] if config.session else list(_learned_from(loaded.state, robot_type, config.sessions))
    beginnings = list(_spread(readers, model.history, config.beginnings))
    if not beginnings:
        none = f"session {config.session} holds no step" if config.session else f"no session that {folder.name} learned from is in {config.sessions}"
        raise ConfigurationError(f"{none}, so its dream has nothing to begin from; give --robot.session SESSION, or --robot.sessions FOLDER")
    return DreamRobot(model, space, beginnings, config.episode_steps, seed, robot_type)


def _session(config: DreamConfig, space: ActionSpace) -> RecordingReader:
    reader = RecordingReader(find_session(config.session, config.sessions))
    if reader.action_space.fingerprint != space.fingerprint:
        raise ConfigurationError(
            f"session {reader.name} is of {reader.robot_type} with actions {reader.action_space}, the checkpoint knows {space}; "
            "choose a session of the robot that it learned from"
        )
    return reader


def _learned_from(state: Mapping[str, Any], robot_type: str, sessions: Path) -> Iterator[RecordingReader]:
    """Those of a life, or of a training, that are still there."""
    names = [name for name, _ in state["training"]["sources"]] if "training" in state else state["remembered"]
    for name in names:
        try:
            yield RecordingReader(find_session(f"{robot_type}/{name}", sessions))
        except RecordingError:
            continue


def _spread(readers: list[RecordingReader], length: int, most: int) -> Iterator[Window]:
    """At most `most` windows of `length` frames, or of as many as there are, that end where something was done."""
    ends = [
        (reader, stretch.start, number) for reader in readers for stretch in reader.stretches for number in stretch if reader.moment(number).is_step
    ]
    for place in np.unique(np.linspace(0, len(ends) - 1, min(most, len(ends))).round().astype(int)) if ends else ():
        reader, start, number = ends[place]
        first = max(start, number - length + 1)
        try:
            yield reader.window(first, number - first + 1)
        except SessionDamaged:
            continue
