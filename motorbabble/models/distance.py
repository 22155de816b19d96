"""How far apart two pictures are, as the way that things would have to go to make one of them the other.

The squared difference of pixels says nothing until things overlap: it has no slope that leads anywhere. Blurred by sigma, two
pictures begin to overlap where things are sigma apart, and differ in proportion to the way between them where it is
shorter. Summed over sigmas that double, each weighted by itself, the difference rises with every pixel of the way: an
approximation of the earth mover's distance, in the spirit of its wavelet form (Shirdhonkar and Jacobs 2008).
"""

from functools import lru_cache

import torch
from torch import Tensor

FINEST = 2.0  # pixels: the smallest sigma


def distance(images: Tensor, other: Tensor) -> Tensor:
    """(N,), from pictures (N, 3, H, W) in [0, 1] to another (3, H, W), or to one each: 0 for equal ones.

    In pixels, times the share of full brightness that goes so far. Nothing wraps: left and right edge are far from each other.
    """
    change = images - other
    height, width = change.shape[-2:]
    scales = _scales(height, width, change.device)
    return torch.stack([sigma * (rows @ change @ columns).abs().mean((-3, -2, -1)) for sigma, rows, columns in scales]).sum(0)


@lru_cache(maxsize=8)
def _scales(height: int, width: int, device: torch.device) -> list[tuple[float, Tensor, Tensor]]:
    """Every sigma up to half the picture, with what blurs rows from the left and columns from the right."""
    sigmas = [FINEST]
    while 2 * sigmas[-1] <= max(height, width) / 2:
        sigmas.append(2 * sigmas[-1])
    return [(sigma, _blurring(height, sigma).to(device), _blurring(width, sigma).T.to(device)) for sigma in sigmas]


def _blurring(size: int, sigma: float) -> Tensor:
    """(n, size): a Gaussian over `size` pixels, looked at once every sigma. The edges are mirrors, so that nothing is lost over them."""
    count = max(1, round(size / sigma))
    centres = (torch.arange(count) + 0.5) * size / count
    places = torch.arange(size) + 0.5
    mirrored = torch.stack([2 * size * turn + side * places for turn in (-1, 0, 1) for side in (1, -1)])  # (6, size)
    weights = torch.exp(-0.5 * ((centres[:, None, None] - mirrored) / sigma).square()).sum(1)
    return weights / weights.sum(1, keepdim=True)
