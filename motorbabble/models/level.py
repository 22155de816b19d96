"""Level: what predicts 2, 4, 8 ... actions ahead in one forward pass, where rolling out would take as many passes as actions.

Decisions: each action of a sequence has a token of its own, scaled by a gain learned for its place, and moves things by its own
distances, which the mover adds up; together they make one macro action, which modulates the blocks. So what single actions do need
not be learned anew for each of their combinations: a level starts from the weights of the one below and is nearly right at once,
where one token for the whole sequence needed hundreds of updates and was wrong for sequences it had seldom met (LAB_NOTES.md, 2026-11-25).
Only what is painted begins at nothing.

Shapes: B batch, T moments, N frame tokens, s actions of a sequence, C encoded action, A embedded action, D width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from motorbabble.models.ensemble import EnsembleHeads
from motorbabble.models.kinds import make_predictor
from motorbabble.models.mover import Mover
from motorbabble.models.predictor import ActionConditionedPredictor, ActionEmbedding, PredictorConfig


class MacroActionEmbedding(nn.Module):
    """Sequences of s actions, of which some may not be known: (B, T, s, C + 1) -> (B, T, A). The last channel is 1 where there is one, else 0."""

    def __init__(self, span: int, channels: int, config: PredictorConfig):
        super().__init__()
        width, hidden = config.action_embed_dim, config.film_hidden_dim
        self.each = ActionEmbedding(channels, config)
        self.gain = nn.Parameter(torch.zeros(span, width))
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        nn.init.zeros_(self.fc2.weight)
        nn.init.zeros_(self.fc2.bias)

    def forward(self, sequences: Tensor) -> Tensor:
        return self.together(self.one_by_one(sequences))

    def one_by_one(self, sequences: Tensor) -> Tensor:
        """(B, T, s, A), zero where there is none."""
        return self.each(sequences[..., :-1]) * (1 + self.gain) * sequences[..., -1:]

    def together(self, embedded: Tensor) -> Tensor:
        """(B, T, s, A) -> (B, T, A). The mean, so that an action that is repeated modulates as it does below."""
        mean = embedded.mean(-2)
        return mean + self.fc2(nn.functional.gelu(self.fc1(mean)))


def sequence_predictor(span: int, rows: int, columns: int, width: int, action_size: int, config: PredictorConfig) -> ActionConditionedPredictor:
    """One that takes sequences of `span` actions: each has a token of its own, as at level 0; all together modulate what it computes."""
    predictor = make_predictor(rows, columns, width, action_size, config, action_tokens=span)
    predictor.action_embed = MacroActionEmbedding(span, action_size, config)
    return predictor


@dataclass(frozen=True)
class Rung:
    """The networks of one level, the lowest included, with one face: `told` is what its predictor takes, `asked` what its ensemble does."""

    span: int
    predictor: ActionConditionedPredictor
    mover: Mover | None
    ensemble: EnsembleHeads

    def told(self, actions: Tensor, context: int) -> Tensor:
        """Actions (B, context + span, C) taken at `context` earlier frames and from the newest one on, for context + 1 moments.

        At level 0 they are what they are. Above, each moment has a sequence, (B, context + 1, span, C + 1): of the newest
        frame all that follow; of an earlier one those that are known when the newest is seen.
        """
        if self.span == 1:
            return actions
        known = torch.cat((actions, actions.new_ones(*actions.shape[:2], 1)), -1)
        sequences = known.new_zeros(len(known), context + 1, self.span, known.shape[-1])
        for moment in range(context):
            led = known[:, moment:context][:, : self.span]
            sequences[:, moment, : led.shape[1]] = led
        sequences[:, context] = known[:, context:]
        return sequences

    def asked(self, told: Tensor) -> Tensor:
        """One vector for each moment's action or actions, (B, T, C) or (B, T, A)."""
        return told if self.span == 1 else self.predictor.action_embed(told)

    def summed(self, states: Tensor) -> Tensor:
        """States (..., N + s, D) with those of the actions as one, (..., N + 1, D)."""
        frame = self.predictor.frame_tokens
        return states if self.span == 1 else torch.cat((states[..., :frame, :], states[..., frame:, :].mean(-2, keepdim=True)), -2)


class Level(nn.Module):
    """A level above the lowest: predicts `span` actions ahead at once, for frames of rows x columns patches of `patch_size` pixels."""

    def __init__(
        self, span: int, rows: int, columns: int, patch_size: int, width: int, action_size: int, config: PredictorConfig, layers: int, heads: int
    ):
        super().__init__()
        self.span = span
        self.predictor = sequence_predictor(span, rows, columns, width, action_size, config)
        self.mover = Mover(rows * patch_size, columns * patch_size, patch_size, width, layers) if layers else None
        self.ensemble = EnsembleHeads(width, config.action_embed_dim, patch_size, heads)

    def rung(self) -> Rung:
        return Rung(self.span, self.predictor, self.mover, self.ensemble)

    @torch.no_grad()
    def start_from(self, below: Rung) -> None:
        """Take over the weights of the level below, wherever their shapes agree."""
        weights = below.predictor.state_dict()
        if below.span == 1:
            weights = {name.replace("action_embed.", "action_embed.each."): weight for name, weight in weights.items()}
        mine = self.predictor.state_dict()
        self.predictor.load_state_dict({name: w for name, w in weights.items() if name in mine and mine[name].shape == w.shape}, strict=False)
        nn.init.zeros_(self.predictor.head.weight)
        nn.init.zeros_(self.predictor.head.bias)
        if self.mover is not None and below.mover is not None:
            self.mover.load_state_dict(below.mover.state_dict())
