"""Canvases: frames side by side with bars between them in the action's colour, and TargetedMAE, which paints the empty slot.

    [ frame ]|bar|[ frame ]|bar|[ next ]      the newest bar shows the action that is asked about

Decisions, each against a way this is known to fail:
- a bar is whole patches wide, so that every patch is part of one frame or of one bar (8 pixels of bar shared their patches with a frame);
- the decoder attends, or a hidden patch knows nothing but its own place;
- visible patches alone are encoded; nothing looks further right than its own frame, so that one window teaches every slot of the
  canvas in one pass, and what stands left of the newest bar is computed once for all actions asked about;
- the empty slot starts as a copy of the frame before it, in features and in pixels (`residual`), so it has to find only what changes;
- an action also enters as a token (`action_token`): a bar's colour is for people, and easily overlooked by a network.
A life's first frames fill the canvas from the left: places are the canvas's own, so that the same place one frame ago is one fixed distance.

Shapes: B batch, T frames on a canvas of K, N patches in a frame, R rows of them, P numbers in a patch, C numbers in an action, D width and
Dd the decoder's.
"""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from motorbabble.errors import ActionError, ConfigurationError, FrameError
from motorbabble.models.attention import Groups, grid_places, init_weights, sincos_code
from motorbabble.models.autoencoder import AutoencoderConfig, MaskedAutoencoderViT

RED, GREEN, UNKNOWN = np.array([214, 69, 65]), np.array([46, 160, 67]), np.array([128, 128, 128])
_MOTOR, _BLUE, _LIGHT = (GREEN - RED) / 2, np.array([-40, -40, 150]), np.array([70, 70, 70])


def separator_color(action: np.ndarray | None) -> np.ndarray:
    """The bar's colour (3,) uint8 for an encoded action (C,), as `separator_colors` gives it. None: grey, for an action nobody has chosen yet."""
    if action is None:
        return UNKNOWN.astype(np.uint8)
    action = np.asarray(action, np.float64)
    if action.ndim != 1 or not action.size or not np.isfinite(action).all():
        raise ActionError(f"an encoded action is some finite numbers in a row, not {action}; make it with action_space.encode")
    return separator_colors(torch.from_numpy(action)).numpy().astype(np.uint8)


@torch.no_grad()
def separator_colors(actions: Tensor) -> Tensor:
    """Bars' colours (..., 3), whole numbers from 0 to 255, for encoded actions (..., C), on their device.

    A single number goes from red (-1: stay, motor at rest) to green (1: move, full speed). Of several the second does, as the JetBot's
    right motor; the first goes from yellow to blue, the third from dark to light, further ones the same ways by half as much. One of a long
    list of mere names (one-hot) has a hue of its own.
    """
    actions, count = actions.double(), actions.shape[-1]
    axes = (_BLUE, _MOTOR, _LIGHT) if count > 1 else (_MOTOR,)
    ways = torch.from_numpy(np.stack([axes[i % 3] / 2 ** (i // 3) for i in range(count)])).to(actions.device)
    middle = torch.from_numpy((RED + GREEN) / 2).to(actions.device)
    colors = middle + sum(value[..., None] * way for value, way in zip(actions.clamp(-1, 1).unbind(-1), ways, strict=True))
    if count > 3:
        named = ((actions == 0) | (actions == 1)).all(-1) & (actions.sum(-1) == 1) & actions[..., 3:].any(-1)
        colors = torch.where(named[..., None], torch.from_numpy(_hues(count)).to(actions.device)[actions.argmax(-1)], colors)
    return colors.clamp(0, 255).round()


@cache
def _hues(count: int) -> np.ndarray:
    """(count, 3), a golden section apart, pale and full, lighter and darker in turn."""
    told = [colorsys.hsv_to_rgb(i * 0.618034 % 1, (1.0, 0.6, 0.8)[i % 3], (0.9, 0.6, 0.75)[i // 3 % 3]) for i in range(count)]
    return 255 * np.array(told)


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
class Frame:
    """What is given of one slot: `patches` (B, N, P), or of these only the ones in `keep` (B, n); nothing where there are none.

    In all slots but the first a bar of `color` (B, 3), on 0..1, and the `action` (B, C) that led there stand before it. What is `hidden` shall be
    painted: it sees every frame before it, and none sees it.
    """

    slot: int
    action: Tensor | None = None
    color: Tensor | None = None
    patches: Tensor | None = None
    keep: Tensor | None = None
    hidden: bool = False


Pairs = list[tuple[Tensor, Tensor]]  # keys and values of each block


@dataclass(frozen=True)
class Read:
    """Frames that were read, features of their patches (B, T, N, Dd): those `looked` at, and those `painted`, with their actions' (B, T, 1, Dd)."""

    slots: int  # that are filled, those of earlier calls included
    looked: Tensor
    painted: Tensor
    actions: Tensor
    newest: Tensor | None  # patches of the newest one looked at as they enter the decoder, (B, N, Dd); None where not all were seen
    encoder: Pairs  # of all that was looked at, for frames behind it
    decoder: Pairs


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

    def _leading(self, slot: int) -> int:
        """How many tokens of a group come before its patches."""
        return self.rows * self.bar + self.action_token if slot else 0

    # Reading frames, and painting those that are hidden

    def read(self, frames: Sequence[Frame], before: Read | None = None) -> Read:
        """Frames in a row, behind those `before` (batch B, or 1 and shared by all): first those to look at, slot by slot, then those that are hidden.

        All pass each block together. Each sees what was looked at in slots before its own, and itself.
        """
        sees = tuple(tuple(j for j, other in enumerate(frames) if other is one or (not other.hidden and other.slot < one.slot)) for one in frames)
        looks, behind = sum(not frame.hidden for frame in frames), before.slots if before else 0

        tokens, places = zip(*map(self._tokens, frames), strict=True)
        seen = Groups(tuple(x.shape[1] for x in tokens), sees)
        x, encoder = _through(self.blocks, torch.cat(tokens, 1), self.rotary(_in_a_row(places)), seen, looks, before.encoder if before else None)
        entered = self.decoder_embed(self.norm(x)).split(seen.sizes, 1)

        whole: dict[int, Tensor | None] = {behind - 1: before.newest} if before else {}
        parts, leads = [], [self._leading(frame.slot) for frame in frames]
        for frame, lead, y in zip(frames, leads, entered, strict=True):
            parts += [y[:, :lead], self._all_patches(frame, y[:, lead:], whole.get(frame.slot - 1))]
            if not frame.hidden:
                whole[frame.slot] = parts[-1] if frame.keep is None else None
        groups = Groups(tuple(lead + self.tokens for lead in leads), sees)
        y = torch.cat(parts, 1) + torch.cat([self._group(frame.slot, self.canvas_decoder_position) for frame in frames])
        rotary = self.decoder_rotary(torch.cat([self._group(frame.slot, self.canvas_places) for frame in frames]))
        y, decoder = _through(self.decoder_blocks, y, rotary, groups, looks, before.decoder if before else None)

        features = [of.split((lead, self.tokens), 1) for of, lead in zip(self.decoder_norm(y).split(groups.sizes, 1), leads, strict=True)]
        slots = [patches for _, patches in features]
        actions = [lead[:, -1:] if self.action_token else lead.mean(1, keepdim=True) for lead, _ in features[looks:]]
        known = _stacked(slots[:looks], y), _stacked(slots[looks:], y), _stacked(actions, y)
        return Read(behind + looks, *known, whole.get(behind + looks - 1), encoder, decoder)

    def _tokens(self, frame: Frame) -> tuple[Tensor, Tensor]:
        """What is seen of a frame's group, (B, n, D), and where it stands: (n, 3), or (B, n, 3) where each sample keeps other patches."""
        position, places = self._group(frame.slot, self.canvas_position), self._group(frame.slot, self.canvas_places)
        lead, parts = self._leading(frame.slot), []
        if frame.action is not None and frame.color is not None:
            parts.append(self._lead(frame.action, frame.color) + position[:lead])
        if frame.patches is None:
            return parts[0], places[:lead]
        patches, code = frame.patches, position[lead:]
        if (keep := frame.keep) is not None:
            patches, code = patches.gather(1, keep[..., None].expand(-1, -1, patches.shape[-1])), code[keep]
            places = torch.cat((places[:lead].expand(len(keep), -1, -1), places[lead:][keep]), 1)
        return torch.cat([*parts, self.patch_embed((patches - 0.5) * 2) + code], 1), places

    def _lead(self, action: Tensor, color: Tensor) -> Tensor:
        """The embedded bar and action before a frame: action (B, C), colour (B, 3) on 0..1 -> (B, lead, D)."""
        p = self.config.patch_size
        bar = self.patch_embed((color.repeat_interleave(p * p, -1) - 0.5) * 2)[:, None].expand(-1, self.rows * self.bar, -1)  # patches alike
        return bar if self.action_embed is None else torch.cat((bar, self.action_embed(action)[:, None]), 1)

    def _all_patches(self, frame: Frame, given: Tensor, before: Tensor | None) -> Tensor:
        """All patches of a frame as they enter the decoder, (B, N, Dd): the `given` ones, and what stands where nothing is given."""
        if frame.patches is not None and frame.keep is None:
            return given
        start = self.mask_token.expand(len(given), self.tokens, -1)
        if frame.hidden and self.residual and before is not None:
            start = start + before
        if frame.keep is None:
            return start
        return start.to(given.dtype).scatter(1, frame.keep[..., None].expand(-1, -1, given.shape[-1]), given)


def _through(blocks: nn.ModuleList, x: Tensor, rotary: Tensor, groups: Groups, looks: int, past: Pairs | None) -> tuple[Tensor, Pairs]:
    """x (B, n, D) of groups of tokens, behind all blocks; keys and values of each block, those of the past and of the first `looks` groups."""
    pairs: Pairs = []
    hidden = sum(groups.sizes[looks:])
    for i, block in enumerate(blocks):
        x, (k, v) = block(x, rotary, groups, past[i] if past else None)
        pairs.append((k[:, :, : k.shape[2] - hidden], v[:, :, : v.shape[2] - hidden]))
    return x, pairs


def _in_a_row(places: Sequence[Tensor]) -> Tensor:
    """Places (n, 3) or (B, n, 3) of several groups -> those of all their tokens, (n, 3) or (B, n, 3)."""
    batch = [len(of) for of in places if of.dim() == 3]
    return torch.cat([of.expand(batch[0], -1, -1) if batch and of.dim() == 2 else of for of in places], -2)


def _stacked(parts: list[Tensor], like: Tensor) -> Tensor:
    """Parts (B, n, Dd) -> (B, T, n, Dd); (B, 0, 1, Dd) where there are none."""
    return torch.stack(parts, 1) if parts else like.new_zeros(len(like), 0, 1, like.shape[-1])
