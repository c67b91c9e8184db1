"""Channels of unlike sizes get factors of their own in front of and behind matrices, where floats surround these.

In trained transformers, few channels of the residual stream are a hundred times as large as the others. One scale for
all channels leaves the others a step or two. So

- what a norm makes for matrices *and* for a residual sum is divided by s in front of the matrices alone, whose rows are
  multiplied by s (smooth.py has the formula, and does without the division where matrices alone read the norm),
- so is what Gelu makes for a matrix, in float, and
- what a matrix adds to the residual stream leaves it divided by t, which is multiplied behind it.

The division and the product are a Mul by a constant each, in float; the sums then lie between floats, and stay float.
Y. Bondarenko et al., "Understanding and overcoming the challenges of efficient transformer quantization" (EMNLP 2021),
show where such channels are, and give them scales of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgecompress.compress.quantize.batch import Runner, batch_size
from edgecompress.compress.quantize.names import Names
from edgecompress.compress.quantize.smooth import is_matrix, norm_operands, put, rows_of, scale_of
from edgecompress.graph.annotations import set_stays_float
from edgecompress.graph.fusion import Layer, constant, layers

if TYPE_CHECKING:
    from edgecompress.evaluate.dataset import Dataset

# the largest channel over the median one, from which on factors pay: behind norms; behind functions, which become
# functions of floats; and in front of sums, which do
UNLIKE, UNLIKE_FUNCTION, UNLIKE_SUM = 3.0, 4.0, 8.0
SAMPLES = 16  # that show the sizes of channels
NORM_ALPHA, FUNCTION_ALPHA = 0.9, 0.75  # how much of the difference matrices take, behind norms and functions
FUNCTIONS = {"Gelu"}  # whose output a scale by channel may be worth a float function
Ranges = Mapping[str, tuple[np.ndarray, np.ndarray]]  # of a value: the smallest and the largest of each channel


@dataclass(frozen=True)
class Sites:
    """Values [..., channels]. read: what a norm or Gelu makes, with the matrices that read it. summed: layers of
    matrices whose outputs are summed alone."""

    read: tuple[tuple[ir.Value, tuple[Layer, ...]], ...]
    summed: tuple[Layer, ...]

    @property
    def names(self) -> list[str]:
        """Of the values whose channels matter."""
        return [str(v.name) for v in [*(v for v, _ in self.read), *(layer.output for layer in self.summed)]]


def sites(model: ir.Model, kept: set[str]) -> Sites:
    """All of them. kept: names of nodes and values that the user wants in float."""
    read, summed = [], []
    by_node = {
        layer.node: layer
        for layer in layers(model.graph)
        if is_matrix(layer.node)
        and kept.isdisjoint({n.name for n in layer.nodes} | {v.name for n in layer.nodes for v in n.outputs})
    }
    for node in model.graph:
        value = node.outputs[0]
        uses = list(value.uses())
        readers = tuple(by_node[n] for n, index in uses if index == 0 and n in by_node)
        beside_others = len(readers) < len(uses) or value.is_graph_output()
        if readers and (node.op_type in FUNCTIONS or (beside_others and norm_operands(node) is not None)):
            read.append((value, readers))
    for layer in by_node.values():
        consumers = list(layer.output.consumers())
        sums = [n for n in consumers if n.op_type == "Add" and all(constant(v) is None for v in n.inputs)]
        if layer.activation is None and sums and sums == consumers and not layer.output.is_graph_output():
            summed.append(layer)
    return Sites(tuple(read), tuple(summed))


def rescaled(model: ir.Model, dataset: Dataset, kept: set[str]) -> ir.Model:
    """The model with factors where channels are unlike on the first samples: a clone, or the model where none are.

    Shapes of values: [..., channels] as above. kept: as in `sites`.
    """
    if not (names := sites(model, kept).names):
        return model
    ranges = _ranges(model, dataset.head(SAMPLES), names)
    makers = {str(v.name): node.op_type for node in model.graph for v in node.outputs}
    sums = {str(layer.output.name) for layer in sites(model, kept).summed}
    limits = {n: UNLIKE_SUM if n in sums else UNLIKE_FUNCTION if makers[n] in FUNCTIONS else UNLIKE for n in names}
    unlike = {name for name, ends in ranges.items() if _largest_share(*ends) > limits[name]}
    if not unlike:
        return model
    clone = model.clone()
    found, made = sites(clone, kept), Names(clone.graph)
    for value, readers in found.read:
        if str(value.name) in unlike:
            _divide(clone.graph, made, value, readers, ranges[str(value.name)])
    for layer in found.summed:
        if str(layer.output.name) in unlike:
            _multiply(clone.graph, made, layer, ranges[str(layer.output.name)])
    return clone


def _ranges(model: ir.Model, dataset: Dataset, names: list[str]) -> Ranges:
    size, found = min(batch_size(model), len(dataset)), dict[str, tuple[np.ndarray, np.ndarray]]()
    run = Runner(model, names, size, few=True)
    for batch in dataset.batches(size):
        for name, array in run(batch).items():
            rows = array.reshape(-1, array.shape[-1])
            low, high = rows.min(axis=0), rows.max(axis=0)
            before = found.get(name, (low, high))
            found[name] = np.minimum(low, before[0]), np.maximum(high, before[1])
    return found


def _largest_share(low: np.ndarray, high: np.ndarray) -> float:
    """The largest channel over the median one; 0 where there is nothing to compare."""
    reach = np.maximum(np.abs(low), np.abs(high))
    median = float(np.median(reach))
    return float(reach.max()) / median if median and np.isfinite(reach).all() else 0.0


def _divide(
    graph: ir.Graph, names: Names, value: ir.Value, readers: tuple[Layer, ...], ends: tuple[np.ndarray, np.ndarray]
) -> None:
    low, high = (end.astype(np.float64) for end in ends)
    matrices = [rows_of(layer) for layer in readers]
    producer = value.producer()
    assert producer is not None
    alpha = NORM_ALPHA
    if producer.op_type in FUNCTIONS:
        set_stays_float(producer)  # else its output would be rounded in front of the division
        alpha = FUNCTION_ALPHA
    scale = scale_of(np.maximum(np.abs(low), np.abs(high)), matrices, alpha)
    divided = _product(graph, names, value, 1 / scale)
    for layer, rows in zip(readers, matrices, strict=True):
        changed = rows * scale[:, None]
        put(graph, names, layer.node, 1, changed.T if layer.node.op_type == "Gemm" else changed)
        layer.node.replace_input_with(0, divided)


def _multiply(graph: ir.Graph, names: Names, layer: Layer, ends: tuple[np.ndarray, np.ndarray]) -> None:
    reach = np.maximum(np.abs(ends[0]), np.abs(ends[1])).astype(np.float64)
    factor = np.maximum(reach, reach.max() * 1e-3)
    factor /= np.exp(np.log(factor).mean())
    columns = rows_of(layer) / factor
    put(graph, names, layer.node, 1, columns.T if layer.node.op_type == "Gemm" else columns)
    if layer.bias is not None:
        holder = layer.bias_add or layer.node
        index = next(i for i, v in enumerate(holder.inputs) if v is layer.bias)
        put(graph, names, holder, index, np.asarray(constant(layer.bias), np.float64) / factor)
    uses = [(use.node, use.idx) for use in layer.output.uses()]
    product = _product(graph, names, layer.output, factor)
    for node, index in uses:
        node.replace_input_with(index, product)


def _product(graph: ir.Graph, names: Names, value: ir.Value, factor: np.ndarray) -> ir.Value:
    """value * factor [channels], in float."""
    name = names(f"{value.name}/factor")
    by = ir.Value(name=name, shape=ir.Shape(factor.shape), type=ir.TensorType(ir.DataType.FLOAT))
    by.const_value = ir.tensor(factor.astype(np.float32), name=name)
    graph.register_initializer(by)
    node = ir.node("Mul", [value, by], name=names(f"{value.name}/rescale"))
    result, producer = node.outputs[0], value.producer()
    result.name, result.shape, result.type = names(f"{value.name}/rescaled"), value.shape, value.type
    set_stays_float(node)
    assert producer is not None
    graph.insert_after(producer, node)
    return result
