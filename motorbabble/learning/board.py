"""Board: weights that two processes see; one writes them, the other reads them, and never half of a set.

Decisions: one copy in shared memory under one lock. Nobody waits long for it: copying takes milliseconds, and a reader who does not get the
lock at once keeps the weights that it has until it looks again. A counter of sets beside two copies would do as well on a processor
that keeps the order of its writes; a lock is right on all of them. It is a byte in a pipe, since a named lock is left behind, with a
warning, when a process is killed. What belongs to a set (counters, levels) is written with it, so that it is never of another one.
"""

import copy
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.context import BaseContext
from typing import Any

import torch
from torch import Tensor

from motorbabble.world_models.base import WorldModel

PATIENT = 0.02  # seconds that a reader waits for the lock
HEAD, START = 8, 1 << 16  # bytes: where what belongs to the set begins, and where its weights do
ALIGNED = 64


class Token:
    """A lock between processes: whoever has the byte has it."""

    def __init__(self, context: BaseContext):
        self._out, self._into = context.Pipe(duplex=False)
        os.set_blocking(self._out.fileno(), False)  # both may see that it is there, and one gets it
        self.release()

    def acquire(self, timeout: float = math.inf) -> bool:
        late = time.monotonic() + timeout
        while True:
            try:
                return bool(os.read(self._out.fileno(), 1))
            except BlockingIOError:
                left = late - time.monotonic()
                if left <= 0:
                    return False
                self._out.poll(min(left, 1.0))

    def release(self) -> None:
        os.write(self._into.fileno(), b"t")

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *exc_info) -> None:
        self.release()


class Board:
    """`post` a model's weights; `take` them into another one of the same kind."""

    def __init__(self, context: BaseContext, model: WorldModel, most_levels: int):
        """Room for the model with as many levels as it may grow."""
        largest = copy.deepcopy(model)
        while largest.can_grow and len(largest.spans) < most_levels:
            largest.grow(0)
        self.memory = context.RawArray("B", START + sum(_padded(weight) for weight in largest.state_dict().values()))
        self.lock = Token(context)
        self.taken = 0  # the number of the set that was taken last
        self.posted = 0

    def post(self, model: WorldModel, news: Mapping[str, Any]) -> None:
        """`news`: what belongs to these weights, in plain values."""
        self.posted += 1
        text = json.dumps({**news, "set": self.posted}).encode()
        with self.lock, torch.no_grad():
            self.memory[HEAD : HEAD + len(text)] = text
            self.memory[:HEAD] = len(text).to_bytes(HEAD, "little")
            for place, weight in self._places(model):
                place.copy_(weight)

    def take(self, prepared: Callable[[dict[str, Any]], WorldModel]) -> bool:
        """Whether there was a newer set, now in the model that `prepared(news)` answers."""
        if not self.lock.acquire(timeout=PATIENT):
            return False
        try:
            length = int.from_bytes(bytes(self.memory[:HEAD]), "little")
            news = json.loads(bytes(self.memory[HEAD : HEAD + length])) if length else {"set": self.taken}
            if news["set"] == self.taken:
                return False
            with torch.no_grad():
                for place, weight in self._places(prepared(news)):
                    weight.copy_(place)
            self.taken = news["set"]
            return True
        finally:
            self.lock.release()

    def _places(self, model: WorldModel) -> Iterator[tuple[Tensor, Tensor]]:
        at = START
        for weight in model.state_dict().values():
            if weight.numel():
                yield torch.frombuffer(self.memory, dtype=weight.dtype, count=weight.numel(), offset=at).view(weight.shape), weight
            at += _padded(weight)


def _padded(weight: Tensor) -> int:
    return -(-weight.numel() * weight.element_size() // ALIGNED) * ALIGNED
