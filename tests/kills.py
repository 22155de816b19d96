"""Lives in child processes that are killed: import once, fork per trial, SIGKILL, read what was acknowledged before.

The child has one thread of ours and whatever the work starts. It never returns into the test that forked it.
"""

import os
import random
import select
import signal
import struct
import time
import traceback
import warnings
from collections.abc import Callable
from typing import NamedTuple

Acknowledge = Callable[[int], None]
_NUMBER = struct.Struct("<i")


class Killed(NamedTuple):
    acknowledged: list[int]  # in order
    killed: bool  # False: it had finished by itself


def killed(work: Callable[[Acknowledge], None], after: float | None = None, seconds: float = 30.0) -> Killed:
    """Fork, let the child `work`, and kill it `after` seconds; None: it kills itself or ends. AssertionError when the work raised.

    What the child hands to `acknowledge` travels through a pipe at once, so a number that is here was handed over.
    """
    out, into = os.pipe()
    with warnings.catch_warnings(action="ignore"):  # newer Pythons warn when threads are about; the child touches none of them
        child = os.fork()
    if child == 0:
        _be_the_child(work, out, into)
    os.close(into)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    try:
        said = _all_of(out, child, seconds)
    finally:
        os.close(out)
        status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the child's work raised; its traceback is above"
    return Killed([number for (number,) in _NUMBER.iter_unpack(said[: len(said) // 4 * 4])], os.WIFSIGNALED(status))


def random_instants(count: int, longest: float, seed: int) -> list[float]:
    """Seconds; a third of them among the first tenth, where things begin."""
    rng = random.Random(seed)
    return [rng.uniform(0, longest / 10 if n % 3 == 0 else longest) for n in range(count)]


def _be_the_child(work: Callable[[Acknowledge], None], out: int, into: int) -> None:
    status = 1
    try:
        os.close(out)
        work(lambda number: _say(into, number))
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _say(into: int, number: int) -> None:
    os.write(into, _NUMBER.pack(number))


def _all_of(out: int, child: int, seconds: float) -> bytes:
    said, until = b"", time.monotonic() + seconds
    while select.select([out], [], [], max(0.0, until - time.monotonic()))[0]:
        part = os.read(out, 2**16)
        if not part:
            return said
        said += part
    os.kill(child, signal.SIGKILL)
    raise AssertionError(f"the child neither ended nor died within {seconds} s")
