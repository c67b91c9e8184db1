"""What is in a `.pack` file: its plan, how each constant is encoded, and how far that is from the entropy bound."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field
from rich.console import Group
from rich.text import Text

from edgecompress.errors import InputError
from edgecompress.report.entropy import entropy
from edgecompress.report.terminal import Shown, table
from edgecompress.report.units import size
from edgecompress_runtime.pack import Pack, PackError, read_pack


class Step(BaseModel):
    kind: str
    inputs: list[str]
    outputs: list[str]


class Constant(BaseModel):
    name: str
    dtype: str
    shape: list[int]
    encoding: str = Field(description="codec; of nested codecs the whole chain")
    bytes: int = Field(description="encoded; a blob that several constants share counts for each")
    bits_per_value: float
    entropy_bits: float = Field(description="of the values' own histogram: no code of single values is shorter")


class PackInspection(Shown, BaseModel):
    """Shows itself as tables in terminals and notebooks."""

    model_config = ConfigDict(extra="forbid")

    path: str
    model: str
    bytes: int
    sha256: str = Field(description="the digest that the file carries, checked")
    inputs: list[str]
    outputs: list[str]
    plan: list[Step]
    constants: list[Constant]

    def to_json(self) -> str:
        return self.model_dump_json(indent=2) + "\n"

    def __rich__(self) -> Group:
        steps = [(s.kind, ", ".join(s.inputs), ", ".join(s.outputs)) for s in self.plan]
        rows = [
            (c.name, f"{c.dtype} {'x'.join(map(str, c.shape))}", c.encoding, size(c.bytes), f"{c.bits_per_value:.2f}",
             f"{c.entropy_bits:.2f}") for c in self.constants
        ]  # fmt: skip
        held = sum(c.bytes for c in self.constants)
        total = f"{size(self.bytes)} in all: constants {size(held)}, plan and checksums {size(self.bytes - held)}"
        return Group(
            Text.assemble((self.path, "bold"), f"\nmodel {self.model!r}\n{total}\nSHA-256 {self.sha256}"),
            table("\nPlan", ("Operator", "Inputs", "Outputs"), steps),
            table("\nConstants", ("Name", "Values", "Encoding", " Bytes", " Bits", " Entropy"), rows),
        )


def inspect_pack(path: str | Path) -> PackInspection:
    """Raises InputError for a file that is damaged or no pack."""
    try:
        pack = read_pack(path)
        constants = list(_constants(pack))
    except PackError as error:
        raise InputError(str(error)) from error
    names = [t.name for t in pack.graph.tensors]
    constant = [e is not None for e in pack.encoded]
    return PackInspection(
        path=str(path),
        model=pack.model,
        bytes=pack.size,
        sha256=pack.digest,
        inputs=[names[i] for i in pack.graph.inputs],
        outputs=[names[i] for i in pack.graph.outputs],
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
    for index, (tensor, encoded) in enumerate(zip(pack.graph.tensors, pack.encoded, strict=True)):
        if encoded is None:
            continue
        values = pack.array(index)
        yield Constant(
            name=tensor.name,
            dtype=tensor.dtype.name,
            shape=list(tensor.shape),
            encoding=" of ".join(_chain(encoded.codec, encoded.params)),
            bytes=len(encoded.data),
            bits_per_value=8 * len(encoded.data) / max(values.size, 1),
            entropy_bits=entropy(values),
        )


def _chain(codec: str, params: object) -> Iterator[str]:
    """A codec and those that it nests."""
    yield codec
    if isinstance(params, dict):
        for value in params.values():
            if isinstance(value, dict) and isinstance(value.get("codec"), str):
                yield from _chain(value["codec"], value.get("params"))
