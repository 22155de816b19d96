"""What the losses of all world models share: where an error counts, what it is divided by, who learns from which prediction.

Shapes: B windows, T frames or predictions, N patches of P numbers; `informative` patches change, or differ from the background.
"""

import torch
from torch import Tensor

from motorbabble.models.ensemble import EnsembleHeads
from motorbabble.world_models.base import Batch, over_processes


def differs(patches: Tensor, other: Tensor, threshold: float) -> Tensor:
    """(..., N, P) -> (..., N): where some number differs by more than `threshold` of full brightness."""
    return (patches - other).abs().amax(-1) > threshold


def balanced(error: Tensor, informative: Tensor, where: Tensor | None = None) -> Tensor:
    """Mean square of error (..., N, P) `where` (..., N) is 1, or everywhere: half from the informative patches (..., N), half from the rest."""
    square = error.square().mean(-1)
    weight = informative.float() if where is None else informative.float() * where
    rest = (1 if where is None else where) - weight
    some, others = ((square * x).mean() / over_processes(x.mean()).clamp(min=1e-6) for x in (weight, rest))
    return 0.5 * (some + others)


def mean_frame_error(background: Tensor, patches: Tensor, informative: Tensor, where: Tensor | None = None) -> Tensor:
    """What showing the mean frame scores by `balanced`, to divide by; or a tenth of what one even patch scores.

    Early on the mean frame is nearly the frame itself, and no scale.
    """
    even = over_processes(patches.mean(tuple(range(patches.dim() - 1))))
    empty, flat = (over_processes(balanced(guess - patches, informative, where)) for guess in (background, even))
    return torch.maximum(empty, 0.1 * flat).clamp(min=1e-5)


def newest_errors(shown: Tensor, before: Tensor, real: Tensor) -> dict[str, Tensor]:
    """Unweighted, of the newest prediction (B, T, N, P) of the first window, which the learner makes the newest of all, and of the last one."""
    found = {}
    for name, window in ("fresh", 0), ("remembered", -1):
        found[f"{name}_error"] = (shown[window, -1] - real[window, -1]).square().mean()
        found[f"{name}_copy_error"] = (before[window, -1] - real[window, -1]).square().mean()
    return found


def ensemble_loss(batch: Batch, states: Tensor, actions: Tensor, missing: Tensor, ensemble: EnsembleHeads) -> Tensor:
    """Every head leaves out its own fifth of the predictions; states (B, T, N + 1, D), actions (B, T, C), missing (B, T, N, P)."""
    t, heads = states.shape[1], len(ensemble.w1)
    share = (batch.chance("heads", t * heads) < 0.8).float().unflatten(1, (t, heads)).flatten(0, 1).T[..., None, None]
    return ensemble.losses(*(x.flatten(0, 1) for x in (states, actions, missing)), share=share)
