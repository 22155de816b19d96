"""The process that learns beside a robot, and what goes through the pipe between the two.

It is a plain Learner whose gate never opens: it studies its newest look, at most `beside_updates` times, posts the weights that act after
each update, and rests when nothing new comes. When the pipe ends, so does the process, whatever it is doing: nothing outlives a parent that
was killed.

Through the pipe go plain values and arrays. Tensors would bring shared memory of torch's own, of which small machines have little.
"""

import copy
import os
import signal
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from motorbabble.experience import Study
from motorbabble.learning.board import Board
from motorbabble.learning.learner import Learner, LearnerConfig
from motorbabble.learning.replay import Replay
from motorbabble.learning.state import counters_of, grow_as_saved, load_counters, load_optimizer, load_weights, optimizer_of, weights_of
from motorbabble.world_models.base import WorldModel

TOLD = (signal.SIGINT, signal.SIGTERM)  # to all of a group, by Ctrl+C, `timeout` or systemd: the parent still has to save what is learned here
Numbers = tuple[list[tuple[str, str, str]], bool | None, np.ndarray]  # where it belongs, whether it learns, what it is


def main(pipe: Connection, board: Board) -> None:
    """Learn until the pipe ends. Whatever goes wrong is the last thing that is said."""
    for number in TOLD:
        signal.signal(number, signal.SIG_IGN)
    inbox: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=listen, args=(pipe, inbox), daemon=True).start()
    try:
        _serve(pipe, board, inbox)
    except BaseException as error:
        with suppress(OSError):
            pipe.send(("failed", as_told(error), 0))


def as_told(error: BaseException) -> tuple[str, str, str]:
    """An error that was just caught, as another process hears of it: its name, its words, where it came from."""
    return type(error).__name__, " ".join(str(error).split()), "".join(traceback.format_exception(error))


def listen(pipe: Connection, inbox: "SimpleQueue[Any]") -> None:
    """Whatever comes; when nothing can come any more, this process ends, whatever else it is doing."""
    try:
        while True:
            inbox.put(pipe.recv())
    except (EOFError, OSError):
        os._exit(0)
    except BaseException as error:  # what came cannot be understood here
        inbox.put(error)


def _serve(pipe: Connection, board: Board, inbox: "SimpleQueue[Any]") -> None:
    learner: Learner | None = None
    studies: Iterator[Study] = iter(())
    resting = True
    while True:
        here = inbox.qsize()  # and no more: a robot may be faster than it can be listened to
        while resting or here > 0:
            message, here = inbox.get(), here - 1
            if isinstance(message, BaseException):
                raise message
            if message[0] == "begin":
                learner = _learner(*message[1:])
            assert learner
            if message[0] == "look":
                learner.keep(*message[1:])
                studies, resting = learner.study(), False
            elif message[0] == "gather":
                pipe.send(("state", state_of(learner), 0))
        assert learner
        if (study := next(studies, None)) is None:
            pipe.send(("rested", None, learner.replay.moments))
            resting = True
            continue
        resting = study.gate == "diverged"  # for good: the loop ends when it hears of it
        news = {"levels": learner.levels.state_dict(), "surprise": learner.surprise.state_dict(), "counters": counters_of(learner)}
        board.post(learner.world_model, news)
        pipe.send(("studied", study, learner.replay.moments))


def _learner(model: Any, config: LearnerConfig, device: torch.device, threads: int, state: Mapping[str, Any], replay: Replay) -> Learner:
    """One whose gate never opens."""
    torch.set_num_threads(threads)
    most = config.beside_updates
    forever = replace(config.gate, reconstruction_skill=float("inf"), max_updates=most, max_seconds=float("inf"), patience=most + 1)
    learner = Learner(filled(*model).to(device), replace(config, updates_per_step=most, gate=forever))
    load(learner, state)
    learner.replay = replay
    return learner


# What goes through the pipe


def state_of(learner: Learner) -> dict[str, Any]:
    """All that it is but the replay, which both sides keep."""
    return {
        "weights": {file: _arrays(tensors) for file, tensors in weights_of(learner).items()},
        "optimizer": _arrays(optimizer_of(learner)),
        "counters": counters_of(learner),
        "levels": copy.deepcopy(learner.levels.state_dict()),
        "surprise": learner.surprise.state_dict(),
        "generator": learner.rng.bit_generator.state,
    }


def load(learner: Learner, state: Mapping[str, Any]) -> None:
    grow_as_saved(learner, state)
    learner.levels.load_state_dict(state["levels"])
    learner.surprise.load_state_dict(state["surprise"])
    load_counters(learner, state["counters"])
    learner.rng.bit_generator.state = state["generator"]
    load_optimizer(learner, _tensors(state["optimizer"]))
    load_weights(learner, {file: _tensors(arrays) for file, arrays in state["weights"].items()})


def _arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in tensors.items()}


def _tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def stripped(model: WorldModel) -> tuple[WorldModel, list[Numbers]]:
    """A copy of the model without its numbers, and those; some belong to several places."""
    bare, numbers = copy.deepcopy(model), {}
    for name, module in bare.named_modules():
        for kind in ("_parameters", "_buffers"):
            for key, tensor in getattr(module, kind).items():
                if tensor is not None:
                    learns = tensor.requires_grad if isinstance(tensor, nn.Parameter) else None
                    numbers.setdefault(tensor, ([], learns, tensor.detach().cpu().numpy()))[0].append((name, kind, key))
                    getattr(module, kind)[key] = None
    return bare, list(numbers.values())


def filled(model: WorldModel, numbers: list[Numbers]) -> WorldModel:
    for places, learns, array in numbers:
        tensor = torch.from_numpy(array.copy())
        tensor = tensor if learns is None else nn.Parameter(tensor, learns)
        for name, kind, key in places:
            getattr(model.get_submodule(name), kind)[key] = tensor
    return model
