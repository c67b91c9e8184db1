"""Inputs of a model that its outputs feed, one run after the other: states of recurrences, caches, streams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir


@dataclass(frozen=True)
class State:
    """The names of the input, and of the output that is this input in the next run; in the first run it is zero."""

    input: str
    output: str


def states(graph: ir.Graph) -> tuple[State, ...]:
    """The graph's states; empty for most networks."""
    found: tuple[State, ...] = graph.meta.get("states", ())
    return found


def set_states(graph: ir.Graph, found: Sequence[State]) -> None:
    """Records which inputs outputs feed."""
    graph.meta["states"] = tuple(found)


def state_values(graph: ir.Graph) -> list[tuple[ir.Value, ir.Value]]:
    """(input, output) of each state."""
    inputs, outputs = ({v.name: v for v in ends} for ends in (graph.inputs, graph.outputs))
    return [(inputs[s.input], outputs[s.output]) for s in states(graph)]


def kept(graph: ir.Graph) -> set[str]:
    """The names of all inputs and outputs that are states."""
    return {name for state in states(graph) for name in (state.input, state.output)}
