"""Converts models of any opset of the default domain from 13 on to opset 21."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgecompress.errors import UnsupportedModelError
from edgecompress.ingest.passes.edit import Edit

OLDEST, CANONICAL = 13, 21
FORMS_CHANGED = 18


class ConvertOpset(ir.passes.InPlacePass):
    """Rewrites what changed its form between opset 13 and 21; the rest means the same in both.

    1. Below 18: `axes` of ReduceMean, ReduceMax, .. moves from attribute to input; Split into equal parts
       says into how many.
    2. 18 to 21: onnxscript's version converter.
    3. Above 21: operators only gained types, or are new (and expanded or refused later).
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        opset = model.opset_imports.get("", model.opset_imports.pop("ai.onnx", None))
        if opset is None:
            raise UnsupportedModelError("the model doesn't say which version (opset) of the ONNX operators it uses")
        if opset < OLDEST:
            raise UnsupportedModelError(
                f"the model uses ONNX opset {opset}; {OLDEST} is the oldest that can be converted. Export it "
                "again with a newer opset, or upgrade it with onnx.version_converter.convert_version(model, "
                f"{OLDEST})"
            )
        if opset == CANONICAL:
            return ir.passes.PassResult(model, False)
        if opset < FORMS_CHANGED:
            edit = Edit(model.graph)
            for node in model.graph:
                if node.op_type.startswith("Reduce") and "axes" in node.attributes:
                    axes = np.array(node.attributes.pop("axes").as_ints(), np.int64)
                    node.resize_inputs(2)
                    node.replace_input_with(1, edit.constant("axes", axes))
                elif node.op_type == "Split" and (len(node.inputs) < 2 or node.inputs[1] is None):
                    node.attributes["num_outputs"] = ir.AttrInt64("num_outputs", len(node.outputs))
            opset = FORMS_CHANGED
            model.opset_imports[""] = opset
        if opset < CANONICAL:
            from onnxscript import version_converter

            version_converter.ConvertVersionPass(CANONICAL)(model)
        for node in model.graph:
            node.version = None
        model.opset_imports[""] = CANONICAL
        return ir.passes.PassResult(model, True)
