"""What comes with the explorer: small, good at what it shows, loaded like anything else, and never written to."""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from motorbabble.analysis.moments import predict, reconstruct, sweep
from motorbabble.explorer import places as places_module
from motorbabble.explorer.places import Places
from motorbabble.learning.checkpoint import Checkpoints
from motorbabble.learning.lesson import Lesson, LessonConfig
from motorbabble.learning.state import mind_from
from motorbabble.recording.health import check
from motorbabble.recording.reader import RecordingReader

STARTER = Path(places_module.__file__).parent / "starter"
NAME = "starter/dot-on-a-ring"
WRITTEN: list[str] = []  # below STARTER
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.chmod", "os.utime", "os.truncate", "os.link", "os.symlink")


def watch(event: str, arguments: tuple) -> None:
    is_write = event in CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING)
    if is_write and str(STARTER) in str(arguments[0]):
        WRITTEN.append(f"{event} {arguments[0]}")


sys.addaudithook(watch)


@pytest.fixture
def places(tmp_path) -> Places:
    return Places(tmp_path / "sessions", tmp_path / "checkpoints")


def test_a_first_visit_finds_a_session_and_a_mind_for_it(places):
    ((name, entry),) = places.sessions()
    assert name == NAME and entry.state == "closed" and not entry.why
    assert places.checkpoints() == places.checkpoints("toroidal_dot") == [NAME]
    assert places.checkpoints("jetbot") == []
    assert places.mind(NAME, places.session(NAME)).action_size == places.session(NAME).action_space.size


def test_every_moment_is_whole_and_nothing_tells_of_whoever_made_it(places):
    reader = places.session(NAME)
    assert len(reader) == 151 and not reader.damaged() and check(reader.folder).is_intact
    told = b"".join(path.read_bytes() for path in STARTER.rglob("*.json*"))
    assert b"/home" not in told and b"/root" not in told and b"/tmp" not in told


def test_it_is_small():
    assert sum(path.stat().st_size for path in STARTER.rglob("*") if path.is_file()) < 4.5e6
    assert not list(STARTER.rglob("*.lock"))


def test_it_predicts_what_it_shows(places):
    reader, mind = places.session(NAME), places.mind(NAME, places.session(NAME))
    found = [predict(mind, reader, moment) for moment in range(5, 150, 12)]
    moved = [one for one in found if one.copy_error > 0]
    assert 1 - sum(one.error for one in moved) / sum(one.copy_error for one in moved) > 0.95
    assert sweep(mind, reader, 75).closest.is_recorded  # type: ignore[union-attr]
    assert reconstruct(mind, reader, 75).skill > 0.5  # type: ignore[operator]


def test_it_can_be_taught_and_what_is_shipped_stays_as_it_is(places, tmp_path):
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(STARTER.rglob("*")) if path.is_file()}
    WRITTEN.clear()
    reader, folder = places.session(NAME), places.checkpoint(NAME)
    lesson = Lesson(reader, range(40, 41), LessonConfig("autoencoder", updates=1, batch_size=1, measure_windows=1), folder)
    assert len(list(lesson)) >= 1
    lesson.save(tmp_path / "checkpoints" / "toroidal_dot" / "taught")
    assert set(places.checkpoints()) == {NAME, "toroidal_dot/taught"}
    assert not WRITTEN
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(STARTER.rglob("*")) if path.is_file()} == before


def test_a_write_to_it_would_be_noticed():
    WRITTEN.clear()
    with pytest.raises(FileNotFoundError):
        os.remove(STARTER / "no such file")
    with pytest.raises(IsADirectoryError):
        (STARTER / "sessions").open("w")
    assert len(WRITTEN) == 2


def test_a_read_only_folder_is_enough(tmp_path):
    """As an installation is to those who did not make it. (Nobody is kept from writing who may do anything; the test above looks closer.)"""
    shutil.copytree(STARTER, tmp_path / "starter")
    for path in [*(tmp_path / "starter").rglob("*"), tmp_path / "starter"]:
        path.chmod(0o500 if path.is_dir() else 0o400)
    try:
        places = Places(tmp_path / "s", tmp_path / "c", tmp_path / "starter")
        assert places.mind(NAME, places.session(NAME)) is places.mind(NAME, places.session(NAME))
    finally:
        for path in [tmp_path / "starter", *(tmp_path / "starter").rglob("*")]:
            path.chmod(0o700)


def test_weights_in_half_precision_are_read_as_the_numbers_they_are():
    folder = next((STARTER / "checkpoints" / "toroidal_dot").iterdir())
    reader = RecordingReader(next((STARTER / "sessions" / "toroidal_dot").iterdir()))
    stored = Checkpoints(folder).load().tensors["autoencoder"]  # type: ignore[union-attr]
    weights = mind_from(folder, reader.robot_type, reader.action_space).state_dict()
    assert any(tensor.dtype == torch.float16 for tensor in stored.values())
    for name, tensor in stored.items():
        mine = weights[name.partition("/")[2]]
        assert mine.dtype != torch.float16 and np.array_equal(mine.numpy(), tensor.to(mine.dtype).numpy())
