"""Models with states: data are sequences of what their other inputs get, and outputs are those of every step.

A sequence starts with states that are zero; then each is what the step before made of it. Interpreters get it so too,
with the integers that they gave themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import onnx_ir as ir

from edgecompress.evaluate.interpreters import Interpreter
from edgecompress.graph.states import states

Arrays = dict[str, np.ndarray]


@runtime_checkable
class Stateful(Protocol):
    """An interpreter that keeps the states itself."""

    def reset(self) -> None:
        """Sets them to zero."""
        ...


@dataclass(frozen=True)
class Streams:
    """What the samples of a data set, which are sequences, are given to. frames: the shape of each input that they
    hold, by name. fed: (input, place among the outputs) of each state. zeros: the states before the first step.
    """

    frames: Mapping[str, tuple[int, ...]]
    fed: tuple[tuple[str, int], ...]
    zeros: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, graph: ir.Graph) -> Streams:
        """Those of a canonical model with states."""
        inputs = {str(v.name): v for v in graph.inputs}
        places = {str(v.name): place for place, v in enumerate(graph.outputs)}
        fed = tuple((s.input, places[s.output]) for s in states(graph))
        zeros = {name: np.zeros(shape_of(inputs[name]), inputs[name].dtype.numpy()) for name, _ in fed}  # type: ignore[union-attr]
        return cls({name: shape_of(v) for name, v in inputs.items() if name not in zeros}, fed, zeros)

    def run(self, interpreter: Interpreter, sequences: Arrays) -> list[np.ndarray]:
        """[n, steps, ...] by input -> what each output but the states is at every step, [n * steps, ...]."""
        if isinstance(interpreter, Stateful):
            parts = []
            for place in range(len(next(iter(sequences.values())))):
                interpreter.reset()
                parts.append(interpreter.run({k: self._frames(k, x[place]) for k, x in sequences.items()}))
            return [np.concatenate(rows) for rows in zip(*parts, strict=True)]
        inside = {place for _, place in self.fed}
        steps = [
            [y for i, y in enumerate(outputs) if i not in inside] for _, outputs in self._steps(interpreter, sequences)
        ]
        stacked = [np.stack(rows, axis=1) for rows in zip(*steps, strict=True)]
        return [y.reshape(-1, *y.shape[2:]) for y in stacked]

    def inputs(self, interpreter: Interpreter, sequences: Arrays) -> Iterator[Arrays]:
        """Yields all inputs, states too, of each step, [n, *shape]."""
        return (given for given, _ in self._steps(interpreter, sequences))

    def measured(self, outputs: Sequence[ir.Value]) -> list[ir.Value]:
        """Those of a model's outputs that running it gives: states stay inside."""
        inside = {place for _, place in self.fed}
        return [value for place, value in enumerate(outputs) if place not in inside]

    def _steps(self, interpreter: Interpreter, sequences: Arrays) -> Iterator[tuple[Arrays, list[np.ndarray]]]:
        count, length = next(iter(sequences.values())).shape[:2]
        fed = {name: np.broadcast_to(zero, (count, *zero.shape)) for name, zero in self.zeros.items()}
        for step in range(length):
            given = {name: self._frames(name, x[:, step]) for name, x in sequences.items()} | fed
            outputs = interpreter.run(given)
            yield given, outputs
            fed = {name: outputs[place].reshape(count, *self.zeros[name].shape) for name, place in self.fed}

    def _frames(self, name: str, array: np.ndarray) -> np.ndarray:
        return array.reshape(len(array), *self.frames[name])


def shape_of(value: ir.Value) -> tuple[int, ...]:
    """The static shape of a value."""
    assert value.shape is not None
    return tuple(value.shape.numpy())
