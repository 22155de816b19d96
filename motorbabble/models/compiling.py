"""Compiling: the large pure functions of a world model as one program each, made by torch's compiler where whoever trains it asks for that.

Decisions: a program is made of a method, not of a model, so that nothing of it is copied or saved, and copies of a model share it.
Shapes are fixed: each new one is compiled anew, and the same shape always runs the same program, or a resumed life would round otherwise
than the one it continues. What is drawn by chance is drawn outside and handed in. With `replayed` a CUDA device records what a program
launches and replays it as one piece (a CUDA graph); what it answers stays until the next `begin`.
"""

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, wraps
from typing import Any, TypeVar

import torch

from motorbabble.errors import ConfigurationError

Method = TypeVar("Method", bound=Callable[..., Any])
BACKEND = "inductor"  # torch's own compiler
SHAPES = 64  # of one method, that are compiled; whatever comes after is computed as if nothing were
COMPILING = "What is computed for the first time is compiled first, a minute or more each time, and everything waits for it."
HARMLESS = (  # what the compiler warns of while it compiles, which nobody here can change
    "Torchinductor does not support code generation for complex operators",  # transforms stay torch's own
    ".* should not be instantiated. Methods on autograd functions are all static",
    ".*torch.jit.script_method.* is deprecated",
    "The .grad attribute of a Tensor that is not a leaf Tensor is being accessed",
)
_plain: ContextVar[bool] = ContextVar("plain", default=False)


def compilable(replayed: bool = False, varying: Mapping[str, int] = {}) -> Callable[[Method], Method]:
    """For a method of tensors and constants, of a module whose `compiled` says whether it is compiled.

    `varying`: the tensors, given by name, of which the length along a dimension is drawn by chance; one program serves all lengths above 1.
    """

    def decorate(method: Method) -> Method:
        refused: list[Exception] = []  # at most one

        @cache
        def program(backend: str, graph: bool) -> Callable[..., Any]:
            return torch.compile(method, dynamic=False, backend=backend, mode="reduce-overhead" if graph else None)

        @wraps(method)
        def run(self: Any, *arguments: Any, **named: Any) -> Any:
            if not self.compiled or refused or _plain.get():
                return method(self, *arguments, **named)
            _hush()
            from torch._dynamo.exc import TorchDynamoException  # takes a second, and is not needed otherwise

            chosen = program(BACKEND, replayed and self.device.type == "cuda")
            for name, dimension in varying.items():
                if named.get(name) is not None:
                    torch._dynamo.maybe_mark_dynamic(named[name], dimension)
            try:
                with torch._dynamo.config.patch(recompile_limit=SHAPES):
                    return chosen(self, *arguments, **named)
            except TorchDynamoException as error:  # the robot need not stop for that
                refused.append(error)
                warnings.warn(
                    f"{method.__name__} could not be compiled and is computed as if compile were false ({_told(error)}); if a compiler "
                    "was interrupted here before, its cache may be damaged: set TORCHINDUCTOR_CACHE_DIR to an empty folder",
                    RuntimeWarning,
                    stacklevel=2,
                )
                return method(self, *arguments, **named)

        return run  # type: ignore[return-value]

    return decorate


@contextmanager
def uncompiled(when: bool = True) -> Iterator[None]:
    """Inside, nothing is compiled: hooks see what passes, and shapes that will not come again take no minutes."""
    token = _plain.set(when or _plain.get())
    try:
        yield
    finally:
        _plain.reset(token)


def begin(module: Any) -> None:
    """What replayed programs answered before is not needed any more, or was copied: they may write over it."""
    if module.compiled and module.device.type == "cuda":
        torch.compiler.cudagraph_mark_step_begin()


def check_compiler(device: torch.device) -> None:
    """Raises ConfigurationError where nothing can be compiled for this device."""
    _hush()
    try:
        torch.compile(lambda x: x.sin() + 1, dynamic=False, backend=BACKEND)(torch.ones(2, device=device))
    except Exception as error:  # of the compiler, whose kinds are many
        raise ConfigurationError(
            f"compile is true, and nothing can be compiled for {device} here ({type(error).__name__}); "
            "install a C++ compiler such as g++ (and Triton for CUDA), or leave compile false"
        ) from error


def _told(error: Exception) -> str:
    """What happened, without the stack that torch tells with it."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "nothing else is known")


def _hush() -> None:
    for message in HARMLESS:
        if ("ignore", re.compile(message, re.I), Warning, None, 0) not in warnings.filters:
            warnings.filterwarnings("ignore", message)
