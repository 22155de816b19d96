"""Canvases: frames side by side with bars between them in the action's colour, and TargetedMAE, which paints the empty slot.

    [ frame ]|bar|[ frame ]|bar|[ next ]      the newest bar shows the action that is asked about

Decisions, each against a way this is known to fail:
- a bar is whole patches wide, so that every patch is part of one frame or of one bar (8 pixels of bar shared their patches with a frame);
- the decoder attends, or a hidden patch knows nothing but its own place;
- visible patches alone are encoded; nothing looks further right than its own frame, so that one window teaches every slot of the
  canvas at once, and what stands left of the newest bar is computed once for all actions asked about;
- the empty slot starts as a copy of the frame before it, in features and in pixels (`residual`), so it has to find only what changes;
- an action also enters as a token (`action_token`): a bar's colour is for people, and easily overlooked by a network.
A life's first frames fill the canvas from the left: places are the canvas's own, so that the same place one frame ago is one fixed distance.

Shapes: B batch, T frames on a canvas of K, N patches in a frame, R rows of them, P numbers in a patch, C numbers in an action, D width.
"""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from motorbabble.errors import ActionError, ConfigurationError, FrameError
from motorbabble.models.attention import grid_places, init_weights, sincos_code
from motorbabble.models.autoencoder import AutoencoderConfig, MaskedAutoencoderViT

RED, GREEN, UNKNOWN = np.array([214, 69, 65]), np.array([46, 160, 67]), np.array([128, 128, 128])
_MOTOR, _BLUE, _LIGHT = (GREEN - RED) / 2, np.array([-40, -40, 150]), np.array([70, 70, 70])


def separator_color(action: np.ndarray | None) -> np.ndarray:
    """The bar's colour (3,) uint8 for an encoded action (C,).

    A single number goes from red (-1: stay, motor at rest) to green (1: move, full speed). Of several the second does, as the JetBot's
    right motor; the first goes from yellow to blue, the third from dark to light, further ones the same ways by half as much. One of a long
    list of mere names (one-hot) has a hue of its own. None: grey, for an action nobody has chosen yet.
    """
    if action is None:
        return UNKNOWN.astype(np.uint8)
    action = np.asarray(action, np.float64)
    if action.ndim != 1 or not action.size or not np.isfinite(action).all():
        raise ActionError(f"an encoded action is some finite numbers in a row, not {action}; make it with action_space.encode")
    if action[3:].any() and set(action.tolist()) == {0.0, 1.0} and action.sum() == 1:
        number = int(action.argmax())  # hues a golden section apart, pale and full, lighter and darker in turn
        color = 255 * np.array(colorsys.hsv_to_rgb(number * 0.618034 % 1, (1.0, 0.6, 0.8)[number % 3], (0.9, 0.6, 0.75)[number // 3 % 3]))
    else:
        axes = (_BLUE, _MOTOR, _LIGHT) if action.size > 1 else (_MOTOR,)
        color = (RED + GREEN) / 2 + sum(value * axes[i % 3] / 2 ** (i // 3) for i, value in enumerate(np.clip(action, -1, 1)))
    return np.rint(np.clip(color, 0, 255)).astype(np.uint8)


def build_canvas(images: Sequence[np.ndarray], actions: Sequence[np.ndarray | None], frames: int, separator_width: int) -> np.ndarray:
    """A canvas (H, K W + (K - 1) separator_width, 3) uint8 of exactly `frames` images (H, W, 3) and the encoded actions between them."""
    if frames < 2:
        raise ConfigurationError(f"a canvas of {frames} frames has no slot to predict from another; give canvas_history_size 2 or more")
    if len(images) != frames or len(actions) != frames - 1:
        raise FrameError(
            f"a canvas of {frames} frames needs {frames} frames and {frames - 1} actions, got {len(images)} and {len(actions)}; live longer"
        )
    if len({image.shape for image in images}) > 1:
        raise FrameError(f"the frames on a canvas are {', '.join(str(image.shape) for image in images)}; resize them to one size")
    height = images[0].shape[0]
    bars = [np.broadcast_to(separator_color(action), (height, separator_width, 3)) for action in actions]
    return np.concatenate([part for pair in zip(images, [*bars, None], strict=True) for part in pair if part is not None], 1)


def canvas_slot(width: int, frames: int, separator_width: int, slot: int) -> slice:
    """The pixel columns of a slot, counted from 0, on a canvas of so many frames of that width."""
    start = slot * (width + separator_width)
    return slice(start, start + width)


@dataclass(frozen=True)
class Context:
    """The frames so far, encoded: the newest one's latents (B, N, D) and decoded features (B, N, Dd), keys and values of every block for all."""

    frames: int
    latents: Tensor
    features: Tensor
    whole: bool  # whether all of the newest frame was seen
    encoder: list[tuple[Tensor, Tensor]]
    decoder: list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Painted:
    """Features of a slot's patches (B, N, Dd) and of the action that led there (B, 1, Dd)."""

    slot: Tensor
    action: Tensor


class TargetedMAE(MaskedAutoencoderViT):
    """A masked autoencoder on a canvas of K frames of height x width pixels, whose masks hide what shall be predicted.

    For a frame alone, in the first slot, it is the one that it inherits from.
    """

    canvas_places: Tensor
    canvas_position: Tensor
    canvas_decoder_position: Tensor

    def __init__(
        self,
        height: int,
        width: int,
        action_size: int,
        frames: int = 3,
        separator_width: int = 16,
        config: AutoencoderConfig = AutoencoderConfig(),
        residual: bool = True,
        action_token: bool = True,
    ):
        super().__init__(height, width, config)
        p = config.patch_size
        if frames < 2:
            raise ConfigurationError(f"canvas_history_size is {frames}; a canvas needs at least 2 frames, one of them the next")
        if separator_width < p or separator_width % p:
            raise ConfigurationError(f"separator_width is {separator_width}; give a multiple of the patch's {p} pixels, or a bar would share patches")
        self.frames, self.bar, self.residual, self.action_token = frames, separator_width // p, residual, action_token
        self.canvas_columns = frames * self.columns + (frames - 1) * self.bar
        self.action_embed = nn.Linear(action_size, config.width) if action_token else None
        if self.action_embed is not None:
            init_weights(self.action_embed)
        self.change_head = nn.Linear(config.decoder_width, 3 * p * p)  # what is added to the frame before
        nn.init.zeros_(self.change_head.weight)
        nn.init.zeros_(self.change_head.bias)
        self.register_buffer("canvas_places", grid_places(self.rows, self.canvas_columns).unflatten(0, (self.rows, -1)), persistent=False)
        for name, size in (("canvas_position", config.width), ("canvas_decoder_position", config.decoder_width)):
            code = config.absolute_code * sincos_code(self.rows, self.canvas_columns, size)
            self.register_buffer(name, code.unflatten(0, (self.rows, -1)), persistent=False)

    # Where things are on the canvas. A frame's group of tokens: the bar before it, the action, its patches; the first has patches only.

    def slot_columns(self, slot: int) -> slice:
        """Columns of patches, counted from 0."""
        start = slot * (self.columns + self.bar)
        return slice(start, start + self.columns)

    def bar_columns(self, slot: int) -> slice:
        """Those of the bar before a slot."""
        start = self.slot_columns(slot).start
        return slice(start - self.bar, start)

    def _group(self, slot: int, grid: Tensor) -> Tensor:
        """`grid` (R, columns, x) at a group's tokens, (n, x); zero for the action's."""
        patches = grid[:, self.slot_columns(slot)].flatten(0, 1)
        if slot == 0:
            return patches
        action = [grid.new_zeros(1, grid.shape[-1])] if self.action_token else []
        return torch.cat([grid[:, self.bar_columns(slot)].flatten(0, 1), *action, patches])

    def _lead(self, action: Tensor, color: Tensor) -> Tensor:
        """The embedded bar and action before a frame: action (B, C), colour (B, 3) on 0..1 -> (B, lead, D)."""
        p = self.config.patch_size
        bar = self.patch_embed((color.repeat_interleave(p * p, -1) - 0.5) * 2)[:, None].expand(-1, self.rows * self.bar, -1)  # patches alike
        return bar if self.action_embed is None else torch.cat((bar, self.action_embed(action)[:, None]), 1)

    # Encoding a frame behind those before it, and painting the next

    def look(self, before: Context | None, patches: Tensor, action: Tensor | None, color: Tensor | None, keep: Tensor | None = None) -> Context:
        """One more frame: patches (B, N, P), seen where `keep` (B, n) says or all, and the action (B, C) and its colour that led to it."""
        lead, x, encoder = self._encoded(before, action, color, patches, keep)
        y, decoder = self._decoded(before, x, lead, keep, hidden=self.mask_token.expand(len(patches), self.tokens, -1))
        return Context(_slot(before) + 1, x[:, lead:], y[:, lead:], keep is None, encoder, decoder)

    def paint(self, before: Context, action: Tensor, color: Tensor, patches: Tensor | None = None, keep: Tensor | None = None) -> Painted:
        """The next slot, behind a bar for action (B, C) of colour (B, 3); the context's batch is B, or 1 and shared by all.

        `patches` (B, N, P) and `keep` (B, n): patches of the slot that are given; none unless told.
        """
        lead, x, _ = self._encoded(before, action, color, patches, keep)
        hidden = self.mask_token.expand(len(action), self.tokens, -1)
        if self.residual and before.whole:
            hidden = hidden + self.decoder_embed(before.latents)
        y, _ = self._decoded(before, x, lead, keep, hidden)
        return Painted(y[:, lead:], y[:, lead - 1 : lead] if self.action_token else y[:, :lead].mean(1, keepdim=True))

    def _encoded(
        self, before: Context | None, action: Tensor | None, color: Tensor | None, patches: Tensor | None, keep: Tensor | None
    ) -> tuple[int, Tensor, list[tuple[Tensor, Tensor]]]:
        """How many tokens lead the next frame's group; the latents of what is seen of the group; keys and values, earlier ones included."""
        slot = _slot(before)
        position, places = self._group(slot, self.canvas_position), self._group(slot, self.canvas_places)
        parts, lead = [], len(places) - self.tokens
        if slot and action is not None and color is not None:
            parts.append(self._lead(action, color) + position[:lead])
        rotary = self.rotary(places)
        if patches is None or keep is not None:
            rotary = rotary[:, :lead] if keep is None else rotary[:, self._kept(keep, lead)]
        if patches is not None:
            code = position[lead:]
            if keep is not None:
                patches, code = patches.gather(1, keep[..., None].expand(-1, -1, patches.shape[-1])), code[keep]
            parts.append(self.patch_embed((patches - 0.5) * 2) + code)
        x, presents = torch.cat(parts, 1), []
        for i, block in enumerate(self.blocks):
            x, present = block(x, rotary, past=before.encoder[i] if before else None)
            presents.append(present)
        return lead, self.norm(x), presents

    def _decoded(
        self, before: Context | None, x: Tensor, lead: int, keep: Tensor | None, hidden: Tensor
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Features of a whole group, from the latents x of what was seen of it and what stands at `hidden` patches (B, N, Dd)."""
        y, slot = self.decoder_embed(x), _slot(before)
        if keep is not None:
            y = torch.cat((y[:, :lead], hidden.to(y.dtype).scatter(1, keep[..., None].expand(-1, -1, y.shape[-1]), y[:, lead:])), 1)
        elif y.shape[1] == lead:
            y = torch.cat((y, hidden), 1)
        y = y + self._group(slot, self.canvas_decoder_position)
        rotary, presents = self.decoder_rotary(self._group(slot, self.canvas_places)), []
        for i, block in enumerate(self.decoder_blocks):
            y, present = block(y, rotary, past=before.decoder[i] if before else None)
            presents.append(present)
        return self.decoder_norm(y), presents

    def _kept(self, keep: Tensor, lead: int) -> Tensor:
        """keep (B, n), patches of a frame -> (B, lead + n), tokens of its group."""
        return torch.cat((torch.arange(lead, device=keep.device).expand(len(keep), -1), keep + lead), 1)


def _slot(before: Context | None) -> int:
    return before.frames if before else 0
