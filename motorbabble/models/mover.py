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

import torch
from torch import Tensor, nn

MASK_BIAS = -3.0  # sigmoid(-3) = 0.047 is the slope with which a mask starts to grow


class Mover(nn.Module):
    """Composes the next image out of moved parts of the last one and what painting adds."""

    column_steps: Tensor
    row_steps: Tensor

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
        for name, size in (("column_steps", width_px), ("row_steps", height)):
            places = torch.arange(size)
            self.register_buffer(name, (places[None, :] - places[:, None]) % size, persistent=False)  # [from, to] -> distance

    def masks(self, frame_states: Tensor) -> Tensor:
        """frame_states (B, N, D) -> patch-wise masks (B, N, K p p), zero before training."""
        return torch.sigmoid(self.mask_head(frame_states) + MASK_BIAS) - torch.sigmoid(self.mask_head.bias.new_tensor(MASK_BIAS))

    def distances(self, action_states: Tensor) -> tuple[Tensor, Tensor]:
        """action_states (B, s, D) -> distributions over the sum of their distances down (B, K, H) and right (B, K, W)."""
        logits = self.distance_head(action_states).unflatten(-1, (self.layers, -1))
        return _sum_of(logits[..., : self.height].softmax(-1)), _sum_of(logits[..., self.height :].softmax(-1))

    def forward(self, image: Tensor, masks: Tensor, action_states: Tensor, added: Tensor, fill: Tensor) -> Tensor:
        """image, added, fill (B, 3, H, W); masks (B, K, H, W); action_states (B, s, D) -> the next image (B, 3, H, W)."""
        down, right = self.distances(action_states)
        across = right[..., self.column_steps]  # (B, K, W, W), [from, to]
        along = down[..., self.row_steps].transpose(-1, -2)  # (B, K, H, H), [to, from]
        # Colours stand between rows and columns, so that each shift is one product of matrices per layer.
        masks = masks.unsqueeze(3)  # (B, K, H, 1, W)
        layers = torch.cat((masks * image.transpose(1, 2).unsqueeze(1), masks), 3)  # (B, K, H, 4, W)
        moved = (layers.flatten(2, 3) @ across).unflatten(2, (self.height, 4)).flatten(3)
        moved = (along @ moved).unflatten(3, (4, -1)).sum(1).transpose(1, 2)  # (B, 4, H, W)
        left = masks.squeeze(3).sum(1, keepdim=True)
        behind = (1 - left) * (image + added) + left * fill
        return moved[:, :3] + (1 - moved[:, 3:]) * behind


def _sum_of(chances: Tensor) -> Tensor:
    """(B, s, K, n) distributions over 0 .. n - 1, around the edges -> that of their sum (B, K, n)."""
    if chances.shape[1] == 1:
        return chances[:, 0]
    return torch.fft.irfft(torch.fft.rfft(chances).prod(1), chances.shape[-1])
