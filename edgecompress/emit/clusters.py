"""Which clustered weights a format stores like any other weights, and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from edgecompress.emit.onnx.constants import look_up_table
from edgecompress.graph.annotations import codebook, quantization
from edgecompress.graph.fusion import constant

LARGEST_CODEBOOK = 256  # values, of a .pack


def plain_clusters(model: ir.Model, formats: Sequence[str]) -> list[str]:
    """A line for each format whose file does not get smaller by clustering, in all layers or in some."""
    clustered = [v for v in model.graph.initializers.values() if codebook(v) is not None]
    lines = []
    for name in formats:
        is_plain, why = PLAIN[name]
        if count := sum(map(is_plain, clustered)):
            some = "" if count == len(clustered) else f" in {count} of {len(clustered)} layers"
            lines.append(f"clustering does not make the .{name} file smaller{some}: {why}")
    return lines


def _has_many_values(value: ir.Value) -> bool:
    book, q, array = codebook(value), quantization(value), constant(value)
    if book is None or array is None or book.scale is None or book.axis is None:
        return False
    return len(np.unique(array if q is None else q.quantize(array))) > LARGEST_CODEBOOK


PLAIN: dict[str, tuple[Callable[[ir.Value], bool], str]] = {
    "tflite": (
        lambda value: True,
        "TFLite has no table look-up that an interpreter evaluates once, when it loads the file",
    ),
    "onnx": (
        lambda value: look_up_table(value) is None,
        "indices and a table would take as many bytes as the weights (int8: with more than 16 values, or few weights; "
        "float16: with per_channel = true)",
    ),
    "pack": (
        _has_many_values,
        f"with per_channel = true, float weights have more than {LARGEST_CODEBOOK} different values: leave it out",
    ),
}
