"""No NaN in any constant, no infinity in a weight."""
from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgecompress.errors import InputError

# An infinity elsewhere can be meant: a bound of Clip, the -inf of an attention mask.
WEIGHTED = frozenset("BatchNormalization Conv ConvTranspose GRU Gemm LSTM LayerNormalization MatMul PRelu".split())
LARGEST_BYTES = 2**31 - 1


class CheckWeights(ir.passes.InPlacePass):
    """Raises InputError that names the first constant with a value that no arithmetic survives."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        for value in model.graph.initializers.values():
            if value.const_value is None or value.dtype not in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
                continue
            array = value.const_value.numpy()
            if np.isfinite(array).all():
                continue
            weighted = any(node.op_type in WEIGHTED for node in value.consumers())
            for kind, found in (("NaN", np.isnan(array)), ("infinite", np.isinf(array))):
                if found.any() and (kind == "NaN" or weighted):
                    raise InputError(
                        f"tensor {value.name!r} has {int(found.sum())} {kind} of {array.size} values; "
                        "train or export the model again"
                    )
        return ir.passes.PassResult(model, False)
