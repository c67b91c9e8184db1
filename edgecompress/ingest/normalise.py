"""Brings a model to the canonical form that everything after ingest relies on: a list of passes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from edgecompress.analysis.supported import TRAINED, require_supported
from edgecompress.errors import EdgeCompressError, InputError, UnsupportedModelError
from edgecompress.graph.batch_axes import grown_axes, set_batch_axes
from edgecompress.graph.provenance import label
from edgecompress.ingest.passes.affine import FuseAffine
from edgecompress.ingest.passes.batch_first import BatchFirst
from edgecompress.ingest.passes.batchnorm import BatchNormToAffine
from edgecompress.ingest.passes.canonical_convolution import CanonicalConvolution, OwnWeights
from edgecompress.ingest.passes.canonical_pooling import CanonicalPooling
from edgecompress.ingest.passes.check_weights import CheckWeights
from edgecompress.ingest.passes.clip import CanonicalClip
from edgecompress.ingest.passes.computed_weights import ComputedWeights
from edgecompress.ingest.passes.constants_in_concat import ConstantsInConcat
from edgecompress.ingest.passes.control_flow import ControlFlow
from edgecompress.ingest.passes.edit import static_shape
from edgecompress.ingest.passes.expand_composites import ExpandComposites
from edgecompress.ingest.passes.float32 import CastToFloat32
from edgecompress.ingest.passes.float_inputs import FloatInputs
from edgecompress.ingest.passes.fold_constants import FoldConstants
from edgecompress.ingest.passes.gemm import CanonicalGemm
from edgecompress.ingest.passes.infer_shapes import InferShapes
from edgecompress.ingest.passes.input_shapes import FixInputShapes
from edgecompress.ingest.passes.operator_parameters import ExplicitParameters
from edgecompress.ingest.passes.opset import CANONICAL, ConvertOpset
from edgecompress.ingest.passes.pad import CanonicalPad, MergePad
from edgecompress.ingest.passes.pass_through import PassThrough
from edgecompress.ingest.passes.recognise_activations import RecogniseActivations
from edgecompress.ingest.passes.recognise_layernorm import RecogniseLayerNormalization
from edgecompress.ingest.passes.reshape import CanonicalReshape
from edgecompress.ingest.passes.rewrite_operators import RewriteOperators
from edgecompress.ingest.passes.rewrites import RewriteWithOnnxscript
from edgecompress.ingest.passes.wide_integers import WideIntegers
from edgecompress.ingest.static_shapes import LARGEST_ELEMENTS
from edgecompress.support.interrupt import reraise_interrupt

IR_VERSION = 10  # the one that came with opset 21


SEVERAL = 3  # samples of the model that shows which axes hold samples


def passes_to_flat(input_shapes: Mapping[str, Sequence[int]], batch: int) -> list[ir.passes.PassBase]:
    """The passes that come first, in order; each may rely on the ones before it. batch: what is open becomes."""
    return [
        # One flat graph of standard operators with static input shapes.
        common.ClearMetadataAndDocStringPass(),
        common.InlinePass(),
        common.RemoveUnusedFunctionsPass(),
        common.RemoveInitializersFromInputsPass(),
        PassThrough(),
        common.OutputFixPass(),
        FixInputShapes(input_shapes, batch),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        CastToFloat32(),
        FloatInputs(),
        CheckWeights(),
        InferShapes(),
        ControlFlow(),
        BatchFirst(),
        ExpandComposites(),
        ConvertOpset(),
        ExpandComposites(),
        CastToFloat32(),  # definitions cast to double (ReduceLogSumExp, softmax_precision of Attention)
        WideIntegers(),
        # Everything that is known beforehand is computed.
        FoldConstants(),
        ControlFlow(),  # in definitions
        common.RemoveUnusedNodesPass(),
        InferShapes(),
    ]


def passes_to_canonical(fold_batchnorm: bool) -> list[ir.passes.PassBase]:
    """The passes that follow."""
    return [
        # What was written out is one operator again.
        RecogniseLayerNormalization(),
        RecogniseActivations(),
        common.RemoveUnusedNodesPass(),
        # Another spelling of the same operator becomes ours.
        ConstantsInConcat(),
        RewriteOperators(),
        InferShapes(),
        RewriteWithOnnxscript(),
        *([BatchNormToAffine()] if fold_batchnorm else []),
        CanonicalReshape(),
        CanonicalClip(),
        CanonicalPad(),
        CanonicalConvolution(),
        ComputedWeights(),
        CanonicalPooling(),
        CanonicalGemm(),
        common.RemoveUnusedNodesPass(),
        MergePad(),
        FuseAffine(),
        ExplicitParameters(),
        # What the passes above left behind.
        FoldConstants(),
        RewriteOperators(),
        CanonicalReshape(),
        common.AddDefaultAttributesPass(),
        OwnWeights(),
        CheckWeights(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedOpsetsPass(),
        common.TopologicalSortPass(),
        common.NameFixPass(),
        InferShapes(),
    ]


def normalise(
    model: ir.Model,
    input_shapes: Mapping[str, Sequence[int]],
    *,
    fold_batchnorm: bool = True,
    batch: int = 1,
    stays_open: bool = False,
) -> ir.Model:
    """The model, changed in place, in canonical form. Raises InputError and UnsupportedModelError.

    Without fold_batchnorm, BatchNormalization (of evaluation, with constant statistics) stays, to be trained.
    batch: the size that an open first dimension gets. stays_open: whether the result is to be for other sizes as well:
    then it says which axes these are (`graph.batch_axes`).
    """
    several = _for_several(model, input_shapes) if stays_open else None
    model = _run(passes_to_flat(input_shapes, batch), model)
    if several is not None:
        set_batch_axes(model.graph, grown_axes(model.graph, several.graph))
    model = _run(passes_to_canonical(fold_batchnorm), model)
    model.ir_version = IR_VERSION
    model.graph.opset_imports.clear()
    model.graph.opset_imports[""] = max([CANONICAL, *map(_first_opset, model.graph)])
    require_supported(model, TRAINED if not fold_batchnorm else frozenset(), _shape_faults(model))
    return model


def _for_several(model: ir.Model, input_shapes: Mapping[str, Sequence[int]]) -> ir.Model | None:
    """The flat model for several samples; None where it can't be had."""
    try:
        return _run(passes_to_flat(input_shapes, SEVERAL), model.clone())
    except (InputError, UnsupportedModelError):
        return None


def _run(steps: Sequence[ir.passes.PassBase], model: ir.Model) -> ir.Model:
    for step in steps:
        try:
            model = step(model).model
        except EdgeCompressError:
            raise
        except Exception as error:  # of any kind: a pass met something that no valid model has
            reraise_interrupt(error)
            raise UnsupportedModelError(
                f"the model can't be brought into canonical form: {type(step).__name__} failed with "
                f"{type(error).__name__} ({_one_line(error)}); check the model with "
                "onnx.checker.check_model(path, full_check=True)"
            ) from error
    return model


def settled(model: ir.Model, input_shapes: Mapping[str, Sequence[int]], batch: int) -> ir.Model:
    """The model, changed in place, with all shapes that don't depend on data; values keep their names."""
    for step in passes_to_flat(input_shapes, batch):
        model = step(model).model
    return model


def _first_opset(node: ir.Node) -> int:
    """The opset that brought the node's operator, where that is newer than the canonical one: only ONNX can have it."""
    if onnx.defs.has(node.op_type, CANONICAL) or not onnx.defs.has(node.op_type):
        return CANONICAL
    return int(onnx.defs.get_schema(node.op_type).since_version)


def fold_batchnorm(model: ir.Model) -> ir.Model:
    """A copy in canonical form of a model that was loaded without folding: the same function, fewer operators."""
    return normalise(model.clone(), {})


def _shape_faults(model: ir.Model) -> list[str]:
    """One line for each input, and each first value, whose shape is not known, or has no elements or too many."""
    faults = [reason for v in model.graph.inputs if (reason := _shape_fault(v, f"input {v.name!r}"))]
    for node in model.graph:
        if any(v is not None and v.const_value is None and _shape_fault(v, "") for v in node.inputs):
            continue  # it follows from a fault in front
        for value in node.outputs:
            if value.uses() or value.is_graph_output():
                reason = _shape_fault(value, f"value {value.name!r}, from {label(node)},")
                faults += [reason] if reason else []
    return faults


def _shape_fault(value: ir.Value, what: str) -> str | None:
    shape = static_shape(value)
    if shape is None:
        return (
            f"{what} has a shape that depends on the data; replace the node that computes it with one whose "
            "output shape follows from its input shapes"
        )
    elements = math.prod(shape)
    if not 0 < elements <= LARGEST_ELEMENTS:
        return f"{what} has {elements} elements (shape {value.shape}); 1 to {LARGEST_ELEMENTS} can be converted"
    return None


def _one_line(error: BaseException) -> str:
    while isinstance(error, ir.passes.PassError) and error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__
