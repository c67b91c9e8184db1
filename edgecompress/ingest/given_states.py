"""The states that the user names, checked against the model."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from edgecompress.errors import InputError
from edgecompress.graph.batch_axes import set_batch_axes
from edgecompress.graph.states import State, set_states
from edgecompress.ingest.passes.edit import static_shape


def keep_states(model: ir.Model, given: Mapping[str, str]) -> list[str]:
    """Records on a canonical model, in place, that outputs (the keys) feed inputs; the batch size is then fixed, as one
    stream is one sample. Returns notes. Raises InputError for names that the model lacks, and for unlike values."""
    graph = model.graph
    inputs, outputs = ({str(v.name): v for v in ends} for ends in (graph.inputs, graph.outputs))
    for output, name in given.items():
        for what, wanted, present in (("output", output, outputs), ("input", name, inputs)):
            if wanted not in present:
                raise InputError(
                    f"--state {output}={name}: the model has no {what} {wanted!r}; its {what}s are "
                    f"{', '.join(map(repr, present))}"
                )
        x, y = inputs[name], outputs[output]
        if (static_shape(x), x.dtype) != (static_shape(y), y.dtype):
            raise InputError(
                f"--state {output}={name}: the output is {_described(y)}, but the input is {_described(x)}; a state "
                "has one shape and type"
            )
    if len(set(given.values())) < len(given):
        raise InputError("--state: two outputs feed one input")
    if not given:
        return []
    if len(given) in (len(inputs), len(outputs)):
        raise InputError("--state: nothing is left to give to the model, or to get from it")
    set_states(graph, [State(name, output) for output, name in given.items()])
    set_batch_axes(graph, None)
    listing = ", ".join(f"{output!r} to {name!r}" for output, name in given.items())
    return [f"states, which start at zero and are fed back: {listing}; the batch size is that of one stream"]


def _described(value: ir.Value) -> str:
    dtype = "" if value.dtype is None else value.dtype.name.lower()
    return f"{dtype} {list(static_shape(value) or [])}"
