"""How much slower is an update when its windows come from disk? `python tests/disk_training.py` prints the ratio and its spread.

Pairs of updates, one with windows decoded from a recorded session (nothing kept in memory, so every frame is decoded every time),
one with the same kind of windows from a list, in random order within each pair; both by the same learner.
"""

import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import torch

from motorbabble.experience import Window
from motorbabble.learning.learner import Learner, LearnerConfig
from motorbabble.learning.windows import Part, SessionWindows
from motorbabble.life import live
from motorbabble.recording.reader import RecordingReader
from motorbabble.recording.recorder import Recorder
from motorbabble.robots.toroidal_dot import ToroidalDotConfig, ToroidalDotRobot
from motorbabble.selectors import RandomSelector
from motorbabble.world_models.latent import LatentWorldModel

BATCH = 4


def ratio(pairs: int = 20, image_size: int = 224, steps: int = 200) -> float:
    """disk seconds / memory seconds per update, the median over pairs. The world model is the tiny preset."""
    return float(np.median(ratios(pairs, image_size, steps)))


def ratios(pairs: int, image_size: int = 224, steps: int = 200) -> list[float]:
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        windows = SessionWindows([Part.whole(recorded(Path(folder), image_size, steps))], length=3, memory_mb=0)
        in_memory = windows.spread(steps)
        model = LatentWorldModel((image_size, image_size), windows.action_space.size)
        learner, background = Learner(model, LearnerConfig(batch_size=BATCH)), windows.background()
        rng = np.random.default_rng(0)

        def from_memory() -> Iterator[list[Window]]:
            while True:
                yield [in_memory[i] for i in rng.integers(len(in_memory), size=BATCH)]

        with closing(windows.batches(0, BATCH)) as from_disk:
            sources = {"disk": from_disk, "memory": from_memory()}
            for _ in range(2):  # warm up
                learner.update(next(from_disk), background=background)
            found = []
            for _ in range(pairs):
                seconds = {name: seconds_of(learner, sources[name], background) for name in rng.permutation(list(sources))}
                found.append(seconds["disk"] / seconds["memory"])
        return found


def seconds_of(learner: Learner, source: Iterator[list[Window]], background: np.ndarray) -> float:
    began = time.perf_counter()
    learner.update(next(source), background=background)
    return time.perf_counter() - began


def recorded(folder: Path, image_size: int, steps: int) -> RecordingReader:
    with (
        ToroidalDotRobot(ToroidalDotConfig(image_size=image_size), seed=0) as robot,
        Recorder(folder, robot.robot_type, robot.action_space) as recorder,
    ):
        for event in live(robot, RandomSelector(0), steps=steps):
            recorder(event)
    return RecordingReader(folder / recorder.session)


if __name__ == "__main__":
    torch.set_num_threads(1)
    low, middle, high = np.percentile(ratios(20), (25, 50, 75))
    print(f"{middle:.3f} (quartiles {low:.3f} and {high:.3f})")
