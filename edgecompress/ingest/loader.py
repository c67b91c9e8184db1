"""`load`: reads a model of any supported kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from edgecompress.errors import EdgeCompressError, InputError, UnsupportedModelError
from edgecompress.graph.annotations import only_in_onnx
from edgecompress.graph.batch_axes import batch_axes, set_batch_axes
from edgecompress.graph.fusion import constant
from edgecompress.graph.input_sizes import Shape, own_key
from edgecompress.graph.provenance import origin
from edgecompress.ingest import annotated, keras_model, onnx_file, quantized
from edgecompress.ingest.batch_size import FixedBatchError, with_batch
from edgecompress.ingest.data_dependent import cut
from edgecompress.ingest.equality import max_relative_error
from edgecompress.ingest.given_states import keep_states, likely_states
from edgecompress.ingest.normalise import SEVERAL, normalise
from edgecompress.ingest.old_opset import upgraded
from edgecompress.ingest.open_shapes import SampleShapes, open_negative, settled_shapes
from edgecompress.ingest.passes.batch_in_reshape import BatchInReshape, baked_batch
from edgecompress.ingest.passes.float32 import HALF, CastToFloat32, holds
from edgecompress.ingest.passes.float_inputs import SMALL
from edgecompress.ingest.passes.input_shapes import is_open
from edgecompress.ingest.passes.narrow_types import NARROW, NarrowTypes
from edgecompress.ingest.passes.opset import OLDEST
from edgecompress.ingest.passes.quantized_operators import ARITHMETIC, QOperatorToQDQ, QuantizedToFloat
from edgecompress.ingest.passes.wide_integers import WIDE
from edgecompress.ingest.quiet import quiet
from edgecompress.ingest.set_inputs import set_inputs
from edgecompress.ingest.several_shapes import join, largest_of, shape_sets
from edgecompress.ingest.static_shapes import GivenShapes, checked_batch, checked_shapes
from edgecompress.operators import record_of
from edgecompress.support.interrupt import reraise_interrupt

FIRST_OF_ONNXRUNTIME = 7  # opset that it has kernels for
CHANGED = frozenset({*SMALL, *WIDE, *NARROW})  # types of inputs and outputs, which the user may want to know
Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Ingested:
    """A model in canonical form, and where it came from.

    format: "onnx", "pt2", "torchscript", "keras", "saved_model" or "python". opset: that of the original, or of the
    ONNX model that it was exported to. max_relative_error: max|a - b| / max|a| of the original and the normalised model
    in ONNX Runtime. notes: decisions on the way that the user may want to know. tail: what follows the model in an
    .onnx file, where shapes depend on the data (`data_dependent.Cut`).
    """

    model: ir.Model
    format: str
    path: Path | None
    opset: int
    max_relative_error: float
    notes: tuple[str, ...]
    tail: onnx.ModelProto | None = None


def load(
    source: str | Path | onnx.ModelProto | ir.Model | Any,
    *,
    weights: str | Path | None = None,
    input_shapes: GivenShapes | None = None,
    batch: int | None = None,
    constants: Mapping[str, object] | None = None,
    sample_shapes: SampleShapes | None = None,
    fold_batchnorm: bool = True,
    trust_code: bool = False,
    states: Mapping[str, str] | None = None,
) -> Ingested:
    """Reads a model and brings it to canonical form; neither the file nor the object is changed.

    source: a path to .onnx, .pt2 (torch.export), .pt (TorchScript), .keras, .h5 or a SavedModel, "file.py:factory" (a
        function without arguments that returns a torch.nn.Module), or an onnx.ModelProto, onnx_ir.Model (what
        compression has decided about it stays on it) or torch.nn.Module.
    weights: a state_dict file for "file.py:factory".
    input_shapes: shape of an input by its name, for dynamic dimensions and for torch modules. With a list of shapes
        the model is for each of them, and in the form of the largest (`graph.input_sizes`).
    sample_shapes: gives the shapes of samples, for dimensions that neither the model nor input_shapes says; is called
        only for such models.
    batch: the size of the first dimension where that is dynamic; None leaves it open, as far as the model can be had
        for any (`graph.batch_axes`), at 1.
    constants: value of an input by its name (a number, or an array), which then is no input any more.
    fold_batchnorm: False leaves BatchNormalization in the model, which is then canonical but for that: to train
        it and fold it afterwards (`normalise.fold_batchnorm`).
    trust_code: whether a Keras model may have Lambda layers, which hold Python code that loading runs.
    states: the input that an output feeds in the next run, by the output's name (`graph.states`).
    Raises InputError (unreadable), MissingPackageError (torch), UnsupportedModelError (not supported).
    """
    path = Path(source) if isinstance(source, (str, Path)) else None
    sets = shape_sets(checked_shapes(input_shapes))

    def load_for(shapes: Shapes) -> Ingested:
        return load(
            source,
            weights=weights,
            input_shapes=shapes,
            batch=batch,
            constants=constants,
            sample_shapes=sample_shapes,
            fold_batchnorm=fold_batchnorm,
            trust_code=trust_code,
            states=states,
        )

    if len(sets) > 1:
        return _joined([load_for(shapes) for shapes in sets], sets)
    shapes = sets[0]
    try:
        read = _read(source, weights, shapes, sample_shapes, fold_batchnorm, trust_code)
        with quiet("onnx_ir", "onnxscript"):
            open_negative(read.proto)
            notes = set_inputs(read.proto, constants or {})
            settled, more = settled_shapes(read.proto, shapes, sample_shapes)
            dimensions = _Dimensions(settled, checked_batch(batch))
            found = _ingested(read, dimensions, fold_batchnorm)
    except EdgeCompressError as error:
        message = " ".join(str(error).split())  # a name in the file may have any character
        if path is not None and not message.startswith(str(path)):
            message = f"{path}: {message}"
        raise type(error)(message) from error
    if isinstance(source, ir.Model):
        annotated.keep(found.model, source)
    kept = [] if read.decided is None else keras_model.keep(found.model, read.decided)
    kept += keep_states(found.model, states) if states else likely_states(found.model.graph)
    return replace(found, notes=(*notes, *more, *found.notes, *kept))


def _joined(models: Sequence[Ingested], sets: Sequence[dict[str, Shape]]) -> Ingested:
    """One model for all of these shapes."""
    place = largest_of(sets)
    found = models[place]
    if any(m.tail is not None for m in models):
        raise UnsupportedModelError(
            f"{found.path or 'the model'}: its last shapes depend on the data, and what is in front of them can't have "
            "several input shapes in one file; give one"
        )
    join(found.model, [m.model for m in models])
    if any(batch_axes(m.model.graph) is None for m in models):
        set_batch_axes(found.model.graph, None)
    note = (
        f"the files take {len(models)} shapes and share their weights; samples are as large as the largest, "
        f"{own_key(found.model.graph)}, and cut for the others"
    )
    error = max(m.max_relative_error for m in models)
    return replace(found, max_relative_error=error, notes=(note, *dict.fromkeys(n for m in models for n in m.notes)))


@dataclass(frozen=True)
class _Dimensions:
    """What the user says of dynamic dimensions: shapes by input, and the batch size; None leaves it open."""

    shapes: Shapes
    batch: int | None


@dataclass(frozen=True)
class _Read:
    """A model as ONNX, and where it came from. decided: what Keras knows of its weights."""

    format: str
    proto: onnx.ModelProto
    path: Path | None = None
    decided: keras_model.Decided | None = None


def _read(
    source: Any,
    weights: str | Path | None,
    shapes: Shapes,
    sample_shapes: SampleShapes | None,
    fold_batchnorm: bool,
    trust_code: bool,
) -> _Read:
    path = Path(source) if isinstance(source, (str, Path)) else None
    if isinstance(source, onnx.ModelProto):
        read = _Read("onnx", onnx.ModelProto.FromString(source.SerializeToString()))
        onnx_file.validate(read.proto)
    elif isinstance(source, ir.Model):
        read = _Read("onnx", ir.to_proto(source))
        onnx_file.validate(read.proto)
    elif path is not None and path.suffix == ".onnx":
        read = _Read("onnx", onnx_file.read(path), path)
    elif path is not None and keras_model.is_keras(path):
        format_, proto, decided = keras_model.read(path, trust_code)
        read = _Read(format_, proto, path, decided)
    else:
        from edgecompress.ingest import torch_export as torch_model

        read = _Read(*torch_model.read(source, weights, shapes, sample_shapes, fold_batchnorm))
    if weights is not None and read.format != "python":
        raise InputError(f"weights ({weights}) can be given only with a file.py:factory model; this model has its own")
    return read


def _ingested(read: _Read, dimensions: _Dimensions, fold_batchnorm: bool) -> Ingested:
    """The model, or what is in front of nodes that can't be converted because of shapes that depend on data."""
    try:
        return _ingest(read.proto, read.format, read.path, dimensions, fold_batchnorm)
    except UnsupportedModelError:
        parts = cut(upgraded(read.proto), dimensions.shapes, dimensions.batch or 1)
        front = None if parts is None else _in_front(replace(read, proto=parts.head), dimensions, fold_batchnorm)
        if parts is None or front is None:
            raise
    fixed = [] if batch_axes(front.model.graph) is None else ["the batch size is 1, as what follows the cut reads it"]
    set_batch_axes(front.model.graph, None)
    return replace(front, tail=parts.tail, notes=(parts.note, *fixed, *front.notes))


def _in_front(read: _Read, dimensions: _Dimensions, fold_batchnorm: bool) -> Ingested | None:
    """None where that can't be converted either, or computes next to nothing."""
    try:
        found = _ingest(read.proto, read.format, read.path, dimensions, fold_batchnorm)
    except EdgeCompressError:
        return None
    return found if any(record_of(node).macs(node) for node in found.model.graph) else None


def _ingest(
    proto: onnx.ModelProto, format_: str, path: Path | None, dimensions: _Dimensions, fold_batchnorm: bool
) -> Ingested:
    notes, shapes = [], dimensions.shapes
    opset = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 0)
    newer = upgraded(proto)
    model = _parse(newer)
    if newer is not proto:
        notes.append(f"the model was upgraded from ONNX opset {opset} to {OLDEST}")
        if opset < FIRST_OF_ONNXRUNTIME:
            proto = newer  # what is compared with can run
    if holds(model, HALF):
        # float16 has three digits; the comparison is with the same model in float32
        proto = ir.to_proto(CastToFloat32()(model).model)
        notes.append("the model's float16 values are computed in float32")
    is_linear = QOperatorToQDQ()(model).modified
    given = quantized.take_out(model)
    given_types = {v.name: v.dtype for v in (*model.graph.inputs, *model.graph.outputs)}
    written = _leave_training(model) + _to_plain_types(model) + _without_empty_inputs(model)
    notes += written
    if given is not None or is_linear or written:
        proto = ir.to_proto(model)  # what is compared with computes in float, too
    dynamic = _with_dynamic_batch(model, dimensions)
    stays_open = dimensions.batch is None and len(dynamic) == len(model.graph.inputs) > 0
    passed = [(i, v.name) for i, v in enumerate(model.graph.outputs) if v.is_graph_input()]
    baked, batch = 1, dimensions.batch or 1
    try:
        model = normalise(model, shapes, fold_batchnorm=fold_batchnorm, batch=batch, stays_open=stays_open)
    except InputError:
        again = _with_batch_of_one(newer) if dynamic and batch == 1 else None
        if again is None:
            raise
        model, baked = again
        model = normalise(model, shapes, fold_batchnorm=fold_batchnorm)
        notes.append(f"the batch size {baked}, which the model's Reshapes were exported with, was changed to 1 as well")
    _take_out_of_attributes(model)
    notes += _changed_types(model, given_types) + _passed_through(model, passed)
    notes += [] if given is None else quantized.keep(model, given)
    notes += _only_in_onnx(model) + _chosen(model)
    error = max_relative_error(proto, model, batch=baked)
    if dynamic and dimensions.batch is None:
        notes += _fix_batch(proto, model, dynamic)
    return Ingested(model, format_, path, opset, error, tuple(notes))


def _leave_training(model: ir.Model) -> list[str]:
    """Has Dropout, in place, compute as in evaluation, where it drops nothing. Returns notes for the user."""
    nodes = [*model.graph.all_nodes(), *(n for f in model.functions.values() for n in f.all_nodes())]
    dropping = [n for n in nodes if n.op_type == "Dropout" and len(n.inputs) > 2 and _is_true(n.inputs[2])]
    for node in dropping:
        node.replace_input_with(2, None)
    listing = ", ".join(repr(origin(node)[0]) for node in dropping)
    return (
        [f"exported while it trained, the model has Dropout that drops; here it does not: {listing}"]
        if dropping
        else []
    )


def _is_true(value: ir.Value | None) -> bool:
    """Whether it may be true: a constant that is, or a value that is computed."""
    if value is None:
        return False
    maker = value.producer()
    stored = maker.attributes.get_tensor("value") if maker is not None and maker.op_type == "Constant" else None
    array = constant(value) if stored is None else stored.numpy()
    return array is None or bool(array.any())


def _to_plain_types(model: ir.Model) -> list[str]:
    """Writes, in place, what computes on small types with float32 and int32. Returns notes for the user."""
    rounded = Counter(node.op_type for node in model.graph if node.op_type in ARITHMETIC)
    passes = (QuantizedToFloat(), NarrowTypes())
    if not [step for step in passes if step(model).modified]:
        return []
    rounded.subtract(node.op_type for node in model.graph if node.op_type in ARITHMETIC)
    listing = ", ".join(f"{kind} ({count})" for kind, count in sorted(rounded.items()) if count > 0)
    computed = f"; these round as they did: {listing}" if listing else ""
    return [f"numbers of 8 bits and less are computed in float32 and int32{computed}"]


def _without_empty_inputs(model: ir.Model) -> list[str]:
    """Removes, in place, inputs without elements that nobody reads (CastLike did, for their type). Returns notes."""
    empty = [v for v in model.graph.inputs if v.shape is not None and 0 in v.shape]
    unused = [v for v in empty if not v.uses() and not v.is_graph_output()]
    for value in unused:
        model.graph.inputs.remove(value)
    listing = ", ".join(repr(v.name) for v in unused)
    return [f"these inputs have no elements, and nobody reads them, so they are left out: {listing}"] if unused else []


def _changed_types(model: ir.Model, given: Mapping[str | None, ir.DataType | None]) -> list[str]:
    """A note of the small types among inputs and outputs that have another type now; those of floats are known."""
    notes = []
    for what, values in (("inputs", model.graph.inputs), ("outputs", model.graph.outputs)):
        for dtype in (ir.DataType.FLOAT, ir.DataType.INT32, ir.DataType.INT64):
            changed = [(v, old) for v in values if v.dtype == dtype and (old := given.get(v.name)) in CHANGED]
            if changed:
                listing = ", ".join(f"{v.name!r} ({old.name.lower()})" for v, old in changed if old is not None)
                kind = "float32" if dtype == ir.DataType.FLOAT else dtype.name.lower()
                notes.append(f"these {what} become {kind}, with the same values: {listing}")
    return notes


def _only_in_onnx(model: ir.Model) -> list[str]:
    """A note of the nodes that no other format can have."""
    kinds = Counter(reason for node in model.graph if (reason := only_in_onnx(node)))
    if not kinds:
        return []
    listing = ", ".join(f"{reason} ({count})" for reason, count in sorted(kinds.items()))
    return [f"{kinds.total()} nodes stay as they are, in float, and only .onnx can have them: {listing}"]


def _chosen(model: ir.Model) -> list[str]:
    """A note of the branches that are computed both, as data decides between them."""
    choices = {name for name, operator in map(origin, model.graph) if operator == "If"}
    listing = ", ".join(map(repr, sorted(choices)))
    return [f"of these If nodes both branches are computed, as data decides between them: {listing}"] if choices else []


def _parse(proto: onnx.ModelProto) -> ir.Model:
    """The message as an IR model, whose weights are arrays. Raises InputError when one of its constants can't be
    decoded."""
    tensor = None
    try:
        model = ir.from_proto(proto)
        for value in model.graph.initializers.values():
            tensor = value.const_value
            _take_out(value)
        for tensor in (t for n in model.graph if (t := n.attributes.get_tensor("value")) is not None):
            tensor.numpy()
    except Exception as error:  # the checker lets some damaged models pass
        reraise_interrupt(error)
        where = "" if tensor is None else f" (tensor {tensor.name!r})"
        raise InputError(f"not a valid ONNX model{where}: {type(error).__name__}: {error}") from error
    return model


def _passed_through(model: ir.Model, passed: Sequence[tuple[int, str | None]]) -> list[str]:
    """A note of each output that is an input. passed: its place and the name that both had."""
    return [
        f"output {name!r} is the input of that name; in the artifacts it is called {model.graph.outputs[i].name!r}"
        for i, name in passed
    ]


def _take_out_of_attributes(model: ir.Model) -> None:
    for value in model.graph.initializers.values():
        _take_out(value)


def _take_out(value: ir.Value) -> None:
    """Has a constant hold an array of its own, in place: a tensor of a message is copied by everyone who looks at it,
    and keeps all of the message in memory."""
    tensor = value.const_value
    if isinstance(tensor, ir.TensorProtoTensor) and (array := tensor.numpy()).dtype.kind in "fiub":
        value.const_value = ir.Tensor(array, dtype=tensor.dtype, name=value.name)


def _with_dynamic_batch(model: ir.Model, dimensions: _Dimensions) -> list[str]:
    """The names of inputs whose first dimension is dynamic and was not given, or given as that of one sample. Raises
    InputError where a batch size was given that nothing takes."""
    found = [str(v.name) for v in model.graph.inputs if is_open(v) and dimensions.shapes.get(str(v.name), (1,))[0] == 1]
    if dimensions.batch is not None and not found:
        raise InputError(
            f"--batch {dimensions.batch}: the model, or --input-shape, fixes the first dimension of every input; leave "
            "--batch out"
        )
    return found


def _fix_batch(original: onnx.ModelProto, model: ir.Model, dynamic: Sequence[str]) -> list[str]:
    """Fixes the batch size, in place, of a model that does not compute several samples as the original does; says so
    and why."""
    if batch_axes(model.graph) is None:
        is_alone = len(dynamic) < len(model.graph.inputs)
        reason = ": other inputs have no such dimension" if is_alone else ": for several, its shapes don't fit together"
    else:
        try:
            max_relative_error(original, with_batch(model, SEVERAL)[0])
            return []
        except FixedBatchError as fault:
            reason = f": {fault}"
        except InputError:
            reason = ": ONNX Runtime can't run the model that came in with several samples"
        except UnsupportedModelError:
            reason = ": it could not be found out where the samples are in all values"
        set_batch_axes(model.graph, None)
    return [f"the dynamic batch size of {', '.join(map(repr, dynamic))} was set to 1{reason}"]


def _with_batch_of_one(proto: onnx.ModelProto) -> tuple[ir.Model, int] | None:
    """The model with the batch size of its Reshapes changed to 1, and that size; None when they name none."""
    model = LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(_parse(proto)).model
    batch = baked_batch(model)
    return None if batch is None else (BatchInReshape(batch)(model).model, batch)
