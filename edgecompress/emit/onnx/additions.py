"""What the QDQ form adds to a graph: nodes, scales and zero points, under names as short as can be."""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from edgecompress.graph.annotations import Quantization


class Additions:
    """Makes nodes and initializers for one graph; equal initializers are one."""

    def __init__(self, graph: ir.Graph) -> None:
        """Nothing has been added to the graph yet."""
        self.nodes: list[ir.Node] = []
        self._graph = graph
        self._names = _unused_names({value.name for value in values(graph)})
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}

    def node(self, op_type: str, inputs: Sequence[ir.Value], **attributes: int | str) -> ir.Node:
        """A node of one output, not in the graph yet."""
        node = ir.node(op_type, inputs, attributes)
        node.name = None
        node.outputs[0].name = next(self._names)
        self.nodes.append(node)
        return node

    def constant(self, array: np.ndarray) -> ir.Value:
        """An initializer with this content."""
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = next(self._names)
            self._constants[key] = ir.Value(name=name, const_value=ir.tensor(array, name=name))
            self._graph.register_initializer(self._constants[key])
        return self._constants[key]

    def linear(self, op_type: str, value: ir.Value, q: Quantization, *, as_unsigned: bool) -> ir.Node:
        """QuantizeLinear or DequantizeLinear of `value` with q's scale and zero point."""
        shape, axis = ((), {}) if q.axis is None else ((-1,), {"axis": q.axis})
        scale = self.constant(q.scale.astype(np.float32).reshape(shape))
        zero_point = q.zero_point.astype(q.dtype.numpy()).reshape(shape)
        stored = self.constant(unsigned(zero_point) if as_unsigned else zero_point)
        return self.node(op_type, [value, scale, stored], **axis)


def unsigned(stored: np.ndarray) -> np.ndarray:
    """int8 -> uint8 that means the same with a zero point 128 higher; other types as they are."""
    return (stored.astype(np.int16) + 128).astype(np.uint8) if stored.dtype == np.int8 else stored


def values(graph: ir.Graph) -> Iterator[ir.Value]:
    """Inputs, initializers and all that nodes make."""
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


def _unused_names(taken: set[str | None]) -> Iterator[str]:
    """ "a", "b", ... "aa", ...: each is written two or three times in the file."""
    for length in itertools.count(1):
        for letters in itertools.product(string.ascii_lowercase, repeat=length):
            if (name := "".join(letters)) not in taken:
                yield name
