"""Gauges inside an update: how large the gradients are, how far the weights go, how much of it has to do with the action.

    gauge = Gauge(model)  # after backward, before anything is clipped
    optimizer.step()
    gauge.read()  # {"grad_norms/transformer/transformer_layer_0_self_attn": ..., "uwr/...": ..., ...}

Per layer a median, since the mission asks for one and a layer's mean is that of its few largest elements: of the gradient's elements, |g|,
and of the update-to-weight ratios (UWR) |new - old| / (|old| + 1e-8). Over the whole predictor the 95th percentile of UWR. All is counted
exactly, by selection and not by sorting, with no list of elements. Only reads: what is learned is the same to the bit with and without.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from motorbabble.models.predictor import ACTION_PARTS, ActionConditionedPredictor
from motorbabble.world_models.base import WorldModel

_SUBLAYERS = {"attn": "self_attn", "mlp.fc1": "linear1", "mlp.fc2": "linear2"}  # the mission's names for ours
_STACKS = {"predictor.blocks": "transformer_layer", "autoencoder.blocks": "encoder_layer", "autoencoder.decoder_blocks": "decoder_layer"}


class Gauge:
    def __init__(self, model: WorldModel):
        self.layers = layers_of(model)
        predictor = getattr(model, "predictor", None)
        self.predictor = {id(weight) for weight in predictor.parameters()} if isinstance(predictor, nn.Module) else set()
        self.gradients = {f"grad_norms/{layer}": _median([_gradient(weight).abs() for weight in weights]) for layer, weights in self.layers.items()}
        if isinstance(predictor, ActionConditionedPredictor):
            self.gradients["predictor/grad/grad_action_ratio"] = action_ratio(predictor)
        self.before = {id(weight): weight.detach().clone() for weights in self.layers.values() for weight in weights}

    @torch.no_grad()
    def read(self) -> dict[str, float]:
        """After the optimiser's step."""
        ratios = {layer: [self._ratio(weight) for weight in weights] for layer, weights in self.layers.items()}
        told = self.gradients | {f"uwr/{layer}": _median(of) for layer, of in ratios.items()}
        within = [
            ratio
            for layer, weights in self.layers.items()
            for weight, ratio in zip(weights, ratios[layer], strict=True)
            if id(weight) in self.predictor or not self.predictor
        ]
        return told | {"predictor_uwr_95th": _quantile(within, 0.95)}

    def _ratio(self, weight: Tensor) -> Tensor:
        old = self.before[id(weight)]
        return (weight - old).abs() / (old.abs() + 1e-8)


def layers_of(model: WorldModel) -> dict[str, list[nn.Parameter]]:
    """The model's weights by metric name: the predictor's blocks sublayer by sublayer, its other parts and the model's one by one, then levels.

    A model without a predictor predicts with its autoencoder, which is then the part that is looked into.
    """
    predicts = "predictor" if isinstance(getattr(model, "predictor", None), nn.Module) else "autoencoder"
    layers: dict[str, list[nn.Parameter]] = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            level = model.level_of(name)
            layers.setdefault(f"level_{level}" if level else _layer(name, predicts), []).append(weight)
    return layers


def action_ratio(predictor: ActionConditionedPredictor) -> float:
    """L2 norm of the gradients of what the action enters through, as a share (0 to 1) of that of all the predictor's."""
    named = [(name.partition(".")[0] in ACTION_PARTS, _gradient(weight)) for name, weight in predictor.named_parameters()]
    whole, action = (
        torch.stack([g.square().sum() for g in gradients]).sum() for gradients in ([g for _, g in named], [g for mine, g in named if mine])
    )
    return float((action / whole.clamp(min=1e-30)).sqrt())


def _layer(name: str, predicts: str) -> str:
    """predictor.blocks.0.attn.qkv.weight -> transformer/transformer_layer_0_self_attn; predictor.head.bias -> head; mover.x.weight -> mover."""
    part, _, rest = name.partition(".")
    if part != predicts:
        return part
    inner, _, below = rest.partition(".")
    stack = _STACKS.get(f"{part}.{inner}")
    if stack is None:
        return inner if below else part
    number, _, within = below.partition(".")
    module = within.rpartition(".")[0]
    sublayer = next((theirs for ours, theirs in _SUBLAYERS.items() if module == ours or module.startswith(f"{ours}.")), module.replace(".", "_"))
    return f"transformer/{stack}_{number}_{sublayer}"


def _gradient(weight: Tensor) -> Tensor:
    return torch.zeros_like(weight) if weight.grad is None else weight.grad.detach()


def _median(parts: Sequence[Tensor]) -> float:
    return _quantile(parts, 0.5)


def _quantile(parts: Sequence[Tensor], share: float) -> float:
    """The smallest element that at least `share` of all elements do not exceed; torch.quantile sorts, and takes no more than 16 million."""
    elements = torch.cat([part.flatten().float() for part in parts])
    return float(elements.kthvalue(math.ceil(share * len(elements))).values)
