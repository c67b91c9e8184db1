"""What a model costs: parameters, multiply-accumulates, and the most activations alive at once."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import onnx_ir as ir

from edgecompress.graph.channel_axes import shape
from edgecompress.graph.fusion import layers
from edgecompress.operators import record_of

FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16}


@dataclass(frozen=True)
class LayerStatistics:
    """One node. Shapes of its first input and output; parameters and MACs as counts."""

    name: str
    op_type: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    parameters: int
    macs: int


@dataclass(frozen=True)
class ModelStatistics:
    """operators: nodes by type. parameters: float constants, each counted once. macs: multiply-accumulates of
    one inference. peak_activation_elements: the most elements of inputs, outputs and intermediate values that
    exist at the same time when layers run in graph order; a layer with its bias and activation is one step.
    """

    operators: Counter[str]
    parameters: int
    macs: int
    peak_activation_elements: int
    layers: tuple[LayerStatistics, ...]


def statistics(model: ir.Model) -> ModelStatistics:
    """Costs of a canonical model (static shapes)."""
    rows = tuple(_layer(node) for node in model.graph)
    initializers = model.graph.initializers.values()
    return ModelStatistics(
        operators=Counter(node.op_type for node in model.graph),
        parameters=sum(_elements(v) for v in initializers if v.dtype in FLOATS),
        macs=sum(row.macs for row in rows),
        peak_activation_elements=peak_activation_elements(model.graph),
        layers=rows,
    )


def peak_activation_elements(graph: ir.Graph) -> int:
    """Largest sum of the sizes of live values over the steps. A value lives from the step that makes it
    (inputs: from the start) to the last step that reads it (outputs: to the end); while a step runs, both
    what it reads and what it makes are alive.
    """
    steps = layers(graph)
    last_use: dict[ir.Value, int] = {value: len(steps) for value in graph.outputs}
    for i, step in enumerate(steps):
        for node in step.nodes:
            for value in node.inputs:
                if value is not None and value.const_value is None:
                    last_use[value] = max(last_use.get(value, -1), i)
    alive = {value: _elements(value) for value in graph.inputs}
    peak = sum(alive.values())
    for i, step in enumerate(steps):
        made = step.last.outputs
        alive.update({value: _elements(value) for value in made if value.name})
        peak = max(peak, sum(alive.values()))
        alive = {value: size for value, size in alive.items() if last_use.get(value, -1) > i}
    return peak


def _layer(node: ir.Node) -> LayerStatistics:
    constants = {v for v in node.inputs if v is not None and v.const_value is not None and v.dtype in FLOATS}
    return LayerStatistics(
        name=node.name or node.outputs[0].name or "",
        op_type=node.op_type,
        input_shape=_shape(node.inputs[0]) if node.inputs else (),
        output_shape=_shape(node.outputs[0]),
        parameters=sum(_elements(v) for v in constants),
        macs=record_of(node).macs(node),
    )


def _shape(value: ir.Value | None) -> tuple[int, ...]:
    return () if value is None or value.shape is None else shape(value)


def _elements(value: ir.Value | None) -> int:
    return math.prod(_shape(value))
