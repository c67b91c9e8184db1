"""Brings a model to the canonical form that everything after ingest relies on: a list of passes."""
from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir
from onnx_ir.passes import common

from edgecompress.errors import EdgeCompressError, UnsupportedModelError
from edgecompress.graph.operators import require_supported
from edgecompress.ingest.passes.convolution import CanonicalConvolution, OwnWeights
from edgecompress.ingest.passes.fold_constants import FoldConstants
from edgecompress.ingest.passes.gemm import CanonicalGemm
from edgecompress.ingest.passes.infer_shapes import InferShapes
from edgecompress.ingest.passes.input_shapes import FixInputShapes
from edgecompress.ingest.passes.opset import ConvertOpset
from edgecompress.ingest.passes.pooling import CanonicalPooling
from edgecompress.ingest.passes.reshape import CanonicalReshape


def passes(input_shapes: Mapping[str, Sequence[int]]) -> list[ir.passes.PassBase]:
    """In order; each may rely on the ones before it."""
    return [
        common.InlinePass(),
        common.RemoveUnusedFunctionsPass(),
        FixInputShapes(input_shapes),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        ConvertOpset(),
        FoldConstants(),
        common.RemoveUnusedNodesPass(),
        InferShapes(),
        common.IdentityEliminationPass(),
        CanonicalConvolution(),
        CanonicalPooling(),
        CanonicalReshape(),
        CanonicalGemm(),
        OwnWeights(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedOpsetsPass(),
        InferShapes(),
    ]


def normalise(model: ir.Model, input_shapes: Mapping[str, Sequence[int]]) -> ir.Model:
    """The model, changed in place, in canonical form. Raises InputError and UnsupportedModelError."""
    for step in passes(input_shapes):
        try:
            model = step(model).model
        except EdgeCompressError:
            raise
        except Exception as error:
            raise UnsupportedModelError(
                f"the model can't be brought to the form we convert ({type(step).__name__}: {error}); "
                "check it with onnx.checker.check_model(path, full_check=True)"
            ) from error
    require_supported(model)
    return model
