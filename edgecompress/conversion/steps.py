"""The steps of a conversion: canonical model -> annotated model -> artifacts -> checks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx_ir as ir

from edgecompress import __version__
from edgecompress.compress.quantize import (
    LayerDiagnosis,
    Quantized,
    correct_bias,
    diagnose,
    knows_scales,
    quantize,
    quantize_dynamic,
    quantize_static,
    to_float16,
)
from edgecompress.conversion import size_budget as budget
from edgecompress.conversion.training_run import Training
from edgecompress.emit import onnx as onnx_emitter
from edgecompress.emit import tflite as tflite_emitter
from edgecompress.errors import InputError, UnsupportedModelError
from edgecompress.evaluate.dataset import Dataset, load_data
from edgecompress.evaluate.verify import Check, Reference, reference, verify
from edgecompress.graph.annotations import comes_quantized, given_quantization
from edgecompress.lowering.tensor_io import TFLiteModel
from edgecompress.operators.rewriting import integer_parts
from edgecompress.recipe import Preprocess, Quantize, Recipe
from edgecompress.recipe.effective import encoding
from edgecompress.record.report import Goal
from edgecompress.record.stages import StageLog
from edgecompress_targets import OPERATOR_SETS, Profile

CHECK_SAMPLES = 512  # of calibration data, when there is no evaluation data to check artifacts on
RANDOM, RANDOM_SAMPLES = "random inputs", 16  # when there is no data at all
CHECKED_ON_RANDOM = f"artifacts were checked on {RANDOM_SAMPLES} random inputs: give --eval or --calib data"
FLOAT_ENCODERS: dict[str, Callable[[ir.Model, Quantize], ir.Model]] = {
    "dynamic": quantize_dynamic,
    "float16": lambda model, settings: to_float16(model),
    "float32": lambda model, settings: model,
}


@dataclass(frozen=True)
class Emitted:
    """One artifact's bytes; `io` says how to feed a .tflite or .pack file."""

    format: str
    data: bytes
    io: TFLiteModel | None = None


@dataclass(frozen=True)
class Encoded:
    """An annotated model; `quantized` says how it came about when its activations are int8, goals what was asked of
    its clusters."""

    model: ir.Model
    quantized: Quantized | None = None
    goals: tuple[Goal, ...] = ()


@dataclass(frozen=True)
class Attempt:
    """An encoded model, its artifacts, and their checks in format order."""

    encoded: Encoded
    artifacts: tuple[Emitted, ...]
    checks: tuple[tuple[Check, ...], ...]

    @property
    def model(self) -> ir.Model:
        return self.encoded.model

    def worst_drop(self, samples: int) -> float | None:
        """Most points lost by any artifact in any interpreter that ran all samples."""
        full = [c for checks in self.checks for c in checks if c.samples == samples]
        return max((c.drop for c in full if c.drop is not None), default=None)


@dataclass(frozen=True)
class Data:
    """calibration: None without. check: what artifacts are run on. notes: what was done to the data."""

    calibration: Dataset | None
    check: Dataset
    notes: tuple[str, ...]


def open_data(model: ir.Model, calib: object, evaluation: object, recipe: Recipe, profile: Profile) -> Data:
    """Open what was given; what is missing for checks is taken from the other, or is random.

    Raises InputError for data that does not fit the model, for int8 activations without calibration data,
    and for max_drop without labels to measure it; UnsupportedModelError for a model without inputs.
    """
    if not model.graph.inputs:
        raise UnsupportedModelError("the model has no inputs, so its outputs are constants: nothing to convert")
    if calib is None and encoding(recipe) == "int8":
        who = f"target {profile.name}" if profile.integer_only else "the recipe"
        raise InputError(f"{who} needs int8 activations, so calibration data: {describe_calibration(model)}")
    inputs = model.graph.inputs
    calibration = None if calib is None else load_data(calib, inputs, recipe.preprocess)
    given = None if evaluation is None else load_data(evaluation, inputs, recipe.preprocess)
    if recipe.evaluate.max_drop is not None and (given is None or given.labels is None):
        raise InputError("max_drop needs evaluation data with labels: give --eval FILE.npz with x and y")
    opened = [d for d in (calibration, given) if d is not None]
    notes = list(dict.fromkeys(f"{d.source}: {note}" for d in opened for note in d.notes))
    if given is not None:
        return Data(calibration, given, tuple(notes))
    if calibration is not None:  # without its labels: accuracy on it would look better than it is
        few = calibration.head(CHECK_SAMPLES)
        notes += [CHECKED_ON_RANDOM] if calibration.source == RANDOM else []
        return Data(calibration, dataclasses.replace(few, labels=None), tuple(notes))
    return Data(None, random_data(inputs, recipe.seed), (*notes, CHECKED_ON_RANDOM))


def needs_no_calibration(model: ir.Model, profile: Profile) -> bool:
    """Whether int8 activations can be had without data: the model came with all scales that the target needs."""
    return knows_scales(integer_parts(model.clone()) if profile.integer_only else model)


def describe_calibration(model: ir.Model) -> str:
    """What to pass as calibration data: keys and shapes."""
    shapes = {repr(v.name): list(v.shape.numpy()[1:]) for v in model.graph.inputs if v.shape is not None}
    if len(shapes) == 1:
        shapes = {"x": shapes.popitem()[1]}
    listed = ", ".join(f"{k} of shape [{', '.join(map(str, ['samples', *s]))}]" for k, s in shapes.items())
    return f"give --calib FILE.npz with {listed} (100 or more typical samples)"


def encode(model: ir.Model, training: Training, data: Data, recipe: Recipe, profile: Profile, log: StageLog) -> Encoded:
    """The model annotated as the recipe says, and trained as what it was annotated to be."""
    kind = encoding(recipe)
    with log.stage("quantize") as running:
        if kind != "int8":
            encoded = Encoded(FLOAT_ENCODERS[kind](model, recipe.quantize))
            return _clustered(encoded, model, training, data.calibration, recipe, profile, log)
        assert data.calibration is not None  # open_data sees to it
        if profile.integer_only:
            model = integer_parts(model.clone())
        found = quantize(model, data.calibration, recipe.quantize, integer_only=profile.integer_only)
        running.stage.note = quantization_note(found, recipe.quantize)
    if recipe.quantize.epochs is not None:
        with log.stage("quantisation-aware training"):
            model = training.integers(found.model, recipe.quantize, "quantisation-aware training")
        found = dataclasses.replace(found, model=model, reference=model)  # its weights are what clustering is to match
    calibration = found.calibration.dataset
    return _clustered(Encoded(found.model, found), found.reference, training, calibration, recipe, profile, log)


def _clustered(
    encoded: Encoded,
    reference: ir.Model,
    training: Training,
    calibration: Dataset | None,
    recipe: Recipe,
    profile: Profile,
    log: StageLog,
) -> Encoded:
    """With clustered weights, if the recipe asks for them."""
    if not recipe.cluster.is_asked_for:
        return encoded
    from edgecompress.compress.cluster import after_training, cluster, goal  # brings Numba

    settings, limit = recipe.cluster, recipe.emit.max_size if "pack" in (recipe.emit.formats or []) else None

    with log.stage("cluster") as running:
        run = partial(cluster, encoded.model, reference, calibration, seed=recipe.seed)
        if limit is None:
            found = run(settings)
        else:
            found = budget.fit(
                limit,
                lambda size: run(settings.model_copy(update={"size": size}), nearest=True),
                lambda candidate: len(_emit_pack(candidate, recipe, profile).data),
            )
        running.stage.note = str(found)
    if settings.epochs is not None:
        with log.stage("train codebooks") as running:
            model = training.integers(found.model, settings, "codebooks")
            found = after_training(found, model, reference, calibration)
            running.stage.note = str(found)
    quantized = encoded.quantized and dataclasses.replace(encoded.quantized, model=found.model)
    asked = settings if limit is None else settings.model_copy(update={"size": limit})
    return Encoded(found.model, quantized, (goal(found, asked),))


def encode_again(before: Quantized, training: Training, recipe: Recipe, profile: Profile, log: StageLog) -> Encoded:
    """The same model and calibration with other layers in float."""
    settings = recipe.quantize
    with log.stage("quantize again") as running:
        model, correction = quantize_static(before.reference, before.calibration, settings), None
        if settings.bias_correction and not comes_quantized(model.graph):
            model, correction = correct_bias(before.reference, model, before.calibration)
        running.stage.note = f"in float: {', '.join(settings.float_layers)}"
    encoded = Encoded(model, dataclasses.replace(before, model=model, bias_correction=correction))
    calibration = before.calibration.dataset
    return _clustered(encoded, before.reference, training, calibration, recipe, profile, log)


def quantization_note(found: Quantized, settings: Quantize) -> str:
    """How ranges were chosen, and what equalisation and bias correction did."""
    calibrated = f"{settings.calibration} ranges from {found.calibration.samples} samples"
    given = "scales that the model came with; for other values "
    notes = [f"{given if comes_quantized(found.model.graph) else ''}{calibrated}"]
    steps = {"equalisation": found.equalization, "bias correction": found.bias_correction}
    return "; ".join(notes + [f"{what}: {step}" for what, step in steps.items() if step is not None])


def emit(model: ir.Model, recipe: Recipe, profile: Profile, log: StageLog) -> tuple[Emitted, ...]:
    """One artifact for each of the recipe's formats.

    Raises UnsupportedModelError with the faults of all formats that can't be written.
    """
    artifacts, faults = [], {}
    formats = recipe.emit.formats or []
    for name in formats:
        with log.stage(f"emit {name}") as running:
            try:
                artifacts.append(EMITTERS[name](model, recipe, profile))
            except UnsupportedModelError as fault:
                faults[name] = str(fault)
                continue
            running.stage.bytes = len(artifacts[-1].data)
    if faults:
        possible = "".join(f"; --format {a.format} can be written" for a in artifacts)
        raise UnsupportedModelError("; ".join(f"{k}: {v}" for k, v in faults.items()) + possible)
    return tuple(artifacts)


def check(artifacts: Sequence[Emitted], reference: Reference, log: StageLog) -> tuple[tuple[Check, ...], ...]:
    """Run every artifact in every interpreter of its format.

    Raises UnsupportedModelError when none of them runs an artifact.
    """
    result = []
    for artifact in artifacts:
        with log.stage(f"check {artifact.format}") as running:
            checks = verify(artifact.data, artifact.format, reference, artifact.io, running.advance)
            if all(c.error for c in checks):
                raise UnsupportedModelError(f"no interpreter runs the .{artifact.format}: {checks[0].error}")
            if reference.dataset.labels is not None:
                full = [c for c in checks if c.samples == len(reference.dataset)]
                running.stage.accuracy = min((c.value for c in full if c.value is not None), default=None)
            result.append(tuple(checks))
    return tuple(result)


def measure_float(model: ir.Model, data: Data, recipe: Recipe, log: StageLog) -> Reference:
    """The float model on the data that artifacts are checked on, and its accuracy when that has labels."""
    with log.stage("float reference", total=len(data.check)) as running:
        result = reference(model, data.check, recipe.evaluate.metric, running.advance)
        running.stage.accuracy = result.score if data.check.labels is not None else None
    return result


def diagnose_layers(encoded: Encoded, log: StageLog) -> tuple[LayerDiagnosis, ...]:
    """Signal-to-noise ratio of each int8 layer on calibration data, worst first."""
    found = encoded.quantized
    if found is None:
        return ()
    with log.stage("diagnose"):
        return tuple(diagnose(found.reference, found.model, found.calibration.dataset))


def _emit_onnx(model: ir.Model, recipe: Recipe, profile: Profile) -> Emitted:
    return Emitted("onnx", onnx_emitter.emit(model))


def _emit_tflite(model: ir.Model, recipe: Recipe, profile: Profile) -> Emitted:
    dtype = ir.DataType.INT8 if recipe.emit.io == "int8" else ir.DataType.FLOAT
    operators = OPERATOR_SETS[profile.operators]
    description = f"edgecompress {__version__}"
    made = tflite_emitter.emit(model, io_dtype=dtype, operators=operators, description=description)
    return Emitted("tflite", made.data, made)


def _emit_pack(model: ir.Model, recipe: Recipe, profile: Profile) -> Emitted:
    from edgecompress.emit import pack as pack_emitter  # brings Numba, which the other formats don't wait for

    dtype = ir.DataType.INT8 if recipe.emit.io == "int8" else ir.DataType.FLOAT
    made = pack_emitter.emit(model, io_dtype=dtype, name=model.graph.name or "model", coder=recipe.emit.coder)
    return Emitted("pack", made.data, made)


EMITTERS: dict[str, Callable[[ir.Model, Recipe, Profile], Emitted]] = {
    "onnx": _emit_onnx,
    "tflite": _emit_tflite,
    "pack": _emit_pack,
}


def random_data(inputs: Sequence[ir.Value], seed: int) -> Dataset:
    """Over the range that an input came with; else standard normal for floats, and 0 and 1 for integers and masks,
    which are in range for any index."""
    generator = np.random.default_rng(seed)
    arrays = {}
    for value in inputs:
        assert value.shape is not None and value.dtype is not None
        shape, dtype = (RANDOM_SAMPLES, *value.shape.numpy()), value.dtype.numpy()
        if (known := given_quantization(value)) is not None:
            low, high = known.dequantize(np.array([-128, 127], np.int8))
            drawn: np.ndarray = generator.uniform(low, high, shape)
        else:
            drawn = generator.standard_normal(shape) if dtype.kind == "f" else generator.integers(0, 2, shape)
        arrays[str(value.name)] = drawn.astype(dtype)
    return dataclasses.replace(load_data(arrays, inputs, Preprocess()), source=RANDOM)
