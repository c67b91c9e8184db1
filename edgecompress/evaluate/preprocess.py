"""Turns stored samples into model inputs: axis order, type, (x * scale - mean) / std, and checks of the values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from edgecompress.errors import InputError
from edgecompress.evaluate.sources import Source
from edgecompress.recipe import Preprocess

# kind of the model's input type -> kinds of stored types that it can be made from, in words
ACCEPTED = {"f": ("uifb", "numbers"), "i": ("ui", "integers"), "u": ("ui", "integers"), "b": ("b", "booleans")}


@dataclass(frozen=True, eq=False)
class Adapter:
    """Turns chunks of one source into what one model input takes.

    name: the name of the input. source: the name of the data, for messages. shape: the shape of one sample in the
    result. channels_last: whether samples arrive with channels last and leave with channels first. mean, std: float32,
    shaped to broadcast over a sample. cut: how much of each sample is taken, from its beginning along each axis, where
    the model is for several shapes; None: all.
    """

    name: str
    source: str
    shape: tuple[int, ...]
    dtype: np.dtype
    channels_last: bool
    scale: np.float32
    mean: np.ndarray
    std: np.ndarray
    cut: tuple[int, ...] | None = None

    def __call__(self, chunk: np.ndarray, first: int | np.ndarray) -> np.ndarray:
        """[n, *stored sample] -> [n, *shape or cut] of `dtype`. first: index of the chunk's first sample, or of all.

        Raises InputError that names the first sample with NaN or infinity, or out of an integer's range.
        """
        if self.channels_last:
            chunk = np.moveaxis(chunk, -1, 1)
        chunk = chunk.reshape(len(chunk), *self.shape)
        if self.cut is not None:
            chunk = chunk[:, *(slice(n) for n in self.cut)]
        if self.dtype.kind != "f":
            result = chunk.astype(self.dtype)
            self._refuse(result != chunk, first, f"a value outside {self.dtype}")
            return result
        with np.errstate(over="ignore", invalid="ignore"):
            result = (chunk.astype(np.float32) * self.scale - self.mean) / self.std
        if chunk.dtype.kind == "f":
            self._refuse(~np.isfinite(result), first, "NaN or infinity")
        return result.astype(self.dtype, copy=False)

    def cut_to(self, shape: Sequence[int]) -> Adapter:
        """For a model whose input has this shape. Raises InputError where a sample is smaller."""
        wanted = tuple(shape)[len(shape) - len(self.shape) :]
        if any(n > m for n, m in zip(wanted, self.shape)):
            raise InputError(
                f"{self.source}: input {self.name!r} is to have the shapes {list(self.shape)} and {list(wanted)} as "
                "well, and samples are cut to smaller shapes: make one of the shapes the largest in every dimension"
            )
        return replace(self, cut=wanted)

    def _refuse(self, wrong: np.ndarray, first: int | np.ndarray, what: str) -> None:
        if wrong.any():
            place = int(wrong.reshape(len(wrong), -1).any(axis=1).argmax())
            index = first + place if isinstance(first, int) else first[place]
            raise InputError(f"{self.source}: sample {index} for input {self.name!r} has {what}")


def adapt(source: Source, described: str, value: ir.Value, preprocess: Preprocess) -> tuple[Adapter, str | None]:
    """How `source` feeds the model input `value`, and a note if its samples change shape on the way.

    described: the data's name, for messages. A sample is the input without its batch axis (axis 0), or
    all of the input. Raises InputError when type or shape don't fit; it says what was expected and found.
    """
    assert value.dtype is not None and value.shape is not None, "canonical models have static shapes"
    dtype, model_shape = value.dtype.numpy(), tuple(value.shape.numpy())
    kinds, expected = ACCEPTED[dtype.kind]
    where = f"{described}: input {value.name!r}"
    if source.dtype.kind not in kinds:
        raise InputError(f"{where}: the data has type {source.dtype}; expected {expected}")
    shape, channels_last = _match_shape(source.shape[1:], model_shape, preprocess.layout, where)
    mean, std = np.zeros((), np.float32), np.ones((), np.float32)
    if dtype.kind == "f":
        batched = len(shape) == len(model_shape)  # the batch axis is part of a sample
        mean = _per_channel("mean", preprocess.mean, shape, batched, where)
        std = _per_channel("std", preprocess.std, shape, batched, where)
    scale = np.float32(preprocess.scale)
    adapter = Adapter(str(value.name), described, shape, dtype, channels_last, scale, mean, std)
    note = None
    if channels_last:
        note = f"samples for {value.name!r} arrive channels last {source.shape[1:]} and are moved to {shape}"
    elif source.shape[1:] != shape:
        note = f"samples for {value.name!r} of shape {source.shape[1:]} are taken as {shape}"
    return adapter, note


def _match_shape(
    sample: tuple[int, ...], model: tuple[int, ...], layout: str, where: str
) -> tuple[tuple[int, ...], bool]:
    """The shape of one sample as the model takes it, and whether its channels move from last to first."""
    bare = model[1:]
    moved = (*bare[1:], bare[0]) if len(bare) > 1 else None
    if layout == "nhwc" and sample == moved:
        return bare, True
    if sample in (bare, model):
        return sample, False
    if layout == "auto" and sample == moved:
        return bare, True
    if layout == "auto" and (1, *sample) == bare:
        return bare, False
    expected = f"{bare}" + (f" or, channels last, {moved}" if layout != "nchw" and moved else "")
    raise InputError(f"{where}: the samples have shape {sample}; expected {expected}")


def _per_channel(what: str, numbers: list[float], shape: tuple[int, ...], batched: bool, where: str) -> np.ndarray:
    values = np.asarray(numbers, np.float32)
    if values.size == 1:
        return values.reshape(())
    for axis in (int(batched), len(shape) - 1):  # channels first; last in a model that takes them so
        if axis < len(shape) and shape[axis] == values.size:
            return values.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    raise InputError(
        f"{where}: preprocess.{what} has {values.size} numbers; expected 1, or one for each channel of "
        f"samples of shape {shape}"
    )
