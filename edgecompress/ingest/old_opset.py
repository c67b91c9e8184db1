"""Upgrades models of opsets older than the oldest that the passes read."""

from __future__ import annotations

import onnx
import onnx.version_converter

from edgecompress.errors import UnsupportedModelError
from edgecompress.ingest.passes.opset import OLDEST
from edgecompress.support.interrupt import reraise_interrupt

FIRST_BROADCAST = 7  # opset in which operands are broadcast as in NumPy
FIRST_WITH_COORDINATES = 11  # opset in which Resize says how it computes coordinates


def upgraded(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model in opset OLDEST where it is older, by the onnx package's version converter; else the model itself.

    Raises UnsupportedModelError with what the converter says of the operator that it can't upgrade.
    """
    opset = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), OLDEST)
    if opset >= OLDEST:
        return proto
    try:
        newer = onnx.version_converter.convert_version(
            _with_slopes(proto) if opset < FIRST_BROADCAST else proto, OLDEST
        )
    except Exception as error:  # the C++ side raises RuntimeError, IndexError and others
        reraise_interrupt(error)
        text = (
            str(error).split("failed: ", 1)[-1].replace("$", "").strip()
        )  # behind a place in the onnx package's source
        reason = (text.splitlines() or [type(error).__name__])[0][:300]
        raise UnsupportedModelError(
            f"the model uses ONNX opset {opset}, and the onnx package can't upgrade it to {OLDEST} ({reason}); "
            f"export it again with opset {OLDEST} or newer"
        ) from error
    if opset < FIRST_WITH_COORDINATES:
        for node in newer.graph.node:
            if node.op_type == "Resize":
                _keep_coordinates(node)
    return newer


def _with_slopes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Slopes of PRelu, one for each channel, [C], as [C, 1, ...]: since opset 7 they are broadcast like any operand."""
    copy = onnx.ModelProto.FromString(proto.SerializeToString())
    graph = onnx.shape_inference.infer_shapes(copy).graph
    ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in (*graph.input, *graph.value_info)}
    tensors = {tensor.name: tensor for tensor in copy.graph.initializer}
    inputs = {value.name: value for value in copy.graph.input}
    for node in (n for n in copy.graph.node if n.op_type == "PRelu"):
        slope = tensors.get(node.input[1])
        rank = ranks.get(node.input[0], 0)
        if slope is None or len(slope.dims) != 1 or slope.dims[0] == 1 or rank < 3:
            continue
        slope.dims.extend([1] * (rank - 2))
        if slope.name in inputs:
            inputs[slope.name].type.CopyFrom(onnx.helper.make_tensor_type_proto(slope.data_type, slope.dims))
    return copy


def _keep_coordinates(node: onnx.NodeProto) -> None:
    """Upsample, and Resize below 11, multiply an index by the scale: Resize has other defaults since."""
    kept = [a for a in node.attribute if a.name not in ("coordinate_transformation_mode", "nearest_mode")]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.attribute.append(onnx.helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
    node.attribute.append(onnx.helper.make_attribute("nearest_mode", "floor"))
