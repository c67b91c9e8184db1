"""Artifacts run in the interpreters that devices use, and compared with the float model."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from edgecompress.conversion.artifacts import Emitted
from edgecompress.conversion.conversion import Conversion
from edgecompress.conversion.data import Data
from edgecompress.errors import UnsupportedModelError
from edgecompress.evaluate.verify import Check, Reference, reference, verify
from edgecompress.recipe import Recipe
from edgecompress.record.stages import StageLog


def measure_float(model: ir.Model, data: Data, recipe: Recipe, log: StageLog) -> Reference:
    """The float model's outputs on the data that artifacts are checked on, and its accuracy when that has labels."""
    with log.stage("float reference", total=len(data.check)) as running:
        result = reference(model, data.check, recipe.evaluate.metric, running.advance)
        running.stage.accuracy = result.score if data.labelled else None
    return result


def check(conversion: Conversion, artifacts: Sequence[Emitted]) -> tuple[tuple[Check, ...], ...]:
    """Run every artifact in every interpreter of its format.

    Raises UnsupportedModelError when no interpreter runs an artifact.
    """
    result, expected = [], conversion.reference
    for artifact in artifacts:
        with conversion.log.stage(f"check {artifact.format}") as running:
            checks = verify(artifact.data, artifact.format, expected, artifact.io, running.advance)
            if all(c.error for c in checks):
                raise UnsupportedModelError(f"no interpreter could run the .{artifact.format} file: {checks[0].error}")
            if conversion.data.labelled:
                full = [c for c in checks if c.samples == len(expected.dataset)]
                running.stage.accuracy = min((c.value for c in full if c.value is not None), default=None)
            result.append(tuple(checks))
    return tuple(result)
