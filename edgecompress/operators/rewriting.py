"""How the records' `parts` and `tflite` are put to use on a model."""

from __future__ import annotations

import functools

import onnx_ir as ir

from edgecompress.graph.annotations import is_integer, must_be_integer, only_in_onnx, set_must_be_integer
from edgecompress.graph.standard_functions import fold_casts, write_functions
from edgecompress.lowering.parts import Rule, written_in_parts
from edgecompress.lowering.table import write_table
from edgecompress.operators import record_of
from edgecompress.operators.record import Lowering


def tflite_parts(model: ir.Model) -> ir.Model:
    """Writes what TFLite lacks with operators that it has, in place; the parts compute in float."""
    if write_functions(model, _needs_standard):
        fold_casts(model)
    return written_in_parts(model, lambda node: None if _is_table(node) else record_of(node).parts)


def _needs_standard(node: ir.Node) -> bool:
    """Whether there is nothing but the definition in the ONNX standard to write the node with."""
    return not only_in_onnx(node) and tflite_lowering(node) is None and record_of(node).parts is None


def integer_parts(model: ir.Model, *, integer_only: bool = True) -> ir.Model:
    """Writes nodes without an int8 kernel with those that have one, in place, before calibration: without integer_only
    those alone whose operator has one in other forms, else all that can be, and what has a kernel for int8 that
    is worse than the one for floats (tables, comparisons) gets it.
    """
    model = written_in_parts(model, functools.partial(_integer_rule, integer_only))
    for node in model.graph:
        rule = record_of(node).integer
        if integer_only and rule is not None and not rule.accepts(node):
            set_must_be_integer(node)
    return model


def tflite_lowering(node: ir.Node) -> Lowering | None:
    """What writes the node as TFLite operators; None where its parts have to be written in its place."""
    record = record_of(node)
    if _is_table(node) and record.function is not None:
        compute = functools.partial(record.function.compute, node)
        return lambda ctx, layer: write_table(ctx, layer, compute)
    return record.tflite


def _is_table(node: ir.Node) -> bool:
    """Whether the node is a look-up among the 256 results that an int8 function has."""
    record = record_of(node)
    has_kernel = record.tflite is not None and not must_be_integer(node)
    return not has_kernel and record.function is not None and is_integer(node)


def _integer_rule(integer_only: bool, node: ir.Node) -> Rule | None:
    record = record_of(node)
    return record.integer_parts if integer_only or record.integer is not None else None
