"""Gates put into a model: which layers get one, and of what nodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgecompress.analysis.gated_layers import is_depthwise
from edgecompress.errors import InputError, UnsupportedModelError
from edgecompress.graph.channel_axes import shape
from edgecompress.graph.fusion import Layer, layers
from edgecompress.graph.nodes import argument, integer
from edgecompress.ingest.passes.edit import Edit
from edgecompress.recipe import Gate

PASSES = ("MaxPool", "AveragePool")  # which keep channels apart, on the way to a convolution that reads them


@dataclass(frozen=True)
class Place:
    """A convolution to gate. first: the node in front of which the gate is computed, of what it reads. last: the layer
    whose output is closed, the convolution itself or a depthwise one behind it."""

    first: Layer
    last: Layer


@dataclass(frozen=True)
class GateNames:
    """The values of a gate by their names. bias: the constant that its logits, [1, blocks], begin as. gate: [1,
    blocks], zeros and ones. image: what it multiplies, [1, channels, height, width]."""

    bias: str
    logits: str
    gate: str
    image: str


def with_gates(model: ir.Model, settings: Gate) -> tuple[ir.Model, list[GateNames]]:
    """A copy of a canonical model with gates that are all open for every sample, for the layers of the settings or all
    that can have one.

    A gate reads the mean of each channel of its convolution's input (X. Gao et al., "Dynamic channel pruning: feature
    boosting and suppression", ICLR 2019, section 3.2), and says for each block of output channels whether it is zero,
    or as it was. Raises InputError for names of layers that can't have one, UnsupportedModelError where none can.
    """
    clone = model.clone()
    edit = Edit(clone.graph)
    return clone, [_insert(edit, place, settings.block) for place in _chosen(clone.graph, settings)]


def _chosen(graph: ir.Graph, settings: Gate) -> list[Place]:
    able = {str(place.first.node.name): place for place in _places(graph, settings.block)}
    if unknown := [name for name in settings.layers if name not in able]:
        raise InputError(
            f"[gate] layers: {', '.join(map(repr, unknown))} can't be gated: expected convolutions without groups of a "
            f"multiple of {settings.block} output channels that only other layers with weights read, behind the "
            f"first layer: {', '.join(map(repr, able)) or 'this model has none'}"
        )
    if not able:
        raise UnsupportedModelError(
            f"[gate] found no convolution behind the first whose channels, a multiple of {settings.block}, only other "
            "layers with weights read; remove [gate], or try block = 4"
        )
    return [able[name] for name in settings.layers] or list(able.values())


def _places(graph: ir.Graph, block: int) -> list[Place]:
    """Where gates can be: inside residual blocks, as what is added to other values is not closed; otherwise
    everywhere but for the first layer, which reads an input."""
    every = layers(graph)
    makers = {layer.node: layer for layer in every}
    found = []
    for layer in every:
        node = layer.node
        if node.op_type != "Conv" or integer(node, "group", 1) != 1 or argument(node, 0).is_graph_input():
            continue
        last = layer
        reader = _reader(layer.output)
        if reader is not None and reader.op_type == "Conv" and is_depthwise(reader) and _same_channels(reader, layer):
            last = makers[reader]
            reader = _reader(last.output)
        if len(shape(last.output)) == 4 and shape(last.output)[1] % block == 0 and _has_weights(reader):
            found.append(Place(layer, last))
    return found


def _same_channels(reader: ir.Node, layer: Layer) -> bool:
    return shape(reader.outputs[0])[1] == shape(layer.output)[1]


def _has_weights(reader: ir.Node | None) -> bool:
    return reader is not None and reader.op_type in ("Conv", "Gemm") and integer(reader, "group", 1) == 1


def _reader(value: ir.Value) -> ir.Node | None:
    """The only node that reads a value, or what pools and reshapes make of it."""
    while len(value.uses()) == 1 and not value.is_graph_output():
        (node,) = value.consumers()
        if node.op_type not in (*PASSES, "ReduceMean", "GlobalAveragePool", "Reshape"):
            return node
        value = node.outputs[0]
    return None


def _insert(edit: Edit, place: Place, block: int) -> GateNames:
    node, y = place.first.node, place.last.output
    x, name = argument(node, 0), str(y.name)
    channels, inputs = shape(y)[1], shape(x)[1]
    blocks = channels // block
    mean = edit.insert(
        node, "ReduceMean", [x, edit.constant(f"{name}/gate/axes", np.array([2, 3]))], {"keepdims": 0},
        stem=f"{name}/gate/mean", shape=(1, inputs),
    )  # fmt: skip
    weight = edit.constant(f"{name}/gate/weight", np.zeros((blocks, inputs), np.float32))
    bias = edit.constant(f"{name}/gate/bias", np.ones(blocks, np.float32))
    row = (1, blocks)
    logits = edit.insert(node, "Gemm", [mean, weight, bias], {"transB": 1}, stem=f"{name}/gate/logits", shape=row)
    above = edit.insert(node, "Relu", [logits], stem=f"{name}/gate/above", shape=row)
    gate = edit.insert(node, "Sign", [above], stem=f"{name}/gate", shape=row)
    repeated = edit.constant(f"{name}/gate/blocks", np.repeat(np.arange(blocks), block))
    whole = edit.insert(
        node, "Gather", [gate, repeated], {"axis": 1}, stem=f"{name}/gate/channels", shape=(1, channels)
    )
    target = edit.constant(f"{name}/gate/shape", np.array([1, channels, 1, 1]))
    factor = edit.insert(node, "Reshape", [whole, target], stem=f"{name}/gate/factor", shape=(1, channels, 1, 1))
    uses = list(y.uses())
    product = ir.node("Mul", [y, factor], name=f"{name}/gated")
    out = product.outputs[0]
    out.name, out.shape, out.type = f"{name}/gated", y.shape, y.type
    edit.graph.insert_after(place.last.last, product)
    for reader, index in uses:
        reader.replace_input_with(index, out)
    return GateNames(*(str(v.name) for v in (bias, logits, gate, y)))
