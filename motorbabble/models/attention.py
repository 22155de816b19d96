"""Transformer blocks that know where things are relative to each other.

Decisions: pre-norm blocks with the field's parameter names (norm1, attn.qkv, attn.proj, norm2, mlp.fc1,
mlp.fc2); position enters through rotary codes (RoPE, Su et al. 2021) over (time, row, column), because a
model that must find "the same thing one place over" learns it several times sooner from relative than
from absolute codes; attention itself is a module named `attend`, so that it can be watched from outside.

Shapes: B batch, N tokens, D width, h heads, d = D / h.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motorbabble.models.compiling import uncompiled
from motorbabble.models.precision import exact


class Rotary(nn.Module):
    """Angles for tokens at integer places (time, row, column): `forward(places (N, 3)) -> (2, N, d)` cosine and sine.

    An eighth of the head goes to time, the rest half and half to rows and columns. A token with all places
    zero (an action) is not turned at all.
    """

    frequencies: Tensor

    def __init__(self, head_width: int, slowest: float = 100.0):
        super().__init__()
        pairs = head_width // 2
        time = max(1, pairs // 8)
        rows = (pairs - time) // 2
        columns = pairs - time - rows
        frequencies = torch.zeros(pairs, 3)
        start = 0
        for axis, count in enumerate((time, rows, columns)):
            frequencies[start : start + count, axis] = slowest ** (-torch.arange(count) / max(count, 1))
            start += count
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, places: Tensor) -> Tensor:
        with exact(places.device):
            angles = places.float() @ self.frequencies.T  # (N, pairs)
        return torch.stack((torch.cat((angles.cos(), angles.cos()), -1), torch.cat((angles.sin(), angles.sin()), -1)))


def rotate(x: Tensor, rotary: Tensor) -> Tensor:
    """x (..., N, h, d) turned by rotary (2, N, d), or (2, B, N, d) where each sample keeps other tokens."""
    cosine, sine = rotary[0].unsqueeze(-2), rotary[1].unsqueeze(-2)
    first, second = x.chunk(2, -1)
    return x * cosine + torch.cat((-second, first), -1) * sine


@dataclass(frozen=True)
class Groups:
    """Tokens in a row that stand together, and whom they see: `sizes` of the groups, and for each the groups whose keys it `sees`, in their order.

    Keys of earlier calls, before those of the first group, are seen by all.
    """

    sizes: tuple[int, ...]
    sees: tuple[tuple[int, ...], ...]

    @classmethod
    def in_time(cls, moments: int, size: int) -> "Groups":
        """Moments of `size` tokens each; every one sees itself and those before it."""
        return cls((size,) * moments, tuple(tuple(range(i + 1)) for i in range(moments)))

    def seen(self, x: Tensor) -> list[Tensor]:
        """x (B, h, M, d), of all keys -> what each group sees of it. Whoever sees all gets x itself; nobody gets a copy of what they do not see."""
        past, *groups = x.split((x.shape[2] - sum(self.sizes), *self.sizes), 2)
        everyone = tuple(range(len(groups)))
        parts = [[past, *(groups[i] for i in seen)] if past.shape[2] else [groups[i] for i in seen] for seen in self.sees]
        return [x if seen == everyone else torch.cat(part, 2) if len(part) > 1 else part[0] for seen, part in zip(self.sees, parts, strict=True)]

    def mask(self, keys: int, device: torch.device) -> Tensor:
        """(N, M) of M keys: which of them each token sees."""
        numbers = torch.arange(len(self.sizes), device=device).repeat_interleave(torch.tensor(self.sizes, device=device))
        sees = torch.zeros(len(self.sizes), len(self.sizes), dtype=torch.bool, device=device)
        for group, seen in enumerate(self.sees):
            sees[group, list(seen)] = True
        return F.pad(sees[numbers][:, numbers], (keys - len(numbers), 0), value=True)


class Attend(nn.Module):
    """softmax(q k^T / sqrt(d)) v over the keys that each of the `groups` of queries sees; without groups over all.

    Each group is a call of its own: no mask, and nothing computed that is thrown away, a third of all for three moments.
    """

    def forward(self, q: Tensor, k: Tensor, v: Tensor, groups: Groups | None = None) -> Tensor:
        if groups is None:
            return F.scaled_dot_product_attention(q, k, v)
        each = zip(q.split(groups.sizes, 2), groups.seen(k), groups.seen(v), strict=True)
        return torch.cat([F.scaled_dot_product_attention(*of) for of in each], 2)


Maps = dict[str, list[Tensor]]  # an Attend's name in the model -> (B, h, N, M) of each of its calls, the oldest first


@contextmanager
def record_attention(model: nn.Module) -> Iterator[Maps]:
    """The attention maps of whatever is computed inside: rows sum to 1, and what is not seen is exactly 0.

    The weights are computed a second time, in float32 and beside the fused call whose result is used, so outputs are the same to the bit.
    Maps are kept on the model's device, without gradient, as long as the answer is; outside, nothing is recorded.
    """
    recorded: Maps = {name: [] for name, part in model.named_modules() if isinstance(part, Attend)}

    def keeping(maps: list[Tensor]) -> Callable[..., None]:
        return lambda attend, inputs, output: maps.append(attention_map(*inputs))

    hooks = [model.get_submodule(name).register_forward_hook(keeping(maps)) for name, maps in recorded.items()]
    try:
        with uncompiled():
            yield recorded
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def attention_map(q: Tensor, k: Tensor, v: Tensor, groups: Groups | None = None) -> Tensor:
    """What Attend weighs v by, softmax(q k^T / sqrt(d)), (B, h, N, M) float32."""
    with exact(q.device):
        scores = q.float() @ k.float().transpose(-1, -2) / math.sqrt(q.shape[-1])
    if groups is not None:
        scores = scores.masked_fill(~groups.mask(k.shape[2], q.device), -math.inf)
    return scores.softmax(-1)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.attend = Attend()
        self.proj = nn.Linear(width, width)

    def forward(
        self, x: Tensor, rotary: Tensor, groups: Groups | None = None, past: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x (B, N, D) -> (B, N, D) and all keys and values, the earlier ones included; `past` holds those of earlier tokens, batch 1 or B."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(-3)  # (B, N, h, d) each
        q, k = rotate(q, rotary), rotate(k, rotary)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if past is not None:
            k, v = (torch.cat((old.expand(len(x), -1, -1, -1), new), 2) for old, new in zip(past, (k, v), strict=True))
        return self.proj(self.attend(q, k, v, groups).transpose(1, 2).flatten(2)), (k, v)


class Mlp(nn.Module):
    def __init__(self, width: int, ratio: float = 4.0):
        super().__init__()
        self.fc1 = nn.Linear(width, int(width * ratio))
        self.fc2 = nn.Linear(int(width * ratio), width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Block(nn.Module):
    """A transformer block: (B, N, D) -> (B, N, D)."""

    def __init__(self, width: int, heads: int, ratio: float = 4.0):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, ratio)

    def forward(
        self,
        x: Tensor,
        rotary: Tensor,
        groups: Groups | None = None,
        past: tuple[Tensor, Tensor] | None = None,
        modulation: tuple[Tensor, ...] | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """`modulation`: shift, scale and gate of both halves, six (B, N, D), as AdaLNZero gives them."""
        if modulation is None:
            attended, present = self.attn(self.norm1(x), rotary, groups, past)
            x = x + attended
            return x + self.mlp(self.norm2(x)), present
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation
        attended, present = self.attn(self.norm1(x) * (1 + scale1) + shift1, rotary, groups, past)
        x = x + gate1 * attended
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2), present


EncoderLayerWithAttn = Block  # the mission's name: any block's attention can be recorded


class AdaLNZero(nn.Module):
    """What an action does to a whole block: shift, scale and gate of its two halves (Peebles and Xie 2023). The gates start at zero."""

    def __init__(self, action_width: int, width: int):
        super().__init__()
        self.affine = nn.Linear(action_width, 6 * width)
        nn.init.zeros_(self.affine.weight)
        nn.init.zeros_(self.affine.bias)

    def forward(self, action: Tensor, tokens: int) -> tuple[Tensor, ...]:
        """action (B, T, A) -> six (B, T tokens, D), alike for all tokens of a moment."""
        return self.affine(nn.functional.silu(action)).float().repeat_interleave(tokens, 1).chunk(6, -1)


class FiLM(nn.Module):
    """Feature-wise linear modulation (Perez et al. 2018): x * (1 + gamma(a)) + beta(a), the identity before training."""

    def __init__(self, action_width: int, width: int):
        super().__init__()
        self.affine = nn.Linear(action_width, 2 * width)
        nn.init.zeros_(self.affine.weight)
        nn.init.zeros_(self.affine.bias)

    def forward(self, x: Tensor, action: Tensor) -> Tensor:
        """x (B, T, n, D) modulated block by block by action (B, T, A)."""
        gamma, beta = self.affine(action).float().unsqueeze(-2).chunk(2, -1)
        return x * (1 + gamma) + beta


def grid_places(rows: int, columns: int, time: int = 0) -> Tensor:
    """(rows * columns, 3) places of one frame's patches, counted from one so that zero stays free for actions."""
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack((torch.full_like(row, time), row + 1, column + 1), -1).flatten(0, 1)


def sincos_code(rows: int, columns: int, width: int) -> Tensor:
    """(rows * columns, width) absolute 2-D sine-cosine code of integer places (Vaswani et al. 2017), half for each axis."""
    quarter = width // 4
    frequency = 100.0 ** (-torch.arange(quarter) / quarter)
    places = grid_places(rows, columns)[:, 1:].float()
    angles = (places[:, :, None] * frequency).flatten(1)  # (N, 2 * quarter)
    return F.pad(torch.cat((angles.sin(), angles.cos()), 1), (0, width - 4 * quarter))


def init_weights(module: nn.Module) -> None:
    """Xavier for linear layers, as in the field's masked autoencoders; zero biases; what blocks add starts small."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    for part in module.modules():
        if isinstance(part, Block):
            with torch.no_grad():
                part.attn.proj.weight.mul_(0.2)
                part.mlp.fc2.weight.mul_(0.2)
