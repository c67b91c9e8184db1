"""Cuts a model in front of what only its data gives a shape: NonMaxSuppression, NonZero, loops, and what follows.

What is in front is converted. What follows, the tail, is nodes of ONNX as they came, which an .onnx file has behind it;
other formats end at the cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from edgecompress.ingest.normalise import settled
from edgecompress.ingest.passes.edit import static_shape
from edgecompress.ingest.passes.opset import CANONICAL, ConvertOpset

STANDARD = ("", "ai.onnx")
WITH_GRAPHS = frozenset(("If", "Loop", "Scan"))
RESHAPING = frozenset(("Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"))


@dataclass(frozen=True)
class Cut:
    """head: the model up to the cut, whose outputs are what the tail reads and those of the model's that it has
    already. tail: a model in opset CANONICAL or newer, whose inputs are what it reads. first: (name, operator) of the
    nodes that it begins with."""

    head: onnx.ModelProto
    tail: onnx.ModelProto
    first: tuple[tuple[str, str], ...]

    @property
    def note(self) -> str:
        """Says to the user where the model was cut."""
        begins = ", ".join(f"{name!r} ({kind})" for name, kind in self.first[:3])
        more = f" and {len(self.first) - 3} more" if len(self.first) > 3 else ""
        values = ", ".join(repr(v.name) for v in self.head.graph.output)
        return (
            f"shapes depend on the data from {begins}{more} on: .onnx has these {len(self.tail.graph.node)} nodes as "
            f"they are, in float; other formats end in front of them, at {values}, and so does what is measured here"
        )


def cut(proto: onnx.ModelProto, shapes: Mapping[str, Sequence[int]], batch: int) -> Cut | None:
    """None where all shapes are known, or where nothing would be in front of the cut. proto: of opset 13 or newer.
    batch: what dynamic first dimensions become."""
    model = settled(ir.from_proto(proto), shapes, batch)
    open_values = {str(v.name) for node in model.graph if _is_open(node) for v in node.outputs}
    graph = proto.graph
    head, tail = _parted(graph, open_values)
    if not all(node.domain in STANDARD and onnx.defs.has(node.op_type) for node in tail):
        return None
    known = {str(v.name): v.const_value for v in model.graph.initializers.values() if v.const_value is not None}
    made = {name for node in head for name in node.output}
    stored = {tensor.name for tensor in graph.initializer}
    given = {value.name for value in graph.input} - stored
    read = list(dict.fromkeys(name for node in tail for name in _read(node)))
    ends = [name for name in read if name in made and name not in known]
    if not ends:
        return None
    outputs = [*ends, *(v.name for v in graph.output if v.name in made and v.name not in ends)]
    values = {str(v.name): v for node in model.graph for v in node.outputs}
    types = {value.name: value for value in (*graph.output, *graph.value_info)}
    first = onnx.ModelProto()
    first.CopyFrom(proto)
    del first.graph.node[:], first.graph.output[:]
    first.graph.node.extend(head)
    first.graph.output.extend(_typed(name, values, types) for name in outputs)
    rest = onnx.ModelProto(ir_version=proto.ir_version, opset_import=proto.opset_import)
    rest.graph.name = "tail"
    rest.graph.node.extend(tail)
    rest.graph.input.extend(_typed(name, values, types) for name in ends)
    rest.graph.input.extend(v for v in graph.input if v.name in given and v.name in read)
    rest.graph.output.extend(graph.output)
    rest.graph.initializer.extend(t for t in graph.initializer if t.name in read)
    for name in read:
        if name in made and name in known:
            rest.graph.initializer.append(numpy_helper.from_array(known[name].numpy(), name))
    begins = [(n.name or n.output[0], n.op_type) for n in tail if _begins(n, open_values)]
    return Cut(first, _in_canonical_opset(rest), tuple(begins))


def _begins(node: onnx.NodeProto, open_values: Set[str]) -> bool:
    return not open_values.isdisjoint(node.output) and open_values.isdisjoint(_read(node))


def _parted(graph: onnx.GraphProto, open_values: Set[str]) -> tuple[list[onnx.NodeProto], list[onnx.NodeProto]]:
    """(nodes in front of the cut, nodes behind it). Behind it is all that reads an open value, and what only gives
    another shape to a value that is read there anyway."""
    behind, read = set(open_values), set[str]()
    for node in graph.node:
        if not behind.isdisjoint((*_read(node), *node.output)):
            behind.update(node.output)
            read.update(_read(node))
    read_in_front = {v.name for v in graph.output}
    for node in reversed(graph.node):
        if node.op_type in RESHAPING and node.input[0] in read and read_in_front.isdisjoint(node.output):
            behind.update(node.output)
            read.update(_read(node))
        elif behind.isdisjoint(node.output):
            read_in_front.update(_read(node))
    parts: tuple[list[onnx.NodeProto], list[onnx.NodeProto]] = [], []
    for node in graph.node:
        parts[not behind.isdisjoint(node.output)].append(node)
    return parts


def _is_open(node: ir.Node) -> bool:
    return node.op_type in WITH_GRAPHS or any(static_shape(v) is None for v in node.outputs if v.uses() or v.name)


def _read(node: onnx.NodeProto) -> Iterator[str]:
    """Names of what it reads, graphs inside of it included."""
    yield from filter(None, node.input)
    for graph in graphs(node):
        own = {n for inner in graph.node for n in inner.output} | {v.name for v in graph.input}
        own |= {t.name for t in graph.initializer}
        names = [name for inner in graph.node for name in _read(inner)] + [v.name for v in graph.output]
        yield from (name for name in names if name not in own)


def graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Those that are attributes of the node."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _typed(name: str, values: Mapping[str, ir.Value], types: Mapping[str, onnx.ValueInfoProto]) -> onnx.ValueInfoProto:
    if name not in values:
        return types[name]
    value = values[name]
    return helper.make_tensor_value_info(name, int(value.dtype or 1), static_shape(value))


def _in_canonical_opset(proto: onnx.ModelProto) -> onnx.ModelProto:
    opset = max(o.version for o in proto.opset_import if o.domain in STANDARD)
    if opset >= CANONICAL:
        return proto
    return ir.to_proto(ConvertOpset()(ir.from_proto(proto)).model)
