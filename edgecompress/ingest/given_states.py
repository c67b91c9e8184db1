"""The states that the user names, checked against the model."""

from __future__ import annotations

import re
from collections.abc import Mapping

import onnx_ir as ir

from edgecompress.errors import InputError
from edgecompress.graph.batch_axes import set_batch_axes
from edgecompress.graph.states import State, set_states
from edgecompress.ingest.passes.edit import static_shape

# how the name of an input becomes that of the output which feeds it, as exporters and models write them
NEXT = (
    (r"0$", "n"),
    (r"$", "N"),
    (r"$", "_out"),
    (r"$", "_next"),
    (r"^", "new_"),
    (r"^", "next_"),
    (r"_in$", "_out"),
    (r"^in_", "out_"),
    (r"^past", "present"),
    (r"^prev_", "next_"),
)


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


def likely_states(graph: ir.Graph) -> list[str]:
    """A note of inputs and outputs whose names, shapes and types are those of states, which the user may mean so."""
    pairs = [(y, x) for y in graph.outputs for x in graph.inputs if _is_likely(x, y)]
    if not pairs or len(pairs) in (len(graph.inputs), len(graph.outputs)) or len({x for _, x in pairs}) < len(pairs):
        return []
    listing = " ".join(f"--state {y.name}={x.name}" for y, x in pairs)
    return [f"these look like states that are fed back; if they are, {listing} keeps them in the runtime"]


def _is_likely(x: ir.Value, y: ir.Value) -> bool:
    before, after = str(x.name), str(y.name)
    alike = static_shape(x) is not None and (static_shape(x), x.dtype) == (static_shape(y), y.dtype)
    return alike and any(re.sub(old, new, before) == after for old, new in NEXT if re.search(old, before))


def _described(value: ir.Value) -> str:
    dtype = "" if value.dtype is None else value.dtype.name.lower()
    return f"{dtype} {list(static_shape(value) or [])}"
