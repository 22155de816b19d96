"""TransformerActionConditionedPredictor: which latents follow, given an action.

Decisions: one block of tokens per moment, {frame tokens F_i, action token a_i}: full attention inside a
block, causal between blocks, so that all transitions of a window train at once and earlier blocks can be
cached; FiLM modulates block i by action i only; the change of F_i is read at F_i itself; its last layer
starts at zero, so that an untrained predictor says "nothing changes".

Shapes: B batch, T moments, N frame tokens, C encoded action, D width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from motorbabble.errors import ConfigurationError
from motorbabble.models.attention import Block, FiLM, Rotary, grid_places, init_weights

Past = list[tuple[Tensor, Tensor]]  # keys and values of earlier blocks, one pair per layer


@dataclass(frozen=True)
class PredictorConfig:
    depth: int = 6
    heads: int = 8
    action_embed_dim: int = 64
    film_hidden_dim: int = 128
    film_block_ids: tuple[int, ...] = (0, 2)
    max_sequence_length: int = 4096  # tokens; older blocks are clipped
    delta_latent: bool = True


class ActionEmbedding(nn.Module):
    """A learned embedding of actions normalised to [-1, 1]: (..., C) -> (..., action_embed_dim)."""

    def __init__(self, channels: int, config: PredictorConfig):
        super().__init__()
        self.fc1 = nn.Linear(channels, config.film_hidden_dim)
        self.fc2 = nn.Linear(config.film_hidden_dim, config.action_embed_dim)
        self.norm = nn.LayerNorm(config.action_embed_dim)

    def forward(self, actions: Tensor) -> Tensor:
        return self.norm(self.fc2(nn.functional.gelu(self.fc1(actions))))


class TransformerActionConditionedPredictor(nn.Module):
    """Latents of the newest frames and the actions taken at them, to the latents that follow each."""

    places: Tensor

    def __init__(self, rows: int, columns: int, width: int, action_size: int, config: PredictorConfig = PredictorConfig()):
        super().__init__()
        if width % (2 * config.heads):
            raise ConfigurationError(f"width {width} is not divisible by twice the {config.heads} heads; choose another")
        self.config = config
        self.block_tokens = rows * columns + 1
        self.action_embed = ActionEmbedding(action_size, config)
        self.action_token = nn.Linear(config.action_embed_dim, width)
        self.rotary = Rotary(width // config.heads)
        self.blocks = nn.ModuleList(Block(width, config.heads) for _ in range(config.depth))
        self.film_layers = nn.ModuleDict({str(i): FiLM(config.action_embed_dim, width) for i in config.film_block_ids if i < config.depth})
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, width)
        init_weights(self)
        for layer in self.film_layers.values():
            assert isinstance(layer, FiLM)
            nn.init.zeros_(layer.affine.weight)
        nn.init.zeros_(self.head.weight)
        self.register_buffer("places", grid_places(rows, columns), persistent=False)

    def forward(self, latents: Tensor, actions: Tensor, past: Past | None = None, start: int = 0) -> tuple[Tensor, Tensor, Past]:
        """latents (B, T, N, D) and the action taken at each (B, T, C).

        Returns the next latents (B, T, N, D), every token's last state (B, T, N + 1, D; the action's comes last),
        and the keys and values to hand back as `past` with `start` = the number of moments already in it.
        """
        if past is None:
            moments = max(1, self.config.max_sequence_length // self.block_tokens)
            latents, actions = latents[:, -moments:], actions[:, -moments:]
        time = latents.shape[1]
        embedded = self.action_embed(actions)
        x = torch.cat((latents, self.action_token(embedded).unsqueeze(2)), 2).flatten(1, 2)
        rotary = self.rotary(self._places(start, time))
        mask = self._block_causal(time, x.device) if time > 1 else None
        if mask is not None and past is not None:
            seen = torch.ones(len(mask), past[0][0].shape[2], dtype=torch.bool, device=x.device)
            mask = torch.cat((seen, mask), 1)
        present: Past = []
        for i, block in enumerate(self.blocks):
            x, pair = block(x, rotary, mask, None if past is None else past[i])
            present.append(pair)
            if str(i) in self.film_layers:
                x = self.film_layers[str(i)](x.unflatten(1, (time, -1)), embedded).flatten(1, 2)
        states = self.norm(x).unflatten(1, (time, -1))
        change = self.head(states[:, :, :-1])
        return (latents + change if self.config.delta_latent else change), states, present

    def trim(self, past: Past, moments: int) -> Past:
        """The newest `moments` blocks of a cache."""
        return [(k[:, :, -moments * self.block_tokens :], v[:, :, -moments * self.block_tokens :]) for k, v in past]

    def _places(self, start: int, time: int) -> Tensor:
        frame = torch.cat((self.places, torch.zeros(1, 3, dtype=self.places.dtype, device=self.places.device)))
        places = frame.repeat(time, 1)
        places[:, 0] = torch.arange(start, start + time, device=places.device).repeat_interleave(self.block_tokens)
        return places

    def _block_causal(self, time: int, device: torch.device) -> Tensor:
        moment = torch.arange(time, device=device).repeat_interleave(self.block_tokens)
        return moment[:, None] >= moment[None, :]
