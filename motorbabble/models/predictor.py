"""Which latents follow, given an action: what all predictors share, and TransformerActionConditionedPredictor.

Decisions: one block of tokens per moment, {frame tokens F_i, action token a_i}: full attention inside a
block, causal between blocks, so that all transitions of a window train at once and earlier blocks can be
cached; FiLM modulates block i by action i only; the change of F_i is read at F_i itself; its last layer
starts at zero, so that an untrained predictor says "nothing changes".

Shapes: B batch, T moments, N frame tokens, C encoded action, D width.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from motorbabble.errors import ConfigurationError
from motorbabble.models.attention import AdaLNZero, Block, FiLM, Groups, Rotary, grid_places, init_weights, record_attention

ACTION_PARTS = ("action_embed", "action_token", "film_layers", "adaln_layers")  # through which alone an action can reach a prediction
Past = list[tuple[Tensor, Tensor]]  # keys and values of earlier blocks, one pair per layer


@dataclass(frozen=True)
class PredictorConfig:
    depth: int = 6
    heads: int = 8
    action_embed_dim: int = 64
    film_hidden_dim: int = 128
    film_block_ids: tuple[int, ...] = (0, 2)
    conditioning: Literal["film", "adaln"] = "film"  # FiLM after chosen blocks; AdaLN-zero in every block
    max_sequence_length: int = 4096  # tokens; older blocks are clipped
    delta_latent: bool = True
    predictor_type: Literal["transformer", "lstm"] = "transformer"  # heads, FiLM and conditioning are the transformer's alone


@dataclass(frozen=True)
class TokenIndex:
    """Which token is which, among the keys that the newest block looks at: `moments` blocks of rows x columns frame tokens and one action token.

    All members are numbers of keys, counted from the oldest; in a block the action comes last. Where several actions are predicted at
    once a block has an action token for each.
    """

    rows: int
    columns: int
    moments: int
    action_tokens: int = 1

    @property
    def frame_tokens(self) -> int:
        return self.rows * self.columns

    @property
    def keys(self) -> int:
        return self.moments * (self.frame_tokens + self.action_tokens)

    @property
    def frames(self) -> Tensor:
        """(moments, N): the frame tokens of each moment, row by row of the picture."""
        return torch.arange(self.keys).view(self.moments, -1)[:, : self.frame_tokens]

    @property
    def actions(self) -> Tensor:
        """(moments x action tokens,): each moment's action; the last one's outcome is what is predicted."""
        return torch.arange(self.keys).view(self.moments, -1)[:, self.frame_tokens :].flatten()

    def asking(self, attention: Tensor) -> Tensor:
        """(..., N, M) of a map (..., n, M): the rows at which the next frame is read, which are the newest frame's own tokens."""
        return attention[..., -self.frame_tokens - self.action_tokens : -self.action_tokens, :]

    def newest_first(self) -> Tensor:
        """(N, M): for each frame token that asks, all keys, the newest first. One moment's tokens are equally new: its
        action, which has no place, stands before its patches, and these by their distance from the patch that asks."""
        row, column = (place.flatten() for place in torch.meshgrid(torch.arange(self.rows), torch.arange(self.columns), indexing="ij"))
        away = (row[:, None] - row).square() + (column[:, None] - column).square()  # (N, N)
        near = away.argsort(dim=1, stable=True)
        actions = self.actions.view(self.moments, -1)
        blocks = [torch.cat((action.expand(len(near), -1), frame[near]), 1) for action, frame in zip(actions, self.frames, strict=True)]
        return torch.cat(blocks[::-1], 1)


@dataclass(frozen=True)
class AttentionInfo:
    """Where a predictor looked. `layers`: one map (B, heads, n, M) per block, of the n tokens given over all M with those in `past`."""

    layers: list[Tensor]
    index: TokenIndex


class ActionEmbedding(nn.Module):
    """A learned embedding of actions normalised to [-1, 1]: (..., C) -> (..., action_embed_dim)."""

    def __init__(self, channels: int, config: PredictorConfig):
        super().__init__()
        self.fc1 = nn.Linear(channels, config.film_hidden_dim)
        self.fc2 = nn.Linear(config.film_hidden_dim, config.action_embed_dim)
        self.norm = nn.LayerNorm(config.action_embed_dim)

    def forward(self, actions: Tensor) -> Tensor:
        return self.norm(self.fc2(nn.functional.gelu(self.fc1(actions))))

    def one_by_one(self, actions: Tensor) -> Tensor:
        """(B, T, 1, A): what has a token of its own."""
        return self(actions).unsqueeze(2)

    def together(self, embedded: Tensor) -> Tensor:
        """(B, T, A) of these."""
        return embedded.squeeze(2)


class ActionConditionedPredictor(nn.Module):
    """Latents of the newest frames and the actions taken at them, to the latents that follow each."""

    action_embed: Any  # an ActionEmbedding, or one of whole sequences
    head: nn.Linear

    def __init__(self, rows: int, columns: int, width: int, action_size: int, config: PredictorConfig = PredictorConfig(), action_tokens: int = 1):
        super().__init__()
        self.config = config
        self.rows, self.columns = rows, columns
        self.frame_tokens, self.action_tokens = rows * columns, action_tokens
        self.block_tokens = self.frame_tokens + action_tokens
        self.action_embed = ActionEmbedding(action_size, config)
        self.action_token = nn.Linear(config.action_embed_dim, width)

    def embedded(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """What modulates each moment, (B, T, A), and its action tokens, (B, T, s, D): one, or one for each action of a sequence."""
        one_by_one = self.action_embed.one_by_one(actions)
        return self.action_embed.together(one_by_one), self.action_token(one_by_one)

    def trim(self, past: Past, moments: int) -> Past:
        """The newest `moments` blocks of a cache."""
        raise NotImplementedError


class TransformerActionConditionedPredictor(ActionConditionedPredictor):
    """Blocks that attend over the tokens of all moments so far."""

    places: Tensor

    def __init__(self, rows: int, columns: int, width: int, action_size: int, config: PredictorConfig = PredictorConfig(), action_tokens: int = 1):
        if width % (2 * config.heads):
            raise ConfigurationError(f"width {width} is not divisible by twice the {config.heads} heads; choose another")
        super().__init__(rows, columns, width, action_size, config, action_tokens)
        self.rotary = Rotary(width // config.heads)
        self.blocks = nn.ModuleList(Block(width, config.heads) for _ in range(config.depth))
        film = config.film_block_ids if config.conditioning == "film" else ()
        self.film_layers = nn.ModuleDict({str(i): FiLM(config.action_embed_dim, width) for i in film if i < config.depth})
        adaln = range(config.depth) if config.conditioning == "adaln" else ()
        self.adaln_layers = nn.ModuleList(AdaLNZero(config.action_embed_dim, width) for _ in adaln)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, width)
        init_weights(self)
        for layer in self.film_layers.values():
            assert isinstance(layer, FiLM)
            nn.init.zeros_(layer.affine.weight)
        for layer in self.adaln_layers:
            assert isinstance(layer, AdaLNZero)
            nn.init.zeros_(layer.affine.weight)
        nn.init.zeros_(self.head.weight)
        self.register_buffer("places", grid_places(rows, columns), persistent=False)

    def forward(
        self, latents: Tensor, actions: Tensor, past: Past | None = None, start: int | Tensor = 0, return_attn: bool = False
    ) -> tuple[Tensor, Tensor, Past] | tuple[Tensor, Tensor, Past, AttentionInfo]:
        """latents (B, T, N, D) and the action taken at each (B, T, C).

        Returns the next latents (B, T, N, D), every token's last state (B, T, N + 1, D; the action's comes last),
        and the keys and values to hand back as `past` with `start` = the number of moments already in it.
        With `return_attn` there is a fourth: where every layer looked. The other three are the same to the bit.
        """
        if return_attn:
            with record_attention(self) as recorded:
                after, states, present = self(latents, actions, past, start)
            layers = [maps[-1] for maps in recorded.values()]
            return after, states, present, AttentionInfo(layers, self.index(layers[0].shape[-1]))
        if past is None:
            moments = max(1, self.config.max_sequence_length // self.block_tokens)
            latents, actions = latents[:, -moments:], actions[:, -moments:]
        time = latents.shape[1]
        embedded, tokens = self.embedded(actions)
        x = torch.cat((latents, tokens), 2).flatten(1, 2)
        rotary, groups = self.rotary(self._places(start, time)), Groups.in_time(time, self.block_tokens) if time > 1 else None
        present: Past = []
        for i, block in enumerate(self.blocks):
            modulation = self.adaln_layers[i](embedded, self.block_tokens) if self.adaln_layers else None
            x, pair = block(x, rotary, groups, None if past is None else past[i], modulation)
            present.append(pair)
            if str(i) in self.film_layers:
                x = self.film_layers[str(i)](x.unflatten(1, (time, -1)), embedded).flatten(1, 2)
        states = self.norm(x).unflatten(1, (time, -1))
        change = self.head(states[:, :, : self.frame_tokens]).float()
        return (latents + change if self.config.delta_latent else change), states, present

    def trim(self, past: Past, moments: int) -> Past:
        return [(k[:, :, -moments * self.block_tokens :], v[:, :, -moments * self.block_tokens :]) for k, v in past]

    def index(self, keys: int) -> TokenIndex:
        """Which of so many keys is what."""
        return TokenIndex(self.rows, self.columns, keys // self.block_tokens, self.action_tokens)

    def _places(self, start: int | Tensor, time: int) -> Tensor:
        frame = torch.cat((self.places, torch.zeros(self.action_tokens, 3, dtype=self.places.dtype, device=self.places.device)))
        places = frame.repeat(time, 1)
        places[:, 0] = (torch.arange(time, device=places.device) + start).repeat_interleave(self.block_tokens)
        return places
