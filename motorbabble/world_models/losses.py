"""What the losses of all world models share: where an error counts, what it is divided by, who learns from which prediction.

Shapes: B windows, T frames or predictions, N patches of P numbers; `informative` patches change, or differ from the background; an `error` is
a patch's, (..., N): numbers of patches are many, so whatever judges them begins with `squared`, once for each pair.
"""

import torch
from torch import Tensor

from motorbabble.models.ensemble import EnsembleHeads
from motorbabble.world_models.base import Batch, over_processes


def differs(patches: Tensor, other: Tensor, threshold: float) -> Tensor:
    """(..., N, P) -> (..., N): where some number differs by more than `threshold` of full brightness."""
    return (patches - other).abs().amax(-1) > threshold


def squared(guess: Tensor, real: Tensor) -> Tensor:
    """(..., N, P) -> (..., N): the mean square of what is wrong with each patch."""
    return (guess - real).square().mean(-1)


def balanced(error: Tensor, informative: Tensor, where: Tensor | None = None) -> Tensor:
    """Mean of error (..., N) `where` (..., N) is 1, or everywhere: half from the informative patches (..., N), half from the rest."""
    weight = informative.float() if where is None else informative.float() * where
    rest = (1 if where is None else where) - weight
    some, others = ((error * x).mean() / over_processes(x.mean()).clamp(min=1e-6) for x in (weight, rest))
    return 0.5 * (some + others)


def mean_frame_error(error: Tensor, patches: Tensor, informative: Tensor, where: Tensor | None = None) -> Tensor:
    """What showing the mean frame scores by `balanced`, to divide by, from its error; or a tenth of what one even patch scores.

    Early on the mean frame is nearly the frame itself, and no scale.
    """
    even = over_processes(patches.mean(tuple(range(patches.dim() - 1))))
    empty, flat = (over_processes(balanced(of, informative, where)) for of in (error, squared(even, patches)))
    return torch.maximum(empty, 0.1 * flat).clamp(min=1e-5)


def newest_errors(wrong: Tensor, copied: Tensor) -> dict[str, Tensor]:
    """Unweighted, of the newest prediction of the first window, which the learner makes the newest of all, and of the last one.

    Errors (B, T, N) of what is predicted, and of the frame before shown again.
    """
    found = {}
    for name, window in ("fresh", 0), ("remembered", -1):
        found[f"{name}_error"] = wrong[window, -1].mean()
        found[f"{name}_copy_error"] = copied[window, -1].mean()
    return found


def shares(batch: Batch, t: int, ensemble: EnsembleHeads) -> Tensor:
    """(heads, B t, 1, 1): 0 where a head leaves a prediction out, which each does with its own fifth of them, else 1."""
    heads = len(ensemble.w1)
    return (batch.chance("heads", t * heads) < 0.8).float().unflatten(1, (t, heads)).flatten(0, 1).T[..., None, None]


def ensemble_loss(states: Tensor, actions: Tensor, missing: Tensor, share: Tensor, ensemble: EnsembleHeads) -> Tensor:
    """Of states (B, T, N + 1, D), actions (B, T, C), missing (B, T, N, P) and the heads' `shares`."""
    return ensemble.losses(*(x.flatten(0, 1) for x in (states, actions, missing)), share=share)
