"""Each node of a canonical model as a function of torch tensors, as its record says, or its parts."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir
from torch import Tensor

from edgecompress.operators import record_of
from edgecompress.operators.record import TorchFunction


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
    """Whether the node has a function."""
    return record_of(node).torch is not None


def torch_function(node: ir.Node) -> TorchFunction:
    """A function of the node's inputs (None for an absent one) with its attributes and constant parameters built in.

    Raises ValueError for an operator that has none.
    """
    builder = record_of(node).torch
    if builder is None:
        raise ValueError(f"{node.op_type} has no function in torch")
    return builder(node)
