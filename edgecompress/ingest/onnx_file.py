"""Reads .onnx files of any origin and in any condition: what comes out is a whole and valid ModelProto."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from edgecompress.errors import EdgeCompressError, InputError
from edgecompress.ingest.external_data import embed, require_below_limit
from edgecompress.ingest.graph_limits import all_nodes, require_bounded
from edgecompress.support.interrupt import reraise_interrupt

UNKNOWN = "edgecompress.unknown"


def read(path: Path) -> onnx.ModelProto:
    """The checked model with its external data embedded and its nodes in order. Files are never written.

    Raises InputError when the file is missing, empty, truncated, damaged, not protobuf, or 2 GB or more, and when the
    graph has a cycle.
    """
    data = read_bytes(path)
    require_below_limit(len(data), path)
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        raise InputError(
            f"{path}: not a whole ONNX model ({len(data)} bytes that can't be decoded); it is truncated, "
            "damaged, or another kind of file. Export or copy it again"
        ) from error
    if not proto.HasField("graph") or not proto.opset_import or not proto.graph.output:
        raise InputError(
            f"{path}: not a whole ONNX model (it has no graph with outputs); it is truncated or another kind of file"
        )
    embed(proto, path)
    try:
        validate(proto)
    except EdgeCompressError as error:
        raise type(error)(f"{path}: {error}") from error
    return proto


def read_bytes(path: Path) -> bytes:
    """The content of a file. Raises InputError when it is missing, unreadable, empty, or 2 GB or more."""
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if not path.is_file():
        raise InputError(f"{path}: not a file")
    try:
        require_below_limit(path.stat().st_size, path)
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})") from error
    if not data:
        raise InputError(f"{path}: the file is empty")
    return data


def validate(proto: onnx.ModelProto) -> None:
    """Sorts the nodes, gives nameless nodes and a nameless graph names, and has the onnx checker check the model.

    Raises InputError for an invalid model. Unknown operators pass: the check of supported operators names them all.
    """
    try:
        if any(isinstance(text, bytes) for text in _texts(proto)):  # protobuf's sign for what isn't UTF-8
            raise InputError("not a valid ONNX model: a name in it isn't UTF-8 text")
        require_bounded(proto)
        _require_inputs(proto)
        _require_values(proto)
        sort_nodes(proto.graph)
        for node in proto.graph.node:
            node.name = node.name or next(iter(node.output), "")  # what messages call it
        proto.graph.name = proto.graph.name or "model"
        _declare_once(proto.graph)
        _open_dimensions(proto.graph)
        with _lenient(proto):
            onnx.checker.check_model(proto)
    except EdgeCompressError:
        raise
    except Exception as error:  # ValidationError, and whatever damaged strings and numbers make of the above
        reraise_interrupt(error)
        raise InputError(f"not a valid ONNX model: {_first_lines(error)}") from error


def _require_values(proto: onnx.ModelProto) -> None:
    """Raises InputError for an attribute that refers to one of a function, where there is no function, and for one
    whose text isn't UTF-8."""
    for nodes, outside in ((proto.graph.node, True), *((f.node, False) for f in proto.functions)):
        for node in all_nodes(nodes):
            for attribute in node.attribute:
                fault = None
                if outside and attribute.ref_attr_name:
                    fault = (
                        f"takes the value of {attribute.ref_attr_name!r}, an attribute of a function, but is in none"
                    )
                elif not all(map(_is_text, (attribute.s, *attribute.strings))):
                    fault = "isn't UTF-8 text"
                if fault is not None:
                    raise InputError(
                        f"not a valid ONNX model: attribute {attribute.name!r} of node {node.name!r} ({node.op_type}) "
                        + fault
                    )


def _is_text(data: bytes) -> bool:
    try:
        return bool(data.decode()) or not data
    except UnicodeDecodeError:
        return False


def _require_inputs(proto: onnx.ModelProto) -> None:
    """Raises InputError for an input that is left out ("") although it is required: ONNX Runtime follows it into memory
    that isn't there."""
    graphs = [(proto.graph.node, proto.opset_import), *((f.node, f.opset_import) for f in proto.functions)]
    for nodes, opset_import in graphs:
        opsets = {o.domain: o.version for o in reversed(opset_import)}
        for node in all_nodes(nodes):
            if "" not in node.input or _unknown(node, opsets):
                continue
            formal = onnx.defs.get_schema(node.op_type, *_version(node, opsets)).inputs
            for place, name in enumerate(node.input):
                parameter = formal[min(place, len(formal) - 1)]
                if not name and parameter.option != onnx.defs.OpSchema.FormalParameterOption.Optional:
                    raise InputError(
                        f"not a valid ONNX model: node {node.name or next(iter(node.output), '')!r} ({node.op_type}) "
                        f"leaves out input {place} ({parameter.name}), which it needs"
                    )


@contextlib.contextmanager
def _lenient(proto: onnx.ModelProto) -> Iterator[None]:
    """Within the context the message is changed where the onnx checker is stricter than necessary.

    1. The checker stops at the first operator that the standard lacks, while the check of supported operators names all
       of them. Such operators are moved to a domain that the checker knows nothing about.
    2. The checker insists on a shape for every input and output. Those without a shape get an empty one.
    """
    functions = {(f.domain, f.name) for f in proto.functions}
    opsets = {o.domain: o.version for o in reversed(proto.opset_import)}
    unknown = [
        (node, node.domain)
        for node in proto.graph.node
        if (node.domain, node.op_type) not in functions and _unknown(node, opsets)
    ]
    values = [*proto.graph.input, *proto.graph.output]
    shapeless = [v for v in values if v.type.HasField("tensor_type") and not v.type.tensor_type.HasField("shape")]
    for node, _ in unknown:
        node.domain = UNKNOWN
    for value in shapeless:
        value.type.tensor_type.shape.SetInParent()
    proto.opset_import.add(domain=UNKNOWN, version=1)
    try:
        yield
    finally:
        proto.opset_import.pop()
        for node, domain in unknown:
            node.domain = domain
        for value in shapeless:
            value.type.tensor_type.ClearField("shape")


def _declare_once(graph: onnx.GraphProto) -> None:
    """Gives an output that is also an input the input's type and shape, since the IR would believe the output's."""
    inputs = {value.name: value.type for value in graph.input}
    for value in graph.output:
        if value.name in inputs:
            value.type.CopyFrom(inputs[value.name])


def _open_dimensions(graph: onnx.GraphProto) -> None:
    """A dimension of -1, as paddle2onnx and others write it, is one that is not known."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dimension in value.type.tensor_type.shape.dim if value.type.HasField("tensor_type") else ():
            if dimension.dim_value < 0:
                dimension.ClearField("dim_value")


def _texts(proto: onnx.ModelProto) -> Iterator[str | bytes]:
    yield from (proto.producer_name, proto.producer_version, proto.domain, proto.graph.name)
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info, *proto.graph.initializer):
        yield value.name
    for node in proto.graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)


def _unknown(node: onnx.NodeProto, opsets: Mapping[str, int]) -> bool:
    return not onnx.defs.has(node.op_type, *_version(node, opsets))


def _version(node: onnx.NodeProto, opsets: Mapping[str, int]) -> tuple[int, str]:
    """Version and domain of the node's operator."""
    domains = ("", "ai.onnx") if node.domain in ("", "ai.onnx") else (node.domain,)
    opset = next((opsets[domain] for domain in domains if domain in opsets), 1)
    return max(1, min(opset, 2**31 - 1)), domains[0]


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Puts the nodes in an order in which every value is computed before it is used (Kahn's algorithm, stable).

    Raises InputError, which names a node of a cycle, when there is no such order.
    """
    producers = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    needs = [{producers[name] for name in _reads(node) if name in producers} for node in graph.node]
    if all(max(need, default=-1) < i for i, need in enumerate(needs)):
        return
    users: dict[int, list[int]] = {}
    for i, need in enumerate(needs):
        for j in need:
            users.setdefault(j, []).append(i)
    waiting = [len(need) for need in needs]
    ready = [i for i, count in enumerate(waiting) if count == 0]
    order = []
    for i in ready:  # grows while it is read
        order.append(i)
        for user in users.get(i, ()):
            waiting[user] -= 1
            if waiting[user] == 0:
                ready.append(user)
    if len(order) < len(graph.node):
        stuck = next(node for i, node in enumerate(graph.node) if waiting[i])
        raise InputError(
            f"the graph has a cycle: node {stuck.name or next(iter(stuck.output), '')!r} ({stuck.op_type}) "
            f"and {len(graph.node) - len(order) - 1} more depend on each other"
        )
    nodes = [graph.node[i] for i in order]
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _reads(node: onnx.NodeProto) -> set[str]:
    """Names of the values that the node or a graph inside it reads."""
    names = {name for name in node.input if name}
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            for inner in graph.node:
                names |= _reads(inner)
    return names


def _first_lines(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:300] or type(error).__name__
