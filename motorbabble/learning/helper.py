"""Helper: what one of the further processes of a Spread learner does (spread.py): its share of each update, as it is told.

It is a plain Learner that remembers nothing and averages nothing. All chance is the first one's: the state of its generator comes with each message.
"""

import gc
import os
import signal
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from motorbabble.experience import Window
from motorbabble.learning.learner import Learner, LearnerConfig
from motorbabble.learning.process import TOLD, as_told, filled, listen, load
from motorbabble.learning.replay import Remembered

STUCK = timedelta(minutes=5)  # that one waits for the others within an update
Drawn = tuple[list[int], np.ndarray]  # a window: where its frames are, and its actions


def help_out(pipe: Connection) -> None:
    """Until it is told to end, or the pipe ends. Whatever goes wrong is the last thing that is said."""
    for number in TOLD:
        signal.signal(number, signal.SIG_IGN)
    inbox: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=listen, args=(pipe, inbox), daemon=True).start()
    try:
        _serve(pipe, inbox)
    except BaseException as error:
        with suppress(OSError):
            pipe.send(as_told(error))


def meet(device: torch.device, rank: int, processes: int, meeting: Path) -> None:
    """Become one of so many, who meet in that file of this machine."""
    loopback = [name for _, name in socket.if_nameindex() if name.startswith("lo")]
    for library in ("GLOO", "NCCL") if loopback else ():
        os.environ.setdefault(f"{library}_SOCKET_IFNAME", loopback[0])
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo", init_method=f"file://{meeting}", rank=rank, world_size=processes, timeout=STUCK
    )


def _serve(pipe: Connection, inbox: "SimpleQueue[Any]") -> None:
    learner = _begin(pipe, *_next(inbox))
    frames: dict[int, np.ndarray] = {}
    while (message := _next(inbox))[0] != "end":
        what, *told = message
        if what == "load":
            load(learner, *told)
        elif what == "grow":
            learner.rng.bit_generator.state = told[0]
            learner.grow()
        elif what == "retire":
            learner.retire()
        elif what == "update":
            _update(learner, frames, *told)
    del learner
    gc.collect()  # what was tied to the group holds it, and its threads
    dist.destroy_process_group()


def _next(inbox: "SimpleQueue[Any]") -> Any:
    message = inbox.get()
    if isinstance(message, BaseException):
        raise message
    return message


def _begin(pipe: Connection, model: Any, config: LearnerConfig, name: str, threads: int, rank: int, processes: int, meeting: Path) -> Learner:
    torch.set_num_threads(threads)
    device = torch.device(name)
    made = filled(*model).to(device)
    pipe.send(None)
    meet(device, rank, processes, meeting)
    return Learner(made, config)


def _update(
    learner: Learner,
    frames: dict[int, np.ndarray],
    generator: Mapping[str, Any],
    mean: np.ndarray,
    new: Mapping[int, np.ndarray],
    windows: list[Drawn],
    long: tuple[int, list[Drawn]] | None,
) -> None:
    frames.update(new)
    learner.rng.bit_generator.state = generator
    share, above = ([_window(frames, *drawn) for drawn in batch] for batch in (windows, long[1] if long else []))
    learner.update(share, background=mean, long=(long[0], above) if long else None)


def _window(frames: Mapping[int, np.ndarray], numbers: list[int], actions: np.ndarray) -> Window:
    return Remembered.of([frames[number] for number in numbers], actions)
