"""Gives an input that is an output as well a node in between."""

from __future__ import annotations

import onnx_ir as ir

from edgecompress.ingest.passes.edit import Edit


class PassThrough(ir.passes.InPlacePass):
    """Each such output becomes the Identity of its input, which keeps its name; the output gets a new one.

    onnx_ir's OutputFixPass, which comes after, would rename the input instead, by which it is fed.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph = model.graph
        edit = Edit(graph)
        found = [i for i, value in enumerate(graph.outputs) if value.is_graph_input()]
        for i in found:
            graph.outputs[i] = edit.append_identity(graph.outputs[i], f"{graph.outputs[i].name}_output")
        return ir.passes.PassResult(model, bool(found))
