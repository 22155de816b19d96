"""CanvasWorldModel: the next frame is painted into the empty slot of a canvas of past frames.

Decisions, each against a way this is known to fail:
- training hides what predicting hides: mostly whole slots, sometimes most of one, sometimes patches anywhere;
- the loss lies on hidden patches, half its weight on informative ones (they change, or differ from the background), and is divided by
  what copy-last (for patches anywhere: the mean frame) would score: an absolute threshold is passed by an empty picture;
- predictions start at copy-last: what is painted is added to the frame before, and a mover carries its pixels along (`moved_layers`).
"""

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from motorbabble.errors import ConfigurationError
from motorbabble.experience import Window
from motorbabble.models.autoencoder import AutoencoderConfig
from motorbabble.models.canvas import Frame, TargetedMAE, separator_colors
from motorbabble.models.compiling import begin, compilable, uncompiled
from motorbabble.models.ensemble import WEIGHT, EnsembleHeads
from motorbabble.models.mover import Mover
from motorbabble.world_models.base import Batch, Imagination, WorldModel, looking, over_processes
from motorbabble.world_models.losses import balanced, differs, ensemble_loss, mean_frame_error, newest_errors, shares, squared


@dataclass(frozen=True)
class AutoencoderConcatPredictorWorldModelConfig:
    autoencoder: AutoencoderConfig = field(default_factory=lambda: AutoencoderConfig(decoder_depth=2))
    image_size: tuple[int, int] | None = None  # height, width: frames of any size are resized to it at the door; None: only image_shape enters
    canvas_history_size: int = 3  # frames side by side, the next one included
    separator_width: int = 16  # pixels of a bar; a multiple of the patch
    residual: bool = True  # the empty slot starts as the frame before it
    action_token: bool = True  # the action enters beside its colour
    moved_layers: int = 3  # layers of the last frame that may be moved; 0: it only paints
    ensemble_heads: int = 5
    slot_share: float = 0.7  # of updates that hide whole slots, each behind the frames before it ...
    part_share: float = 0.15  # ... and of those that hide half of a slot or more; the rest hide patches anywhere
    mask_ratio_min: float = 0.3  # of patches anywhere
    mask_ratio_max: float = 0.85
    visible_w: float = 0.2  # weight of patches that were seen, so that what it sees can be shown
    informative_threshold: float = 0.05  # of full brightness: a patch with a larger change, or difference from the background

    def __post_init__(self):
        if self.image_size is not None and (len(self.image_size) != 2 or min(self.image_size) < 1):
            raise ConfigurationError(f"image_size is {self.image_size}; give a height and a width in pixels, or None for the robot's own")
        if self.autoencoder.autoencoder_type != "vit":
            raise ConfigurationError(f"autoencoder_type is {self.autoencoder.autoencoder_type}; on a canvas only vit leaves hidden patches out")
        if self.canvas_history_size < 2:
            raise ConfigurationError(f"canvas_history_size is {self.canvas_history_size}; a canvas needs at least 2 frames, one of them the next")
        if self.ensemble_heads < 2:
            raise ConfigurationError(f"ensemble_heads is {self.ensemble_heads}; disagreement needs at least 2")
        if self.moved_layers < 0 or not self.visible_w >= 0:
            raise ConfigurationError(f"moved_layers is {self.moved_layers} and visible_w {self.visible_w}; give 0 or more")
        if not (self.slot_share > 0 and self.part_share >= 0 and self.slot_share + self.part_share <= 1):
            raise ConfigurationError(f"slot_share {self.slot_share} and part_share {self.part_share} are shares; keep slot_share > 0, their sum <= 1")
        if not 0 <= self.mask_ratio_min <= self.mask_ratio_max < 1:
            raise ConfigurationError(f"mask ratios run from {self.mask_ratio_min} to {self.mask_ratio_max}; keep 0 <= min <= max < 1")


CANVAS_PRESETS = {
    "tiny": AutoencoderConcatPredictorWorldModelConfig(AutoencoderConfig(width=128, depth=2, decoder_width=128, decoder_depth=2)),
    "base": AutoencoderConcatPredictorWorldModelConfig(),
    "large": AutoencoderConcatPredictorWorldModelConfig(
        AutoencoderConfig(width=512, depth=12, heads=8, decoder_width=512, decoder_depth=8),
    ),
}


class CanvasWorldModel(WorldModel):
    """The mission's autoencoder-on-a-canvas world model, for frames of `image_shape` (height, width)."""

    uses_all_weights = False  # what paints slots rests where patches anywhere are hidden
    teaching = frozenset(
        {"slot_share", "part_share", "mask_ratio_min", "mask_ratio_max", "visible_w", "informative_threshold"},
    )

    def __init__(
        self,
        image_shape: tuple[int, int],
        action_size: int,
        config: AutoencoderConcatPredictorWorldModelConfig = CANVAS_PRESETS["tiny"],
    ):
        super().__init__()
        image_shape = config.image_size or image_shape
        self.image_shape, self.action_size, self.config = image_shape, action_size, config
        self.has_door = config.image_size is not None
        self.history = config.canvas_history_size - 1
        sizes = (action_size, config.canvas_history_size, config.separator_width, config.autoencoder, config.residual, config.action_token)
        self.autoencoder = TargetedMAE(*image_shape, *sizes)
        width, patch = config.autoencoder.decoder_width, config.autoencoder.patch_size
        self.mover = Mover(*image_shape, patch, width, config.moved_layers) if config.moved_layers else None
        self.ensemble = EnsembleHeads(width, action_size, patch, config.ensemble_heads)

    def file_of(self, weight: str) -> str:
        return "autoencoder" if weight.startswith("autoencoder.") else "predictor_0"

    @looking
    def reconstruct(self, images: np.ndarray) -> Tensor:
        """Each frame alone on its canvas, encoded whole."""
        mae = self.autoencoder
        return mae.unpatchify(mae.decode(mae.encode(mae.patchify(self._tensor(self.at_the_door(images)))))).clamp(0, 1)

    @looking
    def imagine(self, window: Window, plans: np.ndarray, *, pictures: bool = True, level: int = 0) -> Imagination:
        """What stands on the canvas is encoded once; all plans run in one batch."""
        window = self.check_window(window.last(self.history))
        with uncompiled(len(window) < self.history):  # a life's first windows
            return self._imagined(window, plans, pictures)

    def _imagined(self, window: Window, plans: np.ndarray, pictures: bool) -> Imagination:
        actions = torch.from_numpy(self.check_plans(plans)).to(self.device)
        n, length = actions.shape[:2]
        mae = self.autoencoder
        seen = mae.patchify(self._tensor(window.images))[None]  # (1, T, N, P)
        led = torch.from_numpy(np.asarray(window.actions, np.float32)).to(self.device).reshape(1, len(window) - 1, self.action_size)
        images, uncertainty, expected = [], [], []
        begin(self)
        for step in range(length):
            asked, last = actions[:, step].clone(), step + 1 == length
            image, unsure, error = self._step(seen, led, asked, pictures or not last)
            uncertainty.append(unsure)
            expected.append(error)
            if image is not None:
                images.append(image)
            if image is not None and not last:
                kept = min(seen.shape[1], self.history - 1)
                seen = torch.cat((seen[:, seen.shape[1] - kept :].expand(n, -1, -1, -1), mae.patchify(image)[:, None]), 1)
                led = torch.cat((led[:, led.shape[1] - max(kept - 1, 0) :].expand(n, -1, -1), asked[:, None]), 1)[:, :kept]
        return Imagination(torch.stack(images, 1) if pictures else None, torch.stack(uncertainty, 1), torch.stack(expected, 1))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        mae, config, t = self.autoencoder, self.config, batch.images.shape[1]
        given, draw, ratio = (batch.images, batch.actions, batch.background), batch.chance_of_all("what is hidden"), batch.chance_of_all("mask ratio")
        if t == 1 or draw >= config.slot_share + config.part_share:
            chance = batch.chance("mask", t * mae.tokens).unflatten(1, (t, -1))
            keep = mae.random_keep(chance.flatten(0, 1), config.mask_ratio_min + (config.mask_ratio_max - config.mask_ratio_min) * ratio)
            return self._anywhere(*given, keep=keep.unflatten(0, chance.shape[:2]))
        if draw >= config.slot_share:
            return self._slots(*given, None, keep=mae.random_keep(batch.chance("mask", mae.tokens), 0.5 + 0.5 * ratio))
        return self._slots(*given, shares(batch, t - 1, self.ensemble))

    # Parts

    @compilable(replayed=True)
    def _step(self, seen: Tensor, led: Tensor, asked: Tensor, pictures: bool) -> tuple[Tensor | None, Tensor, Tensor]:
        """Behind frames that are seen (1 or n, T, N, P) and the actions between them: after actions `asked` (n, C) the next images (n, 3, H, W),
        or None, uncertainty (n,) and expected error (n,)."""
        mae, known = self.autoencoder, self.autoencoder.read(self._frames(seen, led))
        painted = mae.read([Frame(known.slots, asked, self._colors(asked), hidden=True)], known)
        slot, action = painted.painted[:, 0], painted.actions[:, 0]
        states = torch.cat((slot, action), 1)
        image = mae.unpatchify(self._paint(seen[:, -1].expand(len(asked), -1, -1), slot, action)).clamp(0, 1) if pictures else None
        return image, self.ensemble.entropy(self.ensemble(states, asked)), self.ensemble.expected_error(states, asked)

    def _frames(self, patches: Tensor, actions: Tensor, keep: Tensor | None = None) -> list[Frame]:
        """From the first slot on: patches (B, T, N, P), actions (B, T - 1, C), keep (B, T, n)."""
        led = [(None, None), *zip(actions.unbind(1), self._colors(actions).unbind(1), strict=True)]
        kept = [None] * len(led) if keep is None else keep.unbind(1)
        given = enumerate(zip(led, patches.unbind(1), kept, strict=True))
        return [Frame(i, action, color, image, some) for i, ((action, color), image, some) in given]

    def _seen(self, images: Tensor, mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of images (B, T, 3, H, W) and mean frames (B, 3, H, W): patches (B, T, N, P), which of them hold something, and the mean's errors."""
        patches, background = self.autoencoder.patchify(images), self.autoencoder.patchify(mean)[:, None]
        return patches, self._differs(patches, background), squared(background, patches)

    @compilable(varying={"keep": 1})
    def _slots(self, images: Tensor, actions: Tensor, mean: Tensor, share: Tensor | None, *, keep: Tensor | None = None) -> dict[str, Tensor]:
        """Every frame but the first is painted into its slot behind those before it; of each the patches in `keep` (B, n) are given, if any."""
        mae, (patches, holds, empty) = self.autoencoder, self._seen(images, mean)
        before, real = patches[:, :-1], patches[:, 1:]
        hidden = torch.ones_like(real[..., 0])
        if keep is not None:
            hidden = hidden.scatter(2, keep[:, None].expand(-1, real.shape[1], -1), 0.0)
        frames = self._frames(patches, actions)
        slots = [replace(frame, patches=None if keep is None else frame.patches, keep=keep, hidden=True) for frame in frames[1:]]
        read = mae.read([*frames[:-1], *slots])
        shown = self._paint(*(x.flatten(0, 1) for x in (before, read.painted, read.actions))).unflatten(0, real.shape[:2])
        informative = self._differs(real, before) | holds[:, 1:]
        wrong, copied = squared(shown, real), squared(before, real)
        copy = over_processes(balanced(copied, informative, hidden))
        losses = {
            "patch": balanced(wrong, informative, hidden) / copy.clamp(min=1e-4),
            **self._against(empty[:, 1:], wrong, real, informative, hidden),
        }
        looked = squared(mae.show(read.looked), before)
        losses["visible"] = self._against(empty[:, :-1], looked, before, holds[:, :-1], torch.ones_like(hidden))["reconstruction"]
        losses["mask_ratio"] = hidden.mean()
        total = losses["patch"] + self.config.visible_w * losses["visible"]
        if share is not None:
            states = torch.cat((read.painted, read.actions), 2)
            losses["ensemble"] = ensemble_loss(states, actions, real - shown, share, self.ensemble)
            total = total + WEIGHT * losses["ensemble"]
            losses |= newest_errors(wrong.detach(), copied)
            losses["skill"] = 1 - over_processes(wrong.mean()) / over_processes(copied.mean()).clamp(min=1e-5)
        return {"total": total, **losses}

    @compilable(varying={"keep": 2})
    def _anywhere(self, images: Tensor, actions: Tensor, mean: Tensor, *, keep: Tensor) -> dict[str, Tensor]:
        """Patches are hidden in every frame; those in `keep` (B, T, n) are not."""
        mae, (patches, holds, empty) = self.autoencoder, self._seen(images, mean)
        shown = mae.show(mae.read(self._frames(patches, actions, keep)).looked)
        hidden = torch.ones_like(patches[..., 0]).scatter(2, keep, 0.0)
        wrong = squared(shown, patches)
        losses = self._against(empty, wrong, patches, holds, hidden)
        losses["visible"] = self._against(empty, wrong, patches, holds, 1 - hidden)["reconstruction"]
        return {"total": losses["reconstruction"] + self.config.visible_w * losses["visible"], **losses, "mask_ratio": hidden.mean()}

    def _against(self, empty: Tensor, wrong: Tensor, real: Tensor, informative: Tensor, where: Tensor) -> dict[str, Tensor]:
        """How wrong patches are, (B, T, N), `where` it is 1, against the mean frame's errors `empty`: a loss, and an unweighted skill."""
        error, worst = (over_processes((of * where).mean()) for of in (wrong, empty))
        return {
            "reconstruction": balanced(wrong, informative, where) / mean_frame_error(empty, real, informative, where),
            "reconstruction_skill": 1 - error / worst.clamp(min=1e-6),
        }

    def _paint(self, last: Tensor, slots: Tensor, actions: Tensor) -> Tensor:
        """Patches (B, N, P) of slots, from those of the frames before them, the slots' features (B, N, Dd) and the actions' (B, 1, Dd)."""
        mae = self.autoencoder
        if not mae.residual:
            return mae.show(slots)
        change = mae.change_head(slots).float()
        if self.mover is None:
            return last + change
        fill = mae.unpatchify(mae.show(slots))
        masks = mae.unpatchify(self.mover.masks(slots))
        return mae.patchify(self.mover(mae.unpatchify(last), masks, actions, mae.unpatchify(change), fill))

    def _colors(self, actions: Tensor) -> Tensor:
        """Of encoded actions (..., C), on 0..1: (..., 3)."""
        return separator_colors(actions).float() / 255

    def _differs(self, patches: Tensor, other: Tensor) -> Tensor:
        return differs(patches, other, self.config.informative_threshold)

    def _tensor(self, images: np.ndarray) -> Tensor:
        return torch.from_numpy(images).to(self.device).movedim(-1, 1).float() / 255
