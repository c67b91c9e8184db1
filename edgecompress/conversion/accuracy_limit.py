"""Quantise, emit and check; when too much accuracy is lost, keep the worst layers in float until it holds."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from edgecompress.compress.quantize import LayerDiagnosis
from edgecompress.conversion import steps as pipeline
from edgecompress.conversion.steps import Attempt, Data, Encoded
from edgecompress.conversion.training_run import Training
from edgecompress.emit import onnx as onnx_emitter
from edgecompress.evaluate.interpreters import OnnxRuntime
from edgecompress.evaluate.metrics import load_metric
from edgecompress.evaluate.verify import Reference, run_dataset
from edgecompress.recipe import Recipe
from edgecompress.record.stages import StageLog
from edgecompress_targets import Profile

ROUNDING = 1e-9  # points: a limit that is met exactly is met


@dataclass(frozen=True)
class Outcome:
    """recipe: with the layers that stayed in float. diagnoses: of the fully quantised model, worst first."""

    attempt: Attempt
    recipe: Recipe
    diagnoses: tuple[LayerDiagnosis, ...]
    within_limit: bool


def convert_within_limit(
    model: ir.Model,
    training: Training,
    data: Data,
    reference: Reference,
    recipe: Recipe,
    profile: Profile,
    log: StageLog,
) -> Outcome:
    """Artifacts that lose at most recipe.evaluate.max_drop points, if layers in float can achieve it.

    Layers are added to the float ones in the order of the noise they add themselves, worst first. Each step is
    measured in ONNX Runtime alone; what passes there is checked everywhere. An integer-only target gets the
    fully quantised model whatever it loses.
    """
    encoded = pipeline.encode(model, training, data, recipe, profile, log)
    attempt = _attempt(encoded, recipe, profile, reference, log)
    diagnoses = pipeline.diagnose_layers(encoded, log)
    if _within(attempt, reference, recipe) or profile.integer_only or encoded.quantized is None:
        return Outcome(attempt, recipe, diagnoses, _within(attempt, reference, recipe))
    by_own_noise = sorted(diagnoses, key=lambda d: d.own_snr_db)
    for diagnosis in by_own_noise:
        recipe = _with_float_layer(recipe, diagnosis.output)
        encoded = pipeline.encode_again(encoded.quantized, training, recipe, profile, log)
        if diagnosis is by_own_noise[-1] or _passes_in_onnx_runtime(encoded.model, reference, recipe):
            attempt = _attempt(encoded, recipe, profile, reference, log)
            if _within(attempt, reference, recipe):
                break
    return Outcome(attempt, recipe, diagnoses, _within(attempt, reference, recipe))


def _attempt(encoded: Encoded, recipe: Recipe, profile: Profile, reference: Reference, log: StageLog) -> Attempt:
    artifacts = pipeline.emit(encoded.model, recipe, profile, log)
    return Attempt(encoded, artifacts, pipeline.check(artifacts, reference, log))


def _within(attempt: Attempt, reference: Reference, recipe: Recipe) -> bool:
    limit, drop = recipe.evaluate.max_drop, attempt.worst_drop(len(reference.dataset))
    return limit is None or (drop is not None and drop <= limit + ROUNDING)


def _passes_in_onnx_runtime(quantized: ir.Model, reference: Reference, recipe: Recipe) -> bool:
    outputs = run_dataset(OnnxRuntime(onnx_emitter.emit(quantized)), reference.dataset)
    assert reference.score is not None and reference.dataset.labels is not None  # open_data sees to it
    score = load_metric(recipe.evaluate.metric)(outputs, reference.dataset.labels)
    return reference.score - score <= (recipe.evaluate.max_drop or 0.0) + ROUNDING


def _with_float_layer(recipe: Recipe, name: str) -> Recipe:
    result = recipe.model_copy(deep=True)
    result.quantize.float_layers = [*result.quantize.float_layers, name]
    return result
