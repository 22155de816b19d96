"""EnsembleHeads: how sure the predictor is, as the disagreement of a few small networks.

A deterministic prediction has no entropy. K small heads guess what the shown picture will get wrong in each patch, from the
predictor's own states and the action, without teaching the predictor anything; each has its own start, leaves out its own random share
of every batch and has a fixed random prior added (Osband et al. 2018), since heads on one trunk otherwise agree on what was never
tried. Their spread, as the entropy of a Gaussian with a floor under its variance, is the mission's "entropy"
(Lakshminarayanan et al. 2017; Sekar et al. 2020). States say more than the latents they lead to: from latents the same heads ranked the
errors of one of two worlds of bodies not at all (LAB_NOTES.md, 2026-11-25).

One more head says how large the error is expected to be, noise included: what disagreement leaves out.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motorbabble.models.autoencoder import cosine_basis
from motorbabble.models.precision import exact

SCALE = 0.1  # of full brightness: the size of a usual mistake in a patch's pattern, and of what the priors say
VARIANCE_FLOOR = 1e-6  # of full brightness, squared
LEAST_ERROR = 1e-5  # mean squared; smaller mistakes count as this one
WEIGHT = 0.01  # of their loss in a total. Heads learn from nothing else, so Adam does not mind; but in the norm that all gradients are
# clipped by, the large ones of heads in a new world would hold back whatever else is learned there


class EnsembleHeads(nn.Module):
    """A few small networks that guess, patch by patch, what a prediction gets wrong.

    Shapes: M predictions, n patches of P numbers, states (M, n + 1, D) of the predictor with the action's last, actions (M, C).
    """

    basis: Tensor
    prior_w1: Tensor
    prior_b1: Tensor
    prior_w2: Tensor

    def __init__(self, width: int, action_size: int, patch_size: int, heads: int = 5, hidden: int = 32, targets: int = 16):
        super().__init__()
        inputs = 2 * width + action_size
        # The coarsest patterns of a patch hold most of an error, and keep its length.
        basis = cosine_basis(patch_size, targets)
        self.register_buffer("basis", basis, persistent=False)
        targets = len(basis)
        self.w1, self.b1 = nn.Parameter(torch.empty(heads, inputs, hidden)), nn.Parameter(torch.zeros(heads, 1, hidden))
        self.w2, self.b2 = nn.Parameter(torch.empty(heads, hidden, targets)), nn.Parameter(torch.zeros(heads, 1, targets))
        self.register_buffer("prior_w1", torch.empty(heads, inputs, hidden))
        self.register_buffer("prior_b1", torch.randn(heads, 1, hidden))
        self.register_buffer("prior_w2", torch.empty(heads, hidden, targets))
        for weight in (self.w1, self.w2, self.prior_w1, self.prior_w2):
            nn.init.normal_(weight, std=1 / math.sqrt(weight.shape[1]))
        self.error_head = nn.Sequential(nn.Linear(inputs, 2 * hidden), nn.GELU(), nn.Linear(2 * hidden, 1))

    def forward(self, states: Tensor, action: Tensor) -> Tensor:
        """What each head believes is missing: (heads, M, n, targets), in units of SCALE."""
        x = self._inputs(states, action)
        m, n = x.shape[:2]
        x = x.flatten(0, 1)
        guess = torch.relu(x @ self.w1 + self.b1) @ self.w2 + self.b2
        prior = torch.relu(x @ self.prior_w1 + self.prior_b1) @ self.prior_w2
        return (guess.float() + prior.float()).unflatten(1, (m, n))

    def losses(self, states: Tensor, action: Tensor, missing: Tensor, share: Tensor) -> Tensor:
        """Of all heads, on patches (M, n, P) that the picture lacked; `share` (heads, M, 1, 1), 0 where a head leaves a prediction out."""
        missing = missing.detach()
        with exact(missing.device):
            patterns = missing.float() @ self.basis.T
        error = self(states, action) - patterns / SCALE
        size = (missing.square().mean(-1) + LEAST_ERROR).log()
        return (error.square() * share).mean() + 0.1 * (self._log_error(states, action) - size).square().mean()

    def entropy(self, guesses: Tensor) -> Tensor:
        """Guesses (heads, M, n, targets) -> nats per number (M,): mean Gaussian entropy of the heads' spread, in full brightness."""
        variance = guesses.var(0) * SCALE**2 + VARIANCE_FLOOR
        return 0.5 * torch.log(2 * math.pi * math.e * variance).mean((-1, -2))

    def expected_error(self, states: Tensor, action: Tensor) -> Tensor:
        """(M,) mean squared error that the picture is expected to have, noise included."""
        return self._log_error(states, action).exp().mean(-1)

    def _log_error(self, states: Tensor, action: Tensor) -> Tensor:
        return self.error_head(self._inputs(states, action)).float().squeeze(-1)

    def _inputs(self, states: Tensor, action: Tensor) -> Tensor:
        """(M, n, 2 D + C), cut off from whatever made the states."""
        states = F.layer_norm(states.detach(), states.shape[-1:])
        patches = states[:, :-1]
        return torch.cat((patches, states[:, -1:].expand_as(patches), action[:, None].expand(-1, patches.shape[1], -1)), -1)
