"""The model with the weights that it was first trained from, which [prune] initial names."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper

from edgecompress.conversion.request import ModelSource, source_path
from edgecompress.errors import InputError
from edgecompress.graph.fusion import constant
from edgecompress.ingest import load
from edgecompress.ingest.onnx_file import read, read_bytes
from edgecompress.ingest.torch_file import instead_of_weights
from edgecompress.support.interrupt import reraise_interrupt
from edgecompress.support.user_code import is_function_spec


def load_initial(source: ModelSource, file: str, model: ir.Model) -> ir.Model:
    """The canonical model with other weights. file: the model with these (.onnx), or the weights by name (.npz, or a
    state_dict in .pt), which go into an .onnx model where its tensors have these names, or into "file.py:factory".

    model: as it came in. Raises InputError for a file that can't be read, and for a weight, by name, that is missing
    there or has another shape.
    """
    path = Path(file)
    if path.suffix == ".onnx":
        return load(
            path,
            input_shapes=source.input_shapes,
            batch=source.batch,
            constants=source.constants,
            sample_shapes=source.sample_shapes,
        ).model
    if is_function_spec(str(source.model)) and path.suffix != ".npz":
        return load(
            source.model,
            weights=file,
            input_shapes=source.input_shapes,
            batch=source.batch,
            constants=source.constants,
            sample_shapes=source.sample_shapes,
            trust_code=source.trust_code,
        ).model
    proto = _proto(source.model)
    if proto is None:
        raise InputError(f"{file}: weights by name can be put into .onnx models alone; give the initial model as .onnx")
    arrays = _arrays(path)
    _put(proto, arrays, file)
    initial = load(
        proto,
        input_shapes=source.input_shapes,
        batch=source.batch,
        constants=source.constants,
        sample_shapes=source.sample_shapes,
    ).model
    _require_all(model, initial, arrays, file)
    return initial


def _proto(source: Any) -> onnx.ModelProto | None:
    if isinstance(source, onnx.ModelProto):
        return onnx.ModelProto.FromString(source.SerializeToString())
    path = source_path(source)
    return read(path) if path is not None and path.suffix == ".onnx" else None


def _arrays(path: Path) -> Mapping[str, np.ndarray]:
    """The arrays by name. Nothing in the file is unpickled."""
    data = read_bytes(path)
    if path.suffix == ".npz":
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}
        except (ValueError, OSError, zipfile.BadZipFile, AttributeError) as error:
            raise InputError(f"{path}: not an .npz file of plain arrays") from error
    import torch

    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises of any kind
        reraise_interrupt(error)
        raise InputError(instead_of_weights(path, data)) from error
    if not isinstance(state, Mapping) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise InputError(f"{path}: expected a state_dict, tensors by name; save it with model.state_dict()")
    return {str(name): tensor.float().numpy() for name, tensor in state.items()}


def _put(proto: onnx.ModelProto, arrays: Mapping[str, np.ndarray], file: str) -> None:
    stored = {tensor.name: tensor for tensor in proto.graph.initializer if tensor.name in arrays}
    if not stored:
        names = ", ".join(repr(t.name) for t in list(proto.graph.initializer)[:3])
        raise InputError(f"{file}: no name in it is that of a weight of the model, such as {names}")
    for name, tensor in stored.items():
        before = numpy_helper.to_array(tensor)
        if arrays[name].shape != before.shape:
            raise InputError(
                f"{file}: weight {name!r} is {list(arrays[name].shape)}, and {list(before.shape)} in the model"
            )
        tensor.CopyFrom(numpy_helper.from_array(arrays[name].astype(before.dtype), name))


def _require_all(model: ir.Model, initial: ir.Model, arrays: Mapping[str, np.ndarray], file: str) -> None:
    """A weight that the file lacks would start as it ended."""
    from edgecompress.train.module.trainable import trainable

    for value in trainable(model):
        name = str(value.name)
        before, after = constant(value), constant(initial.graph.initializers.get(name))
        if name in arrays or before is None or after is None or np.ptp(before) == 0:
            continue
        if np.array_equal(before, after):
            raise InputError(f"{file}: there is no weight {name!r}, which the model has; it has to hold all of them")
