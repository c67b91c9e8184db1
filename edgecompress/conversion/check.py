"""Artifacts run in the interpreters that devices use, and compared with the float model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from edgecompress.analysis.statistics import statistics
from edgecompress.conversion.artifacts import Emitted
from edgecompress.conversion.conversion import Conversion
from edgecompress.conversion.data import Data
from edgecompress.evaluate.verify import Check, Reference, reference, verify, verify_once, with_exits, worst_value
from edgecompress.graph.input_sizes import own_key
from edgecompress.recipe import Recipe
from edgecompress.recipe.effective import encoding
from edgecompress.record.stages import StageLog

FIT_SAMPLES, FEWEST = 64, 8  # of calibration data, to compare with what was held out
FIT_MACS = 5_000_000_000  # of a large model's on fewer samples


def measure_float(model: ir.Model, data: Data, recipe: Recipe, log: StageLog) -> Reference:
    """The float model's outputs on the data that artifacts are checked on, and its accuracy when that has labels."""
    with log.stage("float reference", total=len(data.check)) as running:
        result = reference(model, data.check, recipe.evaluate.metric, running.advance)
        running.stage.accuracy = result.score if data.labelled else None
    return result


def check(conversion: Conversion, artifacts: Sequence[Emitted]) -> tuple[tuple[Check, ...], ...]:
    """Run every artifact in every interpreter of its format, in each shape that it takes."""
    result, expected, own = [], conversion.reference, own_key(conversion.model.graph)
    for artifact in artifacts:
        with conversion.log.stage(f"check {artifact.format}") as running:
            micro = conversion.profile.operators == "tflm"
            checks = verify(artifact.data, artifact.format, expected, artifact.io, running.advance, micro=micro)
            if own:
                checks = [replace(check, shape=own) for check in checks]
            for other in conversion.others if artifact.shapes else ():
                its = verify(
                    artifact.data, artifact.format, other.reference, artifact.io_of(other.key), running.advance
                )
                checks += [replace(check, shape=other.key) for check in its]
            if conversion.data.labelled and not all(c.error for c in checks):
                full = [c for c in checks if c.samples == len(expected.dataset)]
                running.stage.accuracy = worst_value(full)
            result.append(tuple(checks))
    return tuple(result)


def check_fit(conversion: Conversion, artifacts: Sequence[Emitted], model: ir.Model) -> tuple[Check, ...]:
    """Run every int8 artifact on some of the data that calibrated it, in the first interpreter that runs it.

    model: the float model that they were made of.
    The difference from what other data shows is what the ranges owe to their own data.
    """
    calibration, checked = conversion.data.calibration, conversion.data.check
    if (
        calibration is None
        or calibration is checked
        or checked.streams is not None
        or encoding(conversion.recipe) != "int8"
    ):
        return ()
    with conversion.log.stage("check on calibration data"):
        count = int(np.clip(FIT_MACS // max(statistics(conversion.model).macs, 1), FEWEST, FIT_SAMPLES))
        samples = calibration.head(count).without_labels()
        expected = with_exits(reference(conversion.model, samples), model)
        return tuple(verify_once(a.data, a.format, expected, a.io) for a in artifacts)
