"""Bounds on how large a model may say that it is, checked before anything expands, nests or allocates."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import onnx
from onnx.external_data_helper import uses_external_data

from edgecompress.errors import InputError, UnsupportedModelError

MOST_NODES = 50_000  # also when every function is written out
MOST_NESTED = 16  # graphs within graphs
MOST_CALLS = 64  # functions that call functions
LARGEST_RANK = 32
NEWEST_OPSET = 1000
BYTES: dict[int, int] = {  # of raw data for eight elements
    onnx.TensorProto.FLOAT: 32, onnx.TensorProto.INT32: 32, onnx.TensorProto.UINT32: 32, onnx.TensorProto.DOUBLE: 64,
    onnx.TensorProto.INT64: 64, onnx.TensorProto.UINT64: 64, onnx.TensorProto.COMPLEX64: 64,
    onnx.TensorProto.COMPLEX128: 128, onnx.TensorProto.FLOAT16: 16, onnx.TensorProto.BFLOAT16: 16,
    onnx.TensorProto.INT16: 16, onnx.TensorProto.UINT16: 16, onnx.TensorProto.INT8: 8, onnx.TensorProto.UINT8: 8,
    onnx.TensorProto.BOOL: 8, onnx.TensorProto.INT4: 4, onnx.TensorProto.UINT4: 4,
}  # fmt: skip
FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
COMPLEX = (onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128)
IDENTIFIER = tuple[str, str]


def require_bounded(proto: onnx.ModelProto) -> None:
    """Raises UnsupportedModelError for more nodes, deeper graphs or deeper calls than can be converted, and InputError
    for functions that call themselves and tensors whose data are not of their shape.
    """
    for opset in proto.opset_import:  # ONNX Runtime counts up to it
        if not 1 <= opset.version <= NEWEST_OPSET:
            raise InputError(
                f"not a valid ONNX model: version {opset.version} of the operators of domain {opset.domain!r}; "
                f"1 to {NEWEST_OPSET} can be read"
            )
    functions = _Functions(proto)
    if (count := functions.size(proto.graph.node)) > MOST_NODES:
        largest = max(proto.graph.node, key=lambda node: functions.size([node]))
        inside = functions.size([largest])
        raise UnsupportedModelError(
            f"the model has {_many(count)} nodes"
            + (f", {_many(inside)} of them in node {_called(largest)}" if inside > 1 else "")
            + f"; models of up to {MOST_NODES:,} can be converted"
        )
    for tensor in proto.graph.initializer:
        _require_data(tensor)
    for nodes in (proto.graph.node, *(f.node for f in proto.functions)):
        for node in all_nodes(nodes):
            for attribute in node.attribute:
                for tensor in (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors):
                    _require_data(tensor, f" of node {_called(node)}")


class _Functions:
    """The functions of a model, and how many nodes each becomes."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self._bodies: Mapping[IDENTIFIER, Sequence[onnx.NodeProto]] = {
            (f.domain, f.name): f.node for f in proto.functions
        }
        self._sizes: dict[IDENTIFIER, tuple[int, int]] = {}  # nodes, depth of calls
        self._open: list[IDENTIFIER] = []

    def size(self, nodes: Sequence[onnx.NodeProto]) -> int:
        """The number of nodes when every call is written out, those of inner graphs included."""
        return self._measure(nodes)[0]

    def _measure(self, nodes: Sequence[onnx.NodeProto]) -> tuple[int, int]:
        total, depth = 0, 0
        for node in all_nodes(nodes):
            count, calls = self._call(node) if (node.domain, node.op_type) in self._bodies else (1, 0)
            total, depth = total + count, max(depth, calls)
        return total, depth

    def _call(self, node: onnx.NodeProto) -> tuple[int, int]:
        name = (node.domain, node.op_type)
        if name in self._open:
            raise InputError(f"function {node.op_type!r} calls itself, in node {_called(node)}")
        if name not in self._sizes:
            self._open.append(name)
            if len(self._open) <= MOST_CALLS:
                count, depth = self._measure(self._bodies[name])
                self._sizes[name] = count, depth + 1
            self._open.pop()
        count, depth = self._sizes.get(name, (1, MOST_CALLS + 1))
        if depth > MOST_CALLS:
            raise UnsupportedModelError(
                f"node {_called(node)} calls functions nested more than {MOST_CALLS} deep; write them out"
            )
        return count, depth


def all_nodes(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """The nodes and those of the graphs inside them. Raises UnsupportedModelError where these nest too deep."""
    waiting = [(nodes, 0)]
    while waiting:
        found, depth = waiting.pop()
        for node in found:
            yield node
            for attribute in node.attribute:
                inner = [attribute.g] if attribute.HasField("g") else []
                for graph in (*inner, *attribute.graphs):
                    if depth == MOST_NESTED:
                        raise UnsupportedModelError(
                            f"node {_called(node)} lies in graphs nested more than {MOST_NESTED} deep; flatten them"
                        )
                    waiting.append((graph.node, depth + 1))


def _require_data(tensor: onnx.TensorProto, of: str = "") -> None:
    """A tensor holds as many elements as its shape says."""
    if uses_external_data(tensor):
        return
    what = f"tensor {tensor.name!r}{of}"
    if len(tensor.dims) > LARGEST_RANK or any(d < 0 for d in tensor.dims):
        raise InputError(f"not a valid ONNX model: {what} has the shape {list(tensor.dims[:LARGEST_RANK])}")
    elements, data_type = math.prod(tensor.dims), int(tensor.data_type)
    if tensor.HasField("raw_data"):
        found, expected = len(tensor.raw_data), (elements * BYTES.get(data_type, 0) + 7) // 8
    else:
        found = sum(len(getattr(tensor, name)) for name in FIELDS)
        expected = 2 * elements if data_type in COMPLEX else elements
        if BYTES.get(data_type) == 4:
            expected = (elements + 1) // 2
    if data_type in BYTES and found != expected:
        raise InputError(
            f"not a valid ONNX model: {what} has the shape {list(tensor.dims)}, but data of another size "
            f"({found} of {expected} {'bytes' if tensor.HasField('raw_data') else 'values'})"
        )


def _called(node: onnx.NodeProto) -> str:
    return f"{node.name or next(iter(node.output), '')!r} ({node.op_type})"


def _many(count: int) -> str:
    return f"{count:,}" if count < 10**12 else f"about 10^{len(str(count)) - 1}"
