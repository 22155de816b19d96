"""What one process of several learns, for test_training.py: the same batches, shared, in processes that are started afresh."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import torch
import torch.distributed as dist
from exams import squares
from test_canvas import small as small_canvas
from test_latent import small

from motorbabble.learning.learner import Learner, LearnerConfig
from motorbabble.learning.schedule import ScheduleConfig
from motorbabble.world_models.base import WorldModel, this_process

UPDATES, CANVAS_UPDATES, BATCH = 30, 12, 4
RATE = ScheduleConfig(learning_rate=2e-3, warmup_steps=15)


def learned(updates: int = UPDATES, own_chance: bool = False, make: Callable[[], WorldModel] = small) -> tuple[list[dict[str, float]], list[float]]:
    """Losses of every update, and all weights afterwards, trained then averaged. `own_chance`: a fault, each process draws for itself."""
    rank, processes = this_process()
    torch.manual_seed(rank)  # they must become alike all the same
    learner = Learner(make(), LearnerConfig(batch_size=BATCH, schedule=RATE), seed=rank if own_chance else 0)
    windows = [squares(3, seed=seed) for seed in range(12)]
    background = torch.zeros(32, 32, 3).numpy()
    losses = []
    for update in range(updates):
        batch = [windows[(update * BATCH + i) * 5 % 12] for i in range(BATCH)]
        share = BATCH // processes
        losses.append(learner.update(batch[rank * share :][:share], background=background))
    models = (learner.trained, learner.world_model)
    return losses, [float(x) for model in models for x in torch.nn.utils.parameters_to_vector(model.parameters()).detach()]


def main(rank: int, processes: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=processes)
    results = {"honest": learned(), "canvas": learned(CANVAS_UPDATES, make=small_canvas), "own chance": learned(3, own_chance=True)}
    with patch("motorbabble.world_models.losses.over_processes", torch.Tensor.detach):
        results["own normalisers"] = learned(3)
    (folder / f"{rank}.json").write_text(json.dumps(results))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
