"""Precision: products of matrices in bfloat16 where a device has units for them; whatever has to be exact stays float32.

Decisions: torch's autocast chooses operation by operation, so weights, gradients, optimiser and checkpoints are float32 either way. bfloat16
keeps three decimal digits, so networks give their answers out as float32 before anything is added to them, subtracted or squared: what
modulates (1 + gamma), masks that must start at exactly zero, pictures, guesses whose spread is measured. Angles and frequencies are never
rounded. On CPUs float32 is the default; without such units bfloat16 is hundreds of times slower there.
"""

from contextlib import AbstractContextManager
from typing import Literal, get_args

import torch

from motorbabble.errors import ConfigurationError

Precision = Literal["auto", "float32", "bfloat16"]


def check_precision(name: str) -> None:
    if name not in get_args(Precision):
        raise ConfigurationError(f"precision is {name!r}; choose one of {list(get_args(Precision))}")


def precision_for(name: Precision, device: torch.device) -> torch.dtype:
    """auto: bfloat16 on a CUDA device that has units for it, else float32."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def computing(precision: torch.dtype, device: torch.device) -> AbstractContextManager:
    """Inside, products of matrices are computed in this precision, and only in this one, whatever surrounds it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == torch.bfloat16)


def exact(device: torch.device) -> AbstractContextManager:
    """Inside, nothing is rounded to less than float32."""
    return computing(torch.float32, device)
