"""What XNNPACK, LiteRT's default kernels, refuses when it loads a file, so that no such file is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir

from edgecompress.lowering.tensors import Operator, Tensor

LARGEST_MULTIPLIER = 256  # of a product's sum, to the step of the output (xnn_define_convolution_2d and the others)
PRODUCTS = {  # positions of data and weights
    "CONV_2D": (0, 1), "DEPTHWISE_CONV_2D": (0, 1), "FULLY_CONNECTED": (0, 1), "TRANSPOSE_CONV": (2, 1),
}  # fmt: skip


def faults(operators: Sequence[Operator], tensors: Sequence[Tensor]) -> Iterator[str]:
    """One line for each int8 layer whose sums are too large for the scale of its output."""
    for operator in operators:
        if operator.kind not in PRODUCTS:
            continue
        x, weight = (tensors[operator.inputs[i]] for i in PRODUCTS[operator.kind])
        y = tensors[operator.outputs[0]]
        scales = [t.quantization.scale.max() for t in (x, weight, y) if t.quantization is not None]
        if x.dtype != ir.DataType.INT8 or len(scales) < 3:
            continue
        multiplier = float(scales[0]) * float(scales[1]) / float(scales[2])
        if multiplier >= LARGEST_MULTIPLIER:
            yield (
                f"{operator.origin}: one step of its int8 sums is {multiplier:.3g} steps of its output, and XNNPACK "
                f"loads no more than {LARGEST_MULTIPLIER}; name it in quantize.float_layers"
            )
