"""onnx_ir.Model -> TFLite FlatBuffer, written directly, without TensorFlow.

Reads what `graph/annotations` records on values and nodes: a float, float16, dynamic-range or int8 file
comes from the same code.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import onnx_ir as ir

from edgecompress.analysis.supported import listed
from edgecompress.emit.tflite.bilinear import write_long_resizes
from edgecompress.emit.tflite.exit_signatures import metadata, signatures, stages_of
from edgecompress.emit.tflite.hybrid_channels import write_hybrid_channels
from edgecompress.emit.tflite.int4_tensors import take_whole_channels, write_int4
from edgecompress.emit.tflite.look_ups import write_look_ups
from edgecompress.emit.tflite.open_tensors import THREE, TWO, open_samples
from edgecompress.emit.tflite.positions import count_from_end, narrow_positions
from edgecompress.emit.tflite.shape_signatures import side_by_side
from edgecompress.emit.tflite.substitutes import write_substitutes
from edgecompress.errors import UnsupportedModelError
from edgecompress.graph.annotations import exit_output, exits, only_in_onnx, quantization
from edgecompress.graph.channel_axes import shape
from edgecompress.graph.fusion import layers
from edgecompress.graph.input_sizes import own_key
from edgecompress.graph.joined_outputs import take_apart
from edgecompress.graph.provenance import label
from edgecompress.graph.states import State, state_values, states
from edgecompress.ingest.batch_size import FixedBatchError, with_batch
from edgecompress.ingest.several_shapes import FixedShapeError, in_other_shapes
from edgecompress.lowering import dtypes, forms, scales, xnnpack
from edgecompress.lowering.context import Context
from edgecompress.lowering.flatbuffer import TENSOR_TYPES, FlatBuffer
from edgecompress.lowering.forms import Form
from edgecompress.lowering.tensor_io import TensorIO, TFLiteModel
from edgecompress.lowering.tensors import Tensor
from edgecompress.operators import record_of
from edgecompress.operators.rewriting import tflite_lowering, tflite_parts


@dataclass(frozen=True, eq=False)
class Built:
    """A model as TFLite tensors and operators, before it becomes a file: (how to feed it, tensor index) pairs.

    join: makes the model's outputs of these, where int8 outputs are parts of them; else None. faults: one line for
    each node that TFLite can't express; without any, all of the model is written. states: of the model.
    """

    buffer: FlatBuffer
    inputs: tuple[tuple[TensorIO, int], ...]
    outputs: tuple[tuple[TensorIO, int], ...]
    join: ir.Model | None
    faults: tuple[str, ...] = ()
    states: tuple[State, ...] = ()


def emit(
    model: ir.Model,
    *,
    io_dtype: ir.DataType = ir.DataType.FLOAT,
    operators: Iterable[str] | None = None,
    for_xnnpack: bool = False,
    open_batch: bool = False,
    description: str = "edgecompress",
) -> TFLiteModel:
    """Write a canonical model (see `ingest`), annotated or not, as TFLite.

    io_dtype: FLOAT, or INT8 for quantized inputs and outputs as they are stored, which is int16 at int16 layers.
    operators: builtin operator names that the target's runtime has; None means all. for_xnnpack: whether the file is
        loaded by XNNPACK, which refuses some scales. open_batch: whether the first dimension of inputs is open (-1 in
        `shape_signature`, 1 until it is resized). A model for several shapes has a signature for each.
    Raises UnsupportedModelError, naming every node at fault, for operators that TFLite can't express, and
    FixedBatchError where the batch size can't be left open, and FixedShapeError where there can't be several shapes.
    """
    made = {key: _Written(its, io_dtype, operators, for_xnnpack, open_batch) for key, its in _each_shape(model)}
    if faults := list(dict.fromkeys(fault for written in made.values() for fault in written.faults)):
        raise UnsupportedModelError("; ".join(faults))
    own = next(iter(made.values()))
    if places := exits(model.graph):
        signed = signatures(own.built.buffer, own.inputs, own.outputs, places)
        stages = stages_of(signed, places, {io.name: io for io in own.given})
        which = exit_output(model.graph)
        data = own.built.buffer.finish_signatures(signed, description, metadata(stages))
        ends = own.given[0], TensorIO(which, which, (0,), (1,), ir.DataType.INT32)
        return TFLiteModel(data, own.taken, ends, None, stages)
    if len(made) == 1:
        data = own.built.buffer.finish(own.inputs, own.outputs, description)
        return TFLiteModel(data, own.taken, own.given, own.built.join)
    whole, signed = side_by_side({key: (w.built.buffer, w.inputs, w.outputs) for key, w in made.items()})
    data = whole.finish_signatures(signed, description)
    every = [TFLiteModel(data, w.taken, w.given, w.built.join, signature=key) for key, w in made.items()]
    return replace(every[0], others=tuple(every[1:]))


def _each_shape(model: ir.Model) -> list[tuple[str, ir.Model]]:
    """The model for each of its shapes, with their keys: its own first. One that ends early is written for its own."""
    own = own_key(model.graph), model
    if not own[0]:
        return [own]
    if exits(model.graph):
        raise FixedShapeError("where it ends early is decided for one shape")
    return [own, *((sizes.key, other) for sizes, other in in_other_shapes(model))]


class _Written:
    """A model as TFLite's tensors and operators, with what is at fault in them, and its ends."""

    def __init__(
        self,
        model: ir.Model,
        io_dtype: ir.DataType,
        operators: Iterable[str] | None,
        for_xnnpack: bool,
        open_batch: bool,
    ) -> None:
        built = _built_open(model, io_dtype, operators) if open_batch else _built(model, io_dtype, operators)
        self.built = built
        checks = (dtypes, scales, xnnpack) if for_xnnpack else (dtypes, scales)
        self.faults = [f for check in checks for f in check.faults(built.buffer.operators, built.buffer.tensors)]
        self.faults += [] if operators is None else _without_operators(built.buffer, set(operators))
        self.faults += built.faults
        self.inputs, self.outputs = ([(io.name, i) for io, i in ends] for ends in (built.inputs, built.outputs))
        self.taken, self.given = (
            tuple(_as_written(io, built.buffer.tensors[index]) for io, index in ends)
            for ends in (built.inputs, built.outputs)
        )


def _built(model: ir.Model, io_dtype: ir.DataType, operators: Iterable[str] | None) -> Built:
    """With what the target's runtime lacks written with what it has."""
    built = build(model, io_dtype=io_dtype)
    if operators is not None:
        write_substitutes(built.buffer, set(operators))
        narrow_positions(built.buffer)
    count_from_end(built.buffer)
    write_long_resizes(built.buffer)
    write_look_ups(built.buffer)
    write_hybrid_channels(built.buffer)
    write_int4(built.buffer)
    return built


def _built_open(model: ir.Model, io_dtype: ir.DataType, operators: Iterable[str] | None) -> Built:
    """For one sample, or for as many as its inputs are resized to."""
    if exits(model.graph):
        raise FixedBatchError("where it ends early is decided for one sample")
    two, three = (_built(with_batch(model, n)[0], io_dtype, operators) for n in (TWO, THREE))
    if two.faults:
        return two
    if two.join is not None:
        raise FixedBatchError("its outputs are joined for one sample")
    open_samples(two.buffer, three.buffer)
    return two


def _as_written(io: TensorIO, tensor: Tensor) -> TensorIO:
    return replace(io, dtype=tensor.dtype, shape=tensor.shape)


def build(model: ir.Model, *, io_dtype: ir.DataType = ir.DataType.FLOAT) -> Built:
    """Like `emit`, up to the tensors and operators, which the `.pack` emitter writes too, and with what is at fault in
    the result, so that emitters can name that beside their own.
    """
    model = model.clone()
    join = take_apart(model) if io_dtype == ir.DataType.INT8 else None
    blocks = take_whole_channels(model.graph)
    model = tflite_parts(model)
    groups = layers(model.graph)
    lowerings = [tflite_lowering(group.node) for group in groups]
    missing = [group.node for group, lowering in zip(groups, lowerings) if lowering is None]
    reasons = [(node, only_in_onnx(node) or f"operator {node.op_type}") for node in missing]
    buffer = FlatBuffer()
    ctx = Context(buffer)
    integers = _integer_ends(model.graph, io_dtype)
    inputs = [_input(ctx, value, value in integers) for value in model.graph.inputs]
    faults = [blocks] if blocks else []
    for group, lowering in zip(groups, lowerings):
        ctx.origin = label(group.node)
        try:
            if lowering is not None:
                lowering(ctx, group)
                continue
        except UnsupportedModelError as fault:
            faults.append(str(fault))
        for value in group.last.outputs:  # so that the nodes behind can be checked as well
            if value.shape is not None:
                ctx.new(value, forms.identity(len(shape(value))))
    if missing:
        faults.append(f"not in TFLite's operators, but in .onnx: {listed(reasons)}")
    taken = {index for _, index in inputs}
    before = {after: x for x, after in state_values(model.graph)}
    outputs = [
        _output(ctx, value, value in integers, taken, _input_form(before[value]) if value in before else None)
        for value in model.graph.outputs
    ]
    if not faults:  # what is in front of a fault leads nowhere
        buffer.prune([index for _, index in outputs])
    return Built(buffer, tuple(inputs), tuple(outputs), join, tuple(faults), states(model.graph))


def _without_operators(buffer: FlatBuffer, available: set[str]) -> list[str]:
    missing = sorted({o.kind for o in buffer.operators} - available)
    if not missing:
        return []
    nodes = {k: dict.fromkeys(o.origin for o in buffer.operators if o.kind == k) for k in missing}
    listing = "; ".join(f"{kind} (for {', '.join(nodes[kind])})" for kind in missing)
    return [f"the target's runtime does not have these operators: {listing}"]


def _integer_ends(graph: ir.Graph, io_dtype: ir.DataType) -> set[ir.Value]:
    """The inputs and outputs that are stored as integers. A state is one where these mean the same before and after."""
    found = {v for v in (*graph.inputs, *graph.outputs) if io_dtype == ir.DataType.INT8 and quantization(v) is not None}
    for before, after in state_values(graph):
        q = quantization(before)
        is_one = q is not None and q.same_as(quantization(after))
        found = found | {before, after} if is_one else found - {before, after}
    return found


def _input(ctx: Context, value: ir.Value, is_integer: bool) -> tuple[TensorIO, int]:
    form = _input_form(value)
    index = ctx.new(value, form, is_integer)
    return _io(ctx, value, form, index), index


def _input_form(value: ir.Value) -> Form:
    """Channels last when the first operators that care about layout work on images; as in ONNX otherwise."""
    rank = len(shape(value))
    if rank not in (3, 4):
        return forms.identity(rank)
    seen, queue = {value}, [value]
    while queue:
        current = queue.pop(0)
        for node in current.consumers():
            if record_of(node).layout == "channels" and node.inputs[0] is current:
                return (0, *range(2, rank), 1)
            if record_of(node).layout == "free":
                fresh = [v for v in node.outputs if v not in seen and v.shape is not None and len(v.shape) == rank]
                seen.update(fresh)
                queue += fresh
    return forms.identity(rank)


def _output(
    ctx: Context, value: ir.Value, is_integer: bool, taken: set[int], fixed: Form | None = None
) -> tuple[TensorIO, int]:
    """Outputs stay channels last when they are born so, or have the fixed form, and are float unless they are to be
    integers.

    One that is an input or a constant (`taken`: the inputs' tensors) gets a tensor of its own.
    """
    rank = len(shape(value))
    home = ctx.form(value)
    form: Form = fixed or tuple(forms.axes(home))
    if form not in ((0, *range(2, rank), 1), fixed):
        form = forms.identity(rank)
    index = ctx.get(value, form, is_integer)
    if index in taken or ctx.tensor(index).data is not None:
        copy = ctx.like(index, f"{value.name}/output", ctx.tensor(index).shape)
        index = ctx.reshape(index, copy)
    return _io(ctx, value, form, index), index


def _io(ctx: Context, value: ir.Value, form: Form, index: int) -> TensorIO:
    tensor = ctx.tensor(index)
    scale, zero_point = 1.0, 0
    if tensor.quantization is not None:
        scale, zero_point = float(tensor.quantization.scale[0]), int(tensor.quantization.zero_point[0])
    if tensor.dtype not in TENSOR_TYPES:
        raise UnsupportedModelError(f"value {value.name!r} has type {tensor.dtype.name}, which TFLite does not support")
    return TensorIO(value.name or "", tensor.name, form, tensor.shape, tensor.dtype, scale, zero_point)
