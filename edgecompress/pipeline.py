"""The steps of a conversion: canonical model -> annotated model -> artifacts -> checks."""
from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgecompress import __version__
from edgecompress.compress.quantize import (
    Calibration,
    LayerDiagnosis,
    calibrate,
    correct_bias,
    diagnose,
    equalize,
    quantize_dynamic,
    quantize_static,
    to_float16,
)
from edgecompress.emit import onnx as onnx_emitter
from edgecompress.emit import tflite as tflite_emitter
from edgecompress.emit.tflite.io import TFLiteModel
from edgecompress.errors import InputError, UnsupportedModelError
from edgecompress.evaluate.data import Dataset, load_data
from edgecompress.evaluate.verify import Check, Reference, reference, verify
from edgecompress.recipe import Preprocess, Quantize, Recipe
from edgecompress.request import encoding
from edgecompress.stages import StageLog
from edgecompress_targets import OPERATOR_SETS, Profile

CHECK_SAMPLES = 512  # of calibration data, when there is no evaluation data to check artifacts on
RANDOM_SAMPLES = 16  # when there is no data at all
FLOAT_ENCODERS: dict[str, Callable[[ir.Model, Quantize], ir.Model]] = {
    "dynamic": quantize_dynamic,
    "float16": lambda model, settings: to_float16(model),
    "float32": lambda model, settings: model,
}


@dataclass(frozen=True)
class Emitted:
    """One artifact's bytes; `io` says how to feed a .tflite file."""

    format: str
    data: bytes
    io: TFLiteModel | None = None


@dataclass(frozen=True)
class Attempt:
    """A quantised model, its artifacts, and their checks in format order."""

    model: ir.Model
    artifacts: tuple[Emitted, ...]
    checks: tuple[tuple[Check, ...], ...]

    def worst_drop(self, samples: int) -> float | None:
        """Most points lost by any artifact in any interpreter that ran all samples."""
        drops = [c.drop for checks in self.checks for c in checks if c.drop is not None and c.samples == samples]
        return max(drops, default=None)


@dataclass(frozen=True)
class Data:
    """calibration: None without. check: what artifacts are run on. notes: what was done to the data."""

    calibration: Dataset | None
    check: Dataset
    notes: tuple[str, ...]


def open_data(model: ir.Model, calib: object, evaluation: object, recipe: Recipe) -> Data:
    """Open what was given; what is missing for checks is taken from the other, or is random.

    Raises InputError for data that does not fit the model, and for max_drop without labels to measure it.
    """
    inputs = model.graph.inputs
    calibration = None if calib is None else load_data(calib, inputs, recipe.preprocess)
    given = None if evaluation is None else load_data(evaluation, inputs, recipe.preprocess)
    if recipe.evaluate.max_drop is not None and (given is None or given.labels is None):
        raise InputError("max_drop needs evaluation data with labels: give --eval FILE.npz with x and y")
    notes = [f"{d.source}: {note}" for d in (calibration, given) if d is not None for note in d.notes]
    if given is not None:
        return Data(calibration, given, tuple(notes))
    if calibration is not None:  # its labels are not asked for: accuracy on it would look better than it is
        return Data(calibration, dataclasses.replace(calibration.head(CHECK_SAMPLES), labels=None), tuple(notes))
    notes.append(f"without data, artifacts are checked on {RANDOM_SAMPLES} random inputs: give --eval or --calib")
    return Data(None, _random_data(inputs, recipe.seed), tuple(notes))


def describe_calibration(model: ir.Model) -> str:
    """What to pass as calibration data: keys and shapes."""
    inputs = list(model.graph.inputs)
    shapes = ["[samples, " + ", ".join(map(str, v.shape.numpy()[1:])) + "]" for v in inputs if v.shape is not None]
    keys = ["x"] if len(inputs) == 1 else [repr(v.name) for v in inputs]
    listed = ", ".join(f"{key} of shape {shape}" for key, shape in zip(keys, shapes))
    return f"--calib FILE.npz with {listed} (100 or more typical samples)"


def prepare(model: ir.Model, data: Data, recipe: Recipe, log: StageLog) -> tuple[ir.Model, Calibration | None]:
    """Equalise weights and calibrate, when activations become int8."""
    if encoding(recipe) != "int8":
        return model, None
    if data.calibration is None:
        raise InputError(f"int8 activations need calibration data: give {describe_calibration(model)}")
    if recipe.quantize.equalize:
        with log.stage("equalize") as running:
            result = equalize(model)
            model, running.stage.note = result.model, str(result.report)
    with log.stage("calibrate") as running:
        calibration = calibrate(model, data.calibration, recipe.quantize)
        running.stage.note = f"{recipe.quantize.calibration}, {calibration.samples} samples"
    return model, calibration


def quantize(
    model: ir.Model, calibration: Calibration | None, settings: Quantize, kind: str, integer_only: bool, log: StageLog
) -> ir.Model:
    """An annotated clone in the encoding `kind`."""
    with log.stage("quantize"):
        if calibration is None:
            return FLOAT_ENCODERS[kind](model, settings)
        quantized = quantize_static(model, calibration, settings, integer_only=integer_only)
    if settings.bias_correction:
        with log.stage("correct biases") as running:
            quantized, correction = correct_bias(model, quantized, calibration)
            running.stage.note = str(correction)
    return quantized


def emit(model: ir.Model, recipe: Recipe, profile: Profile, log: StageLog) -> tuple[Emitted, ...]:
    """One artifact for each of the recipe's formats."""
    artifacts = []
    for name in recipe.emit.formats or []:
        with log.stage(f"emit {name}") as running:
            artifacts.append(EMITTERS[name](model, recipe, profile))
            running.stage.bytes = len(artifacts[-1].data)
    return tuple(artifacts)


def check(
    artifacts: Sequence[Emitted], reference: Reference, log: StageLog
) -> tuple[tuple[Check, ...], ...]:
    """Run every artifact in every interpreter of its format.

    Raises UnsupportedModelError when none of them runs an artifact.
    """
    result = []
    for artifact in artifacts:
        with log.stage(f"check {artifact.format}") as running:
            checks = verify(artifact.data, artifact.format, reference, artifact.io, running.advance)
            if all(c.error for c in checks):
                raise UnsupportedModelError(f"no interpreter runs the {artifact.format} artifact: {checks[0].error}")
            values = [c.value for c in checks if c.value is not None]
            running.stage.accuracy = min(values, default=None)
            result.append(tuple(checks))
    return tuple(result)


def measure_float(model: ir.Model, data: Data, recipe: Recipe, log: StageLog) -> Reference:
    """The float model on the data that artifacts are checked on."""
    with log.stage("float reference", total=len(data.check)) as running:
        result = reference(model, data.check, recipe.evaluate.metric, running.advance)
        running.stage.accuracy = result.score
    return result


def diagnose_layers(
    model: ir.Model, quantized: ir.Model, calibration: Calibration | None, log: StageLog
) -> list[LayerDiagnosis]:
    """Signal-to-noise ratio of each layer on calibration data, worst first; nothing without calibration."""
    if calibration is None:
        return []
    with log.stage("diagnose"):
        return sorted(diagnose(model, quantized, calibration.dataset), key=lambda d: d.snr_db)


def _emit_onnx(model: ir.Model, recipe: Recipe, profile: Profile) -> Emitted:
    return Emitted("onnx", onnx_emitter.emit(model))


def _emit_tflite(model: ir.Model, recipe: Recipe, profile: Profile) -> Emitted:
    dtype = ir.DataType.INT8 if recipe.emit.io == "int8" else ir.DataType.FLOAT
    operators = OPERATOR_SETS[profile.operators]
    made = tflite_emitter.emit(model, io_dtype=dtype, operators=operators, description=f"edgecompress {__version__}")
    return Emitted("tflite", made.data, made)


EMITTERS: dict[str, Callable[[ir.Model, Recipe, Profile], Emitted]] = {
    "onnx": _emit_onnx,
    "tflite": _emit_tflite,
}


def _random_data(inputs: Sequence[ir.Value], seed: int) -> Dataset:
    """Standard normal for floats; 0 and 1 for integers and masks, which are in range for any index."""
    generator = np.random.default_rng(seed)
    arrays = {}
    for value in inputs:
        assert value.shape is not None and value.dtype is not None
        shape, dtype = (RANDOM_SAMPLES, *value.shape.numpy()), value.dtype.numpy()
        drawn = generator.standard_normal(shape) if dtype.kind == "f" else generator.integers(0, 2, shape)
        arrays[str(value.name)] = drawn.astype(dtype)
    return dataclasses.replace(load_data(arrays, inputs, Preprocess()), source="random inputs")
