"""The rules of onnxscript's rewriter that fit the canonical form."""

from __future__ import annotations

import onnx_ir as ir


class RewriteWithOnnxscript(ir.passes.InPlacePass):
    """Operations without effect go, and pairs that cancel or combine become one."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        from onnxscript.rewriter import RewritePass
        from onnxscript.rewriter.rules import common

        rules = {  # by an operator without which they find nothing: each rule asks each node
            "Mul": [common.mul_by_1_rule],
            "Add": [common.add_0_rule],
            "Sub": [common.sub_0_rule],
            "Div": [common.div_by_1_rule],
            "Cast": [common.cast_cast_rule, common.no_op_cast_rule],
            "Expand": [common.no_op_expand_rule],
            "Transpose": [common.no_op_transpose_rule, common.transpose_transpose_rule],
            "Slice": [common.collapse_slice_rule, common.collapse_slice2_rule],
            "ScatterND": [common.no_op_static_scatter_nd_rule, common.no_op_dynamic_scatter_nd_rule],
            "Reshape": [common.one_reshape_matmul_reshape_rule, common.two_reshapes_matmul_reshape_rule],
        }
        there = {node.op_type for node in model.graph}
        chosen = [rule for operator, those in rules.items() if operator in there for rule in those]
        chosen += common.expand_before_binary_op_rules.rules if "Expand" in there else []
        return RewritePass(chosen)(model) if chosen else ir.passes.PassResult(model, False)
