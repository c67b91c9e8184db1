"""The view of a model that an operator's lowering gets: values as TFLite tensors in the layout and type it asks for.

Layouts are propagated lazily. A value is born in the form its producer makes (a convolution: NHWC); a
consumer asks for the form it needs, and only where the two differ in memory order is a TRANSPOSE
written. ONNX Transposes move nothing: they only rename axes, so a pair of them, or one that TFLite's
own layout undoes, costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema

from edgecompress.graph.annotations import Quantization, is_integer, quantization
from edgecompress.graph.channel_axes import dtype_of, shape
from edgecompress.graph.fusion import Layer, constant
from edgecompress.lowering import forms
from edgecompress.lowering.flatbuffer import FlatBuffer
from edgecompress.lowering.forms import Form, Shape
from edgecompress.lowering.tensors import Operator, Tensor

ACTIVATIONS = {
    None: schema.ActivationFunctionType.NONE,
    "Relu": schema.ActivationFunctionType.RELU,
    "Relu6": schema.ActivationFunctionType.RELU6,
    "ReluN1To1": schema.ActivationFunctionType.RELU_N1_TO_1,
}


class Context:
    """Maps ONNX values to tensors of one FlatBuffer; one instance per emitted model."""

    def __init__(self, buffer: FlatBuffer) -> None:
        """Tensors and operators are appended to the buffer."""
        self.buffer = buffer
        self.origin = ""  # the user's node that is being written, as messages name it
        self._home: dict[ir.Value, tuple[Form, bool]] = {}  # form and "is int8" a value was born with
        self._tensors: dict[tuple[ir.Value, Form, bool], int] = {}
        self._constants: dict[tuple, int] = {}
        self._padded: dict[tuple, int] = {}

    # ---- values ----

    def form(self, value: ir.Value) -> Form:
        """The form the value was born in; identity for a constant."""
        return self._home[value][0] if value in self._home else forms.identity(len(shape(value)))

    def array(self, value: ir.Value | None) -> np.ndarray | None:
        """The array of a constant in ONNX axis order, None for a computed or absent value."""
        return constant(value)

    def get(self, value: ir.Value, form: Form | None = None, int8: bool = False) -> int:
        """Tensor index of the value in `form` (default: the one it was born in), as int8 or as it is."""
        form = self.form(value) if form is None else form
        int8 = int8 and value.dtype == ir.DataType.FLOAT
        if value.const_value is not None:
            return self.constant_value(value, form, int8)
        key = (value, form, int8)
        if key not in self._tensors:
            home, home_int8 = self._home[value]
            if int8 != home_int8:
                source = self.get(value, form, home_int8)
                self._tensors[key] = self._convert(value, source, form, int8)
            else:
                self._tensors[key] = self._rearrange(value, home, form, int8)
        return self._tensors[key]

    def new(self, value: ir.Value, form: Form, int8: bool = False) -> int:
        """Make the tensor a value is born as."""
        index = self._tensor(value, value.name or "", form, int8)
        self.bind(value, index, form, int8)
        return index

    def bind(self, value: ir.Value, index: int, form: Form, int8: bool) -> None:
        """Say that tensor `index` holds the value in `form` (an ONNX Transpose: same tensor, other form)."""
        int8 = int8 and value.dtype == ir.DataType.FLOAT
        self._home[value] = (form, int8)
        self._tensors[value, form, int8] = index

    def _tensor(self, value: ir.Value, name: str, form: Form, int8: bool) -> int:
        q = quantization(value) if int8 and value.dtype == ir.DataType.FLOAT else None
        dtype = q.dtype if q is not None else dtype_of(value)
        return self.buffer.add_tensor(Tensor(name, forms.shape_in(form, shape(value)), dtype, q))

    def _convert(self, value: ir.Value, source: int, form: Form, int8: bool) -> int:
        q = quantization(value)
        stored = "float" if q is None or not int8 else q.dtype.name.lower()
        index = self._tensor(value, f"{value.name}/{stored}", form, int8)
        kind = "QUANTIZE" if int8 else "DEQUANTIZE"
        self.op(kind, [source], [index])
        return index

    def _rearrange(self, value: ir.Value, home: Form, form: Form, int8: bool) -> int:
        dims = shape(value)
        source = self._tensors[value, home, int8]
        if forms.same_order(home, form, dims):
            if forms.shape_in(home, dims) == forms.shape_in(form, dims):
                return source
            index = self._tensor(value, f"{value.name}/reshape", form, int8)
            return self.reshape(source, index)
        before, after = forms.axes(home), forms.axes(form)
        if list(home) != before:  # inserted axes out first, so that the permutation is one of ONNX axes
            source = self.get(value, tuple(before), int8)
        plain = self._tensor(value, f"{value.name}/transpose", tuple(after), int8)
        self.transpose(source, plain, [before.index(a) for a in after])
        if list(form) == after:
            return plain
        return self.reshape(plain, self._tensor(value, f"{value.name}/reshape", form, int8))

    # ---- constants ----

    def constant_value(self, value: ir.Value, form: Form, int8: bool) -> int:
        """An initializer as a constant tensor in `form`; size-1 axes in front are dropped."""
        q = quantization(value)
        array = constant(value)
        if array is None:
            raise ValueError(f"{value.name!r} is not a constant")
        stored = array.transpose(forms.axes(form)).reshape(forms.shape_in(form, array.shape))
        if not int8 or q is None:
            if q is not None and q.dtype == ir.DataType.FLOAT16:
                return self.half(np.ascontiguousarray(stored), value.name or "")
            return self.constant(stored, name=value.name or "")
        return self.constant(q.quantize(stored), q, value.name or "")

    def constant(self, array: np.ndarray, q: Quantization | None = None, name: str = "", axis: int = 0) -> int:
        """Constant tensor; equal ones are stored once. `axis`: TFLite dimension of per-channel parameters."""
        array = np.array(array, order="C")  # ascontiguousarray would make a scalar [1]
        key = (array.dtype.str, array.shape, array.tobytes(), axis, _key(q))
        if key not in self._constants:
            dtype = ir.DataType.from_numpy(array.dtype)
            self._constants[key] = self.buffer.add_tensor(Tensor(name, array.shape, dtype, q, axis, array))
        return self._constants[key]

    def half(self, array: np.ndarray, name: str) -> int:
        """float32 array stored as float16, expanded by DEQUANTIZE when the model is loaded."""
        key = ("half", array.shape, array.tobytes())
        if key not in self._constants:
            index = self.buffer.add_tensor(Tensor(f"{name}/float", array.shape, ir.DataType.FLOAT))
            self.op("DEQUANTIZE", [self.constant(array.astype(np.float16), name=name)], [index])
            self._constants[key] = index
        return self._constants[key]

    def ints(self, values: Sequence[int]) -> int:
        """int32 constant [len(values)]."""
        return self.constant(np.asarray(values, np.int32))

    # ---- operators ----

    def op(self, kind: str, inputs: Sequence[int], outputs: Sequence[int], **options: object) -> int:
        """Append a builtin operator; `options` are fields of its options table. Returns the first output."""
        operator = Operator(kind, tuple(inputs), tuple(outputs), _options(kind, options), self.origin)
        self.buffer.add_operator(operator)
        return outputs[0]

    def temporary(self, name: str, dims: Shape, dtype: ir.DataType, q: Quantization | None = None) -> int:
        """A tensor that no ONNX value stands for."""
        return self.buffer.add_tensor(Tensor(name, tuple(dims), dtype, q))

    def like(self, index: int, name: str, dims: Shape) -> int:
        """A temporary of the same type and quantization as tensor `index`."""
        tensor = self.buffer.tensors[index]
        return self.temporary(name, dims, tensor.dtype, tensor.quantization)

    def tensor(self, index: int) -> Tensor:
        """The tensor of that index."""
        return self.buffer.tensors[index]

    def reshape(self, source: int, target: int) -> int:
        """RESHAPE of one tensor into another, which must have as many elements."""
        dims = self.tensor(target).shape
        return self.op("RESHAPE", [source, self.ints(dims)], [target], newShape=list(dims))

    def transpose(self, source: int, target: int, permutation: Sequence[int]) -> int:
        """TRANSPOSE; above rank 4 with size-1 axes dropped and neighbours merged: runtimes stop at rank 4 to 6."""
        dims = self.tensor(source).shape
        if len(dims) <= 4:
            return self.op("TRANSPOSE", [source, self.ints(permutation)], [target])
        groups = _merged(dims, permutation)
        sizes = [int(np.prod([dims[a] for a in group])) for group in groups]
        order = sorted(range(len(groups)), key=lambda i: groups[i])  # groups as they lie in the source
        flat = self.reshape(source, self.like(source, "merged", tuple(sizes[g] for g in order)))
        moved = self.like(source, "transposed", tuple(sizes))
        self.op("TRANSPOSE", [flat, self.ints([order.index(g) for g in range(len(groups))])], [moved])
        return self.reshape(moved, target)

    def pad(self, source: int, pads: Sequence[tuple[int, int]], value: float = 0.0) -> int:
        """Constant padding (before, after) per TFLite axis; `value` is real, not stored."""
        key = (source, tuple(pads), value)
        if key in self._padded:
            return self._padded[key]
        tensor = self.tensor(source)
        dims = tuple(n + a + b for n, (a, b) in zip(tensor.shape, pads))
        target = self.like(source, f"{tensor.name}/pad", dims)
        self._padded[key] = self.pad_to(source, target, pads, value)
        return target

    def pad_to(self, source: int, target: int, pads: Sequence[tuple[int, int]], value: float = 0.0) -> int:
        """Like `pad`, into a tensor that exists already."""
        amounts = self.constant(np.array(pads, np.int32))
        if value == 0.0:
            return self.op("PAD", [source, amounts], [target])
        tensor = self.tensor(source)
        if tensor.quantization is not None:
            fill = self.constant(tensor.quantization.quantize(np.array([value], np.float32)), tensor.quantization)
        else:
            fill = self.constant(np.array([value], tensor.dtype.numpy()))
        return self.op("PADV2", [source, amounts, fill], [target])

    # ---- helpers shared by the lowerings ----

    def layer_int8(self, layer: Layer) -> bool:
        """Whether the layer computes on int8."""
        return is_integer(layer.node)

    def common_form(self, values: Sequence[ir.Value], rank: int) -> Form:
        """The form in which most elements of these broadcast operands already lie."""
        full = [v for v in values if v.const_value is None and len(shape(v)) == rank]
        if not full:
            return forms.identity(rank)
        return self.form(max(full, key=lambda v: int(np.prod(shape(v)))))


def _merged(dims: Shape, permutation: Sequence[int]) -> list[list[int]]:
    """Permutation as groups of source axes that stay neighbours; axes of size 1 are left out.

    >>> _merged((1, 2, 3, 4), (0, 3, 1, 2))
    [[3], [1, 2]]
    """
    live = [axis for axis in range(len(dims)) if dims[axis] != 1]
    groups: list[list[int]] = []
    for axis in (a for a in permutation if a in live):
        if groups and live.index(axis) == live.index(groups[-1][-1]) + 1:
            groups[-1].append(axis)
        else:
            groups.append([axis])
    return groups


def _key(q: Quantization | None) -> tuple | None:
    return None if q is None else (q.scale.tobytes(), q.zero_point.tobytes())


# operators whose options table is not named after them
OPTION_TABLES = {
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "SUM": "ReducerOptions",
    "REDUCE_MAX": "ReducerOptions",
    "MAXIMUM": "MaximumMinimumOptions",
    "MINIMUM": "MaximumMinimumOptions",
    "PADV2": "PadV2Options",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "REDUCE_PROD": "ReducerOptions",
    "TOPK_V2": "TopKV2Options",
}
WITHOUT_OPTIONS = {
    "RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "PRELU", "ELU", "LOGISTIC", "TANH", "LOG", "SQRT", "RSQRT", "SIN",
    "FLOOR", "TABLE", "EMBEDDING_LOOKUP",
}  # fmt: skip


def _options(kind: str, fields: dict[str, object]) -> object | None:
    if kind in WITHOUT_OPTIONS:
        return None
    name = OPTION_TABLES.get(kind) or "".join(word.capitalize() for word in kind.split("_")) + "Options"
    table = getattr(schema, f"{name}T")()
    for field, value in fields.items():
        setattr(table, field, value)
    return table
