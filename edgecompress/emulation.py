"""`bench`: what `build` wrote, run in an emulator and compared with this machine's runtime, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from pydantic import BaseModel, ConfigDict, Field
from rich.console import Group
from rich.text import Text

from edgecompress.emit.tflite.io import TensorIO
from edgecompress.errors import InputError, UnsupportedModelError
from edgecompress.evaluate.batching import feeds, join
from edgecompress.evaluate.data import Dataset, load_data
from edgecompress.evaluate.metrics import is_classifier, top1
from edgecompress.firmware import BuildRecord, read_record
from edgecompress.recipe import Preprocess
from edgecompress.report.terminal import as_html, as_text, table
from edgecompress.validation import validated
from edgecompress_runtime import load
from edgecompress_runtime.errors import RuntimeModelError
from edgecompress_runtime.pack import PackError, read_pack
from edgecompress_runtime.plan import Tensor
from edgecompress_targets.platform import Platform, platform_of
from edgecompress_targets.tools import MissingToolError, ToolError, version

DEVICES = ("qemu",)
TIMEOUT = 60.0, 10.0  # seconds, and as many more for each inference
CHANNELS_FIRST: dict[int, tuple[int, ...]] = {3: (0, 2, 1), 4: (0, 3, 1, 2), 5: (0, 4, 1, 2, 3)}


class Instructions(BaseModel):
    """Of one inference; they differ a little with the data."""

    mean: int
    least: int
    most: int


class Emulator(BaseModel):
    program: str
    version: str
    machine: str


class Bench(BaseModel):
    """What an emulated run showed. Shows itself as a table in terminals and notebooks.

    An emulator executes the device's instructions and not its clock: there is no time in here.
    """

    model_config = ConfigDict(extra="forbid")

    schema_version: int = 1
    path: str = Field(description="the program that was run")
    target: str
    cpu: str
    kernels: str = Field(description="family of CPUs whose kernels it has")
    emulator: Emulator
    data: str
    runs: int = Field(description="inferences")
    equal: bool = Field(description="whether every output equals the host's runtime bit for bit")
    different_runs: list[int] = Field(description="which inferences differ, counted from 0")
    instructions: Instructions | None = Field(description="null where the emulator can't count them")
    arena_bytes: int
    flash_bytes: int = Field(description="code and constants")
    text_bytes: int = Field(description="code alone")
    stack_bytes: int | None = Field(description="high-water mark in the emulator; null where it is not known")
    metric: str | None = Field(description="of `accuracy`; null without labels")
    accuracy: float | None = Field(description="of the emulated outputs on these samples, in percent")
    notes: list[str] = []

    @property
    def ok(self) -> bool:
        return self.equal

    def to_json(self) -> str:
        return self.model_dump_json(indent=2) + "\n"

    def __rich__(self) -> Group:
        rows = [("Inferences", f"{self.runs:,}"), ("Outputs equal to this machine's", self._equal())]
        if (n := self.instructions) is not None:
            spread = "" if n.least == n.most else f" ({n.least:,} to {n.most:,})"
            rows.append(("Instructions per inference", f"{n.mean:,}{spread}"))
        rows += [("Arena", f"{self.arena_bytes:,} bytes"),
                 ("Flash", f"{self.flash_bytes:,} bytes, {self.text_bytes:,} of them code")]  # fmt: skip
        if self.stack_bytes is not None:
            rows.append(("Stack, high-water mark", f"{self.stack_bytes:,} bytes"))
        if self.accuracy is not None:
            rows.append((f"Accuracy, {self.metric}", f"{self.accuracy:.2f} %"))
        head = Text.assemble((Path(self.path).name, "bold"), " on ", (self.cpu, "bold"),
                             f", emulated: {self.emulator.program} {self.emulator.version}, {self.emulator.machine}")
        notes = [Text("\n".join(f"- {note}" for note in self.notes))] if self.notes else []
        return Group(head, table("", ("Measured", "Result"), rows), *notes)

    def _equal(self) -> str:
        if self.equal:
            return "yes, bit for bit"
        shown = ", ".join(map(str, self.different_runs[:5]))
        return f"NO: {len(self.different_runs)} differ, first {shown}"

    def __str__(self) -> str:
        return as_text(self.__rich__())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return as_html(self.__rich__())


def bench(
    folder: str | Path, eval: Any, *, device: str = "qemu", runs: int = 20, preprocess: Mapping[str, Any] | None = None
) -> Bench:
    """Run what `build` wrote to `folder` on the first `runs` samples of `eval` (as `convert` takes it).

    Raises InputError for a folder, data or arguments that are not as expected, and where the emulator is missing;
    UnsupportedModelError where the program fails in it.
    """
    if device not in DEVICES:
        raise InputError(f"device {device!r}: expected {', '.join(DEVICES)}")
    if runs < 1:
        raise InputError(f"runs = {runs}: expected 1 or more")
    directory = Path(folder)
    record = read_record(directory)
    image, platform, emulator = _program(directory, record)
    pack = directory / record.pack
    inputs, outputs = _ends(pack, record)
    chosen = validated(Preprocess, dict(preprocess or {}), "preprocess")
    data = load_data(eval, [_value(t) for t in inputs], chosen).head(runs)
    samples = {name: np.concatenate(parts) for name, parts in _columns(data).items()}
    shapes = {t.name: _model_shape(t) for t in inputs}
    records = [[t.to_device(feed[t.name]) for t in inputs] for feed in feeds(samples, shapes)]
    expected = _on_host(pack, records)
    try:
        stream = b"".join(a.tobytes() for arrays in records for a in arrays)
        run = platform.run(image, stream, record.target, timeout=TIMEOUT[0] + TIMEOUT[1] * len(records))
    except ToolError as error:
        raise UnsupportedModelError(str(error)) from error
    found = _split(run.outputs, outputs, len(records), image)
    different = [i for i, (ours, theirs) in enumerate(zip(found, expected, strict=True)) if not _same(ours, theirs)]
    real = [[t.from_device(a) for t, a in zip(outputs, arrays, strict=True)] for arrays in found]
    accuracy, notes = _accuracy(join(real, samples, shapes), data)
    counts = run.counts
    return Bench(
        path=str(image),
        target=record.target.name,
        cpu=record.target.cpu,
        kernels=record.kernels,
        emulator=emulator,
        data=data.source,
        runs=len(records),
        equal=not different,
        different_runs=different,
        instructions=Instructions(mean=round(sum(counts) / len(counts)), least=min(counts), most=max(counts))
        if counts else None,
        arena_bytes=record.arena_bytes,
        flash_bytes=record.flash_bytes,
        text_bytes=record.text_bytes,
        stack_bytes=run.stack,
        metric=None if accuracy is None else "top1",
        accuracy=accuracy,
        notes=notes + ([] if counts else [f"{emulator.program} counts no instructions"]),
    )  # fmt: skip


def _program(directory: Path, record: BuildRecord) -> tuple[Path, Platform, Emulator]:
    platform = platform_of(record.target)
    if record.image is None or platform is None:
        raise InputError(f"{directory}: there is no program to run: {record.note}")
    image = directory / record.image
    if not image.is_file():
        raise InputError(f"{image}: no such file; run `edgecompress build` again")
    try:
        program, machine = platform.emulator(record.target)
    except MissingToolError as error:
        raise InputError(str(error)) from error
    return image, platform, Emulator(program=program, version=version(program), machine=machine)


def _ends(path: Path, record: BuildRecord) -> tuple[list[TensorIO], list[TensorIO]]:
    """Inputs and outputs of the pack that was compiled."""
    try:
        pack = read_pack(path)
    except PackError as error:
        raise InputError(str(error)) from error
    if pack.digest != record.pack_sha256:
        raise InputError(f"{path}: not the file that was compiled; run `edgecompress build` again")
    plan = pack.graph
    inputs, outputs = ([_io(plan.tensors[i]) for i in ends] for ends in (plan.inputs, plan.outputs))
    return inputs, outputs


def _io(tensor: Tensor) -> TensorIO:
    """As `convert` feeds it: channels first where the tensor may be an image or a sequence, which the pack does not
    say; data in the pack's own order fit as well, as channels last."""
    rank = len(tensor.shape)
    form = tuple(int(a) for a in np.argsort(CHANNELS_FIRST.get(rank, tuple(range(rank)))))
    scale, zero_point = (float(tensor.scale[0]), tensor.zero) if tensor.is_int8 and tensor.scale.size else (1.0, 0)
    dtype = ir.DataType.from_numpy(tensor.dtype)
    return TensorIO(tensor.name, tensor.name, form, tensor.shape, dtype, scale, zero_point)


def _model_shape(tensor: TensorIO) -> tuple[int, ...]:
    return tuple(tensor.shape[tensor.form.index(axis)] for axis in range(len(tensor.shape)))


def _value(tensor: TensorIO) -> ir.Value:
    dtype = ir.DataType.FLOAT if tensor.dtype == ir.DataType.INT8 else tensor.dtype
    return ir.Value(name=tensor.name, shape=ir.Shape(_model_shape(tensor)), type=ir.TensorType(dtype))


def _columns(data: Dataset) -> dict[str, list[np.ndarray]]:
    columns: dict[str, list[np.ndarray]] = {}
    for batch in data.batches(64):
        for name, array in batch.items():
            columns.setdefault(name, []).append(array)
    return columns


def _on_host(pack: Path, records: Sequence[Sequence[np.ndarray]]) -> list[list[np.ndarray]]:
    try:
        model = load(pack)
        results = [model(*arrays) for arrays in records]
    except RuntimeModelError as error:
        raise UnsupportedModelError(f"{pack}: {error}") from error
    return [list(r) if isinstance(r, tuple) else [r] for r in results]


def _split(stream: bytes, outputs: Sequence[TensorIO], count: int, image: Path) -> list[list[np.ndarray]]:
    """The records of outputs.bin as arrays."""
    kinds = [(t.dtype.numpy(), t.shape) for t in outputs]
    record = np.dtype([(f"f{i}", dtype, shape) for i, (dtype, shape) in enumerate(kinds)])
    if len(stream) != count * record.itemsize:
        raise UnsupportedModelError(f"{image}: wrote {len(stream)} bytes, expected {count} x {record.itemsize}")
    rows = np.frombuffer(stream, record)
    return [[row[f"f{i}"].reshape(shape) for i, (_, shape) in enumerate(kinds)] for row in rows]


def _same(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> bool:
    return all(a.tobytes() == b.tobytes() for a, b in zip(ours, theirs, strict=True))


def _accuracy(outputs: Sequence[np.ndarray], data: Dataset) -> tuple[float | None, list[str]]:
    if data.labels is None:
        return None, []
    if not is_classifier(outputs):
        return None, ["labels are not used: the first output is no scores of classes"]
    try:
        return top1(outputs, data.labels), []
    except InputError as error:
        return None, [f"labels are not used: {error}"]
