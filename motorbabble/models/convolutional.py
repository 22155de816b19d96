"""CNNAutoencoder: convolutions over the grid of patches, where the ViT attends. As many latents, and the same face.

Decisions: norms are over the channels of one place, never over a batch, so that one frame is seen alike alone and among others; the grid
stays whole, with a learned token where a patch is masked, in the encoder as in the decoder; zeros beyond the edges.
"""

import torch
from torch import Tensor, nn

from motorbabble.models.attention import init_weights
from motorbabble.models.autoencoder import AutoencoderConfig, PatchAutoencoder


class ConvolutionBlock(nn.Module):
    """A pre-norm residual block of two 3x3 convolutions on a grid of rows x columns places: (B, N, D) -> (B, N, D)."""

    def __init__(self, rows: int, columns: int, width: int):
        super().__init__()
        self.rows, self.columns = rows, columns
        self.norm = nn.LayerNorm(width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        with torch.no_grad():
            self.conv2.weight.mul_(0.2)  # what a block adds starts small

    def forward(self, x: Tensor) -> Tensor:
        grid = self.norm(x).transpose(1, 2).unflatten(2, (self.rows, self.columns))
        return x + self.conv2(nn.functional.gelu(self.conv1(grid))).flatten(2).transpose(1, 2)


class CNNAutoencoder(PatchAutoencoder):
    """Residual convolutions, each layer seeing two places further than the one before."""

    def __init__(self, height: int, width: int, config: AutoencoderConfig = AutoencoderConfig()):
        super().__init__(height, width, config)
        numbers, grid = 3 * config.patch_size**2, (self.rows, self.columns)
        self.patch_embed = nn.Linear(numbers, config.width)
        self.mask_token = nn.Parameter(torch.zeros(config.width))
        self.blocks = nn.ModuleList(ConvolutionBlock(*grid, config.width) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)

        self.decoder_embed = nn.Linear(config.width, config.decoder_width)
        self.decoder_mask_token = nn.Parameter(torch.zeros(config.decoder_width))
        self.decoder_blocks = nn.ModuleList(ConvolutionBlock(*grid, config.decoder_width) for _ in range(config.decoder_depth))
        self.decoder_norm = nn.LayerNorm(config.decoder_width)
        self.decoder_head = nn.Linear(config.decoder_width, numbers)
        init_weights(self)
        for token in (self.mask_token, self.decoder_mask_token):
            nn.init.normal_(token, std=0.02)
        self.start_from_cosines()

    def encode(self, patches: Tensor, keep: Tensor | None = None) -> Tensor:
        x = self.patch_embed((patches - 0.5) * 2)
        x = (x if keep is None else self.spread(_of(x, keep), keep, self.mask_token)) + self.position
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return x if keep is None else _of(x, keep)

    def decode_features(self, latents: Tensor, keep: Tensor | None = None) -> Tensor:
        x = self.decoder_embed(latents)
        x = (x if keep is None else self.spread(x, keep, self.decoder_mask_token)) + self.decoder_position
        for block in self.decoder_blocks:
            x = block(x)
        return self.decoder_norm(x)


def _of(x: Tensor, keep: Tensor) -> Tensor:
    """x (B, N, d) -> (B, n, d) of the patches in `keep` (B, n)."""
    return x.gather(1, keep[..., None].expand(-1, -1, x.shape[-1]))
