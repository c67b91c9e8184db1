"""The rules of onnxscript's rewriter that fit the canonical form."""

from __future__ import annotations

import onnx_ir as ir


class RewriteWithOnnxscript(ir.passes.InPlacePass):
    """Operations without effect go, and pairs that cancel or combine become one."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        from onnxscript.rewriter import RewritePass
        from onnxscript.rewriter.rules import common

        rules = [
            common.mul_by_1_rule,
            common.add_0_rule,
            common.sub_0_rule,
            common.div_by_1_rule,
            common.cast_cast_rule,
            common.no_op_cast_rule,
            common.no_op_expand_rule,
            common.no_op_transpose_rule,
            common.transpose_transpose_rule,
            common.collapse_slice_rule,
            common.collapse_slice2_rule,
            common.no_op_static_scatter_nd_rule,
            common.no_op_dynamic_scatter_nd_rule,
            common.one_reshape_matmul_reshape_rule,
            common.two_reshapes_matmul_reshape_rule,
            *common.expand_before_binary_op_rules.rules,
        ]
        return RewritePass(rules)(model)
