"""What compression decides about a value or a node, kept on it (`meta`) and read by the emitters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import EllipsisType

import numpy as np
import onnx_ir as ir

from edgecompress.graph import few_bits

INTEGER_RANGE = {
    ir.DataType.INT8: (-128, 127),
    ir.DataType.INT16: (-32768, 32767),
    ir.DataType.INT32: (-(2**31), 2**31 - 1),
    ir.DataType.INT64: (-(2**47), 2**47 - 1),  # of biases: larger sums TFLite's int16 kernels can't scale
}


CHUNK = 1 << 17  # values that are rounded at a time: as float64 they stay in the cache


@dataclass(frozen=True, eq=False)
class Quantization:
    """How a float value is stored: real = scale * (stored - zero_point).

    scale: float32 [1] (per tensor) or [channels] (per channel along `axis`).
    zero_point: int32, same shape as scale.
    axis: dimension of the ONNX value that the channels run along; None when per tensor.
    dtype: INT8, INT16, INT32 or INT64; FLOAT16 means a plain cast (scale 1, zero point 0).
    narrow_range: weights use [-127, 127] (TFLite quantization specification).
    kind: of an int8 weight, which whole numbers it takes.
    block: of a matrix of int4 weights: so many weights of a channel that follow one another have a scale of their own.
    scale and zero_point are then [channels, blocks], the last block may be shorter, and whole numbers are -8..7.
    """

    scale: np.ndarray
    zero_point: np.ndarray
    axis: int | None = None
    dtype: ir.DataType = ir.DataType.INT8
    narrow_range: bool = False
    kind: few_bits.WeightType = "int8"
    block: int | None = None

    def quantize(self, real: np.ndarray) -> np.ndarray:
        """float array of the value's shape -> stored integers (numpy dtype of `dtype`)."""
        if self.dtype == ir.DataType.FLOAT16:
            return real.astype(np.float16)
        low, high = INTEGER_RANGE[self.dtype] if self.block is None else few_bits.INT4_RANGE
        if self.kind != "int8" and self.block is None:
            return few_bits.integers(self.kind, real.astype(np.float64), self._broadcast(real.ndim)[0], self.axis)
        result = np.empty(real.shape, self.dtype.numpy())
        for part, scale, zero_point in self._parts(real):
            stored = real[part].astype(np.float64)
            stored /= scale
            np.rint(stored, out=stored)
            stored += zero_point
            result[part] = np.clip(stored, low + self.narrow_range, high, out=stored)
        return result

    def dequantize(self, stored: np.ndarray) -> np.ndarray:
        """stored integers -> float32 array."""
        if self.dtype == ir.DataType.FLOAT16:
            return stored.astype(np.float32)
        result = np.empty(stored.shape, np.float32)
        for part, scale, zero_point in self._parts(stored):
            real = stored[part].astype(np.float64)
            real -= zero_point
            real *= scale
            result[part] = real
        return result

    def _parts(self, array: np.ndarray) -> Iterator[tuple[slice | EllipsisType, np.ndarray, np.ndarray]]:
        """Parts of a large array, small enough for the cache, each with its scale and zero point."""
        if self.block is not None:
            yield from self._parts_in_blocks(array)
            return
        scale, zero_point = self._broadcast(array.ndim)
        if array.size <= CHUNK:
            yield ..., scale, zero_point
            return
        rows = max(CHUNK * len(array) // array.size, 1)
        for start in range(0, len(array), rows):
            part = slice(start, start + rows)
            yield part, *((scale[part], zero_point[part]) if self.axis == 0 else (scale, zero_point))

    def _parts_in_blocks(self, array: np.ndarray) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        rows = max(CHUNK // max(array.shape[1], 1), 1)
        for start in range(0, len(array), rows):
            part = slice(start, start + rows)
            yield part, self._of_rows(self.scale, array, part), self._of_rows(self.zero_point, array, part)

    def _of_rows(self, parameters: np.ndarray, array: np.ndarray, part: slice) -> np.ndarray:
        """Of [channels, blocks] those of each weight in some rows of the matrix."""
        assert self.block is not None
        wide = parameters.astype(np.float64)
        if self.axis == 0:
            return np.repeat(wide[part], self.block, axis=1)[:, : array.shape[1]]
        return np.repeat(wide.T, self.block, axis=0)[: len(array)][part]

    def _broadcast(self, rank: int) -> tuple[np.ndarray, np.ndarray]:
        scale, zero_point = self.scale.astype(np.float64), self.zero_point.astype(np.float64)
        if self.axis is None:
            return scale.reshape(()), zero_point.reshape(())
        shape = [1] * rank
        shape[self.axis] = -1
        return scale.reshape(shape), zero_point.reshape(shape)

    def same_as(self, other: Quantization | None) -> bool:
        """Whether stored integers mean the same in both."""
        return (
            other is not None
            and self.dtype == other.dtype
            and (self.axis, self.block) == (other.axis, other.block)
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
        )


@dataclass(frozen=True, eq=False)
class Codebook:
    """A weight of few distinct values: stored = centroids[indices].

    centroids: ascending, at most 256: int8 where the weight has an int8 Quantization, whose stored integers
    they are; else float32, also where the weight is stored as float16. indices: uint8, of the weight's shape.
    scale: of float centroids: float32 [1] or [channels] along `axis`, which multiplies them; None for int8.
    """

    centroids: np.ndarray
    indices: np.ndarray
    scale: np.ndarray | None = None
    axis: int | None = None

    def values(self) -> np.ndarray:
        """What the weight holds: int8 as its Quantization stores it, or float32."""
        values = self.centroids[self.indices]
        if self.scale is None:
            return values
        shape = [1] * values.ndim
        if self.axis is not None:
            shape[self.axis] = -1
        return values * self.scale.reshape(shape)


@dataclass(frozen=True, eq=False)
class Sparsity:
    """Weights that were pruned and stay zero. mask: bool, of the weight's shape; True stays. pattern: which were
    pruned together: "unstructured", "2:4", "block:4x1", ... asked: the share of the weights that was to be zero, where
    it gave way to a limit on accuracy.
    """

    mask: np.ndarray
    pattern: str
    asked: float | None = None


EXIT_STEPS = 256  # that thresholds of exits are counted in, as int8 probabilities are


@dataclass(frozen=True)
class Exit:
    """A place where a network may end early.

    after: the value that it stands behind. value, confidence: the outputs of the graph that it gives in place of the
    first one, and the probabilities that decide (the same where the value holds such). threshold: of the largest
    probability, in 256ths.
    """

    after: str
    value: str
    confidence: str
    threshold: int


def exits(graph: ir.Graph) -> tuple[Exit, ...]:
    """The graph's early exits, in the order in which they are reached; empty for most networks."""
    found: tuple[Exit, ...] = graph.meta.get("exits", ())
    return found


def exit_output(graph: ir.Graph) -> str:
    """The name of the output of an artifact with early exits that says which was taken."""
    taken = {v.name for v in (*graph.inputs, *graph.initializers.values(), *(v for n in graph for v in n.outputs))}
    return next(name for name in ("exit", "exit_taken", "edgecompress_exit_taken") if name not in taken)


def set_exits(graph: ir.Graph, places: tuple[Exit, ...]) -> None:
    """Records that outputs of the graph behind the first are early exits."""
    graph.meta["exits"] = places


def sparsity(value: ir.Value | None) -> Sparsity | None:
    """The value's Sparsity, or None when nothing was pruned."""
    return None if value is None else value.meta.get("sparsity")


def set_sparsity(value: ir.Value, pruned: Sparsity) -> None:
    """Records which weights were pruned and stay zero."""
    value.meta["sparsity"] = pruned


def codebook(value: ir.Value | None) -> Codebook | None:
    """The value's Codebook, or None when it isn't clustered."""
    return None if value is None else value.meta.get("codebook")


def set_codebook(value: ir.Value, book: Codebook | None) -> None:
    """Records that the weight has few distinct values, or no longer has."""
    if book is None:
        value.meta.pop("codebook", None)
    else:
        value.meta["codebook"] = book


def quantization(value: ir.Value | None) -> Quantization | None:
    """The value's Quantization, or None when it stays as it is."""
    return None if value is None else value.meta.get("quantization")


def set_quantization(value: ir.Value, q: Quantization | None) -> None:
    """Records how the value is stored; None: as it is."""
    value.meta["quantization"] = q


def has_few_bits(value: ir.Value | None) -> bool:
    """Whether the weight is stored in fewer than 8 bits."""
    q = quantization(value)
    return q is not None and q.kind != "int8"


def given_quantization(value: ir.Value | None) -> Quantization | None:
    """The quantization that the input model gives a float value; it is used in place of a calibrated one."""
    return None if value is None else value.meta.get("given_quantization")


def set_given_quantization(value: ir.Value, q: Quantization) -> None:
    """Records the quantization that the input model gives the value."""
    value.meta["given_quantization"] = q


def forget_given(graph: ir.Graph) -> None:
    """Forgets the quantization that the input model came with, which no longer holds."""
    for value in (*graph.inputs, *graph.initializers.values(), *(v for node in graph for v in node.outputs)):
        value.meta.pop("given_quantization", None)


def comes_quantized(graph: ir.Graph) -> bool:
    """Whether the model that came in was quantized, or trained for it: its scales, weights and biases are to stay."""
    return any(given_quantization(v) is not None for node in graph for v in node.outputs)


def activation_bits(node: ir.Node) -> int | None:
    """8 or 16 where the node computes on integers of so many bits, None where it computes on float32."""
    return node.meta.get("activation_bits")


def set_activation_bits(node: ir.Node, bits: int | None) -> None:
    """Records what the node computes on: 8 or 16 bits, None for float32."""
    node.meta["activation_bits"] = bits


def twin(value: ir.Value) -> str | None:
    """What the value is in each step of a loop that was written out: values of the same name share a scale."""
    return value.meta.get("twin")


def set_twin(value: ir.Value, name: str) -> None:
    """Records what the value is in each step of a loop."""
    value.meta["twin"] = name


def must_be_integer(node: ir.Node) -> bool:
    """Whether the node is to compute on int8 although a float kernel is more exact, since its target has integers
    alone."""
    return bool(node.meta.get("must_be_integer", False))


def set_must_be_integer(node: ir.Node) -> None:
    """Records that the node is to compute on int8 in any case."""
    node.meta["must_be_integer"] = True


def stays_float(node: ir.Node) -> bool:
    """Whether the node computes in float although it has an int8 kernel, since that is what it is for."""
    return bool(node.meta.get("stays_float", False))


def set_stays_float(node: ir.Node) -> None:
    """Records that the node computes in float in any case."""
    node.meta["stays_float"] = True


def is_integer(node: ir.Node) -> bool:
    """Whether the node computes on int8 or int16 activations (else on float32)."""
    return activation_bits(node) is not None


def only_in_onnx(node: ir.Node) -> str | None:
    """Why no format but ONNX can have the node, in words; None for all others. ONNX Runtime computes it in float."""
    return node.meta.get("only_in_onnx")


def set_only_in_onnx(node: ir.Node, reason: str) -> None:
    """Records why no format but ONNX can have the node."""
    node.meta["only_in_onnx"] = reason


def is_trained(node: ir.Node, value: ir.Value) -> bool | None:
    """Whether training may change a constant that the node reads, as the recipe says; None where it says nothing."""
    said: bool | None = value.meta.get("trained", node.meta.get("trained"))
    return said


def set_trained(named: ir.Node | ir.Value, trained: bool) -> None:
    """Records whether training may change a constant, or all that a node reads."""
    named.meta["trained"] = trained
