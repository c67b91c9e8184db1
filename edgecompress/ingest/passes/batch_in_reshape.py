"""A batch size that an exporter wrote into the Reshapes of a model whose batch is declared dynamic."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_ir as ir

from edgecompress.graph.fusion import constant

LARGEST_BATCH = 1024  # that anyone traces a model with


class BatchInReshape(ir.passes.InPlacePass):
    """Every constant target [batch, ..] of a Reshape becomes [1, ..]."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.batch = batch

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        for value, target in _targets(model):
            if target[0] == self.batch:
                value.const_value = ir.tensor(np.concatenate([[1], target[1:]]).astype(np.int64), name=value.name)
        return ir.passes.PassResult(model, True)


def baked_batch(model: ir.Model) -> int | None:
    """The batch size that the constant targets of the model's Reshapes most often begin with, above 1."""
    counts = Counter(int(target[0]) for _, target in _targets(model) if 1 < target[0] <= LARGEST_BATCH)
    return counts.most_common(1)[0][0] if counts else None


def _targets(model: ir.Model) -> list[tuple[ir.Value, np.ndarray]]:
    """(value, array) of the target of each Reshape that has an initializer for it."""
    values = [n.inputs[1] for n in model.graph if n.op_type == "Reshape" and len(n.inputs) > 1]
    return [(v, a) for v in values if v is not None and (a := constant(v)) is not None and a.ndim == 1 and len(a)]
