"""Network slimming: training that drives the scales of channels that matter little to zero."""

from __future__ import annotations

import onnx_ir as ir
from torch import nn

from edgecompress.support.present import present
from edgecompress.train import Hook
from edgecompress.train.module.torch_model import TorchModel


class Slimming(Hook):
    """Adds strength * sum |gamma| over all BatchNormalization scales to the loss, by its subgradient (Z. Liu et al.,
    "Learning efficient convolutional networks through network slimming", ICCV 2017, equation 1)."""

    def __init__(self, model: ir.Model, strength: float) -> None:
        self.names = {str(present(n.inputs[1]).name) for n in model.graph if n.op_type == "BatchNormalization"}
        self.strength = strength

    def on_start(self, module: nn.Module) -> None:
        """Find the scales."""
        assert isinstance(module, TorchModel)
        self.scales = [module.weights[name] for name in sorted(self.names)]

    def on_gradients(self, step: int, total: int) -> None:
        """Add the subgradient of the norm to the gradients of the scales."""
        for gamma in self.scales:
            assert gamma.grad is not None  # after the backward pass
            gamma.grad.add_(gamma.detach().sign(), alpha=self.strength)
