"""Scales that the input model came with, and which values they are enough for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from edgecompress.compress.quantize import operators
from edgecompress.compress.quantize.names import Names
from edgecompress.compress.quantize.ranges import Range
from edgecompress.compress.quantize.tied import Tied, tied_values
from edgecompress.compress.quantize.weight_scales import quantize_range
from edgecompress.graph.annotations import (
    Quantization,
    activation_bits,
    comes_quantized,
    given_quantization,
    is_integer,
    set_activation_bits,
)
from edgecompress.graph.fusion import Layer, constant, layers

FINER = 2.0  # times finer than its group's: a bit that a value's other readers would lose
MOST = 0.5  # share of the weights whose layers have all their scales, from which on no data is needed


def values_with_scales(graph: ir.Graph) -> set[str]:
    """The names of the values whose int8 scales the model came with, or that operators fix."""
    tied = tied_values([layer for layer in layers(graph) if operators.rule(layer) is not None])
    return {
        str(v.name)
        for root, members in tied.members.items()
        if root in tied.fixed or not without_scale(tied, root, constants=False)
        for v in members
    }


def knows_scales(model: ir.Model, *, every: bool = True) -> bool:
    """Whether the model came with the scales that int8 activations need, so that calibration has nothing to find.

    every: for all layers that have int8 kernels; otherwise for most of their weights.
    """
    if not comes_quantized(model.graph):
        return False
    known, integer = values_with_scales(model.graph), [x for x in layers(model.graph) if operators.rule(x) is not None]
    able = [layer for layer in integer if all(str(v.name) in known for v in _activations(layer))]
    if every:
        return len(able) == len(integer)
    return sum(map(_weights, able)) >= MOST * sum(map(_weights, integer)) > 0


def without_scale(tied: Tied, root: ir.Value, *, constants: bool = True) -> list[ir.Value]:
    """The sources of a group whose range neither their own scale holds nor the scales of all that reads them."""
    by_node = {layer.node: layer for layer in tied.layers}

    def is_held(value: ir.Value) -> bool:
        if given_quantization(value) is not None:
            return True
        if value.is_graph_output() or not value.uses():
            return False
        return all(n in by_node and all(map(is_held, operators.outputs(by_node[n]))) for n, _ in value.uses())

    return [v for v in tied.sources(root) if (constants or constant(v) is None) and not is_held(v)]


def given_range(members: list[ir.Value], beside: Range | None) -> Quantization | None:
    """The quantization that a group came with, or one that holds all that its values came with, and `beside`: the range
    of those that came without."""
    kept = [q for v in members if (q := given_quantization(v)) is not None]
    if not kept:
        return None
    ends = [tuple(map(float, q.dequantize(np.array([-128, 127], np.int8)))) for q in kept]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    if beside is not None:
        low, high = min(low, beside[0]), max(high, beside[1])
    whole = [q for q, end in zip(kept, ends) if end == (low, high)]
    return whole[0] if whole else quantize_range(low, high)


def separate_given(graph: ir.Graph) -> list[tuple[ir.Node, ir.Value]]:
    """Puts an Identity, which requantizes, between a value and an operator that joins it with others, where the value
    came with a scale much finer than the group's, and others read it with that; returns pairs (Identity, source)."""
    tied = tied_values([layer for layer in layers(graph) if is_integer(layer.node)])
    ties, names, added = {layer.node for layer in tied.layers}, Names(graph), []
    for layer in (x for x in tied.layers if activation_bits(x.node) == 8):
        inputs = [(i, v) for i, v in operators.data_inputs(layer) if constant(v) is None]
        scales = [q.scale[0] for v in (*(v for _, v in inputs), layer.output) if (q := given_quantization(v))]
        for index, value in inputs if len(inputs) > 1 else []:
            moved = _moved_from(value, ties)
            q = next((q for v in moved if (q := given_quantization(v)) is not None), None)
            if q is None or q.scale[0] * FINER > max(scales, default=0.0):
                continue
            if all(n in ties for v in moved for n, _ in v.uses()):
                continue
            node = requantized(graph, value, names)
            set_activation_bits(node, activation_bits(layer.node))
            layer.node.replace_input_with(index, node.outputs[0])
            ties.add(node)
            added.append((node, value))
    return added


def requantized(graph: ir.Graph, value: ir.Value, names: Names) -> ir.Node:
    """An Identity behind a value, whose output nobody reads yet."""
    node = ir.node("Identity", [value], name=names(f"{value.name}/requantize"))
    output = node.outputs[0]
    output.name, output.shape, output.type = names(f"{value.name}/requantized"), value.shape, value.type
    if (producer := value.producer()) is None:
        graph.insert_before(graph[0], node)
    else:
        graph.insert_after(producer, node)
    return node


def _moved_from(value: ir.Value, ties: set[ir.Node]) -> list[ir.Value]:
    """The value, and those that it was moved from by operators that keep a scale and read nothing else."""
    found = [value]
    while (producer := found[-1].producer()) in ties and producer is not None:
        computed = [v for v in producer.inputs if v is not None and constant(v) is None]
        if len(computed) != 1:
            break
        found += computed
    return found


def _activations(layer: Layer) -> Iterator[ir.Value]:
    yield from (v for _, v in operators.data_inputs(layer) if constant(v) is None)
    yield from operators.outputs(layer)


def _weights(layer: Layer) -> int:
    array = constant(operators.weight(layer))
    return 0 if array is None else int(array.size)
