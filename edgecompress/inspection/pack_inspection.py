"""What is in a `.pack` file: its plan, how each constant is encoded, and how far that is from the entropy bound."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from rich.console import Group
from rich.text import Text

from edgecompress.errors import InputError
from edgecompress.record.units import size
from edgecompress.report.entropy import entropy
from edgecompress.report.tables import Shown, table
from edgecompress_runtime.pack import Pack, PackError, read_pack
from edgecompress_runtime.plan import Tensor

LEGEND = (
    "#: number of the operator that reads the constant. Kinds: number of different values. Bits: bits that one value "
    "takes in the file. Bound: entropy of the weights, the fewest bits for each value that an entropy coder of single "
    "values can reach, without its table. --json prints names in full."
)
NO_WEIGHTS = {"int32", "int64", "bool"}  # types of biases, sizes and indices
NAME_WIDTH = 22


class Value(BaseModel):
    """An input or output of the plan."""

    name: str
    dtype: str
    shape: list[int]


class Step(BaseModel):
    """One operator of the plan, in the order in which they run."""

    kind: str
    inputs: list[str]
    outputs: list[str]


class Constant(BaseModel):
    """A constant of the plan, and how it is stored."""

    operator: int | None = Field(
        description="number in the plan, from 1, of the first operator that reads it; null if none does"
    )
    name: str
    dtype: str
    shape: list[int]
    encoding: str = Field(description="name of the codec; in brackets the codecs that it builds on")
    bytes: int = Field(description="encoded size; a blob that several constants share counts only for the first")
    bits_per_value: float
    distinct: int = Field(description="number of different values")
    entropy_bits: float = Field(
        description="entropy of the values' histogram: no entropy coder of single values takes fewer bits"
    )

    @property
    def values(self) -> int:
        """How many values it has."""
        return int(np.prod(self.shape))

    @property
    def is_weight(self) -> bool:
        """Whether it is what a layer multiplies with."""
        return len(self.shape) > 1 and self.dtype not in NO_WEIGHTS


class PackInspection(Shown, BaseModel):
    """Shows itself as tables in terminals and notebooks."""

    model_config = ConfigDict(extra="forbid")

    path: str
    model: str
    bytes: int
    sha256: str = Field(description="the SHA-256 that the file carries, which was checked")
    inputs: list[Value]
    outputs: list[Value]
    plan: list[Step]
    constants: list[Constant]

    def to_json(self) -> str:
        """JSON text, as `edgecompress inspect --json` prints it."""
        return self.model_dump_json(indent=2) + "\n"

    def __rich__(self) -> Group:
        ends = [("input", v) for v in self.inputs] + [("output", v) for v in self.outputs]
        steps = [
            (str(place), s.kind, ", ".join(s.inputs), ", ".join(s.outputs)) for place, s in enumerate(self.plan, 1)
        ]
        rows = [
            (
                str(c.operator or "-"),
                _ending(c.name),
                _type(c.dtype, c.shape),
                c.encoding,
                f"{c.distinct:,}",
                f"{c.bytes:,}",
                f"{c.bits_per_value:.2f}",
                f"{c.entropy_bits:.2f}" if c.is_weight else "-",
            )
            for c in self.constants
        ]
        ends_shown = [(kind, v.name, _type(v.dtype, v.shape)) for kind, v in ends]
        columns = ("#", "Name", "Values", "Encoding", " Kinds", " Bytes", " Bits", " Bound")
        return Group(
            Text.assemble((self.path, "bold"), f"\nmodel {self.model!r}\nSHA-256 {self.sha256}"),
            table("\nInputs and outputs", ("", "Name", "Type"), ends_shown),
            table("\nPlan", ("#", "Operator", "Reads", "Writes"), steps),
            table("\nConstants", columns, rows),
            Text(LEGEND),
            table("\nTotal", ("", " Values", " Bytes", " Of file", " Bits", " Bound"), self._totals()),
        )

    def _totals(self) -> list[tuple[str, ...]]:
        weights = [c for c in self.constants if c.is_weight]
        bound = sum(c.values * c.entropy_bits for c in weights)
        held = sum(c.bytes for c in self.constants)
        return [
            self._total("weights", sum(c.bytes for c in weights), sum(c.values for c in weights), bound),
            self._total(
                "biases and other constants",
                sum(c.bytes for c in self.constants if not c.is_weight),
                sum(c.values for c in self.constants if not c.is_weight),
            ),
            self._total("plan, checksums, padding", self.bytes - held),
            self._total("file", self.bytes),
        ]

    def _total(self, name: str, held: int, values: int = 0, bound: float | None = None) -> tuple[str, ...]:
        """values: 0 for what holds none. bound: bits for all of them."""
        each = ("", "", "")
        if values:
            each = f"{values:,}", f"{8 * held / values:.2f}", "-" if bound is None else f"{bound / values:.2f}"
        return name, each[0], size(held), f"{100 * held / self.bytes:.1f} %", *each[1:]


def inspect_pack(path: str | Path) -> PackInspection:
    """Raises InputError for a file that is damaged or no pack."""
    try:
        pack = read_pack(path)
        constants = list(_constants(pack))
    except PackError as error:
        raise InputError(str(error)) from error
    tensors = pack.graph.tensors
    names = [t.name for t in tensors]
    constant = [e is not None for e in pack.encoded]
    return PackInspection(
        path=str(path),
        model=pack.model,
        bytes=pack.size,
        sha256=pack.digest,
        inputs=[_value(tensors[i]) for i in pack.graph.inputs],
        outputs=[_value(tensors[i]) for i in pack.graph.outputs],
        plan=[
            Step(
                kind=o.kind,
                inputs=[names[i] for i in o.inputs if i >= 0 and not constant[i]],
                outputs=[names[i] for i in o.outputs],
            )
            for o in pack.graph.operators
        ],
        constants=constants,
    )


def _constants(pack: Pack) -> Iterator[Constant]:
    readers: dict[int, int] = {}
    for place, operator in enumerate(pack.graph.operators, 1):
        for index in operator.inputs:
            readers.setdefault(index, place)
    counted: set[int] = set()
    for index, (tensor, encoded) in enumerate(zip(pack.graph.tensors, pack.encoded, strict=True)):
        if encoded is None:
            continue
        values, shared = pack.array(index), id(encoded.data) in counted
        counted.add(id(encoded.data))
        yield Constant(
            operator=readers.get(index),
            name=tensor.name,
            dtype=tensor.dtype.name,
            shape=list(tensor.shape),
            encoding=_encoding(encoded.codec, encoded.params) + (", shared" if shared else ""),
            bytes=0 if shared else len(encoded.data),
            bits_per_value=8 * len(encoded.data) / max(values.size, 1),
            distinct=np.unique(values).size,
            entropy_bits=entropy(values),
        )


def _encoding(codec: str, params: dict[str, Any]) -> str:
    """A codec and those that it nests, by what they are for: "sparse (gaps huffman, values raw)"."""
    parts = [
        f"{key} {_encoding(part['codec'], part.get('params', {}))}"
        for key, part in params.items()
        if isinstance(part, dict) and isinstance(part.get("codec"), str)
    ]
    return f"{codec} ({', '.join(parts)})" if parts else codec


def _value(tensor: Tensor) -> Value:
    return Value(name=tensor.name, dtype=tensor.dtype.name, shape=list(tensor.shape))


def _ending(name: str) -> str:
    """Of a long name the end, where names of one model differ."""
    return (name or "(no name)") if len(name) <= NAME_WIDTH else "…" + name[1 - NAME_WIDTH :]


def _type(dtype: str, shape: Sequence[int]) -> str:
    return f"{dtype} {'x'.join(map(str, shape))}".strip()
