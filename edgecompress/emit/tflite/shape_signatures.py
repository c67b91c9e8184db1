"""A model for several shapes as one `.tflite` file: a signature for each, whose graphs share all constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgecompress.lowering.flatbuffer import FlatBuffer, Signature

Ends = Sequence[tuple[str, int]]  # (name, tensor index)


def side_by_side(graphs: Mapping[str, tuple[FlatBuffer, Ends, Ends]]) -> tuple[FlatBuffer, list[Signature]]:
    """The tensors of all graphs, and a signature for each. graphs: tensors and operators, inputs and outputs, by the
    signature's key."""
    whole, made = FlatBuffer(), []
    for key, (buffer, inputs, outputs) in graphs.items():
        first = len(whole.tensors)
        whole.tensors += buffer.tensors
        operators = [
            replace(o, inputs=_moved(o.inputs, first), outputs=_moved(o.outputs, first)) for o in buffer.operators
        ]
        taken, given = ([(name, first + index) for name, index in ends] for ends in (inputs, outputs))
        made.append(Signature(key, taken, given, operators))
    return whole, made


def _moved(indices: Sequence[int], first: int) -> tuple[int, ...]:
    return tuple(first + i if i >= 0 else i for i in indices)
