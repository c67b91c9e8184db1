"""How an emitted TFLite model's inputs and outputs relate to the values of the ONNX model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgecompress.graph.annotations import INTEGER_RANGE

QUANTIZED = (ir.DataType.INT8, ir.DataType.INT16)
Form = tuple[int | None, ...]


@dataclass(frozen=True)
class TensorIO:
    """One input or output tensor.

    name: name of the ONNX value; tensor: name in the TFLite file.
    form: for each TFLite axis the ONNX axis it holds, None for an inserted axis of size 1;
        (0, 2, 3, 1) is an NCHW value stored as NHWC.
    shape: TFLite shape. dtype: FLOAT, INT8, INT16, INT32, INT64 or BOOL.
    scale, zero_point: real = scale * (stored - zero_point) when dtype is INT8 or INT16, else 1 and 0.
    """

    name: str
    tensor: str
    form: Form
    shape: tuple[int, ...]
    dtype: ir.DataType
    scale: float = 1.0
    zero_point: int = 0

    def to_device(self, array: np.ndarray) -> np.ndarray:
        """Array in ONNX axis order -> array of `shape` and `dtype` as the interpreter takes it."""
        axes = [a for a in self.form if a is not None]
        stored = np.ascontiguousarray(array.transpose(axes)).reshape(self.shape)
        if self.dtype in QUANTIZED:
            scaled = np.rint(stored / np.float32(self.scale)) + self.zero_point
            return np.clip(scaled, *INTEGER_RANGE[self.dtype]).astype(self.dtype.numpy())
        return stored.astype(self.dtype.numpy(), copy=False)

    def from_device(self, stored: np.ndarray) -> np.ndarray:
        """What the interpreter returned -> array in ONNX axis order, float32 when it was int8 or int16."""
        axes = [a for a in self.form if a is not None]
        kept = stored.reshape([n for n, a in zip(self.shape, self.form) if a is not None])
        array = kept.transpose(np.argsort(axes))
        if self.dtype in QUANTIZED:
            return ((array.astype(np.float32) - self.zero_point) * np.float32(self.scale)).astype(np.float32)
        return array


@dataclass(frozen=True)
class Stage:
    """A signature of a .tflite file that ends early. inputs, outputs: names. value: what the network gives if it ends
    behind it. confidence: the probabilities that decide; threshold: what the largest has to reach; both None for the
    last stage.
    """

    key: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    value: TensorIO
    confidence: TensorIO | None
    threshold: float | None


@dataclass(frozen=True)
class TFLiteModel:
    """An emitted FlatBuffer and how to feed it.

    join: where outputs are parts of the model's, the model that makes those of them; None where they are the model's.
    stages: of a .tflite file that ends early, whose signatures are run one after the other; empty for all others.
    signature: which of a .tflite file for several shapes this is of; others: the file's other ones.
    """

    data: bytes
    inputs: tuple[TensorIO, ...]
    outputs: tuple[TensorIO, ...]
    join: ir.Model | None = None
    stages: tuple[Stage, ...] = ()
    signature: str | None = None
    others: tuple[TFLiteModel, ...] = ()
