"""Scales that kernels of LiteRT and TFLM don't compute with, most of which end the process, so that no such file is
written. Found by loading one operator at a time, at scales from 1e-10 to 1e8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import onnx_ir as ir

from edgecompress.lowering.tensors import Operator, Tensor

SHIFT = {ir.DataType.INT8: 20, ir.DataType.INT16: 15}  # of the inputs of a sum (add.cc, left_shift)
SOFTMAX_BITS = 26  # fraction bits of its input (softmax.h, 31 - kScaledDiffIntegerBits)
HARD_SWISH_BITS = 7  # by which its input is shifted (activations.cc, HardSwishPrepare)


def faults(operators: Sequence[Operator], tensors: Sequence[Tensor]) -> Iterator[str]:
    """One line for each operator whose scales lie too far apart."""
    for operator in operators:
        rule = RULES.get(operator.kind)
        inputs, output = [tensors[i] for i in operator.inputs], tensors[operator.outputs[0]]
        if rule is None or any(t.quantization is None or t.dtype not in SHIFT for t in (*inputs, output)):
            continue
        largest, least = max(map(_scale, inputs)), _scale(output)
        if not rule(largest, least, output.dtype):
            yield (
                f"{operator.origin}: one step of its {output.dtype.name.lower()} inputs is {largest:.2g}, and of its "
                f"output {least:.2g}, which no {operator.kind} of LiteRT and TFLM computes; name it in "
                "quantize.float_layers, or scale the model's values to around 1"
            )


def _scale(tensor: Tensor) -> float:
    assert tensor.quantization is not None
    return float(tensor.quantization.scale.max())


# (the largest scale of an input, the scale of the output, dtype) -> whether kernels compute it
RULES: dict[str, Callable[[float, float, ir.DataType], bool]] = {
    "ADD": lambda x, y, dtype: 2 * x < 2 ** SHIFT[dtype] * y,
    "SUB": lambda x, y, dtype: 2 * x < 2 ** SHIFT[dtype] * y,
    "SOFTMAX": lambda x, y, dtype: dtype != ir.DataType.INT8 or x * 2**SOFTMAX_BITS > 1,
    "HARD_SWISH": lambda x, y, dtype: x < 2**HARD_SWISH_BITS * y,
}
