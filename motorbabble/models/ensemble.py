"""EnsembleHeads: how sure the predictor is, as the disagreement of a few small networks.

A deterministic prediction has no entropy. K small heads guess what the trunk gets wrong, from detached
latents and the action; each has its own start, leaves out its own random share of every batch and has a
fixed random prior added (Osband et al. 2018), since heads on one trunk otherwise agree on what was never tried. Their
spread, as the entropy of a Gaussian with a floor under its variance, is the mission's "entropy"
(Lakshminarayanan et al. 2017; Sekar et al. 2020).
"""

import math

import torch
from torch import Tensor, nn

VARIANCE_FLOOR = 1e-4


class EnsembleHeads(nn.Module):
    """A few small networks that guess the predictor's error, token by token."""

    prior_w1: Tensor
    prior_w2: Tensor
    projection: Tensor

    def __init__(self, width: int, action_size: int, heads: int = 5, hidden: int = 32, targets: int = 16, prior_scale: float = 0.3):
        super().__init__()
        inputs = 2 * width + action_size
        self.prior_scale = prior_scale
        self.w1, self.b1 = nn.Parameter(torch.empty(heads, inputs, hidden)), nn.Parameter(torch.zeros(heads, 1, hidden))
        self.w2, self.b2 = nn.Parameter(torch.empty(heads, hidden, targets)), nn.Parameter(torch.zeros(heads, 1, targets))
        self.register_buffer("prior_w1", torch.empty(heads, inputs, hidden))
        self.register_buffer("prior_w2", torch.empty(heads, hidden, targets))
        # The full latent is not needed to disagree about it: a fixed random projection keeps distances (Johnson-Lindenstrauss).
        self.register_buffer("projection", torch.randn(width, targets) / math.sqrt(width))
        for weight in (self.w1, self.w2, self.prior_w1, self.prior_w2):
            nn.init.normal_(weight, std=1 / math.sqrt(weight.shape[1]))

    def forward(self, now: Tensor, after: Tensor, action: Tensor) -> Tensor:
        """Latents now and as predicted (M, n, D), action (M, C) -> guesses (heads, M, n, targets)."""
        x = torch.cat((now, after, action[:, None].expand(-1, now.shape[1], -1)), -1).flatten(0, 1)
        guess = torch.relu(x @ self.w1 + self.b1) @ self.w2 + self.b2
        prior = torch.relu(x @ self.prior_w1) @ self.prior_w2
        return (guess + self.prior_scale * prior).unflatten(1, now.shape[:2])

    def target(self, predicted: Tensor, real: Tensor) -> Tensor:
        """What a head should have guessed: the trunk's error, projected. (M, n, D) twice -> (M, n, targets)."""
        return (real - predicted) @ self.projection

    def entropy(self, guesses: Tensor) -> Tensor:
        """Guesses (heads, M, n, targets) -> nats per number (M,): mean Gaussian entropy of the heads' spread."""
        return 0.5 * torch.log(2 * math.pi * math.e * (guesses.var(0) + VARIANCE_FLOOR)).mean((-1, -2))
