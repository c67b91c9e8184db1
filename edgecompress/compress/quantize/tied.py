"""Values that have to share a scale, because operators need equal scales of what they read and of what they write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from edgecompress.compress.quantize import operators
from edgecompress.compress.quantize.bit_widths import stored_bits
from edgecompress.compress.quantize.groups import Groups
from edgecompress.graph.annotations import Quantization, twin
from edgecompress.graph.fusion import Layer
from edgecompress.graph.states import state_values


@dataclass(frozen=True)
class Tied:
    """Groups of values that share a scale.

    layers: those that need equal scales. members: of each group, by the value that stands for it. fixed: the groups
    whose scale an operator fixes. derived: values that hold nothing but what others of their group hold.
    """

    layers: tuple[Layer, ...]
    members: dict[ir.Value, list[ir.Value]]
    fixed: dict[ir.Value, Quantization]
    derived: frozenset[ir.Value]

    def sources(self, root: ir.Value) -> list[ir.Value]:
        """The values of a group that bring numbers into it."""
        return [v for v in self.members[root] if v not in self.derived]


def same_scales(tied: Sequence[Layer]) -> Groups:
    """Values that layers with equal scales in and out tie together, constants included."""
    groups = Groups()
    for layer in tied:
        groups.join(operators.tied_inputs(layer) + operators.outputs(layer))
    return groups


def tied_values(integer: Sequence[Layer]) -> Tied:
    """The groups of all activations of integer layers; a value that nothing ties is a group of its own.

    What is the same in each step of a loop that was written out has one scale too, so that the steps are alike.
    """
    tied = tuple(layer for layer in integer if operators.ties(layer))
    same = same_scales(tied)
    twins: dict[str, list[ir.Value]] = {}
    for value in (v for layer in integer for v in operators.outputs(layer)):
        if (name := twin(value)) is not None:
            twins.setdefault(name, []).append(value)
    for values in twins.values():
        same.join(values)
    fixed: dict[ir.Value, Quantization] = {}
    for layer in integer:
        own = operators.fixed(layer)
        for value in [v for _, v in operators.data_inputs(layer)] + operators.outputs(layer):
            same.find(value)
        fixed |= {v: own for v in operators.outputs(layer) if own is not None}
    stored = {v for layer in integer for v in operators.outputs(layer)}
    graph = integer[0].node.graph if integer else None
    for before, after in state_values(graph) if isinstance(graph, ir.Graph) else ():
        if after in stored and same.has(before) and stored_bits(before) == stored_bits(after):
            # the integers of the one are read as the other
            same.join([before, after])
    fixed = {same.find(v): own for v, own in fixed.items()}
    # What an operator that ties makes are values it read, or between them; a Pad brings another in.
    derived = frozenset(v for layer in tied for v in operators.outputs(layer) if layer.node.op_type != "Pad")
    return Tied(tied, same.members(), fixed, derived)
