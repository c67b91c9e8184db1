"""Weights of few bits (graph/few_bits.py) while they are trained: a float behind each, to which gradients pass.

What is learned are these floats and the scales. A sign or a zero changes when enough gradients have moved its float
there. That the scales of binary and ternary weights are learned as well, as in XNOR-Net++ (A. Bulat and
G. Tzimiropoulos, BMVC 2019), lost less than means of the floats behind them. Behind such layers is a batch
normalization (`Normalised`): sums of few values have another size than what the layer made in float, and change by
leaps.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from edgecompress.compress.quantize.fake import Weight, along
from edgecompress.graph.annotations import Quantization
from edgecompress.graph.few_bits import LARGEST, THRESHOLD
from edgecompress.operators.batchnorm_module import BatchNorm

EPSILON = 1e-5


class Normalised(nn.Module):
    """Batch normalization behind a layer with binary or ternary weights while it trains, in place of the layer's bias.

    y = scale (x - mean) / sqrt(variance + EPSILON) + bias, by the statistics of the batch. In evaluation mode it does
    nothing: by running statistics it is a part of the layer, whose weights are times `factor`, and whose bias is
    `folded`. It begins with the mean and the deviation that the layer's output has in float, so that the layers behind
    it read values of the size that they know.
    """

    bias: nn.Parameter
    mean: Tensor
    variance: Tensor
    start: Tensor

    def __init__(self, bias: nn.Parameter, mean: np.ndarray, variance: np.ndarray) -> None:
        """bias: of the layer, which from now on is that of the normalization. mean, variance: [channels], in float."""
        super().__init__()
        object.__setattr__(self, "bias", bias)  # a plain attribute: the module has it already
        self.norm = BatchNorm(EPSILON)
        self.register_buffer("mean", torch.zeros(len(mean)))
        self.register_buffer("variance", torch.from_numpy(variance.astype(np.float32)))
        self.register_buffer("start", (self.variance + EPSILON).sqrt())
        self.log_ratio = nn.Parameter(torch.zeros(len(mean)))
        with torch.no_grad():
            bias.copy_(torch.from_numpy(mean))

    @property
    def factor(self) -> Tensor:
        """[channels]: what weights are times where they hold the normalization."""
        return self._scale() * (self.variance + EPSILON).rsqrt()

    def folded(self, bias: Tensor) -> Tensor:
        """[channels]: the layer's bias where it holds the normalization."""
        return bias - self.mean * self.factor

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output [n, channels, ...], normalized in training mode."""
        return self.norm(x, self._scale(), self.bias, self.mean, self.variance) if self.training else x

    def _scale(self) -> Tensor:
        return self.start * self.log_ratio.exp()


class FoldedBias(nn.Module):
    """The bias of a layer with a normalization behind it: none in training mode, otherwise rounded as it is stored."""

    normalised: Normalised

    def __init__(self, normalised: Normalised, rounded: nn.Module) -> None:
        super().__init__()
        object.__setattr__(self, "normalised", normalised)
        self.rounded = rounded

    def forward(self, bias: Tensor) -> Tensor:
        """float32 [channels] for the normalization's."""
        return torch.zeros_like(bias) if self.training else self.rounded(self.normalised.folded(bias))


class FewBits(Weight):
    """A binary, ternary or int4 weight. Its scales, which start at the quantization's, are learned as logarithms of
    their ratio to that. mask: marks the weights that stay (Sparsity), or None. normalised: what is behind its layer."""

    start: Tensor
    normalised: Normalised | None = None

    def __init__(self, q: Quantization, mask: np.ndarray | None) -> None:
        super().__init__(q.axis, mask)
        self.kind = q.kind
        self.register_buffer("start", torch.from_numpy(q.scale.astype(np.float32)))
        self.log_ratio = nn.Parameter(torch.zeros(len(q.scale)))

    def own_scale(self, weight: Tensor) -> Tensor:
        """The scales as they are now: [channels] or [1]."""
        own = self.start * self.log_ratio.exp()
        return own if self.normalised is None or self.training else own * self.normalised.factor

    def stored_bias(self, bias: Tensor) -> Tensor:
        """What will be stored of the layer's bias."""
        return bias if self.normalised is None else self.normalised.folded(bias)

    def forward(self, weight: Tensor) -> Tensor:
        """The float32 weight rounded to its whole numbers times their scale."""
        kept = weight if self.mask is None else weight * self.mask
        scale = along(self.scale(kept), kept, self.axis)
        if self.kind == "int4":
            return on_learned_steps(kept, scale, LARGEST[self.kind])
        ratios = kept / scale.detach()
        return (ratios + (self._signs(kept.detach()) - ratios).detach()) * _slowed(scale, kept, LARGEST[self.kind])

    def _signs(self, weight: Tensor) -> Tensor:
        if self.kind == "binary":
            return torch.where(weight >= 0, 1.0, -1.0)
        magnitudes, inner = weight.abs(), [i for i in range(weight.ndim) if i != self.axis]
        counts = (magnitudes > 0).sum(inner, keepdim=True).clamp(min=1)
        return weight.sign() * (magnitudes > THRESHOLD * magnitudes.sum(inner, keepdim=True) / counts)


def on_learned_steps(weight: Tensor, step: Tensor, limit: int) -> Tensor:
    """step * clip(round(weight / step), -limit, limit), with the gradients of S. Esser et al., "Learned step size
    quantization", ICLR 2020, equations 3 and 5, and their section 2.2's factor. step: of a shape that divides the
    weight."""
    step = _slowed(step, weight, limit)
    ratios = (weight / step).clamp(-limit, limit)
    return (ratios + (ratios.round() - ratios).detach()) * step


def _slowed(step: Tensor, weight: Tensor, limit: int) -> Tensor:
    """The step with gradients times 1 / sqrt(n limit), where n weights share it."""
    if step.requires_grad:
        step = step.clone()
        factor = (weight.numel() / step.numel() * limit) ** -0.5
        step.register_hook(lambda grad: grad * factor)
    return step


def fake_weight(q: Quantization, mask: np.ndarray | None) -> Weight:
    """What stands in the place of an int8 weight that is stored so. mask: marks the weights that stay, or None."""
    return Weight(q.axis, mask) if q.kind == "int8" else FewBits(q, mask)
