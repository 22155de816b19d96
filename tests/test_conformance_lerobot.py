"""LeRobot's own loader on datasets of ours, in its own environment: it cannot be installed beside a current torch. docs/exports.md has the recipe."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from counting import Counting, write
from test_exports import record

from motorbabble.exchange.exports import export_session
from motorbabble.experience import Choice, Observation, Step
from motorbabble.recording.reader import RecordingReader
from motorbabble.recording.writer import RecordingWriter

PYTHON = os.environ.get("MOTORBABBLE_LEROBOT_PYTHON") or (sys.executable if importlib.util.find_spec("lerobot") else None)
pytestmark = pytest.mark.skipif(
    PYTHON is None,
    reason="LeRobot itself was not asked whether it loads our datasets: install it into an environment of its own, as docs/exports.md says, "
    "and set MOTORBABBLE_LEROBOT_PYTHON to that environment's python",
)


def ask(dataset: Path, expected: dict) -> subprocess.CompletedProcess:
    file = dataset.parent / "expected.npz"
    np.savez(file, **expected)
    script = Path(__file__).with_name("conformance_lerobot.py")
    return subprocess.run([str(PYTHON), str(script), str(dataset), str(file)], capture_output=True, text=True, timeout=300)


def expected_of(folder: Path, lengths: list[int]) -> dict:
    reader = RecordingReader(folder)
    moments = [moment for moment in map(reader.moment, range(len(reader))) if moment.is_step]
    actions = np.array([list(moment.executed.values()) for moment in moments], np.float32)
    frames = np.stack([reader.image(moment.moment) for moment in moments])
    return {"frames": frames, "action": actions, "t_ns": np.array([moment.captured_ns for moment in moments]), "length": np.array(lengths)}


@pytest.fixture
def exported(tmp_path) -> tuple[Path, dict]:
    folder = record(tmp_path / "s", name="counted")
    return export_session([folder], tmp_path / "dataset", "lerobot"), expected_of(folder, [13, 13, 13, 1])


def test_lerobot_loads_serves_windows_and_adds_an_episode(exported):
    answer = ask(*exported)
    assert answer.returncode == 0, answer.stderr[-3000:]
    told = json.loads(answer.stdout.splitlines()[-1])
    assert told["rows"] == 40 and told["episodes"] == 4 and told["after_adding"] == 45
    print(f"LeRobot {told['lerobot']}: {told['rows']} rows in {told['episodes']} episodes, frames within {told['worst_error']:.1f} of 255")


def test_the_question_can_be_answered_with_no(exported):
    dataset, expected = exported
    answer = ask(dataset, {**expected, "action": np.roll(expected["action"], 1, axis=0)})
    assert answer.returncode != 0 and "has another action" in answer.stderr


def long(root: Path, lengths: list[int]) -> tuple[Path, dict]:
    """Episodes of these lengths at 3 frames a second, with two channels and a matrix as state."""
    space = Counting().action_space.discrete([{"left": 0.0, "right": 0.5}, {"left": 1.0, "right": 0.25}])
    with RecordingWriter.create(root / "s", "long", space) as writer:
        for number in range(sum(lengths)):
            action, at = space.candidates()[number % 2], 10**9 + number * 10**9 // 3
            episode = int(np.searchsorted(np.cumsum(lengths), number, side="right"))
            seen = Observation(write(number, 1, 64), captured_ns=at, episode=episode, state={"arm": np.full((2, 3), number, np.float64)})
            writer.record(Step(number, seen, action, action, Choice(action), at, 0))
    return export_session([writer.folder], root / "dataset", "lerobot"), expected_of(writer.folder, lengths)


def test_several_channels_and_matrices_load(tmp_path):
    answer = ask(*long(tmp_path, [20, 12]))
    assert answer.returncode == 0, answer.stderr[-3000:]


@pytest.mark.soak
def test_lerobot_finds_frames_behind_its_float32_limit(tmp_path):
    """100 s and then 1,000 s: in one video LeRobot would miss the times of many frames behind 1,024 s."""
    answer = ask(*long(tmp_path, [300, 3000]))
    assert answer.returncode == 0, answer.stderr[-3000:]
