"""The loss of a network with early exits: each exit learns from the last, and from labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir
import torch
from torch import Tensor

from edgecompress.graph.annotations import exits
from edgecompress.recipe import Distill
from edgecompress.train.losses import Loss, imitation, label_loss, losses_by_output
from edgecompress.train.output_kinds import OutputKind
from edgecompress.train.train_data import Batch


class ExitLoss:
    """The mean of the last output's own loss and one for each exit: alpha * its divergence from the last output +
    (1 - alpha) * the labels' part; without labels the divergence alone.

    After Phuong and Lampert, Distillation-based Training for Multi-exit Architectures (2019), equation 4, where exits
    learn from the last one as it is now, which learns nothing from them.
    """

    def __init__(self, model: ir.Model, own: Loss, settings: Distill, kind: OutputKind) -> None:
        """model: with exits. own: the last output's loss. kind: what that output is."""
        names = [str(v.name) for v in model.graph.outputs]
        self.places = {e.value: names.index(e.value) for e in exits(model.graph)}
        self.own, self.settings, self.kind = own, settings, kind

    def __call__(self, outputs: Sequence[Tensor], labels: Tensor | None, batch: Batch) -> Tensor:
        """The loss, a scalar, of the outputs for a batch."""
        return torch.stack(list(self.parts(outputs, labels, batch).values())).sum()

    def parts(self, outputs: Sequence[Tensor], labels: Tensor | None, batch: Batch) -> Mapping[str, Tensor]:
        """What the last output and each exit add to the loss."""
        count = len(self.places) + 1
        found = losses_by_output(self.own, outputs[:1], labels, batch)
        found = {name: part / count for name, part in found.items()}
        for name, place in self.places.items():
            found[name] = self._of_exit(outputs[place], outputs[0].detach(), labels) / count
        return found

    def _of_exit(self, output: Tensor, last: Tensor, labels: Tensor | None) -> Tensor:
        near = imitation(self.kind, output, last, self.settings.temperature)
        if labels is None or self.kind.task is None:
            return near
        return self.settings.alpha * near + (1 - self.settings.alpha) * label_loss(self.kind, output, labels)
