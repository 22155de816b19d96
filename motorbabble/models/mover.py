"""Mover: a decoder that moves pixels of the last frame beside painting new ones.

Painting alone has to squeeze every texture through the latents, and learns each position of a thing anew.
What a movement mostly does is carry pixels along, so a few layers are cut out of the last frame by learned
masks and shifted by learned distances (after the transformed layers of Finn et al. 2016, "CDNA"):

    out = sum_k shift_k(S_k x) + (1 - sum_k shift_k(S_k)) ((1 - H) (x + r) + H fill),   H = sum_k S_k

S_k are masks on the *last* frame, read from the predictor's frame tokens; a shift is a distribution over
all distances, row and column separately, read from its action token, so that its gradient finds a far
distance as easily as a near one; r is what painting adds, fill what it puts where a thing has left.
Nothing keeps the masks from overlapping but the
loss. They start at exactly zero: an untrained mover changes nothing. Distances go around the edges; at
edges that end, masks learn to stay still. Where several actions are predicted at once, each moves by its own distances, and these add up: the
distribution of a sum is the circular convolution of the distributions.

Shapes: B batch, K layers, H x W pixels, N tokens, s actions, D width.
"""

from typing import Any

import torch
from torch import Tensor, nn

from motorbabble.models.precision import exact

MASK_BIAS = -3.0  # sigmoid(-3) = 0.047 is the slope with which a mask starts to grow


class Mover(nn.Module):
    """Composes the next image out of moved parts of the last one and what painting adds."""

    def __init__(self, height: int, width_px: int, patch_size: int, width: int, layers: int = 2):
        super().__init__()
        self.height, self.width_px, self.layers = height, width_px, layers
        self.mask_head = nn.Linear(width, layers * patch_size * patch_size)
        self.distance_head = nn.Linear(width, layers * (height + width_px))
        nn.init.zeros_(self.mask_head.weight)
        nn.init.zeros_(self.mask_head.bias)
        # Layers must differ to take different parts; the spread is small beside what learning adds.
        nn.init.normal_(self.distance_head.weight, std=0.02)
        nn.init.normal_(self.distance_head.bias, std=0.2)

    def masks(self, frame_states: Tensor) -> Tensor:
        """frame_states (B, N, D) -> patch-wise masks (B, N, K p p), zero before training."""
        return torch.sigmoid(self.mask_head(frame_states).float() + MASK_BIAS) - torch.sigmoid(self.mask_head.bias.new_tensor(MASK_BIAS))

    def distances(self, action_states: Tensor) -> tuple[Tensor, Tensor]:
        """action_states (B, s, D) -> distributions over the sum of their distances down (B, K, H) and right (B, K, W)."""
        logits = self.distance_head(action_states).float().unflatten(-1, (self.layers, -1))
        return _sum_of(logits[..., : self.height].softmax(-1)), _sum_of(logits[..., self.height :].softmax(-1))

    def forward(self, image: Tensor, masks: Tensor, action_states: Tensor, added: Tensor, fill: Tensor) -> Tensor:
        """image, added, fill (B, 3, H, W); masks (B, K, H, W); action_states (B, s, D) -> the next image (B, 3, H, W)."""
        down, right = self.distances(action_states)
        layers = torch.cat((masks.unsqueeze(2) * image.unsqueeze(1), masks.unsqueeze(2)), 2)  # (B, K, 4, H, W)
        with exact(image.device):  # there is no transform of bfloat16
            moved = _Shift.apply(layers, down, right)
        left = masks.sum(1, keepdim=True)
        behind = (1 - left) * (image + added) + left * fill
        return moved[:, :3] + (1 - moved[:, 3:]) * behind


class _Shift(torch.autograd.Function):
    """layers (B, K, 4, H, W), each shifted by its distributions down (B, K, H) and right (B, K, W), and summed: (B, 4, H, W).

    Around the edges a shift is a product in frequencies, with fewer operations than products of matrices. The gradients are written out,
    since torch's own of a real transform is a complex one of twice the size.
    """

    @staticmethod
    def forward(ctx: Any, layers: Tensor, down: Tensor, right: Tensor) -> Tensor:  # type: ignore[override]
        waves, shifts = torch.fft.rfft2(layers), torch.fft.fft(down)[..., None] * torch.fft.rfft(right)[..., None, :]
        ctx.save_for_backward(waves, shifts, down, right)
        return torch.fft.irfft2((waves * shifts.unsqueeze(2)).sum(1), layers.shape[-2:])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        waves, shifts, down, right = ctx.saved_tensors
        size, gradient = gradient.shape[-2:], torch.fft.rfft2(gradient).unsqueeze(1)  # (B, 1, 4, H, W // 2 + 1)
        layers = torch.fft.irfft2(gradient * shifts.conj().unsqueeze(2), size)
        both = torch.fft.irfft2((gradient * waves.conj()).sum(2), size)  # (B, K, H, W), of each distance down and right
        return layers, (both @ right.unsqueeze(-1)).squeeze(-1), (down.unsqueeze(-2) @ both).squeeze(-2)


def _sum_of(chances: Tensor) -> Tensor:
    """(B, s, K, n) distributions over 0 .. n - 1, around the edges -> that of their sum (B, K, n)."""
    if chances.shape[1] == 1:
        return chances[:, 0]
    return torch.fft.irfft(torch.fft.rfft(chances).prod(1), chances.shape[-1])
