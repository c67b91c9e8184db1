"""The JSON header: a plan's tensors and operators, and where constants are (FORMAT.md, "Header")."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgecompress_runtime.errors import MisfitError
from edgecompress_runtime.operators import options_of
from edgecompress_runtime.options import Option
from edgecompress_runtime.pack.codecs import Encoded
from edgecompress_runtime.pack.errors import PackError
from edgecompress_runtime.pack.fields import (
    INT32,
    INT64,
    integer,
    member,
    number,
    record,
    sequence,
    shortest,
    text,
    within,
)
from edgecompress_runtime.plan import Operator, Plan, Tensor

FORMAT = "edgecompress.pack"
DTYPES = {name: np.dtype(name) for name in ("int8", "uint8", "int16", "int32", "int64", "bool", "float16", "float32")}
MOST_DIMENSIONS = 8
MOST_ELEMENTS = 2**31 - 1
MOST_ITEMS = 1 << 20  # tensors, operators, items of an option


@dataclass(frozen=True, eq=False)
class Header:
    """plan: its constants have data None here. encoded: for each tensor its encoding, None if computed."""

    model: str
    plan: Plan
    encoded: tuple[Encoded | None, ...]


def to_json(header: Header) -> tuple[dict[str, Any], list[bytes]]:
    """(header as JSON, blobs); equal blobs are stored once."""
    blobs: dict[bytes, int] = {}
    tensors = []
    for tensor, encoded in zip(header.plan.tensors, header.encoded, strict=True):
        data = None
        if encoded is not None:
            data = encoded.reference() | {"blob": blobs.setdefault(bytes(encoded.data), len(blobs))}
        tensors.append(
            {
                "name": tensor.name,
                "shape": [int(n) for n in tensor.shape],
                "dtype": np.dtype(tensor.dtype).name,
                "scale": [shortest(x) for x in tensor.scale],
                "zero_point": tensor.zero_point.tolist(),
                "axis": int(tensor.axis),
                "data": data,
            }
        )
    operators = [
        {"kind": o.kind, "inputs": list(o.inputs), "outputs": list(o.outputs), "options": o.options.stored()}
        for o in header.plan.operators
    ]
    ends: dict[str, Any] = {"inputs": list(header.plan.inputs), "outputs": list(header.plan.outputs)}
    if header.plan.states:
        ends["states"] = [list(pair) for pair in header.plan.states]
    top = {"format": FORMAT, "version": 1, "model": header.model, **ends}
    return top | {"tensors": tensors, "operators": operators}, list(blobs)


def from_json(json: dict[str, Any], blobs: tuple[memoryview, ...]) -> Header:
    """Raises PackError, naming the place, for anything that is not a plan over these blobs."""
    if (found := member(json, "format", text)) != FORMAT:
        raise PackError(f"format: expected {FORMAT!r}, found {found!r:.40}")
    member(json, "version", integer, 1, 1)
    pairs = member(json, "tensors", sequence, MOST_ITEMS, _tensor, blobs)
    last = len(pairs) - 1
    plan = Plan(
        tensors=tuple(tensor for tensor, _ in pairs),
        operators=member(json, "operators", sequence, MOST_ITEMS, _operator, last),
        inputs=member(json, "inputs", sequence, len(pairs), integer, 0, last),
        outputs=member(json, "outputs", sequence, MOST_ITEMS, integer, 0, last),
    )
    if "states" in json:
        plan = replace(plan, states=member(json, "states", sequence, len(plan.inputs), _state, plan))
    encoded = tuple(encoded for _, encoded in pairs)
    _check_order(plan, encoded)
    return Header(member(json, "model", text), plan, encoded)


def _tensor(value: Any, blobs: tuple[memoryview, ...]) -> tuple[Tensor, Encoded | None]:
    json = record(value)
    name = member(json, "name", text)
    return within(repr(name[:80]), _named_tensor, name, json, blobs)


def _named_tensor(name: str, json: dict[str, Any], blobs: tuple[memoryview, ...]) -> tuple[Tensor, Encoded | None]:
    shape = member(json, "shape", sequence, MOST_DIMENSIONS, integer, 0, MOST_ELEMENTS)
    if math.prod(shape) > MOST_ELEMENTS:
        raise PackError(f"shape: expected at most {MOST_ELEMENTS} elements, found {math.prod(shape)}")
    dtype = DTYPES.get(found := member(json, "dtype", text))
    if dtype is None:
        raise PackError(f"dtype: expected one of {', '.join(DTYPES)}, found {found!r:.40}")
    axis = member(json, "axis", integer, 0, max(0, len(shape) - 1))
    channels = shape[axis] if shape else 1
    scale = member(json, "scale", sequence, max(1, channels), _scale)
    zero_point = member(json, "zero_point", sequence, max(1, channels), integer, *INT32)
    if len(scale) not in (0, 1, channels) or len(zero_point) != len(scale):
        raise PackError(f"expected 0, 1 or {channels} scales and zero points, found {len(scale)} and {len(zero_point)}")
    tensor = Tensor(name, shape, dtype, np.array(scale, np.float32), np.array(zero_point, np.int32), axis, data=None)
    return tensor, None if json.get("data") is None else member(json, "data", _encoded, blobs)


def _encoded(value: Any, blobs: tuple[memoryview, ...]) -> Encoded:
    json = record(value)
    blob = blobs[member(json, "blob", integer, 0, len(blobs) - 1)]
    return Encoded(member(json, "codec", text), member(json, "params", record), blob)


def _operator(value: Any, last: int) -> Operator:
    json = record(value)
    kind, options = member(json, "kind", text), member(json, "options", record)
    given = {key: within(f"option {key[:40]!r}", _option, options[key]) for key in options}
    try:
        typed = options_of(kind, given)
    except MisfitError as error:
        raise PackError(f"({kind:.40}): {error}") from error
    return Operator(
        kind=kind,
        inputs=member(json, "inputs", sequence, MOST_ITEMS, integer, -1, last),
        outputs=member(json, "outputs", sequence, MOST_ITEMS, integer, 0, last),
        options=typed,
    )


def _state(value: Any, plan: Plan) -> tuple[int, int]:
    pair = sequence(value, 2, integer, 0, MOST_ITEMS)
    if len(pair) != 2 or pair[0] >= len(plan.inputs) or pair[1] >= len(plan.outputs):
        raise PackError("expected the places of an input and of an output")
    return pair[0], pair[1]


def _option(value: Any) -> Option:
    if isinstance(value, list):
        return list(sequence(value, MOST_ITEMS, _scalar))
    return _scalar(value)


def _scalar(value: Any) -> int | float | bool | str | None:
    if isinstance(value, dict | list):
        raise PackError(f"expected a number, a string, true, false or null, found a {type(value).__name__}")
    return integer(value, *INT64) if type(value) is int else value


def _scale(value: Any) -> np.float32:
    real = number(value)
    if not float(np.finfo(np.float32).tiny) <= real <= float(np.finfo(np.float32).max):
        raise PackError(f"expected a positive float32, found {real}")
    return np.float32(real)


def _check_order(plan: Plan, encoded: tuple[Encoded | None, ...]) -> None:
    """Every tensor that is read was stored or written before, and written once."""
    known = [e is not None for e in encoded]

    def write(tensor: int, who: str) -> None:
        if known[tensor]:
            raise PackError(
                f"{who} writes tensor {tensor}, which has its values already: no tensor may be written twice"
            )
        known[tensor] = True

    for tensor in plan.inputs:
        write(tensor, "the caller")
    for place, operator in enumerate(plan.operators):
        who = f"operator {place} ({operator.kind[:40]!r})"
        for tensor in operator.inputs:
            if tensor >= 0 and not known[tensor]:
                raise PackError(f"{who} reads tensor {tensor} before anything wrote it")
        for tensor in operator.outputs:
            write(tensor, who)
    for tensor in plan.outputs:
        if not known[tensor]:
            raise PackError(f"output tensor {tensor} is never written")
