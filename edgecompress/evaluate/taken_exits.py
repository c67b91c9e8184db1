"""What a network with early exits gives for each sample, by the outputs of all its exits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgecompress.graph.annotations import EXIT_STEPS, exits
from edgecompress.operators import record_of


@dataclass(frozen=True, eq=False)
class Taken:
    """output: [n, ...], from the exit that each sample leaves at. exits: int [n], which it is, from 1; the number of
    exits + 1 where the whole network runs. macs: multiply-accumulates of a sample that leaves at each of these.
    """

    output: np.ndarray
    exits: np.ndarray
    macs: tuple[int, ...]

    def head(self, count: int) -> Taken:
        """The first samples."""
        return Taken(self.output[:count], self.exits[:count], self.macs)


@dataclass(frozen=True)
class ExitUse:
    """Which exits an artifact takes, of each exit and, last, of the whole network.

    shares: percent of the samples that leave there. values: percent of these that are right (without labels: that say
    what the model says that came in); None where none leaves. macs: mean multiply-accumulates of a sample.
    same_percent: of the samples that leave where the float model with the same exits does.
    """

    shares: tuple[float, ...]
    values: tuple[float | None, ...]
    macs: float
    same_percent: float


def macs_up_to(graph: ir.Graph, values: Sequence[ir.Value]) -> int:
    """Multiply-accumulates of all that these values need."""
    needed, queue = set[ir.Node](), [v.producer() for v in values]
    while queue:
        node = queue.pop()
        if node is not None and node not in needed:
            needed.add(node)
            queue += [v.producer() for v in node.inputs if v is not None]
    return sum(record_of(node).macs(node) for node in needed)


def costs(graph: ir.Graph) -> tuple[int, ...]:
    """Multiply-accumulates of a sample that leaves at each of the exits, and of one that runs the whole network."""
    names, ends = [n for e in exits(graph) for n in (e.value, e.confidence)], {str(v.name): v for v in graph.outputs}
    reached = [[ends[n] for n in names[: 2 * number]] for number in range(1, len(exits(graph)) + 1)]
    return tuple(macs_up_to(graph, values) for values in (*reached, graph.outputs))


def exits_taken(confidence: np.ndarray, thresholds: Sequence[int]) -> np.ndarray:
    """The exit that each sample leaves at, from 0; as many as there are exits where the whole network runs.

    confidence: [n, exits], the largest probability at each. thresholds: of each exit, in 256ths.
    """
    sure = confidence >= np.asarray(thresholds) / EXIT_STEPS
    return np.where(sure.any(axis=1), sure.argmax(axis=1), len(thresholds))


def taken(model: ir.Model, outputs: Sequence[np.ndarray]) -> Taken:
    """What the model gives, by its exits' thresholds. outputs: all that the graph has, [n, classes] each."""
    places, by_name = exits(model.graph), dict(zip((str(v.name) for v in model.graph.outputs), outputs, strict=True))
    chosen = exits_taken(confidences(model, outputs), [e.threshold for e in places])
    given = np.stack([*(by_name[e.value] for e in places), outputs[0]])
    return Taken(given[chosen, np.arange(len(chosen))], chosen + 1, costs(model.graph))


def confidences(model: ir.Model, outputs: Sequence[np.ndarray]) -> np.ndarray:
    """[n, exits]: the largest probability at each exit."""
    by_name = dict(zip((str(v.name) for v in model.graph.outputs), outputs, strict=True))
    return np.stack([by_name[e.confidence].max(axis=1) for e in exits(model.graph)], axis=1)


def exit_use(exits: np.ndarray, right: np.ndarray, expected: Taken) -> ExitUse:
    """exits: the exit of each sample in an artifact, from 1. right: whether it says what is right. expected: of the
    float model, for these samples."""
    places = range(1, len(expected.macs) + 1)
    shares = tuple(100 * float(np.mean(exits == place)) for place in places)
    values = tuple(100 * float(right[exits == place].mean()) if (exits == place).any() else None for place in places)
    macs = float(np.dot(shares, expected.macs)) / 100
    return ExitUse(shares, values, macs, 100 * float(np.mean(exits == expected.exits)))
