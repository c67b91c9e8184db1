"""Operands of elementwise operators as TFLite tensors that broadcast with each other."""

from __future__ import annotations

import onnx_ir as ir

from edgecompress.graph.annotations import quantization
from edgecompress.graph.fusion import constant
from edgecompress.lowering import forms
from edgecompress.lowering.context import Context, shape


def operand(ctx: Context, value: ir.Value, form: forms.Form, rank: int, int8: bool) -> int:
    """A broadcast operand lined up with `form`; constants lose the size-1 axes in front."""
    own = forms.operand_form(form, rank, len(shape(value)))
    if value.const_value is None:
        return ctx.get(value, own, int8)
    while own and (own[0] is None or shape(value)[own[0]] == 1):
        own = own[1:]
    if not own:  # a scalar
        kept = tuple(range(len(shape(value))))
        return ctx.get(value, kept, int8)
    return _constant(ctx, value, own, int8)


def _constant(ctx: Context, value: ir.Value, form: forms.Form, int8: bool) -> int:
    """A constant with size-1 axes missing from `form`."""
    array, q = constant(value), quantization(value)
    assert array is not None
    used = forms.axes(form)
    squeezed = array.reshape([n for a, n in enumerate(array.shape) if a in used])
    ranks = {axis: i for i, axis in enumerate(sorted(used))}
    stored = squeezed.transpose([ranks[a] for a in used]).reshape(forms.shape_in(form, array.shape))
    if int8 and q is not None:
        return ctx.constant(q.quantize(stored), q, value.name or "")
    return ctx.constant(stored, name=value.name or "")
