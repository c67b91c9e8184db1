"""Fully connected layers: Gemm with transB = 1, alpha = beta = 1, weight [out, in] and bias [out]."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgecompress.graph.fusion import constant
from edgecompress.graph.nodes import argument
from edgecompress.ingest.passes.edit import Edit, NodePass, input_or_none, only_user, static_shape


class CanonicalGemm(NodePass):
    """One form for a fully connected layer.

    1. MatMul of a [M, K] value by a constant [K, N] -> Gemm; an Add of a constant [N] after it is its bias.
    2. Gemm by a constant: alpha, beta, transA and transB are worked into the constants (transA: a Transpose).
    3. Gemm by a computed value -> MatMul, Mul by alpha, Add of beta * C.
    4. MatMul of a vector: through Reshape, as [1, K] or [K, 1].
    5. MatMul [.., K] by a constant [K, N], then Add of a constant [1, 1, N]: the constant becomes [N].
    """

    operators = frozenset({"Gemm", "MatMul"})

    def rewrite(self, node: ir.Node, edit: Edit) -> bool:
        if node.op_type == "Gemm":
            return self._gemm(node, edit)
        a, b = argument(node, 0), argument(node, 1)
        a_shape, b_shape = static_shape(a), static_shape(b)
        if a_shape is None or b_shape is None:
            return False
        if len(a_shape) == 1 or len(b_shape) == 1:
            return self._vector(node, edit, a_shape, b_shape)
        weight = constant(b)
        if weight is None or constant(a) is not None or len(b_shape) != 2 or weight.dtype != np.float32:
            return False
        follower = only_user(node.outputs[0])
        bias = None
        if follower is not None and follower.op_type == "Add":
            bias = _bias(follower, node.outputs[0], weight.shape[1])
        if len(a_shape) != 2:
            if bias is None or follower is None or any(_is_vector(v) for v in follower.inputs):
                return False
            index = 0 if follower.inputs[1] is node.outputs[0] else 1
            follower.replace_input_with(index, edit.constant(argument(follower, index).name, bias))
            return True
        target = node if bias is None or follower is None else follower
        if bias is None:
            bias = np.zeros(weight.shape[1], np.float32)
        value = edit.renewed(b, np.ascontiguousarray(weight.T))
        edit.replace(target, "Gemm", [a, value, edit.constant(f"{b.name}/bias", bias)], _GEMM)
        if target is not node:
            edit.graph.remove(node, safe=True)
        return True

    def _gemm(self, node: ir.Node, edit: Edit) -> bool:
        a, b, c = argument(node, 0), argument(node, 1), input_or_none(node, 2)
        attributes = node.attributes
        alpha, beta = attributes.get_float("alpha", 1.0), attributes.get_float("beta", 1.0)
        trans_a, trans_b = attributes.get_int("transA", 0), attributes.get_int("transB", 0)
        weight, bias = constant(b), constant(c)
        shape = static_shape(node.outputs[0])
        if shape is None:
            return False
        columns = np.zeros(shape[1], np.float32)
        if bias is not None and (bias.size == 1 or bias.shape in ((shape[1],), (1, shape[1]))):
            columns = (bias.astype(np.float64) * beta + np.zeros(shape[1])).reshape(shape[1]).astype(np.float32)
            c = None
        canonical = (alpha, beta, trans_a, trans_b) == (1.0, 1.0, 0, 1)
        if weight is not None and canonical and bias is not None and bias.shape == (shape[1],):
            for attribute in ir.convenience.convert_attributes(_GEMM):
                node.attributes.add(attribute)
            return False
        if trans_a:
            a = edit.insert(node, "Transpose", [a], {"perm": [1, 0]})
        if weight is None:
            if trans_b:
                b = edit.insert(node, "Transpose", [b], {"perm": [1, 0]})
            result = edit.insert(node, "MatMul", [a, b], shape=shape)
            if alpha != 1.0:
                result = edit.insert(node, "Mul", [result, edit.constant("alpha", np.float32(alpha))], shape=shape)
            if c is None and columns.any():
                result = edit.insert(node, "Add", [result, edit.constant("bias", columns)], shape=shape)
        else:
            kernel = (weight if trans_b else weight.T).astype(np.float64) * alpha
            value = edit.renewed(b, kernel.astype(np.float32))
            result = edit.insert(node, "Gemm", [a, value, edit.constant(f"{b.name}/bias", columns)], _GEMM, shape=shape)
        if c is not None:
            if beta != 1.0:
                c = edit.insert(node, "Mul", [c, edit.constant("beta", np.float32(beta))])
            result = edit.insert(node, "Add", [result, c], shape=shape)
        name = node.outputs[0].name
        edit.substitute(node, result)
        result.name = name
        return True

    def _vector(self, node: ir.Node, edit: Edit, a_shape: tuple[int, ...], b_shape: tuple[int, ...]) -> bool:
        a, b = argument(node, 0), argument(node, 1)
        if len(a_shape) == 1:
            a = reshape(edit, node, a, (1, *a_shape))
        if len(b_shape) == 1:
            b = reshape(edit, node, b, (*b_shape, 1))
        product = edit.insert(node, "MatMul", [a, b])
        shape = static_shape(node.outputs[0])
        target = edit.constant("shape", np.array(shape, np.int64))
        edit.replace(node, "Reshape", [product, target])
        return True


_GEMM = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1}


def _is_vector(value: ir.Value | None) -> bool:
    return value is not None and value.shape is not None and len(value.shape) == 1


def reshape(edit: Edit, before: ir.Node, value: ir.Value, shape: tuple[int, ...]) -> ir.Value:
    """The value in another shape: a new constant, or a Reshape in front of `before`."""
    array = constant(value)
    if array is not None:
        return edit.constant(value.name, array.reshape(shape))
    target = edit.constant("shape", np.array(shape, np.int64))
    return edit.insert(before, "Reshape", [value, target], shape=shape, dtype=value.dtype)


def _bias(add: ir.Node, product: ir.Value, columns: int) -> np.ndarray | None:
    """The constant [columns] that the Add brings, when it is the same for every row."""
    other = add.inputs[0] if add.inputs[1] is product else add.inputs[1]
    array = constant(other)
    rank = 0 if product.shape is None else len(product.shape)
    if array is None or array.size not in (1, columns) or array.ndim > rank:
        return None
    if array.size == columns and array.ndim and array.shape[-1] != columns:
        return None
    return np.broadcast_to(array.reshape(-1), (columns,)).astype(np.float32)
