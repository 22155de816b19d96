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
from motorbabble.models.autoencoder import AutoencoderConfig
from motorbabble.models.compiling import begin, compilable, uncompiled
from motorbabble.models.ensemble import WEIGHT, EnsembleHeads
from motorbabble.models.kinds import make_autoencoder, make_predictor
from motorbabble.models.level import Level, Rung
from motorbabble.models.mover import Mover
from motorbabble.models.predictor import Past, PredictorConfig
from motorbabble.world_models.base import Batch, Imagination, WorldModel, looking, over_processes
from motorbabble.world_models.losses import balanced, differs, ensemble_loss, mean_frame_error, newest_errors, shares, squared


@dataclass(frozen=True)
class AutoencoderLatentPredictorWorldModelConfig:
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    image_size: tuple[int, int] | None = None  # height, width: frames of any size are resized to it at the door; None: only image_shape enters
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
        if self.image_size is not None and (len(self.image_size) != 2 or min(self.image_size) < 1):
            raise ConfigurationError(f"image_size is {self.image_size}; give a height and a width in pixels, or None for the robot's own")
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
    """The mission's autoencoder-plus-latent-predictor world model, for frames of `image_shape` (height, width).

    With `config.image_size` it sees those frames, and any others, in that size.
    """

    can_grow = True
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
        image_shape = config.image_size or image_shape
        self.image_shape, self.action_size, self.config = image_shape, action_size, config
        self.has_door = config.image_size is not None
        self.history = config.prediction_history_size
        width = config.autoencoder.width
        self.autoencoder = make_autoencoder(*image_shape, config.autoencoder)
        self.predictor = make_predictor(self.autoencoder.rows, self.autoencoder.columns, width, action_size, config.predictor)
        self.mover = Mover(*image_shape, config.autoencoder.patch_size, width, config.moved_layers) if config.moved_layers else None
        self.action_decoder = nn.Sequential(nn.Linear(width, 128), nn.GELU(), nn.Linear(128, action_size))
        if self.history * self.predictor.block_tokens > config.predictor.max_sequence_length:
            raise ConfigurationError(
                f"{self.history} frames of {self.autoencoder.tokens} patches exceed {config.predictor.max_sequence_length} tokens; "
                "use smaller frames, larger patches or a shorter history"
            )
        self.ensemble = EnsembleHeads(width, action_size, config.autoencoder.patch_size, config.ensemble_heads)
        self.higher = nn.ModuleList()  # levels 1, 2, ...; grown while it lives

    # What the contract asks for

    def file_of(self, weight: str) -> str:
        return "autoencoder" if weight.startswith("autoencoder.") else f"predictor_{self.level_of(weight)}"

    def level_of(self, weight: str) -> int:
        return int(weight.split(".")[1]) + 1 if weight.startswith("higher.") else 0

    @property
    def spans(self) -> tuple[int, ...]:
        return tuple(2**level for level in range(1 + len(self.higher)))

    def grow(self, seed: int) -> None:
        vit, config, below = self.autoencoder, self.config, self._rung(len(self.higher))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            sizes = (vit.rows, vit.columns, vit.config.patch_size, vit.config.width, self.action_size)
            level = Level(2 * below.span, *sizes, config.predictor, config.moved_layers, config.ensemble_heads)
        level.start_from(below)
        self.higher.append(level.to(self.device).train(self.training))

    def retire(self) -> None:
        del self.higher[-1]

    @looking
    def reconstruct(self, images: np.ndarray) -> Tensor:
        patches = self.autoencoder.patchify(self._tensor(self.at_the_door(images)))
        return self.autoencoder.unpatchify(self.autoencoder.decode(self.autoencoder.encode(patches))).clamp(0, 1)

    @looking
    def imagine(self, window: Window, plans: np.ndarray, *, pictures: bool = True, level: int = 0) -> Imagination:
        """Frames of the window are encoded once, their keys and values computed once; all plans run in one batch."""
        window = self.check_window(window.last(self.history))
        with uncompiled(len(window) < self.history):  # a life's first windows
            return self._imagined(window, plans, pictures, level)

    def _imagined(self, window: Window, plans: np.ndarray, pictures: bool, level: int) -> Imagination:
        span = self._rung(level).span
        actions = torch.from_numpy(self.check_plans(plans, span)).to(self.device)
        led = torch.from_numpy(np.asarray(window.actions, np.float32)).to(self.device)
        n, length = actions.shape[:2]
        image, start = self._tensor(window.images), len(window) - 1
        begin(self)
        now, shown, past = self._looked(image, led, level)
        image, now, shown = (x.expand(n, *x.shape[1:]) for x in (image[-1:], now, shown))  # every plan starts from the same picture
        images, uncertainty, expected = [], [], []
        for step in range(0, length, span):
            # Copies, since compiled programs take no views of another place; and nothing that a device would wait for.
            asked, last = actions[:, step : step + span].clone(), step + span >= length
            place = torch.full((), start, device=self.device)
            image, unsure, error, now, shown, past = self._step(image, now, shown, past, place, asked, level, pictures or not last, last)
            start = start + 1 if past else 0
            images.append(image)
            uncertainty.append(unsure)
            expected.append(error)
        return Imagination(torch.stack(images, 1) if pictures else None, torch.stack(uncertainty, 1), torch.stack(expected, 1))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        t, keep = batch.images.shape[1], self._keep(batch)
        share = shares(batch, t - 1, self.ensemble) if t > 1 else None
        losses = self._losses_of(batch.images, batch.actions, batch.background, share, keep=keep)
        return {**losses, "mask_ratio": losses["total"].new_tensor(1 - keep.shape[1] / self.autoencoder.tokens)}

    def level_losses(self, level: int, batch: Batch) -> dict[str, Tensor]:
        """Of windows of up to `history` frames and the `spans[level]` actions after them; the frames in between are not looked at.

        The encoder is shaped by level 0 alone. In half of the updates, drawn by chance, context is left out, since behind a jump there is none.
        """
        rung = self._rung(level)
        context = batch.images.shape[1] - rung.span  # frames, the newest that is seen included
        seen = context if batch.chance_of_all("context") < 0.5 else 1
        images = torch.cat((batch.images[:, context - seen : context], batch.images[:, -1:]), 1)
        return self._losses_above(level, images, batch.actions[:, context - seen :], batch.background, shares(batch, 1, rung.ensemble))

    # Parts: pure functions of weights and tensors

    @compilable(replayed=True)
    def _looked(self, images: Tensor, led: Tensor, level: int) -> tuple[Tensor, Tensor, Past | None]:
        """Of a window's images (T, 3, H, W) and the actions (T - 1, C) between them: the newest one's latents (1, N, D), these decoded, (1, N, P),
        and what the predictor keeps of the earlier ones."""
        rung, past, start = self._rung(level), None, len(images) - 1
        latents = self.autoencoder.encode(self.autoencoder.patchify(images))
        if start:
            _, _, past = rung.predictor(latents[None, :-1], rung.told(F.pad(led[None], (0, 0, 0, rung.span)), start)[:, :-1])
        return latents[-1:], self.autoencoder.decode(latents[-1:]), past

    @compilable(replayed=True)
    def _step(
        self, image: Tensor, now: Tensor, seen: Tensor, past: Past | None, start: Tensor, actions: Tensor, level: int, pictures: bool, last: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Past | None]:
        """After `actions` (n, span, C) from images (n, 3, H, W), their latents `now` and those decoded, `seen`: the next images (or the same ones,
        without `pictures`), uncertainty (n,), expected error (n,), and latents, these decoded, and past of the step after, unless this is the last.
        """
        rung, vit = self._rung(level), self.autoencoder
        told = rung.told(actions, 0)
        after, states, present = rung.predictor(now[:, None], told, past, start)
        # After a jump there is only the frame that it led to.
        past = rung.predictor.trim(present, self.history - 1) if self.history > 1 and not level else None
        after, asked = after[:, 0], rung.asked(told)[:, 0]
        states, summed = states[:, 0], rung.summed(states[:, 0])
        doubt = rung.ensemble.entropy(rung.ensemble(summed, asked)), rung.ensemble.expected_error(summed, asked)
        if pictures:
            image = vit.unpatchify(self._paint(vit.patchify(image), seen, vit.decode(after), states, rung.mover)).clamp(0, 1)
        # It looks at its own picture again: 32 steps ahead that was better in five of seven pairs (LAB_NOTES.md, 2026-11-23).
        if not last:
            now = vit.encode(vit.patchify(image))
            seen = vit.decode(now)
        return image, *doubt, now, seen, past

    @compilable(varying={"keep": 1})
    def _losses_of(self, images: Tensor, actions: Tensor, mean: Tensor, share: Tensor | None, *, keep: Tensor) -> dict[str, Tensor]:
        """Of images (B, T, 3, H, W), actions (B, T - 1, C), mean frames (B, 3, H, W); of the newest frame the patches in `keep` (B, n) are seen."""
        config, vit = self.config, self.autoencoder
        b, t = images.shape[:2]
        patches = vit.patchify(images)  # (B, T, N, P)
        background = vit.patchify(mean)[:, None]  # (B, 1, N, P)
        holds, empty = self._differs(patches, background), squared(background, patches)  # (B, T, N)
        latents = vit.encode(patches.flatten(0, 1)).unflatten(0, (b, t))
        floor = mean_frame_error(empty, patches, holds)

        losses: dict[str, Tensor] = {}
        seen = vit.decode(latents.flatten(0, 1)).unflatten(0, (b, t))
        wrong = squared(seen, patches)
        losses["reconstruction"] = balanced(wrong, holds) / floor
        guessed = vit.decode(vit.encode(patches[:, -1], keep), keep)
        losses["masked"] = balanced(squared(guessed, patches[:, -1]), holds[:, -1]) / floor
        losses["reconstruction_skill"] = 1 - over_processes(wrong.mean()) / over_processes(empty.mean()).clamp(min=1e-6)
        total = config.reconstruction_w * (losses["reconstruction"] + config.masked_w * losses["masked"])
        if share is not None:
            total = total + self._prediction_losses(actions, share, patches, latents, seen, holds, losses)
        return {"total": total, **losses}

    @compilable()
    def _losses_above(self, level: int, images: Tensor, actions: Tensor, mean: Tensor, share: Tensor) -> dict[str, Tensor]:
        """Of the frames that a level sees and the one it predicts (B, T, 3, H, W), and all actions between them."""
        rung, vit = self._rung(level), self.autoencoder
        patches = vit.patchify(images)
        with torch.no_grad():
            latents = vit.encode(patches.flatten(0, 1)).unflatten(0, patches.shape[:2])
            decoded = vit.decode(latents[:, -2])[:, None]
        holds = self._differs(patches[:, -1:], vit.patchify(mean)[:, None])
        losses, *_ = self._transition_losses(rung, actions, share, patches, latents, decoded, holds, 1)
        total = self.config.pred_patch_w * losses["patch"] + self.config.pred_latent_w * losses["latent"] + WEIGHT * losses["ensemble"]
        return {"total": total, **losses}

    def _rung(self, level: int) -> Rung:
        if level == 0:
            return Rung(1, self.predictor, self.mover, self.ensemble)
        if not 0 <= level <= len(self.higher):
            raise ConfigurationError(f"there is no level {level}; this model has {len(self.higher) + 1}, counted from 0")
        return self.higher[level - 1].rung()  # type: ignore[operator]

    def _prediction_losses(
        self, actions: Tensor, share: Tensor, patches: Tensor, latents: Tensor, seen: Tensor, holds: Tensor, losses: dict[str, Tensor]
    ) -> Tensor:
        config = self.config
        count = patches.shape[1] - 1
        found, shown, wrong, copied = self._transition_losses(self._rung(0), actions, share, patches, latents, seen[:, :-1], holds[:, 1:], count)
        losses |= found
        losses |= newest_errors(wrong, copied)
        losses |= _quality(shown, wrong, copied, patches[:, 1:])
        losses["action"] = self._action_loss((latents[:, 1:] - latents[:, :-1]).flatten(0, 1), actions.flatten(0, 1))
        capped = losses["action"] / over_processes(losses["action"]).clamp(min=1)  # unseen actions cannot be decoded; they must not shout either
        weighted = config.pred_patch_w * losses["patch"] + config.pred_latent_w * losses["latent"]
        return weighted + config.pred_action_w * capped + WEIGHT * losses["ensemble"]

    def _transition_losses(
        self, rung: Rung, actions: Tensor, share: Tensor, patches: Tensor, latents: Tensor, seen: Tensor, holds: Tensor, count: int
    ) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor]:
        """How well the `count` newest transitions between frames are predicted; without gradient what is shown for them, (B, count, N, P), and
        the errors (B, count, N) of that and of copy-last.

        patches (B, T, N, P) and latents (B, T, N, D) are all frames'; `seen` the decoded latents before those transitions,
        `holds` what the frames behind them hold.
        """
        before, real = patches[:, -count - 1 : -1], patches[:, -count:]
        told = rung.told(actions, patches.shape[1] - 2)
        after, states, _ = rung.predictor(latents[:, :-1], told)
        after, states, asked = after[:, -count:], states[:, -count:], rung.asked(told)[:, -count:].detach()
        informative = self._differs(real, before) | holds
        guessed, found = (F.layer_norm(of, of.shape[-1:]) for of in (after, latents[:, -count:].detach()))
        painted = self.autoencoder.decode(after.flatten(0, 1)).unflatten(0, after.shape[:2])
        shown = self._paint(*(x.flatten(0, 1) for x in (before, seen, painted, states)), mover=rung.mover).unflatten(0, after.shape[:2])
        wrong, copied = squared(shown, real), squared(before, real)
        copy = over_processes(balanced(copied, informative))
        losses = {
            "latent": balanced(squared(guessed, found), informative),
            "patch": balanced(wrong, informative) / copy.clamp(min=1e-4),
            "ensemble": ensemble_loss(rung.summed(states), asked, real - shown, share, rung.ensemble),
        }
        return losses, shown.detach(), wrong.detach(), copied

    def _paint(self, last: Tensor, seen: Tensor, after: Tensor, states: Tensor, mover: Mover | None) -> Tensor:
        """Patches of the next frame, (M, N, P), from the last frame's, the decoded latents' before and after, and the states (M, N + s, D)."""
        if mover is None:
            return last + after - seen
        vit = self.autoencoder
        frame, actions = states[:, : vit.tokens], states[:, vit.tokens :]
        masks = vit.unpatchify(mover.masks(frame))
        return vit.patchify(mover(vit.unpatchify(last), masks, actions, vit.unpatchify(after - seen), vit.unpatchify(after)))

    def _keep(self, batch: Batch) -> Tensor:
        """(B, n) patches of one frame per window that are seen where others are hidden: a share between the bounds, drawn anew for each batch."""
        low, high = self.config.mask_ratio_min, self.config.mask_ratio_max
        ratio = low + (high - low) * batch.chance_of_all("mask ratio")
        return self.autoencoder.random_keep(batch.chance("mask", self.autoencoder.tokens), ratio)

    def _action_loss(self, change: Tensor, actions: Tensor) -> Tensor:
        decoded = self.action_decoder(change).float().amax(1)
        return F.mse_loss(decoded, actions)

    def _differs(self, patches: Tensor, other: Tensor) -> Tensor:
        return differs(patches, other, self.config.informative_threshold)

    def _tensor(self, images: np.ndarray) -> Tensor:
        return torch.from_numpy(images).to(self.device).movedim(-1, 1).float() / 255


def _quality(shown: Tensor, wrong: Tensor, copied: Tensor, real: Tensor) -> dict[str, Tensor]:
    """Unweighted, over every pixel of every transition in the batch: explained variance (0: one even grey) and skill over copy-last."""
    means = (shown.mean(), wrong.mean(), real.mean(), real.square().mean(), copied.mean())
    light, error, grey, power, copy = over_processes(torch.stack(means))
    variance = 1 - (error - (light - grey).square()) / (power - grey.square()).clamp(min=1e-6)
    return {"explained_variance": variance, "skill": 1 - error / copy.clamp(min=1e-5)}
