"""Several processes of one command: started by torch's own launcher, tied together, stopped by one Ctrl+C."""

import gc
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Event as Flag
from typing import TYPE_CHECKING, Any

from motorbabble.errors import ConfigurationError

if TYPE_CHECKING:
    import torch


def is_one_of_several() -> bool:
    """Whether torchrun started this process."""
    return "WORLD_SIZE" in os.environ


def launch(devices: int, arguments: Sequence[str]) -> None:
    """Start babble with these arguments `devices` times, by torchrun. The exit code is that of the first process that failed."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // devices)))
    try:
        torchrun(["--standalone", f"--nproc-per-node={devices}", "-m", "motorbabble", *arguments])
    except SignalException:
        raise KeyboardInterrupt from None
    except ChildFailedError as error:  # whose own words were already printed
        raise SystemExit(max(1, error.get_first_failure()[1].exitcode)) from None


@contextmanager
def joined(name: str) -> "Iterator[torch.device]":
    """This process's device, and its tie to the others that torchrun started, if it did."""
    import torch
    import torch.distributed as dist

    processes, local = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0))
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    try:
        device = torch.zeros(1, device=f"cuda:{local}" if kind == "cuda" else kind).device
    except (RuntimeError, AssertionError):  # an unknown name; fewer devices than processes; a torch that was built without it
        raise ConfigurationError(f"there is no device {kind!r} number {local} here; use --device cpu, or fewer --devices") from None
    if processes == 1:
        yield device
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        gc.collect()  # what was tied to the group holds it, and its threads
        dist.destroy_process_group()


@contextmanager
def interrupts() -> Iterator[Flag]:
    """A flag that Ctrl+C sets. A second Ctrl+C in one process stops at once; torchrun always sends two, so there it does not."""
    stop = Flag()

    def asked(*_: Any) -> None:
        if stop.is_set() and not is_one_of_several():
            raise KeyboardInterrupt
        stop.set()

    before = signal.signal(signal.SIGINT, asked)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
