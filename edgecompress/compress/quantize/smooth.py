"""Smoothing: moves what makes channels of an activation unlike into the matrices that read it, exactly.

Behind a LayerNormalization, channels differ by its scale and bias, and a few large ones take the range of all. With the
channels divided by s and shifted by z, and the matrix's rows multiplied by s and its bias made up for z, the result is
the same. s_j = max|x_j|^a / max|w_j|^(1-a): G. Xiao et al., "SmoothQuant" (ICML 2023), equation 4. z_j = (max x_j +
min x_j) / 2: X. Wei et al., "Outlier Suppression+" (EMNLP 2023), equation 6.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgecompress.compress.quantize.names import Names
from edgecompress.graph.fusion import Layer, constant, layers

LARGEST_SCALE = 1e3  # of one channel: what is all but dead would run off


@dataclass(frozen=True)
class Site:
    """A LayerNormalization whose result matrices alone read. value: the result. readers: the layers of the matrices."""

    norm: ir.Node
    value: ir.Value
    readers: tuple[Layer, ...]


def sites(model: ir.Model) -> list[Site]:
    """All of them, in the order of the graph."""
    by_node = {layer.node: layer for layer in layers(model.graph)}
    found = []
    for node in model.graph:
        value = node.outputs[0]
        if node.op_type != "LayerNormalization" or value.is_graph_output() or not value.uses():
            continue
        scale, bias = constant(node.inputs[1]), constant(node.inputs[2]) if len(node.inputs) > 2 else None
        matrices = [by_node.get(reader) for reader, index in value.uses() if index == 0 and _is_matrix(reader)]
        whole = len(matrices) == len(value.uses())
        if scale is not None and bias is not None and scale.ndim == 1 and bias.shape == scale.shape and whole:
            found.append(Site(node, value, tuple(layer for layer in matrices if layer is not None)))
    return [site for site in found if len(site.readers) == len(site.value.uses())]


def smoothed(model: ir.Model, ranges: Mapping[str, tuple[np.ndarray, np.ndarray]], alpha: float) -> ir.Model:
    """A clone that computes the same with smoothed channels.

    ranges: by the name of a site's value, its channels' (smallest, largest), [channels] each. alpha: how much of the
    difference the matrices take, 0..1.
    """
    clone = model.clone()
    names = Names(clone.graph)
    for site in sites(clone):
        low, high = (ends.astype(np.float64) for ends in ranges[str(site.value.name)])
        shifts = all(layer.bias is not None for layer in site.readers)
        middle = (low + high) / 2 if shifts else np.zeros_like(low)
        matrices = [_rows(layer) for layer in site.readers]
        reach = np.maximum(np.abs(low - middle), np.abs(high - middle))
        weight = np.max([np.abs(rows).max(axis=1) for rows in matrices], axis=0)
        scale = np.ones_like(reach)
        alive = (reach > 0) & (weight > 0)
        scale[alive] = reach[alive] ** alpha / weight[alive] ** (1 - alpha)
        scale = np.clip(scale / np.exp(np.log(scale).mean()), 1 / LARGEST_SCALE, LARGEST_SCALE)
        gain, bias = (np.asarray(constant(site.norm.inputs[i]), np.float64) for i in (1, 2))
        _put(clone.graph, names, site.norm, 1, gain / scale)
        _put(clone.graph, names, site.norm, 2, (bias - middle) / scale)
        for layer, rows in zip(site.readers, matrices, strict=True):
            changed = rows * scale[:, None]
            _put(clone.graph, names, layer.node, 1, changed.T if layer.node.op_type == "Gemm" else changed)
            if shifts and layer.bias is not None:
                holder = layer.bias_add or layer.node
                index = next(i for i, v in enumerate(holder.inputs) if v is layer.bias)
                _put(clone.graph, names, holder, index, np.asarray(constant(layer.bias), np.float64) + middle @ rows)
    return clone


def _is_matrix(node: ir.Node) -> bool:
    array = constant(node.inputs[1]) if node.op_type in {"MatMul", "Gemm"} else None
    return array is not None and array.ndim == 2


def _rows(layer: Layer) -> np.ndarray:
    """float64 [input channels, output channels]"""
    array = np.asarray(constant(layer.node.inputs[1]), np.float64)
    return array.T if layer.node.op_type == "Gemm" else array


def _put(graph: ir.Graph, names: Names, node: ir.Node, index: int, array: np.ndarray) -> None:
    """Another constant for this node alone, since other nodes may read the old one."""
    old = node.inputs[index]
    assert old is not None
    name = names(f"{old.name}/smoothed")
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(ir.DataType.FLOAT))
    value.const_value = ir.tensor(np.ascontiguousarray(array, np.float32), name=name)
    graph.register_initializer(value)
    node.replace_input_with(index, value)
