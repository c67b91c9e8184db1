"""Gates in a graph: products of an image by zeros and ones that a few numbers decide for each sample.

A gate is Sign(Relu(numbers)), one for each block of channels, which Gather repeats for the channels of its block.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

MOVES = ("Reshape", "Gather")


@dataclass(frozen=True)
class Product:
    """A Mul. image: what it closes channels of, [1, channels, height, width]. gate: the Sign's output, [1, blocks]."""

    node: ir.Node
    image: ir.Value
    gate: ir.Value


def product_of(node: ir.Node) -> Product | None:
    """The node as a product by a gate; None for any other."""
    if node.op_type != "Mul" or len(node.inputs) != 2:
        return None
    for image, factor in (node.inputs, reversed(node.inputs)):
        if image is not None and factor is not None and (gate := _gate_behind(factor)) is not None:
            return Product(node, image, gate)
    return None


def products(graph: ir.Graph) -> list[Product]:
    """All products by gates, in order."""
    return [found for node in graph if (found := product_of(node)) is not None]


def _gate_behind(factor: ir.Value) -> ir.Value | None:
    value: ir.Value | None = factor
    while value is not None and (node := value.producer()) is not None and node.op_type in MOVES:
        value = node.inputs[0]
    sign = None if value is None else value.producer()
    if sign is None or sign.op_type != "Sign" or sign.inputs[0] is None:
        return None
    relu = sign.inputs[0].producer()
    return value if relu is not None and relu.op_type == "Relu" else None
