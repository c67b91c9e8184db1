"""Smoothing: moves what makes channels of an activation unlike into the matrices that read it, exactly.

Behind a norm, channels differ by its scale and bias, and a few large ones take the range of all. With the channels
divided by s and shifted by z, and the matrix's rows multiplied by s and its bias made up for z, the result is the same.
s_j = max|x_j|^a / max|w_j|^(1-a): G. Xiao et al., "SmoothQuant" (ICML 2023), equation 4. z_j = (max x_j + min x_j) / 2:
X. Wei et al., "Outlier Suppression+" (EMNLP 2023), equation 6.

What takes the division and the shift is a LayerNormalization, or a Mul by a constant for each channel with or without
an Add of one: the end of every norm that is written out, and a BatchNormalization that could not be fused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgecompress.compress.quantize.names import Names
from edgecompress.graph.annotations import stays_float
from edgecompress.graph.fusion import Layer, constant, layers
from edgecompress.graph.nodes import argument

LARGEST_SCALE = 1e3  # of one channel: what is all but dead would run off


@dataclass(frozen=True)
class Operand:
    """An input of a node: a constant with one number for each channel, or one for all."""

    node: ir.Node
    index: int


@dataclass(frozen=True)
class Site:
    """A value [..., channels] that matrices alone read.

    gain: what its channels are multiplied with. offset: what is added behind that; None where nothing is. readers: the
    layers of the matrices.
    """

    value: ir.Value
    gain: Operand
    offset: Operand | None
    readers: tuple[Layer, ...]


def sites(model: ir.Model) -> list[Site]:
    """All of them, in the order of the graph."""
    by_node = {layer.node: layer for layer in layers(model.graph)}
    found = []
    for node in model.graph:
        readers = None if stays_float(node) else _matrices(node.outputs[0], by_node)  # else it is smooth already
        if readers and (operands := norm_operands(node)) is not None:
            found.append(Site(node.outputs[0], *operands, tuple(readers)))
    return found


def _matrices(value: ir.Value, by_node: Mapping[ir.Node, Layer]) -> list[Layer] | None:
    """The layers of the matrices that alone read the value, perhaps moved with its channels kept last."""
    if value.is_graph_output():
        return None
    found: list[Layer] = []
    for reader, index in value.uses():
        moved = _matrices(reader.outputs[0], by_node) if _keeps_channels(reader) else None
        if moved is None and not (index == 0 and is_matrix(reader) and reader in by_node):
            return None
        found += [by_node[reader]] if moved is None else moved
    return found


def _keeps_channels(node: ir.Node) -> bool:
    before, after = (v.shape for v in (node.inputs[0] if node.inputs else None, node.outputs[0]) if v is not None)
    if before is None or after is None or node.op_type not in {"Transpose", "Reshape"}:
        return False
    if node.op_type == "Transpose":
        return node.attributes["perm"].as_ints()[-1] == len(before) - 1
    return before[-1] == after[-1]


def norm_operands(node: ir.Node) -> tuple[Operand, Operand | None] | None:
    """(gain, offset) of what the node makes, if it ends a norm."""
    if node.op_type == "LayerNormalization":
        found = [Operand(node, i) for i, value in enumerate(node.inputs) if i and value is not None]
        if not all(_is_by_channel(node, operand.index) for operand in found):
            return None
        return found[0], found[1] if len(found) > 1 else None
    if node.op_type == "Mul":
        gain = _factor(node)
        return None if gain is None else (gain, None)
    offset = _factor(node) if node.op_type == "Add" else None
    before = None if offset is None else argument(node, 1 - offset.index)
    producer = None if before is None else before.producer()
    if before is None or producer is None or producer.op_type != "Mul":
        return None
    gain = _factor(producer) if len(before.uses()) == 1 and not before.is_graph_output() else None
    return None if gain is None else (gain, offset)


def _factor(node: ir.Node) -> Operand | None:
    """The operand with one number for each channel of the other."""
    return next((Operand(node, i) for i in (0, 1) if _is_by_channel(node, i)), None)


def _is_by_channel(node: ir.Node, index: int) -> bool:
    array, result = constant(node.inputs[index]), node.outputs[0].shape
    other = argument(node, 0 if index else 1)
    if array is None or result is None or not len(result) or other.shape != result:
        return False
    return array.size in {1, result[-1]} and array.size == (array.shape[-1] if array.ndim else 1)


def smoothed(model: ir.Model, ranges: Mapping[str, tuple[np.ndarray, np.ndarray]], alpha: float) -> ir.Model:
    """A clone that computes the same with smoothed channels.

    ranges: by the name of a site's value, its channels' (smallest, largest), [channels] each. alpha: how much of the
    difference the matrices take, 0..1.
    """
    clone = model.clone()
    names = Names(clone.graph)
    for site in sites(clone):
        low, high = (ends.astype(np.float64) for ends in ranges[str(site.value.name)])
        shifts = site.offset is not None and all(layer.bias is not None for layer in site.readers)
        middle = (low + high) / 2 if shifts else np.zeros_like(low)
        matrices = [rows_of(layer) for layer in site.readers]
        scale = scale_of(np.maximum(np.abs(low - middle), np.abs(high - middle)), matrices, alpha)
        put(clone.graph, names, site.gain.node, site.gain.index, _array(site.gain) / scale)
        if site.offset is not None:
            put(clone.graph, names, site.offset.node, site.offset.index, (_array(site.offset) - middle) / scale)
        for layer, rows in zip(site.readers, matrices, strict=True):
            changed = rows * scale[:, None]
            put(clone.graph, names, layer.node, 1, changed.T if layer.node.op_type == "Gemm" else changed)
            if shifts and layer.bias is not None:
                holder = layer.bias_add or layer.node
                index = next(i for i, v in enumerate(holder.inputs) if v is layer.bias)
                bias = np.asarray(constant(layer.bias), np.float64)
                put(clone.graph, names, holder, index, bias + middle @ rows)
    return clone


def scale_of(reach: np.ndarray, matrices: list[np.ndarray], alpha: float) -> np.ndarray:
    """s [channels], whose geometric mean is 1. reach: the largest magnitude of each channel of the activation."""
    weight = np.max([np.abs(rows).max(axis=1) for rows in matrices], axis=0)
    scale = np.ones_like(reach)
    alive = (reach > 0) & (weight > 0)
    scale[alive] = reach[alive] ** alpha / weight[alive] ** (1 - alpha)
    return np.clip(scale / np.exp(np.log(scale).mean()), 1 / LARGEST_SCALE, LARGEST_SCALE)


def _array(operand: Operand) -> np.ndarray:
    return np.asarray(constant(operand.node.inputs[operand.index]), np.float64)


def is_matrix(node: ir.Node) -> bool:
    """Whether the node multiplies by a constant matrix."""
    array = constant(node.inputs[1]) if node.op_type in {"MatMul", "Gemm"} else None
    return array is not None and array.ndim == 2


def rows_of(layer: Layer) -> np.ndarray:
    """float64 [input channels, output channels]"""
    array = np.asarray(constant(layer.node.inputs[1]), np.float64)
    return array.T if layer.node.op_type == "Gemm" else array


def put(graph: ir.Graph, names: Names, node: ir.Node, index: int, array: np.ndarray) -> None:
    """Another constant for this node alone, since other nodes may read the old one."""
    old = node.inputs[index]
    assert old is not None
    name = names(f"{old.name}/smoothed")
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(ir.DataType.FLOAT))
    value.const_value = ir.tensor(np.ascontiguousarray(array, np.float32), name=name)
    graph.register_initializer(value)
    node.replace_input_with(index, value)
