"""Zeros of an earlier pruning, which training keeps."""

from __future__ import annotations

import onnx_ir as ir
import torch
from torch import Tensor, nn

from edgecompress.graph.annotations import sparsity
from edgecompress.train.module.torch_model import TorchModel


class Zeros(nn.Module):
    """A weight with zeros where the mask (float 0 or 1, of its shape) has them, which no gradient reaches."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight with zeros where the mask has them."""
        return weight * self.mask


def hold_zeros(module: TorchModel, model: ir.Model) -> None:
    """Keep the zeros of every pruned weight (one with a Sparsity) of the model that the module was made of."""
    for name, weight in module.weights.items():
        pruned = sparsity(model.graph.initializers[name])
        if pruned is not None:
            module.set_weight_transform(name, Zeros(torch.from_numpy(pruned.mask).to(weight.dtype)))
