"""Weights that an ONNX model keeps in files beside it, which are read only from inside the model's folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
from onnx.external_data_helper import uses_external_data

from edgecompress.errors import InputError
from edgecompress.graph.inner_graphs import with_branches

LARGEST_MODEL = 2**31 - 1  # bytes: protobuf's own limit, and TFLite's


def embed(proto: onnx.ModelProto, path: Path) -> None:
    """Reads every external tensor of the model at `path` into the message.

    Raises InputError when a location is absolute, leaves the model's folder, goes through a symbolic link, is
    missing or too short, or when all of it is 2 GB or more.
    """
    folder = path.resolve().parent
    total = proto.ByteSize()
    for tensor in _tensors(proto):
        if not uses_external_data(tensor):
            continue
        fields = {entry.key: entry.value for entry in tensor.external_data}
        file = _located(fields.get("location", ""), folder, tensor.name, path)
        size = file.stat().st_size
        offset = _number(fields, "offset", 0, tensor.name, path)
        length = _number(fields, "length", size - offset, tensor.name, path)
        if offset + length > size or length < 0:
            raise InputError(
                f"{path}: tensor {tensor.name!r} needs bytes {offset} to {offset + length} of {file.name}, "
                f"which has {size}; the file is truncated or belongs to another model"
            )
        total += length
        require_below_limit(total, path)
        with file.open("rb") as stream:
            stream.seek(offset)
            tensor.raw_data = stream.read(length)
        tensor.ClearField("external_data")
        tensor.data_location = onnx.TensorProto.DEFAULT


def require_below_limit(size: int, path: Path) -> None:
    """Raises InputError when `size`, in bytes, is more than protobuf can hold in one message."""
    if size > LARGEST_MODEL:
        raise InputError(
            f"{path}: the model has {size / 2**30:.1f} GiB or more of weights; models below 2 GiB can be converted"
        )


def _located(location: str, folder: Path, name: str, path: Path) -> Path:
    parts = PurePosixPath(location).parts
    where = f"{path}: tensor {name!r} keeps its data in {location!r}"
    if not location or "\0" in location:
        raise InputError(f"{where}, which isn't a file name")
    if PurePosixPath(location).is_absolute() or PureWindowsPath(location).drive or location.startswith("\\"):
        raise InputError(f"{where}, an absolute path; only files in the model's folder are read")
    if ".." in parts or ".." in PureWindowsPath(location).parts:
        raise InputError(f"{where}, which leaves the model's folder; only files inside it are read")
    file = folder
    for part in parts:
        file = file / part
        if file.is_symlink():
            raise InputError(f"{where}, a symbolic link; put the file itself into the model's folder")
    if not file.is_file():
        raise InputError(f"{where}, but there is no such file in {folder}; copy it there")
    return file


def _number(fields: dict[str, str], key: str, default: int, name: str, path: Path) -> int:
    text = fields.get(key)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()):
        raise InputError(f"{path}: tensor {name!r} has the external data {key} {text!r}; a number is expected")
    return int(text)


def _tensors(message: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    for graph in with_branches(message.graph):
        yield from graph.initializer
        yield from _attribute_tensors(graph.node)
    for function in message.functions:
        yield from _attribute_tensors(function.node)


def _attribute_tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
