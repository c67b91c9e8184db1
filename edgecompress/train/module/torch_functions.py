"""Each node of a canonical model as a function of torch tensors, by its record, or by its parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from edgecompress.errors import UnsupportedModelError
from edgecompress.graph.fusion import constant
from edgecompress.graph.standard_functions import has_function
from edgecompress.operators import record_of
from edgecompress.operators.example import OPSET
from edgecompress.operators.record import TorchFunction
from edgecompress.operators.rewriting import tflite_parts


@dataclass(frozen=True)
class Step:
    """One node: values[outputs] = function(values[inputs]); `last` are the slots that nobody reads after it."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    last: tuple[int, ...]


Values = list[Tensor | None]  # a slot for each value of the model


def known(values: Values, slot: int) -> Tensor:
    """What a step has put into a slot that others read."""
    value = values[slot]
    assert value is not None
    return value


def can_be_trained(node: ir.Node) -> bool:
    """Whether the node has a function, of its own or by its parts."""
    record = record_of(node)
    return record.torch is not None or record.parts is not None or has_function(node)


def torch_function(node: ir.Node) -> TorchFunction:
    """A function of the node's inputs (None for an absent one) with its attributes and constant parameters built in."""
    builder = record_of(node).torch
    return _of_parts(node) if builder is None else builder(node)


def _of_parts(node: ir.Node) -> TorchFunction:
    """What the node's parts compute, one after the other."""
    graph = tflite_parts(_alone(node)).graph
    parts = list(graph)
    if any(part.op_type == node.op_type for part in parts):
        raise UnsupportedModelError(f"operator {node.op_type} can't be trained: give its record `torch` or `parts`")
    steps = [(torch_function(part), part) for part in parts]
    constants = {v: torch.from_numpy(np.array(constant(v))) for v in graph.initializers.values()}

    def compute(*inputs: Tensor | None) -> Sequence[Tensor]:
        values: dict[ir.Value | None, Tensor | None] = {None: None, **dict(zip(graph.inputs, inputs))}
        device = next(x.device for x in inputs if x is not None)
        values |= {v: tensor.to(device) for v, tensor in constants.items() if v not in values}
        for function, part in steps:
            result = function(*[values[v] for v in part.inputs])
            values.update(zip(part.outputs, (result,) if isinstance(result, Tensor) else result))
        return [y for v in graph.outputs if (y := values[v]) is not None]

    return compute


def _alone(node: ir.Node) -> ir.Model:
    """A model of this node, all of whose inputs are inputs of the graph; constants keep their values beside that."""
    inputs = [None if v is None else ir.Value(name=v.name, shape=v.shape, type=v.type) for v in node.inputs]
    for mine, value in zip(inputs, node.inputs):
        if mine is not None and value is not None:
            mine.const_value = value.const_value
    outputs = [ir.Value(name=v.name, shape=v.shape, type=v.type) for v in node.outputs]
    copy = ir.Node("", node.op_type, inputs, list(node.attributes.values()), outputs=outputs, name=node.name)
    given = list(dict.fromkeys(v for v in inputs if v is not None))
    return ir.Model(ir.Graph(given, outputs, nodes=[copy], opset_imports={"": OPSET}), ir_version=10)
