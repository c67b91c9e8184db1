"""Files that devices run: their inputs, their outputs and their digests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from edgecompress.devices.firmware import BuildRecord, read_record
from edgecompress.emit.onnx.open_batch import BATCH
from edgecompress.errors import InputError, UnsupportedModelError
from edgecompress.lowering.tensor_io import TensorIO
from edgecompress_runtime.pack import PackError, read_pack
from edgecompress_runtime.plan import Tensor

CHANNELS_FIRST: dict[int, tuple[int, ...]] = {3: (0, 2, 1), 4: (0, 3, 1, 2), 5: (0, 4, 1, 2, 3)}


@dataclass(frozen=True, eq=False)
class Artifact:
    """path: the file. digest: SHA-256, hexadecimal; a .pack's own. inputs, outputs: as `convert` feeds them. exact:
    whether it computes on integers alone, so that every machine has the same outputs. folder, record: what `build`
    made of it, if the user named that. keeps_states: whether a record's outputs depend on the records before it."""

    path: Path
    format: str
    content: bytes
    digest: str
    inputs: tuple[TensorIO, ...]
    outputs: tuple[TensorIO, ...]
    exact: bool
    folder: Path | None = None
    record: BuildRecord | None = None
    keeps_states: bool = False

    @property
    def input_bytes(self) -> int:
        """Size of one record of inputs."""
        return sum(_bytes(t) for t in self.inputs)

    @property
    def output_bytes(self) -> int:
        """Size of one record of outputs."""
        return sum(_bytes(t) for t in self.outputs)

    def split(self, stream: bytes) -> list[list[np.ndarray]]:
        """Records of outputs, one after the other, as arrays in the order of `outputs`."""
        kinds = [(t.dtype.numpy(), t.shape) for t in self.outputs]
        record = np.dtype([(f"f{i}", dtype, shape) for i, (dtype, shape) in enumerate(kinds)])
        rows = np.frombuffer(stream, record)
        return [[row[f"f{i}"].reshape(shape) for i, (_, shape) in enumerate(kinds)] for row in rows]


def open_artifact(path: str | Path) -> Artifact:
    """A .pack, .tflite or .onnx file, or a folder that `edgecompress build` wrote.

    Raises InputError for a file that can't be read, UnsupportedModelError for one with open shapes.
    """
    path = Path(path)
    if path.is_dir():
        record = read_record(path)
        found = _pack(path / record.pack, path, record)
        if found.digest != record.pack_sha256:
            raise InputError(f"{found.path}: changed since it was compiled; run `edgecompress build` again")
        return found
    if path.suffix not in READERS:
        raise InputError(f"{path}: expected {', '.join(READERS)}, or a folder that `edgecompress build` wrote")
    return READERS[path.suffix](path)


def _pack(path: Path, folder: Path | None = None, record: BuildRecord | None = None) -> Artifact:
    try:
        pack = read_pack(path)
        plan = pack.plan()
    except PackError as error:
        raise InputError(str(error)) from error
    inputs, outputs = ([_of_plan(plan.tensors[i]) for i in ends] for ends in (plan.given, plan.taken))
    ends = {*plan.inputs, *plan.outputs}
    computed = {i for operator in plan.operators for i in operator.outputs} - ends
    exact = not any(plan.tensors[i].dtype.kind == "f" for i in computed)
    kinds = path, "pack", path.read_bytes(), pack.digest, tuple(inputs), tuple(outputs), exact
    return Artifact(*kinds, folder, record, keeps_states=bool(plan.states))


def _of_plan(tensor: Tensor) -> TensorIO:
    is_quantized = (tensor.is_int8 or tensor.is_int16) and tensor.scale.size
    scale, zero = (float(tensor.scale[0]), tensor.zero) if is_quantized else (1.0, 0)
    return _nhwc(tensor.name, tensor.shape, tensor.dtype, scale, zero)


def _nhwc(name: str, shape: Sequence[int], dtype: np.dtype, scale: float, zero_point: int) -> TensorIO:
    """As `convert` feeds it: channels first where the tensor may be an image or a sequence, which the file does not
    say; data in the file's own order fit as well, as channels last."""
    form = tuple(int(a) for a in np.argsort(CHANNELS_FIRST.get(len(shape), tuple(range(len(shape))))))
    return TensorIO(name, name, form, tuple(shape), ir.DataType.from_numpy(dtype), scale, zero_point)


def _tflite(path: Path) -> Artifact:
    from ai_edge_litert.interpreter import Interpreter

    content = _read(path)
    try:
        interpreter = Interpreter(model_content=content)
    except Exception as error:
        raise InputError(f"{path}: LiteRT can't read it: {' '.join(str(error).split())}") from error

    if len(keys := list(interpreter.get_signature_list())) > 1:
        raise InputError(
            f"{path}: holds a network that ends early as the signatures {', '.join(keys)}, which the application runs: "
            "give the .pack or .onnx file of that conversion"
        )
    inputs, outputs = (
        tuple(_of_interpreter(detail) for detail in details)
        for details in (interpreter.get_input_details(), interpreter.get_output_details())
    )
    return Artifact(path, "tflite", content, hashlib.sha256(content).hexdigest(), inputs, outputs, False)


def _of_interpreter(detail: Mapping[str, Any]) -> TensorIO:
    scale, zero_point = detail["quantization"]
    shape = [int(n) for n in detail["shape"]]
    return _nhwc(detail["name"], shape, np.dtype(detail["dtype"]), float(scale or 1), int(zero_point))


def _onnx(path: Path) -> Artifact:
    from edgecompress.ingest import onnx_file

    graph = ir.from_proto(onnx_file.read(path)).graph
    inputs = tuple(_of_graph(v, path) for v in graph.inputs if v.name not in graph.initializers)
    outputs = tuple(_of_graph(v, path) for v in graph.outputs)
    content = path.read_bytes()
    return Artifact(path, "onnx", content, hashlib.sha256(content).hexdigest(), inputs, outputs, False)


def _of_graph(value: ir.Value, path: Path) -> TensorIO:
    """An open batch axis is 1, as everywhere here. It is the first, or has the name that `convert` gives it."""
    shape = [] if value.shape is None else [n if isinstance(n, int) else 0 for n in value.shape]
    for axis, n in enumerate(value.shape or ()):
        if shape[axis] == 0 and (axis == 0 or getattr(n, "value", None) == BATCH):
            shape[axis] = 1
    if value.shape is None or 0 in shape or value.dtype is None:
        raise UnsupportedModelError(f"{path}: {value.name!r} has no fixed shape and type: convert the model first")
    return TensorIO(str(value.name), str(value.name), tuple(range(len(shape))), tuple(shape), value.dtype)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror or error}") from error


def _bytes(tensor: TensorIO) -> int:
    return int(np.prod(tensor.shape)) * int(tensor.dtype.numpy().itemsize)


READERS: dict[str, Callable[[Path], Artifact]] = {".pack": _pack, ".tflite": _tflite, ".onnx": _onnx}
