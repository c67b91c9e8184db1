"""onnx_ir.Model -> the runtime's plan and `.pack` file: the same lowered graph that the TFLite emitter writes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from edgecompress.emit import tflite
from edgecompress.emit.plan_exits import with_exits
from edgecompress.errors import UnsupportedModelError
from edgecompress.graph.annotations import exit_output, exits
from edgecompress.lowering import flatbuffer
from edgecompress.lowering.tensor_io import TensorIO, TFLiteModel
from edgecompress_runtime.errors import UnsupportedOperatorError
from edgecompress_runtime.operators import RECORDS, options_of
from edgecompress_runtime.pack import write_pack
from edgecompress_runtime.pack.codecs import FAST
from edgecompress_runtime.plan import Operator, Plan, Tensor

NUMBERS = frozenset(map(np.dtype, (np.int32, np.int64, np.bool_)))


def emit(
    model: ir.Model, *, io_dtype: ir.DataType = ir.DataType.FLOAT, name: str = "model", coder: str = "huffman"
) -> TFLiteModel:
    """Write a canonical model, annotated or not, as a `.pack`; inputs and outputs are as in its `.tflite`.

    io_dtype: FLOAT, or INT8 for quantized inputs and outputs as they are stored. coder: a slow codec, "rans"
    for instance, to choose from as well. Raises UnsupportedModelError, naming every node and every operator at fault.
    """
    built = tflite.build(model, io_dtype=io_dtype)
    made = _plan(built)
    if faults := [*_without_records(built), *_without_kernels(built, made), *built.faults]:
        raise UnsupportedModelError("; ".join(faults))
    given = tuple(io for io, _ in built.outputs)
    if places := exits(model.graph):
        named = {io.name: index for (io, _), index in zip(built.outputs, made.outputs, strict=True)}
        which = exit_output(model.graph)
        made = with_exits(made, places, named, which)
        given = given[0], TensorIO(which, which, (0,), (1,), ir.DataType.INT32)
    data = write_pack(made, name, codecs=(*FAST, coder))
    kept = {name for state in built.states for name in (state.input, state.output)}
    taken, given = (tuple(io for io in ends if io.name not in kept) for ends in ([io for io, _ in built.inputs], given))
    return TFLiteModel(data, taken, given, built.join)


def plan(model: ir.Model, *, io_dtype: ir.DataType = ir.DataType.FLOAT) -> Plan:
    """Like `emit`, up to the tensors and operators of the runtime. Raises UnsupportedModelError as it does for what
    TFLite can't express."""
    built = tflite.build(model, io_dtype=io_dtype)
    if built.faults:
        raise UnsupportedModelError("; ".join(built.faults))
    return _plan(built)


def _plan(built: tflite.Built) -> Plan:
    inputs, outputs = ([i for _, i in ends] for ends in (built.inputs, built.outputs))
    names = [[io.name for io, _ in ends] for ends in (built.inputs, built.outputs)]
    order = built.buffer.used([*inputs, *outputs])
    index = {old: new for new, old in enumerate(order)} | {-1: -1}
    return Plan(
        tensors=tuple(_tensor(built.buffer.tensors[i]) for i in order),
        operators=tuple(_operator(o, index) for o in built.buffer.operators),
        inputs=tuple(index[i] for i in inputs),
        outputs=tuple(index[i] for i in outputs),
        states=tuple((names[0].index(s.input), names[1].index(s.output)) for s in built.states),
    )


def _without_records(built: tflite.Built) -> Iterator[str]:
    """One line for all operators that the runtime does not have."""
    missing = [(o.kind, o.origin) for o in built.buffer.operators if o.kind not in RECORDS]
    kinds = {kind: list(dict.fromkeys(origin for k, origin in missing if k == kind)) for kind, _ in sorted(missing)}
    if kinds:
        listing = ", ".join(f"{kind} (for {', '.join(origins)})" for kind, origins in kinds.items())
        yield f"the runtime has no kernel for {listing}"


def _without_kernels(built: tflite.Built, plan: Plan) -> Iterator[str]:
    """One line for each operator that computes on int32, int64 or bool, which the runtime has no kernel for."""
    from edgecompress_runtime.kernels import KERNELS

    for written, operator in zip(built.buffer.operators, plan.operators):
        inputs = [None if i < 0 else plan.tensors[i] for i in operator.inputs]
        if operator.kind in KERNELS and any(t is not None and t.data is None and t.dtype in NUMBERS for t in inputs):
            try:
                KERNELS[operator.kind](inputs, [plan.tensors[i] for i in operator.outputs], operator.options)
            except UnsupportedOperatorError as fault:
                yield f"{written.origin}: {operator.kind}: {fault}; cast them to float32 in front of this node"


def _tensor(tensor: flatbuffer.Tensor) -> Tensor:
    """Biases go without their scales: they are the input's times the weights', and most of a header otherwise."""
    q = tensor.quantization if tensor.dtype not in (ir.DataType.FLOAT16, ir.DataType.INT32, ir.DataType.INT64) else None
    parameters = {} if q is None else {"scale": q.scale.astype(np.float32), "zero_point": q.zero_point.astype(np.int32)}
    return Tensor(tensor.name, tensor.shape, tensor.dtype.numpy(), **parameters, axis=tensor.axis, data=tensor.data)


def _operator(operator: flatbuffer.Operator, index: dict[int, int]) -> Operator:
    fields = {} if operator.options is None else vars(operator.options)
    inputs, outputs = (tuple(index[i] for i in ends) for ends in (operator.inputs, operator.outputs))
    return Operator(operator.kind, inputs, outputs, options_of(operator.kind, fields))
