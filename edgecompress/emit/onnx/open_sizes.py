"""A model for several shapes as one ONNX file whose dimensions are open, made of the same model for each shape.

What differs between them follows from the sizes of the inputs: of a Reshape one dimension is -1, where that is enough;
any other constant is computed from Shape of an input, as n * p / q + b with whole numbers that hold for all of the
shapes; and tables, such as those of positions, are cut to their first rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgecompress.ingest.several_shapes import FixedShapeError


@dataclass(frozen=True)
class Dimension:
    """An axis of an input whose sizes differ. name: of the dimension. sizes: one for each shape."""

    input: str
    axis: int
    name: str
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Rule:
    """A number that follows from a dimension: n * p // q + b."""

    dimension: Dimension
    p: int
    q: int
    b: int


def with_open_sizes(models: Sequence[onnx.ModelProto]) -> onnx.ModelProto:
    """The first, changed in place. Raises FixedShapeError where the sizes can't be left open."""
    first = models[0]
    if any(other.graph.node != first.graph.node for other in models[1:]):
        raise FixedShapeError("attributes of its nodes depend on the shape")
    dimensions = _open_inputs(models)
    for place, value in enumerate(first.graph.output):
        _open_output(value, [m.graph.output[place] for m in models], dimensions)
    stored = [{t.name: t for t in m.graph.initializer} for m in models]
    if any(its.keys() != stored[0].keys() for its in stored[1:]):
        raise FixedShapeError("its constants depend on the shape")
    writer = _Writer(first, dimensions)
    for name, tensor in stored[0].items():
        every = [its[name] for its in stored]
        if any(other != tensor for other in every[1:]):
            writer.open(tensor, [numpy_helper.to_array(t) for t in every])
    nodes = [*writer.nodes, *first.graph.node]
    del first.graph.node[:]
    first.graph.node.extend(nodes)
    return first


def _open_inputs(models: Sequence[onnx.ModelProto]) -> list[Dimension]:
    """The dimensions of inputs that differ, which are made open; those that always have one size share a name."""
    found: list[Dimension] = []
    for place, value in enumerate(models[0].graph.input):
        every = [m.graph.input[place].type.tensor_type.shape.dim for m in models]
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            sizes = tuple(int(dims[axis].dim_value) for dims in every)
            if len(set(sizes)) > 1:
                same = next((d.name for d in found if d.sizes == sizes), f"{value.name}_{axis}")
                found.append(Dimension(value.name, axis, same, sizes))
                dim.Clear()
                dim.dim_param = same
    return found


def _open_output(
    value: onnx.ValueInfoProto, every: Sequence[onnx.ValueInfoProto], dimensions: Sequence[Dimension]
) -> None:
    """A dimension that is as long as one of an input has its name; others that differ have none."""
    dims = [v.type.tensor_type.shape.dim for v in every]
    for axis, dim in enumerate(value.type.tensor_type.shape.dim):
        sizes = tuple(int(its[axis].dim_value) for its in dims)
        if len(set(sizes)) > 1:
            name = next((d.name for d in dimensions if d.sizes == sizes), "")
            dim.Clear()
            dim.dim_param = name


class _Writer:
    """Writes nodes that compute what constants were. nodes: to be put in front."""

    def __init__(self, model: onnx.ModelProto, dimensions: Sequence[Dimension]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._graph, self._dimensions = model.graph, dimensions
        self._sizes: dict[tuple[str, int], str] = {}
        self._constants: dict[tuple[int, ...], str] = {}
        self._readers: dict[str, list[tuple[str, int]]] = defaultdict(list)
        for node in model.graph.node:
            for position, name in enumerate(node.input):
                self._readers[name].append((node.op_type, position))
        self._names = {name for n in model.graph.node for name in (*n.input, *n.output)}

    def open(self, tensor: onnx.TensorProto, arrays: Sequence[np.ndarray]) -> None:
        """Puts what follows from the inputs' sizes in a constant's place. arrays: its values, one for each shape."""
        own, name = arrays[0], tensor.name
        if own.dtype == np.int64 and own.ndim == 1 and all(a.shape == own.shape for a in arrays):
            grown = [i for i in range(len(own)) if len({int(a[i]) for a in arrays}) > 1]
            if set(self._readers[name]) == {("Reshape", 1)} and len(grown) == 1 and -1 not in own:
                opened = own.copy()
                opened[grown] = -1
                tensor.CopyFrom(numpy_helper.from_array(opened, name))
                return
            self._remove(tensor)
            self._sum_of(name, own, {i: self._rule(name, [int(a[i]) for a in arrays]) for i in grown})
            return
        largest = max(arrays, key=np.size)
        if any(a.ndim != own.ndim or not np.array_equal(largest[tuple(slice(n) for n in a.shape)], a) for a in arrays):
            raise FixedShapeError(f"constant {name!r} depends on the shape in no way that ONNX can compute")
        axes = [axis for axis in range(own.ndim) if len({a.shape[axis] for a in arrays}) > 1]
        rules = {i: self._rule(name, [a.shape[axis] for a in arrays]) for i, axis in enumerate(axes)}
        ends = self._new(f"{name}/ends")
        self._sum_of(ends, np.zeros(len(axes), np.int64), rules)
        whole = self._new(f"{name}/whole")
        starts, along = self._constant(np.zeros(len(axes), np.int64)), self._constant(np.array(axes, np.int64))
        self.nodes.append(helper.make_node("Slice", [whole, starts, ends, along], [name]))
        tensor.CopyFrom(numpy_helper.from_array(largest, whole))

    def _rule(self, name: str, numbers: Sequence[int]) -> Rule:
        """The simplest that gives these numbers: no addend if possible, then the smallest factors."""
        fits = [rule for d in self._dimensions if (rule := _rule(d, numbers)) is not None]
        if not fits:
            raise FixedShapeError(f"constant {name!r} does not follow from one size of the inputs")
        return min(fits, key=lambda r: (r.b != 0, r.q, abs(r.p), abs(r.b)))

    def _sum_of(self, name: str, own: np.ndarray, rules: dict[int, Rule]) -> None:
        """Appends nodes that compute int64 [n]: own where there is no rule. Each dimension adds its part."""
        addend = own.copy()
        for i, rule in rules.items():
            addend[i] = rule.b
        total = self._constant(addend)
        dimensions = list(dict.fromkeys(rule.dimension for rule in rules.values()))
        for dimension in dimensions:
            p, q = np.zeros_like(own), np.ones_like(own)
            for i, rule in rules.items():
                if rule.dimension == dimension:
                    p[i], q[i] = rule.p, rule.q
            part = self._node("Mul", name, self._size(dimension), self._constant(p))
            if (q != 1).any():
                part = self._node("Div", name, part, self._constant(q))
            if dimension is dimensions[-1]:
                self.nodes.append(helper.make_node("Add", [part, total], [name]))
            else:
                total = self._node("Add", name, part, total)

    def _size(self, dimension: Dimension) -> str:
        """The value that holds the dimension's size, int64 [1]."""
        key = dimension.input, dimension.axis
        if key not in self._sizes:
            self._sizes[key] = self._new(f"{dimension.name}/size")
            axis, result = dimension.axis, self._sizes[key]
            self.nodes.append(helper.make_node("Shape", [dimension.input], [result], start=axis, end=axis + 1))
        return self._sizes[key]

    def _node(self, op_type: str, stem: str, *inputs: str) -> str:
        result = self._new(f"{stem}/{op_type}")
        self.nodes.append(helper.make_node(op_type, list(inputs), [result]))
        return result

    def _constant(self, array: np.ndarray) -> str:
        key = tuple(array.tolist())
        if key not in self._constants:
            self._constants[key] = self._new("sizes/" + "_".join(map(str, key)))
            self._graph.initializer.append(numpy_helper.from_array(array, self._constants[key]))
        return self._constants[key]

    def _remove(self, tensor: onnx.TensorProto) -> None:
        self._graph.initializer.remove(tensor)

    def _new(self, stem: str) -> str:
        name, count = stem, 0
        while name in self._names:
            count += 1
            name = f"{stem}_{count}"
        self._names.add(name)
        return name


def _rule(dimension: Dimension, numbers: Sequence[int]) -> Rule | None:
    """None where the numbers don't follow from this dimension alone."""
    pairs = sorted(set(zip(dimension.sizes, numbers)))
    if len({n for n, _ in pairs}) < len(pairs):
        return None
    (n, a), (m, b) = pairs[0], pairs[-1]
    if n == m:
        return None
    slope = Fraction(b - a, m - n)
    addend = a - slope * n
    if addend.denominator != 1 or any(slope * size + addend != number for size, number in pairs):
        return None
    return Rule(dimension, slope.numerator, slope.denominator, int(addend))
