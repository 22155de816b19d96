"""What is in a frame, as one latent per patch: what all autoencoders share, and MaskedAutoencoderViT (He et al. 2022).

Decisions: any height and width that the patch divides; the encoder sees visible patches only; the decoder
attends, since a masked patch that cannot look at visible ones knows nothing but its own place; rotary
positions with a weak absolute code; no class token.

Shapes: N = (H / p) (W / p) patches, P = 3 p p numbers in a patch, D width.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from motorbabble.errors import ConfigurationError, FrameError
from motorbabble.models.attention import Block, Rotary, grid_places, init_weights, sincos_code


@dataclass(frozen=True)
class AutoencoderConfig:
    patch_size: int = 16
    width: int = 256
    depth: int = 5
    heads: int = 4
    decoder_width: int = 128
    decoder_depth: int = 1
    absolute_code: float = 0.1  # weight of the absolute position code, which stands beside the rotary one
    autoencoder_type: Literal["vit", "cnn"] = "vit"  # blocks that attend, or convolutions; heads are the vit's alone


class PatchAutoencoder(nn.Module):
    """Frames of height x width pixels to one latent per patch, and back, whole or from some of the patches only.

    A subclass makes patch_embed, decoder_embed and decoder_head, and says how patches are encoded and features decoded.
    """

    position: Tensor
    decoder_position: Tensor
    patch_embed: nn.Linear
    decoder_embed: nn.Linear
    decoder_head: nn.Linear

    def __init__(self, height: int, width: int, config: AutoencoderConfig = AutoencoderConfig()):
        super().__init__()
        p = config.patch_size
        if p < 1 or height < p or width < p or height % p or width % p:
            raise ConfigurationError(f"patch size {p} does not divide a frame of {height} x {width}; choose a patch that divides both, or resize")
        self.config = config
        self.height, self.width_px = height, width
        self.rows, self.columns = height // p, width // p
        self.tokens = self.rows * self.columns
        for name, size in (("position", config.width), ("decoder_position", config.decoder_width)):
            self.register_buffer(name, config.absolute_code * sincos_code(self.rows, self.columns, size), persistent=False)

    @torch.no_grad()
    def start_from_cosines(self) -> None:
        """Seeing starts as a cosine transform and showing as its inverse: a fifth of the updates to a first clear picture."""
        basis = cosine_basis(self.config.patch_size, min(self.config.width, 3 * self.config.patch_size**2))
        self.patch_embed.weight[: len(basis)] = basis
        nn.init.eye_(self.decoder_embed.weight)
        known = min(len(basis), self.config.decoder_width)
        self.decoder_head.weight.zero_()
        self.decoder_head.weight[:, :known] = 0.3 * basis[:known].T

    def patchify(self, images: Tensor) -> Tensor:
        """(..., 3, H, W) -> (..., N, P), a patch's numbers ordered colour, row, column."""
        p = self.config.patch_size
        if images.shape[-3:] != (3, self.height, self.width_px):
            raise FrameError(f"images have shape {tuple(images.shape[-3:])}, this model sees {(3, self.height, self.width_px)}; resize them")
        x = images.unflatten(-1, (self.columns, p)).unflatten(-3, (self.rows, p))  # (..., 3, rows, p, columns, p)
        return x.movedim((-4, -2), (-5, -4)).flatten(-3).flatten(-3, -2)

    def unpatchify(self, patches: Tensor) -> Tensor:
        """(..., N, c p p) -> (..., c, H, W)."""
        p = self.config.patch_size
        x = patches.unflatten(-2, (self.rows, self.columns)).unflatten(-1, (-1, p, p))  # (..., rows, columns, c, p, p)
        return x.movedim((-5, -4), (-4, -2)).flatten(-2).flatten(-3, -2)

    def encode(self, patches: Tensor, keep: Tensor | None = None) -> Tensor:
        """patches (B, N, P) -> latents (B, N, D); with `keep` (B, n), indices, only those patches are seen: (B, n, D)."""
        raise NotImplementedError

    def decode_features(self, latents: Tensor, keep: Tensor | None = None) -> Tensor:
        """latents (B, N, D), or (B, n, D) of the patches in `keep` (B, n) -> features (B, N, decoder width)."""
        raise NotImplementedError

    def decode(self, latents: Tensor, keep: Tensor | None = None) -> Tensor:
        """latents -> patches (B, N, P), in the pixels' own unit, 0 to 1."""
        return self.show(self.decode_features(latents, keep))

    def show(self, features: Tensor) -> Tensor:
        """Features (..., decoder width) -> patches as they look (..., P), 0 to 1."""
        return self.decoder_head(features).float() + 0.5

    def random_keep(self, chance: Tensor, mask_ratio: float) -> Tensor:
        """(B, n) indices of visible patches, n = round(N (1 - mask_ratio)), at least one: those of the smallest numbers of `chance` (B, N)."""
        visible = max(1, round(self.tokens * (1 - mask_ratio)))
        return chance.argsort(dim=1, stable=True)[:, :visible]

    def spread(self, x: Tensor, keep: Tensor, mask_token: Tensor) -> Tensor:
        """x (B, n, d) of the patches in `keep` (B, n) -> (B, N, d) with `mask_token` (d,) in all other places."""
        full = mask_token.to(x.dtype).expand(len(x), self.tokens, -1)
        return full.scatter(1, keep[..., None].expand(-1, -1, x.shape[-1]), x)


class MaskedAutoencoderViT(PatchAutoencoder):
    """Blocks that attend: the encoder's over the visible patches, the decoder's over all places."""

    places: Tensor

    def __init__(self, height: int, width: int, config: AutoencoderConfig = AutoencoderConfig()):
        super().__init__(height, width, config)
        for name, value in (("width", config.width), ("decoder_width", config.decoder_width)):
            if value % (2 * config.heads):
                raise ConfigurationError(f"{name} {value} is not divisible by twice the {config.heads} heads; choose another")
        numbers = 3 * config.patch_size**2
        self.patch_embed = nn.Linear(numbers, config.width)
        self.rotary = Rotary(config.width // config.heads)
        self.blocks = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)

        self.decoder_embed = nn.Linear(config.width, config.decoder_width)
        self.mask_token = nn.Parameter(torch.zeros(config.decoder_width))
        self.decoder_rotary = Rotary(config.decoder_width // config.heads)
        self.decoder_blocks = nn.ModuleList(Block(config.decoder_width, config.heads) for _ in range(config.decoder_depth))
        self.decoder_norm = nn.LayerNorm(config.decoder_width)
        self.decoder_head = nn.Linear(config.decoder_width, numbers)
        init_weights(self)
        nn.init.normal_(self.mask_token, std=0.02)
        self.start_from_cosines()
        self.register_buffer("places", grid_places(self.rows, self.columns), persistent=False)

    def encode(self, patches: Tensor, keep: Tensor | None = None) -> Tensor:
        position, rotary = self.position, self.rotary(self.places)
        if keep is not None:
            patches = patches.gather(1, keep[..., None].expand(-1, -1, patches.shape[-1]))
            position, rotary = position[keep], rotary[:, keep]  # (B, n, D) and (2, B, n, d)
        x = self.patch_embed((patches - 0.5) * 2) + position
        for block in self.blocks:
            x, _ = block(x, rotary)
        return self.norm(x)

    def decode_features(self, latents: Tensor, keep: Tensor | None = None) -> Tensor:
        x = self.decoder_embed(latents)
        x = (x if keep is None else self.spread(x, keep, self.mask_token)) + self.decoder_position
        rotary = self.decoder_rotary(self.places)
        for block in self.decoder_blocks:
            x, _ = block(x, rotary)
        return self.decoder_norm(x)


def cosine_basis(patch: int, count: int) -> Tensor:
    """(count, 3 p p) orthonormal patterns of a patch, coarse before fine and brightness before colour.

    The two-dimensional discrete cosine transform (Ahmed et al. 1974) of brightness and of two colour differences.
    """
    wave, place = torch.arange(patch)[:, None], torch.arange(patch)[None] + 0.5
    waves = torch.cos(math.pi * wave * place / patch) * math.sqrt(2 / patch)
    waves[0] /= math.sqrt(2)
    colors = torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, 0.0], [1.0, 1.0, -2.0]])
    colors = colors / colors.norm(dim=1, keepdim=True)
    patterns = torch.einsum("kc,ih,jw->kijchw", colors, waves, waves).flatten(3).flatten(0, 2)
    fineness = torch.tensor([0.0, 4.0, 4.0])[:, None, None] + torch.hypot(wave.float(), wave.float().T)  # eyes and cameras see colour coarser
    return patterns[fineness.flatten().argsort(stable=True)[:count]]
