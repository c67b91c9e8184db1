"""Annotated model -> ONNX bytes in QDQ form (QuantizeLinear/DequantizeLinear around float operators).

ONNX Runtime turns `DequantizeLinear -> operator -> QuantizeLinear` into the operator's integer kernel;
other consumers of ONNX (TensorRT, OpenVINO, QNN) read the same form. So every int8 value is a pair of the
two, weights are integers behind one DequantizeLinear, and nothing stands inside a fused layer.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

from edgecompress.emit.onnx.activations import insert_pairs
from edgecompress.emit.onnx.additions import Additions, values
from edgecompress.emit.onnx.constants import store_constants
from edgecompress.emit.onnx.dynamic_layers import write_dynamic_layers
from edgecompress.emit.onnx.if_exits import with_ifs
from edgecompress.emit.onnx.int4_weights import write_int4_weights
from edgecompress.emit.onnx.open_batch import THREE, TWO, with_open_batch, with_scales
from edgecompress.emit.onnx.open_sizes import with_open_sizes
from edgecompress.emit.onnx.unsigned_weights import with_unsigned_weights
from edgecompress.graph.annotations import exit_output, exits
from edgecompress.graph.fusion import layers
from edgecompress.graph.input_sizes import several_sizes
from edgecompress.ingest.batch_size import FixedBatchError, with_batch
from edgecompress.ingest.several_shapes import FixedShapeError, with_sizes

__all__ = ["emit"]

IR_VERSION = 10  # came with opset 21; ONNX Runtime before 1.20 refuses a newer one


def emit(model: ir.Model, *, unsigned: bool = False, open_batch: bool = False) -> bytes:
    """Canonical model with annotations -> serialised ModelProto (opset 21, IR version 10).

    Weights with a Quantization are stored as it says; int8 activations pass through QuantizeLinear and
    DequantizeLinear. Inputs, outputs and surviving values keep their names (an int8 value's name is that
    of its DequantizeLinear). A model without annotations is written in float. With early exits, what
    an exit makes unnecessary is in a branch. `model` is not changed.

    unsigned: whether weights that meet int8 activations are uint8, for x86 without VNNI. open_batch: whether the first
    dimension of inputs is open (`batch`). Of a model for several shapes, the dimensions that differ are open. Raises
    FixedBatchError and FixedShapeError where that can't be written.
    """
    if open_batch and exits(model.graph):
        raise FixedBatchError("where it ends early is decided for one sample")
    if several_sizes(model.graph) and exits(model.graph):
        raise FixedShapeError("where it ends early is decided for one shape")
    every = [with_sizes(model, sizes) for sizes in several_sizes(model.graph)] or [model]
    protos = [_written_open(its, unsigned) if open_batch else _written(its, unsigned) for its in every]
    proto = protos[0] if len(protos) == 1 else with_open_sizes(protos)
    return proto.SerializeToString(deterministic=True)


def _written_open(model: ir.Model, unsigned: bool) -> onnx.ModelProto:
    two, three = (_written(with_scales(with_batch(model, n)[0]), unsigned) for n in (TWO, THREE))
    return with_open_batch(two, three)


def _written(model: ir.Model, unsigned: bool) -> onnx.ModelProto:
    clone = model.clone()
    graph = clone.graph
    added = Additions(graph)
    groups = layers(graph)
    insert_pairs(graph, groups, added)
    write_int4_weights(graph, added)
    write_dynamic_layers(graph, groups, added, as_unsigned=unsigned)
    store_constants(graph, groups, added)
    _strip(clone, added)
    proto = ir.to_proto(clone)
    if places := exits(model.graph):
        proto = with_ifs(proto, places, exit_output(model.graph))
    if unsigned:
        with_unsigned_weights(proto)
    del proto.graph.value_info[:]  # whoever loads the file infers it again
    return proto


def _strip(model: ir.Model, added: Additions) -> None:
    """Takes out what no runtime reads: it can be a tenth of a small model's file."""
    graph = model.graph
    model.ir_version, model.producer_name, model.producer_version = IR_VERSION, "edgecompress", None
    for holder in (model, graph, *graph, *values(graph)):
        holder.doc_string = None
        holder.metadata_props.clear()
    for node in added.nodes:
        node.name = None  # the graph had given it one
    for value in [v for v in graph.initializers.values() if not v.uses() and not v.is_graph_output()]:
        graph.initializers.pop(str(value.name))
