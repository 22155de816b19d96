"""LatentWorldModel: a masked autoencoder that sees, a transformer that predicts, a decoder that shows.

Decisions, each against a way this is known to fail:
- predictions start at copy-last: latents change by a zero-initialised delta, pixels by decode(z') - decode(z)
  and by a mover whose masks start at zero;
- half the weight of a picture loss lies on informative patches (they change, or differ from the background),
  or a small dot drowns in black; weights come from targets, never from predictions;
- picture losses are divided by what copy-last (or the mean frame) would score, so 1 always means "no better
  than the floor" and the weights of the parts mean the same in every world;
- the latent target is stopped, all else sends gradients into the encoder; the action is decoded from *real*
  latent differences, since a prediction, told the action, could simply carry it along as a watermark.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motorbabble.errors import ConfigurationError
from motorbabble.experience import Window
from motorbabble.models.autoencoder import AutoencoderConfig, MaskedAutoencoderViT
from motorbabble.models.ensemble import EnsembleHeads
from motorbabble.models.mover import Mover
from motorbabble.models.predictor import PredictorConfig, TransformerActionConditionedPredictor
from motorbabble.world_models.base import Batch, Imagination, WorldModel, over_processes


@dataclass(frozen=True)
class AutoencoderLatentPredictorWorldModelConfig:
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    prediction_history_size: int = 3  # newest frames the predictor looks at
    pred_patch_w: float = 0.2
    pred_latent_w: float = 0.8
    pred_action_w: float = 1.0
    reconstruction_w: float = 1.0  # the anchor: whole frames ...
    masked_w: float = 0.5  # ... and, by this share, one masked frame per window
    mask_ratio_min: float = 0.3
    mask_ratio_max: float = 0.85
    moved_layers: int = 3  # layers the decoder may move; 0: it only paints
    ensemble_heads: int = 5
    informative_threshold: float = 0.05  # of full brightness: a patch with a larger change, or difference from the background

    def __post_init__(self):
        if self.prediction_history_size < 1:
            raise ConfigurationError(f"prediction_history_size is {self.prediction_history_size}; a prediction needs at least 1 frame")
        if self.ensemble_heads < 2:
            raise ConfigurationError(f"ensemble_heads is {self.ensemble_heads}; disagreement needs at least 2")
        weights = (self.pred_patch_w, self.pred_latent_w, self.pred_action_w, self.reconstruction_w, self.masked_w)
        if self.moved_layers < 0 or not all(weight >= 0 for weight in weights):  # NaN is not
            raise ConfigurationError(f"moved_layers and every weight must be 0 or more, not {self}")
        if not 0 <= self.mask_ratio_min <= self.mask_ratio_max < 1:
            raise ConfigurationError(f"mask ratios run from {self.mask_ratio_min} to {self.mask_ratio_max}; keep 0 <= min <= max < 1")


# tiny is what two laptop cores teach in a minute; base is the mission's size; large wants a GPU.
PRESETS = {
    "tiny": AutoencoderLatentPredictorWorldModelConfig(
        AutoencoderConfig(width=128, depth=3), PredictorConfig(depth=3, heads=4), prediction_history_size=2
    ),
    "base": AutoencoderLatentPredictorWorldModelConfig(),
    "large": AutoencoderLatentPredictorWorldModelConfig(
        AutoencoderConfig(width=512, depth=12, heads=8, decoder_width=256, decoder_depth=2), PredictorConfig(depth=12)
    ),
}


class LatentWorldModel(WorldModel):
    """The mission's autoencoder-plus-latent-predictor world model, for frames of `image_shape` (height, width)."""

    teaching = frozenset(
        {
            *("pred_patch_w", "pred_latent_w", "pred_action_w", "reconstruction_w", "masked_w"),
            *("mask_ratio_min", "mask_ratio_max", "informative_threshold"),
        }
    )

    def __init__(
        self,
        image_shape: tuple[int, int],
        action_size: int,
        config: AutoencoderLatentPredictorWorldModelConfig = PRESETS["tiny"],
    ):
        super().__init__()
        self.image_shape, self.action_size, self.config = image_shape, action_size, config
        self.history = config.prediction_history_size
        width = config.autoencoder.width
        self.autoencoder = MaskedAutoencoderViT(*image_shape, config.autoencoder)
        self.predictor = TransformerActionConditionedPredictor(self.autoencoder.rows, self.autoencoder.columns, width, action_size, config.predictor)
        self.mover = Mover(*image_shape, config.autoencoder.patch_size, width, config.moved_layers) if config.moved_layers else None
        self.action_decoder = nn.Sequential(nn.Linear(width, 128), nn.GELU(), nn.Linear(128, action_size))
        if self.history * self.predictor.block_tokens > config.predictor.max_sequence_length:
            raise ConfigurationError(
                f"{self.history} frames of {self.autoencoder.tokens} patches exceed {config.predictor.max_sequence_length} tokens; "
                "use smaller frames, larger patches or a shorter history"
            )
        self.ensemble = EnsembleHeads(width, action_size, config.ensemble_heads)

    # What the contract asks for

    def file_of(self, weight: str) -> str:
        return "autoencoder" if weight.startswith("autoencoder.") else "predictor_0"

    @torch.no_grad()
    def reconstruct(self, images: np.ndarray) -> Tensor:
        self.check_images(images)
        patches = self.autoencoder.patchify(self._tensor(images))
        return self.autoencoder.unpatchify(self.autoencoder.decode(self.autoencoder.encode(patches))).clamp(0, 1)

    @torch.no_grad()
    def imagine(self, window: Window, plans: np.ndarray, *, pictures: bool = True) -> Imagination:
        """Frames of the window are encoded once, their keys and values computed once; all plans run in one batch."""
        window = self.check_window(window.last(self.history))
        actions = torch.from_numpy(self.check_plans(plans)).to(self.device)
        n, length = actions.shape[:2]
        seen = self._tensor(window.images)
        latents = self.autoencoder.encode(self.autoencoder.patchify(seen))
        past, start = None, len(window) - 1
        if start:
            led = torch.from_numpy(np.asarray(window.actions, np.float32)).to(self.device)
            _, _, past = self.predictor(latents[None, :-1], led[None])
        now, image = latents[-1:].expand(n, -1, -1), seen[-1:].expand(n, -1, -1, -1)
        images, uncertainty = [], []
        seen_now = self.autoencoder.decode(now[:1]).expand(n, -1, -1)  # every plan starts from the same picture
        for step in range(length):
            after, states, past = self.predictor(now[:, None], actions[:, step : step + 1], past, start)
            past, start = self.predictor.trim(past, self.history - 1) if self.history > 1 else None, start + 1
            after = after[:, 0]
            uncertainty.append(self._uncertainty(now, after, actions[:, step]))
            if pictures or step + 1 < length:
                shown = self._paint(self.autoencoder.patchify(image), seen_now, self.autoencoder.decode(after), states[:, 0])
                image = self.autoencoder.unpatchify(shown).clamp(0, 1)
                images.append(image)
            # It looks at its own picture again: 32 steps ahead that was better in five of seven pairs (LAB_NOTES.md, 2026-11-23).
            if step + 1 < length:
                now = self.autoencoder.encode(self.autoencoder.patchify(image))
                seen_now = self.autoencoder.decode(now)
        return Imagination(torch.stack(images, 1) if pictures else None, torch.stack(uncertainty, 1))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        config, vit = self.config, self.autoencoder
        b, t = batch.images.shape[:2]
        patches = vit.patchify(batch.images)  # (B, T, N, P)
        background = vit.patchify(batch.background)[:, None]  # (B, 1, N, P)
        holds = self._differs(patches, background)  # (B, T, N)
        latents = vit.encode(patches.flatten(0, 1)).unflatten(0, (b, t))
        flat = over_processes(patches.mean((0, 1, 2)))  # early on the mean frame is nearly the frame itself, and no scale to divide by
        empty, even = (over_processes(_balanced(guess - patches, holds)) for guess in (background, flat))
        floor = torch.maximum(empty, 0.1 * even).clamp(min=1e-5)

        losses: dict[str, Tensor] = {}
        seen = vit.decode(latents.flatten(0, 1)).unflatten(0, (b, t))
        losses["reconstruction"] = _balanced(seen - patches, holds) / floor
        losses["masked"] = self._masked_loss(batch, patches[:, -1], holds[:, -1]) / floor
        error, worst = (over_processes((guess.detach() - patches).square().mean()) for guess in (seen, background))
        losses["reconstruction_skill"] = 1 - error / worst.clamp(min=1e-6)
        total = config.reconstruction_w * (losses["reconstruction"] + config.masked_w * losses["masked"])
        if t > 1:
            total = total + self._prediction_losses(batch, patches, latents, seen, holds, losses)
        return {"total": total, **losses}

    # Parts

    def _prediction_losses(self, batch: Batch, patches: Tensor, latents: Tensor, seen: Tensor, holds: Tensor, losses: dict[str, Tensor]) -> Tensor:
        config = self.config
        before, real = patches[:, :-1], patches[:, 1:]
        changes = self._differs(real, before)
        informative = changes | holds[:, 1:]
        after, states, _ = self.predictor(latents[:, :-1], batch.actions)

        target = F.layer_norm(latents[:, 1:].detach(), latents.shape[-1:])
        predicted = F.layer_norm(after, latents.shape[-1:])
        losses["latent"] = _balanced(predicted - target, informative)

        painted = self.autoencoder.decode(after.flatten(0, 1)).unflatten(0, after.shape[:2])
        shown = self._paint(*(x.flatten(0, 1) for x in (before, seen[:, :-1], painted, states))).unflatten(0, after.shape[:2])
        copy = over_processes(_balanced(real - before, informative))
        losses["patch"] = _balanced(shown - real, informative) / copy.clamp(min=1e-4)
        with torch.no_grad():  # unweighted; the newest transition of the first window, which the learner makes the newest of all
            losses["fresh_error"] = (shown[0, -1] - real[0, -1]).square().mean()
            losses["fresh_copy_error"] = (before[0, -1] - real[0, -1]).square().mean()

        change = (latents[:, 1:] - latents[:, :-1]).flatten(0, 1)
        losses["action"] = self._action_loss(change, batch.actions.flatten(0, 1))
        losses["ensemble"] = self._ensemble_loss(batch, latents[:, :-1], after, latents[:, 1:], informative)
        capped = losses["action"] / over_processes(losses["action"]).clamp(min=1)  # unseen actions cannot be decoded; they must not shout either
        return config.pred_patch_w * losses["patch"] + config.pred_latent_w * losses["latent"] + config.pred_action_w * capped + losses["ensemble"]

    def _paint(self, last: Tensor, seen: Tensor, after: Tensor, states: Tensor) -> Tensor:
        """Patches of the next frame, (M, N, P), from the last frame's, the decoded latents' before and after, and the states (M, N + 1, D)."""
        if self.mover is None:
            return last + after - seen
        vit = self.autoencoder
        masks = vit.unpatchify(self.mover.masks(states[:, :-1]))
        return vit.patchify(self.mover(vit.unpatchify(last), masks, states[:, -1], vit.unpatchify(after - seen), vit.unpatchify(after)))

    def _masked_loss(self, batch: Batch, patches: Tensor, holds: Tensor) -> Tensor:
        """One masked frame per window; every ratio between the bounds serves, drawn anew for each batch."""
        low, high = self.config.mask_ratio_min, self.config.mask_ratio_max
        ratio = low + (high - low) * batch.chance_of_all("mask ratio")
        keep = self.autoencoder.random_keep(batch.chance("mask", patches.shape[1]), ratio)
        return _balanced(self.autoencoder.decode(self.autoencoder.encode(patches, keep), keep) - patches, holds)

    def _action_loss(self, change: Tensor, actions: Tensor) -> Tensor:
        decoded = self.action_decoder(change).amax(1)
        return F.mse_loss(decoded, actions)

    def _ensemble_loss(self, batch: Batch, now: Tensor, after: Tensor, real: Tensor, informative: Tensor) -> Tensor:
        """On the few most informative tokens and as many random ones: disagreement matters where something happens."""
        t, n = informative.shape[1:]
        few = min(24, n)
        by_chance = batch.chance("tokens", t * n).unflatten(1, (t, n))
        order = (informative + by_chance).flatten(0, 1).argsort(dim=1, descending=True, stable=True)
        chosen = torch.cat((order[:, : few // 2], order[:, -(few // 2) :]), 1)[..., None].expand(-1, -1, now.shape[-1])
        now, after, real = (F.layer_norm(x.detach().flatten(0, 1).gather(1, chosen), x.shape[-1:]) for x in (now, after, real))
        error = self.ensemble(now, after, batch.actions.flatten(0, 1)) - self.ensemble.target(after, real)
        heads = len(error)
        share = (batch.chance("heads", t * heads) < 0.8).float().unflatten(1, (t, heads)).flatten(0, 1).T[..., None, None]  # each leaves out its own
        return (error.square() * share).mean() / over_processes(share.mean()).clamp(min=0.1)

    def _uncertainty(self, now: Tensor, after: Tensor, action: Tensor) -> Tensor:
        now, after = (F.layer_norm(x, x.shape[-1:]) for x in (now, after))
        return self.ensemble.entropy(self.ensemble(now, after, action))

    def _differs(self, patches: Tensor, other: Tensor) -> Tensor:
        return (patches - other).abs().amax(-1) > self.config.informative_threshold

    def _tensor(self, images: np.ndarray) -> Tensor:
        return torch.from_numpy(images).to(self.device).movedim(-1, 1).float() / 255


def _balanced(error: Tensor, informative: Tensor) -> Tensor:
    """Mean square of error (..., N, P): half from the informative patches (..., N), half from the rest."""
    square = error.square().mean(-1)
    weight = informative.float()
    share = over_processes(weight.mean()).clamp(1e-6, 1 - 1e-6)
    return 0.5 * ((square * weight).mean() / share + (square * (1 - weight)).mean() / (1 - share))
