"""The table from ONNX operator to the function that writes it as TFLite operators."""

from __future__ import annotations

from collections.abc import Callable

from edgecompress.graph.fusion import Layer
from edgecompress.lowering.context import Context

Lowering = Callable[[Context, Layer], None]
LOWERINGS: dict[str, Lowering] = {}


def lowering(*operators: str) -> Callable[[Lowering], Lowering]:
    """Register a lowering for ONNX operators. It takes the layer's node with its fused bias and activation."""

    def register(function: Lowering) -> Lowering:
        LOWERINGS.update(dict.fromkeys(operators, function))
        return function

    return register
