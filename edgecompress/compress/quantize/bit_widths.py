"""Layers whose activations are int16, and the places where values change between int8 and int16."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from edgecompress.compress.quantize import operators
from edgecompress.compress.quantize.groups import Groups
from edgecompress.compress.quantize.names import Names
from edgecompress.errors import InputError
from edgecompress.graph.annotations import activation_bits, is_integer
from edgecompress.graph.fusion import Layer, constant, layers
from edgecompress.graph.provenance import label
from edgecompress.recipe import Quantize

ALL = "*"


def with_int16(settings: Quantize, names: Iterable[str]) -> Quantize:
    """The settings with int16 activations also in the layers of these nodes or values."""
    added = [name for name in names if name not in settings.int16_layers]
    return settings.model_copy(update={"int16_layers": [*settings.int16_layers, *added]})


def can_be_int16(layer: Layer) -> bool:
    """Whether TFLite, TensorFlow Lite Micro and the runtime compute the layer on int16 activations."""
    entry = operators.rule(layer)
    return entry is not None and entry.int16(layer.node)


def int16_nodes(graph: ir.Graph, chosen: set[ir.Node], settings: Quantize) -> set[ir.Node]:
    """Those of the chosen nodes whose layers compute on int16: the layers that settings.int16_layers names, and
    between them what only moves numbers.

    Raises InputError for a named layer that has no int16 kernel.
    """
    integer = [layer for layer in layers(graph) if layer.node in chosen]
    names = set(settings.int16_layers)
    wide = [layer for layer in integer if _is_named(layer, names) or (ALL in names and can_be_int16(layer))]
    if unable := [label(layer.node) for layer in wide if not can_be_int16(layer)]:
        raise InputError(f"quantize.int16_layers: these nodes have no int16 kernel: {', '.join(unable)}; remove them")
    wide += _moved_between(integer, wide)
    return {node for layer in wide for node in layer.nodes}


def _is_named(layer: Layer, names: set[str]) -> bool:
    return any(node.name in names or any(v.name in names for v in node.outputs) for node in layer.nodes)


def _moved_between(integer: list[Layer], wide: list[Layer]) -> list[Layer]:
    """Layers that only move numbers of int16 layers, or of the caller to int16 layers alone, by chains."""
    moving = [x for x in integer if operators.RULES[x.node.op_type].passive and x not in wide and can_be_int16(x)]
    chains = Groups()
    for layer in moving:
        chains.join([*_computed(layer), *operators.outputs(layer)])
    others = [layer for layer in integer if layer not in moving]
    made = {chains.find(v): layer in wide for layer in others for v in operators.outputs(layer)}
    read: dict[ir.Value, list[bool]] = {}
    for layer in others:
        for value in _computed(layer):
            read.setdefault(chains.find(value), []).append(layer in wide)
    return [
        x
        for x in moving
        if made.get(root := chains.find(x.output), False) or (root not in made and all(read.get(root, [False])))
    ]


def _computed(layer: Layer) -> list[ir.Value]:
    return [v for _, v in operators.data_inputs(layer) if constant(v) is None]


def stored_bits(value: ir.Value) -> int:
    """Of an activation that integer layers compute or read: 8 or 16. One that nobody stores as an integer, such as an
    input of the graph, is quantized to as many bits as the widest of its readers takes."""
    producer = value.producer()
    if producer is not None and (bits := activation_bits(producer)) is not None:
        return bits
    return max((activation_bits(node) or 8 for node, _ in value.uses()), default=8)


def separate_widths(graph: ir.Graph) -> list[tuple[ir.Node, ir.Value]]:
    """Puts an Identity, which requantizes, between a value and the integer layers that read it at another width;
    returns pairs (Identity, source). Nodes have their `activation_bits`."""
    names, added = Names(graph), []
    integer = [layer for layer in layers(graph) if is_integer(layer.node)]
    readers: dict[tuple[ir.Value, int], list[tuple[ir.Node, int]]] = {}
    for layer in integer:
        bits = activation_bits(layer.node)
        assert bits is not None
        for index, value in operators.data_inputs(layer):
            if constant(value) is None and stored_bits(value) != bits:
                readers.setdefault((value, bits), []).append((layer.node, index))
    for (value, bits), uses in readers.items():
        requantize = ir.node("Identity", [value], name=names(f"{value.name}/int{bits}"))
        output = requantize.outputs[0]
        output.name, output.shape, output.type = names(f"{value.name}/int{bits}"), value.shape, value.type
        if (producer := value.producer()) is None:
            graph.insert_before(graph[0], requantize)
        else:
            graph.insert_after(producer, requantize)
        for node, index in uses:
            node.replace_input_with(index, output)
        added.append((requantize, value))
        requantize.meta["activation_bits"] = bits
    return added
