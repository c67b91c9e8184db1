"""What stays in float in a file that was meant to be int8, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx_ir as ir

from edgecompress.evaluate.file_count import FileCount, Operation
from edgecompress.graph.annotations import comes_quantized, is_integer, quantization
from edgecompress.graph.fusion import Layer, constant, layers
from edgecompress.graph.provenance import label, origin
from edgecompress.operators import record_of

MOST_NAMES = 4
LARGE_SHARE = 0.05  # of the weights' bytes, from which on a table that nothing multiplies is named


def operations_of(layer: Layer, count: FileCount) -> list[Operation]:
    """The operators of a file that compute a layer: they have its node's name, or read its weights, or make values that
    are named after its own.
    """
    values = [str(value.name) for node in layer.nodes for value in node.outputs]
    own = {
        str(layer.node.name),
        *(str(v.name) for v in layer.node.inputs if v is not None and v.const_value is not None),
    }
    return [
        operation
        for operation in count.operations
        if own.intersection(operation.names)
        or any(name == v or name.startswith(f"{v}/") for name in operation.made for v in values)
    ]


def float_notes(model: ir.Model, counts: Mapping[str, FileCount], asked: list[str]) -> list[str]:
    """One note for each reason and file. model: annotated, as it was written. asked: nodes that were to be float."""
    return [note for format, count in counts.items() for note in _notes(model, format, count, asked)]


def _notes(model: ir.Model, format: str, count: FileCount, asked: list[str]) -> Iterator[str]:
    total, reasons = sum(count.macs.values()), dict[str, list[tuple[str, int]]]()
    known: set[int] = set()
    unseen = []  # layers that are written with operators which are not named after them
    for layer in layers(model.graph):
        operations = operations_of(layer, count)
        known.update(map(id, operations))
        if not {origin(layer.node)[0], layer.node.name, layer.output.name}.isdisjoint(asked):
            continue
        macs = sum(o.macs for o in operations if o.computes == "float32")
        if macs:
            reasons.setdefault(_reason(layer.node, format), []).append((label(layer.node), macs))
        elif not operations and not is_integer(layer.node) and record_of(layer.node).macs(layer.node):
            unseen.append(layer.node)
    rest = sum(o.macs for o in count.operations if o.computes == "float32" and id(o) not in known)
    for node in unseen if rest else []:
        reasons.setdefault(_reason(node, format), []).append((label(node), rest // len(unseen)))
    for reason, parts in reasons.items():
        share = 100 * sum(macs for _, macs in parts) / max(total, 1)
        names = list(dict.fromkeys(name for name, _ in parts))
        yield f".{format}: {_listed(names)} in float, with {share:.1f} % of the multiply-accumulates: {reason}"
    stored = sum(count.weight_bytes.values())
    tables = [node for node in model.graph if node.op_type == "Gather" and node.inputs[0] is not None]
    for node in tables:
        table = constant(node.inputs[0])
        kept = count.float_constants.get(str(node.inputs[0].name), 0) if node.inputs[0] is not None else 0
        if table is not None and kept > LARGE_SHARE * stored:
            share = 100 * kept / stored
            yield f".{format}: {label(node)} keeps its table in float, {share:.1f} % of the weights' bytes"


def _reason(node: ir.Node, format: str) -> str:
    if is_integer(node):
        return f"a .{format} file has no integer kernel for it"
    if record_of(node).integer is None:
        narrow = any(quantization(node.inputs[place]) is not None for place in record_of(node).weights.stored)
        return "it has no integer kernel" + (", only int8 weights" if narrow else "")
    if node.graph is not None and comes_quantized(node.graph):
        return "the model came with it in float"
    return "its values have no scales that its integer kernel takes"


def _listed(names: list[str]) -> str:
    rest = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {rest} more" if rest > 0 else "")
