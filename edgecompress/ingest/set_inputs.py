"""Makes inputs of a model constants: a sampling rate, a flag, a mask that is always the same."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgecompress.errors import InputError


def set_inputs(proto: onnx.ModelProto, constants: Mapping[str, object]) -> list[str]:
    """Puts an initializer in the place of each input that `constants` names, in place.

    One number fills the declared shape, whose open dimensions become 1. Raises InputError for a name that is no input,
    and for a value that the input's type or shape can't hold. Returns notes for the user.
    """
    inputs = {value.name: value for value in proto.graph.input}
    for name, given in constants.items():
        if name not in inputs:
            raise InputError(
                f"--set {name}: the model has no such input; its inputs are {', '.join(map(repr, inputs))}"
            )
        if len(constants) >= len(inputs):
            raise InputError(
                f"--set {name}: one input at least must stay; the model has {', '.join(map(repr, inputs))}"
            )
        array = _array(inputs[name], given)
        proto.graph.input.remove(inputs[name])
        stale = [tensor for tensor in proto.graph.initializer if tensor.name == name]  # a default
        for tensor in stale:
            proto.graph.initializer.remove(tensor)
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    listing = ", ".join(map(repr, constants))
    return [f"these inputs are constants, as asked for: {listing}"] if constants else []


def _array(value: onnx.ValueInfoProto, given: object) -> np.ndarray:
    kind = value.type.tensor_type
    dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
    dims = [d.dim_value if d.dim_value > 0 else None for d in kind.shape.dim]
    array = np.asarray(given)
    if array.dtype.kind not in "biuf":
        raise InputError(f"--set {value.name}={given}: expected a number")
    with np.errstate(all="ignore"):
        made = array.astype(dtype)
    if dtype.kind in "biu" and not np.array_equal(made, array):
        raise InputError(f"--set {value.name}={given}: the input has the type {dtype}, which has no such number")
    if made.size == 1:
        return np.full([d or 1 for d in dims], made.reshape(()), dtype)
    if made.ndim != len(dims) or any(d not in (None, n) for d, n in zip(dims, made.shape)):
        declared = ",".join("?" if d is None else str(d) for d in dims)
        raise InputError(f"--set {value.name}: an array of shape {list(made.shape)}, where the model has {declared}")
    return made
