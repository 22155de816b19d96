"""LSTMPredictor: one LSTM over moments (Hochreiter and Schmidhuber 1997), shared by all places of the frame.

Decisions: every place keeps a memory of its own, so that each latent gets its own change; convolutions over the newest frame tell it what is
beside it, and the mean over the frame what is elsewhere; the action's token has a memory as well, from which a mover reads how far;
the change is read at the newest frame, and its last layer starts at zero. What is handed back as `past` is what the LSTM was fed, not its
state: it starts anew from the moments that are kept, so it never remembers further back than the windows it was taught with.

Shapes: B batch, T moments, N frame tokens, s action tokens, C encoded action, D width.
"""

import torch
from torch import Tensor, nn

from motorbabble.models.attention import init_weights
from motorbabble.models.convolutional import ConvolutionBlock
from motorbabble.models.precision import exact
from motorbabble.models.predictor import ActionConditionedPredictor, AttentionInfo, Past, PredictorConfig, TokenIndex

NEIGHBOURHOOD = 2  # blocks of convolutions before the LSTM: four places in each direction


class LSTMPredictor(ActionConditionedPredictor):
    """An LSTM of `depth` layers, for each token of a moment the same."""

    def __init__(self, rows: int, columns: int, width: int, action_size: int, config: PredictorConfig = PredictorConfig(), action_tokens: int = 1):
        super().__init__(rows, columns, width, action_size, config, action_tokens)
        self.neighbours = nn.ModuleList(ConvolutionBlock(rows, columns, width) for _ in range(NEIGHBOURHOOD))
        self.lstm = nn.LSTM(3 * width, width, config.depth, batch_first=True)  # of a token: itself, the frame's mean, the action
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, width)
        init_weights(self)
        nn.init.zeros_(self.head.weight)

    def forward(
        self, latents: Tensor, actions: Tensor, past: Past | None = None, start: int | Tensor = 0, return_attn: bool = False
    ) -> tuple[Tensor, Tensor, Past] | tuple[Tensor, Tensor, Past, AttentionInfo]:
        """As the transformer's; `past` holds the tokens and the context of earlier moments, batch 1 or B, and there is no attention to return."""
        batch, time = latents.shape[:2]
        together, tokens = self.embedded(actions)
        near = latents.flatten(0, 1)
        for block in self.neighbours:
            near = block(near)
        tokens = torch.cat((near.unflatten(0, (batch, time)), tokens), 2)  # (B, T, N + s, D)
        context = torch.cat((latents.mean(2), self.action_token(together)), -1)  # (B, T, 2 D)
        if past is not None:
            tokens, context = (torch.cat((old.expand(batch, *old.shape[1:]), new), 1) for old, new in zip(past[0], (tokens, context), strict=True))
        fed = torch.cat((tokens, context.unsqueeze(2).expand(-1, -1, self.block_tokens, -1)), -1)
        with exact(fed.device):  # not every device has an LSTM of bfloat16, and its state adds up over moments
            remembered, _ = self.lstm(fed.float().transpose(1, 2).flatten(0, 1))  # (B (N + s), T, D)
        states = self.norm(tokens + remembered.unflatten(0, (batch, -1)).transpose(1, 2))[:, -time:]
        change = self.head(states[:, :, : self.frame_tokens]).float()
        found = (latents + change if self.config.delta_latent else change), states, [(tokens, context)]
        return (*found, AttentionInfo([], TokenIndex(self.rows, self.columns, tokens.shape[1], self.action_tokens))) if return_attn else found

    def trim(self, past: Past, moments: int) -> Past:
        return [(tokens[:, -moments:], context[:, -moments:]) for tokens, context in past]
