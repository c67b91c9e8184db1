"""Fuzzes what reads ONNX models, by fields of the message.

    python tests/bench/fuzz_onnx.py [--seconds 60] [--seed 0]

A small network, of the examples of all operators, is changed in several fields at once: numbers, names, types, shapes,
attributes, order and count of what is repeated, with names that are changed wherever they stand. Of some the bytes are
changed as well. What is read passed the comparison with ONNX Runtime that each load makes.
"""

from __future__ import annotations

import random
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import onnx
from fuzzing import EDGES, Fuzzer, changed_bytes, chosen, main
from google.protobuf.descriptor import FieldDescriptor

from edgecompress.errors import EdgeCompressError
from edgecompress.ingest import load
from edgecompress.operators import OPERATORS

FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-onnx-"))
TEXTS = (
    "",
    "x",
    "y",
    "Add",
    "Relu",
    "If",
    "Loop",
    "ai.onnx",
    "com.microsoft",
    "axis",
    "\u202e\x1b[2J",
    "a" * 5000,
    "0",
    "value",
)
NUMBERS = (*EDGES, -1, -2, -3, -4, -128, -(2**31), -(2**63), 5, 6, 9, 10, 11, 13, 17, 18, 19, 20, 21, 22, 24)
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 3.4e38, float("inf"), float("-inf"), float("nan"))
Field = tuple[Any, FieldDescriptor]  # a message and one of its fields


@cache
def seeds() -> list[bytes]:
    """The serialized networks."""
    found = [example.model() for record in OPERATORS.values() for example in record.examples]
    return [data for proto in found if len(data := proto.SerializeToString()) < 20_000]


def make(rng: random.Random, left_out: frozenset[int]) -> bytes:
    proto = onnx.ModelProto.FromString(rng.choice(seeds()))
    broken = rng.random() < 0.1
    for source in chosen(rng, left_out, most=6):
        _change(source, proto)
    try:
        data = proto.SerializeToString()
    except ValueError:  # too deep
        return b""
    return changed_bytes(rng, data, 2) if broken else data


def fields(message: Any) -> list[Field]:
    """All fields that are set, in a message and those inside it."""
    found: list[Field] = []
    waiting = [message]
    while waiting and len(found) < 4000:
        at = waiting.pop()
        for field, value in at.ListFields():
            found.append((at, field))
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                waiting += list(value) if field.is_repeated else [value]
    return found


def _change(rng: random.Random, proto: onnx.ModelProto) -> None:
    found = fields(proto)
    if not found:
        return
    message, field = rng.choice(found)
    kind = rng.random()
    if kind < 0.1:
        message.ClearField(field.name)
    elif kind < 0.2:
        _unset(rng, message)
    elif kind < 0.3 and field.type == FieldDescriptor.TYPE_STRING:
        _rename(proto, rng.choice(_texts(message, field) or [""]), rng.choice((*TEXTS, *_names(proto))))
    elif field.is_repeated:
        _change_list(rng, message, field)
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        others = [
            getattr(m, f.name) for m, f in fields(proto) if f.message_type is field.message_type and not f.is_repeated
        ]
        other = rng.choice(others)
        copied = type(other)()
        copied.CopyFrom(other)  # protobuf ends the process where a message lies in the one that is copied into it
        getattr(message, field.name).CopyFrom(copied)
    else:
        _set(message, field, _value(rng, field, proto))


def _change_list(rng: random.Random, message: Any, field: FieldDescriptor) -> None:
    items = getattr(message, field.name)
    at, kind = rng.randrange(len(items)), rng.randrange(5)
    if kind == 0:
        del items[at]
    elif kind == 1 or field.type == FieldDescriptor.TYPE_MESSAGE:
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            items.add().CopyFrom(rng.choice(items))
        else:
            items.append(rng.choice(items))
    elif kind == 2:
        items.extend(list(items) * rng.choice((1, 7, 100)) if len(items) < 1000 else [])
    else:
        items[at] = _fitting(field, _value(rng, field, None))


def _unset(rng: random.Random, message: Any) -> None:
    """Sets a field that was not set."""
    field = rng.choice(message.DESCRIPTOR.fields)
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        target = getattr(message, field.name)
        (target.add() if field.is_repeated else target).SetInParent()
    elif field.is_repeated:
        getattr(message, field.name).append(_fitting(field, _value(rng, field, None)))
    else:
        _set(message, field, _value(rng, field, None))


def _set(message: Any, field: FieldDescriptor, value: Any) -> None:
    setattr(message, field.name, _fitting(field, value))


def _fitting(field: FieldDescriptor, value: Any) -> Any:
    """The value in the range of the field's type."""
    if field.type == FieldDescriptor.TYPE_INT32:
        return (int(value) + 2**31) % 2**32 - 2**31
    if field.type == FieldDescriptor.TYPE_INT64:
        return (int(value) + 2**63) % 2**64 - 2**63
    return int(value) % 2**64 if field.type == FieldDescriptor.TYPE_UINT64 else value


def _value(rng: random.Random, field: FieldDescriptor, proto: onnx.ModelProto | None) -> Any:
    if field.type == FieldDescriptor.TYPE_STRING:
        return rng.choice((*TEXTS, *(_names(proto) if proto is not None else ())))
    if field.type == FieldDescriptor.TYPE_BYTES:
        return rng.randbytes(rng.choice((0, 1, 2, 4, 8, 16, 64, 256)))
    if field.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        return rng.choice(FLOATS)
    if field.type == FieldDescriptor.TYPE_ENUM:
        return rng.choice(list(field.enum_type.values_by_number))
    return rng.choice(NUMBERS)


def _texts(message: Any, field: FieldDescriptor) -> list[str]:
    value = getattr(message, field.name)
    return list(value) if field.is_repeated else [value]


def _names(proto: onnx.ModelProto) -> list[str]:
    return [*(i.name for i in proto.graph.input), *(name for node in proto.graph.node for name in node.output)]


def _rename(proto: onnx.ModelProto, old: str, new: str) -> None:
    """The same name everywhere."""
    for message, field in fields(proto):
        if field.type != FieldDescriptor.TYPE_STRING:
            continue
        if not field.is_repeated:
            if getattr(message, field.name) == old:
                setattr(message, field.name, new)
            continue
        items = getattr(message, field.name)
        for i, text in enumerate(items):
            if text == old:
                items[i] = new


def read(data: bytes) -> str:
    file = FOLDER / "model.onnx"
    file.write_bytes(data)
    load(file)
    return "read"


FUZZER = Fuzzer("onnx", make, read, (EdgeCompressError,), ".onnx", most_memory=8 << 30)

if __name__ == "__main__":
    sys.exit(main(FUZZER))
