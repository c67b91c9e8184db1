"""Activation memory: when each value is needed, and where in one arena it can lie."""

from __future__ import annotations

import onnx_ir as ir

from edgecompress.graph.annotations import quantization
from edgecompress.graph.fusion import layers
from edgecompress.record.report import Buffer, MemoryPlan
from edgecompress_runtime.codegen import memory

SAME_BYTES = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"}


def memory_plan(model: ir.Model) -> MemoryPlan:
    """The arena of the values between the layers of an annotated canonical model, each in the type it is stored in."""
    graph, grouped = model.graph, layers(model.graph)
    values: dict[str, ir.Value] = {str(v.name): v for v in graph.inputs}
    first, last, overlaps = dict.fromkeys(values, 0), dict.fromkeys(values, 0), []
    for step, layer in enumerate(grouped):
        read = {str(v.name) for node in layer.nodes for v in node.inputs if v is not None}
        last.update(dict.fromkeys(read & set(values), step))
        for value in layer.last.outputs:
            if value.uses() or value.is_graph_output():
                name = str(value.name)
                values[name], first[name], last[name] = value, step, step
                source = layer.node.inputs[0] if layer.node.op_type in SAME_BYTES else None
                if source is not None:
                    overlaps.append(memory.Overlap(name, str(source.name), 0))
    end = max(len(grouped) - 1, 0)
    last.update(dict.fromkeys((str(v.name) for v in graph.outputs if str(v.name) in values), end))
    sizes = {name: _bytes(value) for name, value in values.items()}
    layout = memory.arrange([memory.Buffer(n, sizes[n], first[n], last[n]) for n in values], overlaps)
    return MemoryPlan(
        bytes=layout.size,
        steps=[layer.node.name or layer.node.op_type for layer in grouped],
        buffers=[
            Buffer(name=n, offset=layout.offsets[n], bytes=sizes[n], first=first[n], last=last[n]) for n in values
        ],
    )


def _bytes(value: ir.Value) -> int:
    q, dtype, shape = quantization(value), value.dtype, value.shape
    assert dtype is not None and shape is not None  # of a canonical model
    stored = dtype if q is None else q.dtype
    count = 1
    for d in shape.numpy():
        count *= int(d)
    return count * max(int(stored.itemsize), 1)
