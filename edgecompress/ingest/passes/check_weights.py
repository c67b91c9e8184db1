"""Refuses NaN in constants and infinities in weights; any other infinity becomes the largest float."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgecompress.errors import InputError

# An infinity elsewhere can be meant: a bound of Clip, the -inf of an attention mask.
WEIGHTED = frozenset("BatchNormalization Conv ConvTranspose GRU Gemm LSTM LayerNormalization MatMul PRelu RNN".split())
LARGEST = np.finfo(np.float32).max


class CheckWeights(ir.passes.InPlacePass):
    """Raises InputError, which names the tensor, for NaN in a constant and for an infinity in a weight.

    Any other infinity becomes the largest float32, so that nothing downstream has to handle infinities.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
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
            value.const_value = ir.tensor(np.clip(array, -LARGEST, LARGEST), name=value.name)
            modified = True
        return ir.passes.PassResult(model, modified)
