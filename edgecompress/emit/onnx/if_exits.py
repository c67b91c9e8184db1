"""A model that ends early as ONNX: an If behind each exit, with the rest of the network in its else branch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgecompress.graph.annotations import EXIT_STEPS, Exit


def with_ifs(model: onnx.ModelProto, exits: Sequence[Exit], name: str) -> onnx.ModelProto:
    """The model whose outputs are its first, from wherever it ends, and which exit that was, int32 [1], counted from 1:
    the number of exits + 1 for the whole network.

    exits: their values and confidences are outputs of the model, of one sample. name: of the output that says which.
    """
    graph, result = model.graph, onnx.ModelProto()
    result.CopyFrom(model)
    stages = _stages(graph, [(e.value, e.confidence) for e in exits])
    within = _initializers(graph, stages)
    last = graph.output[0]
    which = helper.make_tensor_value_info(name, TensorProto.INT32, [1])
    nodes = [
        *(_renamed(node, last.name, f"{last.name}/whole") for node in stages[-1]),
        _number(f"{name}/whole", len(exits) + 1),
    ]
    values, suffix = within[-1], "whole"
    for number, place in reversed(list(enumerate(exits, 1))):
        rest = helper.make_graph(nodes, suffix, [], _named(last, which, suffix), values)
        end = f"exit_{number}" if number > 1 else None
        nodes = [*stages[number - 1], *_if(number, place, rest, (last, which), end)]
        values, suffix = [*within[number - 1], _threshold(number, place)], str(end)
    del result.graph.node[:], result.graph.initializer[:], result.graph.output[:]
    result.graph.node.extend(nodes)
    result.graph.initializer.extend(values)
    result.graph.output.extend([last, which])
    return result


def _if(
    number: int, place: Exit, rest: onnx.GraphProto, ends: Sequence[onnx.ValueInfoProto], suffix: str | None
) -> list[onnx.NodeProto]:
    """Nodes that end with the exit's value, or go on. suffix: of what they make, where an If around them gives the
    outputs their names."""
    last, which = ends
    own = f"taken_{number}"
    taken = helper.make_graph(
        [helper.make_node("Identity", [place.value], [f"{last.name}/{own}"]), _number(f"{which.name}/{own}", number)],
        own, [], _named(last, which, own),
    )  # fmt: skip
    largest, sure = f"{which.name}_{number}/largest", f"{which.name}_{number}/sure"
    outputs = [end.name if suffix is None else f"{end.name}/{suffix}" for end in ends]
    return [
        helper.make_node("ReduceMax", [place.confidence], [largest], keepdims=0),
        helper.make_node("GreaterOrEqual", [largest, f"exit_{number}/threshold"], [sure]),
        helper.make_node("If", [sure], outputs, then_branch=taken, else_branch=rest),
    ]


def _stages(graph: onnx.GraphProto, ends: Sequence[Sequence[str]]) -> list[list[onnx.NodeProto]]:
    """The nodes that each exit needs beside those before it, and what the first output needs besides."""
    makers = {name: place for place, node in enumerate(graph.node) for name in node.output}
    stages, done = [], set[int]()
    for names in (*ends, [graph.output[0].name]):
        needed, queue = set[int](), list(names)
        while queue:
            place = makers.get(queue.pop())
            if place is not None and place not in needed | done:
                needed.add(place)
                queue += graph.node[place].input
        stages.append([graph.node[place] for place in sorted(needed)])
        done |= needed
    return stages


def _initializers(graph: onnx.GraphProto, stages: Sequence[Sequence[onnx.NodeProto]]) -> list[list[onnx.TensorProto]]:
    """Those that each stage is the first to read: optimizers look for them beside the nodes."""
    first: dict[str, int] = {}
    for stage, nodes in enumerate(stages):
        for name in (name for node in nodes for name in node.input):
            first.setdefault(name, stage)
    return [[t for t in graph.initializer if first.get(t.name) == stage] for stage in range(len(stages))]


def _named(last: onnx.ValueInfoProto, which: onnx.ValueInfoProto, suffix: str) -> list[onnx.ValueInfoProto]:
    """The outputs of a branch: names are unique in all graphs of a file."""
    ends = []
    for end in (last, which):
        copy = onnx.ValueInfoProto()
        copy.CopyFrom(end)
        copy.name = f"{end.name}/{suffix}"
        ends.append(copy)
    return ends


def _renamed(node: onnx.NodeProto, old: str, new: str) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    for names in (copy.input, copy.output):
        for place, name in enumerate(names):
            names[place] = new if name == old else name
    return copy


def _number(name: str, number: int) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.array([number], np.int32)))


def _threshold(number: int, place: Exit) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(place.threshold / EXIT_STEPS, np.float32), f"exit_{number}/threshold")
