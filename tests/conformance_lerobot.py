"""Asks LeRobot itself whether it can use a dataset this program wrote. Runs in LeRobot's own environment, which has no motorbabble.

    python tests/conformance_lerobot.py DATASET EXPECTED.npz

EXPECTED holds what every row must be: frames (n, H, W, 3) uint8, action (n, C), t_ns (n,), and length, of each episode. Prints one line
of JSON when all is well; the first thing that is not ends it with an error.
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="lerobot_conformance_")

import lerobot
import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

CAMERA = "observation.images.front"
CODEC_ERROR = 6  # mean absolute error of a frame, out of 255


def picture(tensor) -> np.ndarray:
    """(3, H, W) float in 0..1 as (H, W, 3) in 0..255."""
    return tensor.numpy().transpose(1, 2, 0) * 255


def check_rows(dataset, expected, rows) -> float:
    """Every row's frame, action, time and place; answers the largest error of a frame."""
    worst = 0.0
    episode = np.repeat(np.arange(len(expected["length"])), expected["length"])
    starts = np.cumsum(expected["length"]) - expected["length"]
    for row in rows:
        item = dataset[int(row)]
        error = float(np.abs(picture(item[CAMERA]) - expected["frames"][row]).mean())
        assert error < CODEC_ERROR, f"row {row} shows another frame: mean error {error}"
        worst = max(worst, error)
        assert np.array_equal(np.atleast_1d(item["action"].numpy()), expected["action"][row]), f"row {row} has another action"
        assert item["observation.t_ns"].dtype.is_floating_point is False and item["observation.t_ns"].item() == expected["t_ns"][row]
        assert item["episode_index"].item() == episode[row] and item["frame_index"].item() == row - starts[episode[row]]
        assert isinstance(item["task"], str) and item["task"]
    return worst


def check_windows(root, expected) -> None:
    """The frame before, this one and the next, and the actions of both, with padding at an episode's edges."""
    fps = LeRobotDataset("local/exported", root=root).meta.fps
    dataset = LeRobotDataset("local/exported", root=root, delta_timestamps={CAMERA: [-1 / fps, 0, 1 / fps], "action": [0, 1 / fps]})
    ends = np.cumsum(expected["length"])
    for row in {0, 1, int(ends[0]) - 1, int(ends[-1]) - 1}:
        item = dataset[row]
        start = int(max([0, *ends[ends <= row]]))
        end = int(ends[ends > row][0])
        for place, other in enumerate((row - 1, row, row + 1)):
            outside = not start <= other < end
            assert bool(item[f"{CAMERA}_is_pad"][place]) == outside, f"window at row {row}"
            error = np.abs(picture(item[CAMERA][place]) - expected["frames"][min(max(other, start), end - 1)]).mean()
            assert error < CODEC_ERROR, f"window at row {row} shows another frame at {place}"
        assert np.array_equal(item["action"].numpy().reshape(2, -1)[0], expected["action"][row])


def check_statistics(dataset) -> None:
    wanted = {"min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99"}
    assert set(dataset.meta.stats) == set(dataset.meta.features), set(dataset.meta.stats) ^ set(dataset.meta.features)
    assert all(set(stats) == wanted for stats in dataset.meta.stats.values())
    assert dataset.meta.stats[CAMERA]["mean"].shape == (3, 1, 1)


def check_adding(root, expected) -> int:
    """LeRobot adds an episode of its own to a copy; ours stay what they were."""
    copy = Path(os.environ["HF_HOME"]) / "copy"
    shutil.copytree(root, copy)
    dataset = LeRobotDataset.resume("local/exported", root=copy)
    for number in range(5):
        frame: dict = {"task": "something else"}
        for name, feature in dataset.meta.features.items():
            if name in ("timestamp", "frame_index", "episode_index", "index", "task_index"):
                continue
            if feature["dtype"] == "video":
                frame[name] = np.full(feature["shape"], 40 * number, np.uint8)
            else:
                frame[name] = np.full(feature["shape"], number, feature["dtype"])
        dataset.add_frame(frame)
    dataset.save_episode()
    dataset.finalize()
    again = LeRobotDataset("local/exported", root=copy)
    before = len(expected["frames"])
    assert len(again) == before + 5 and again.num_episodes == len(expected["length"]) + 1
    assert again[before + 4]["task"] == "something else" and again[before + 4]["action"].numpy().ravel()[0] == 4
    check_rows(again, expected, [0, before - 1])
    return len(again)


def main(root: str, file: str) -> None:
    expected = np.load(file)
    dataset = LeRobotDataset("local/exported", root=root)
    rows = len(expected["frames"])
    assert len(dataset) == rows, f"{len(dataset)} rows, not {rows}"
    assert dataset.num_episodes == len(expected["length"])
    spread = np.linspace(0, rows - 1, 150).round().astype(int)
    worst = check_rows(dataset, expected, np.union1d(spread, np.arange(max(rows - 50, 0), rows)))
    check_windows(root, expected)
    check_statistics(dataset)
    only = LeRobotDataset("local/exported", root=root, episodes=[dataset.num_episodes - 1])
    assert len(only) == expected["length"][-1]
    added = check_adding(root, expected)
    print(json.dumps({"lerobot": lerobot.__version__, "rows": rows, "episodes": dataset.num_episodes, "worst_error": worst, "after_adding": added}))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    finally:
        shutil.rmtree(os.environ["HF_HOME"], ignore_errors=True)
