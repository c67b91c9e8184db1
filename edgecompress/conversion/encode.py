"""From a float model to one whose annotations say how it is stored: quantized, trained as integers, clustered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import onnx_ir as ir

from edgecompress.compress.quantize import LayerDiagnosis, Quantized, diagnose, quantize, quantize_again, to_float16
from edgecompress.compress.quantize.search import Found, improve, improve_further
from edgecompress.conversion.artifacts import emit_pack
from edgecompress.conversion.conversion import Conversion
from edgecompress.conversion.size_budget import cluster_within
from edgecompress.conversion.stored_weights import store_weights
from edgecompress.evaluate.dataset import Dataset
from edgecompress.graph.annotations import comes_quantized, quantization
from edgecompress.graph.few_bits import BITS
from edgecompress.ingest.several_shapes import in_every_shape
from edgecompress.operators.rewriting import integer_parts
from edgecompress.recipe import Quantize
from edgecompress.recipe.effective import encoding
from edgecompress.record.report import Goal, History

FLOAT_ENCODERS: dict[str, Callable[[ir.Model], ir.Model]] = {"float16": to_float16, "float32": lambda model: model}
AWARE = "quantization-aware training"


@dataclass(frozen=True)
class Encoded:
    """An annotated model. quantized: how it came about when its activations are int8. goals: what was asked of its
    clusters. histories: of training it as integers and codebooks. found: by the search for a better model, before it
    was clustered; None where there was none."""

    model: ir.Model
    quantized: Quantized | None = None
    goals: tuple[Goal, ...] = ()
    histories: tuple[History, ...] = ()
    found: Found | None = None


def encode(conversion: Conversion, model: ir.Model) -> Encoded:
    """The float model annotated as the recipe says, and trained as what it was annotated to be."""
    recipe, kind, integer_only = conversion.recipe, encoding(conversion.recipe), conversion.profile.integer_only
    calibration = conversion.data.calibration
    with conversion.log.stage("quantize") as running:
        if kind == "dynamic":
            annotated, running.stage.note = store_weights(conversion, model)
            encoded = Encoded(annotated)
            return _clustered(conversion, encoded, model, calibration)
        if kind != "int8":
            return _clustered(conversion, Encoded(FLOAT_ENCODERS[kind](model)), model, calibration)
        assert calibration is not None  # open_data sees to it
        model = in_every_shape(model.clone(), partial(integer_parts, integer_only=integer_only))
        typical = conversion.data.calibrates_typically
        quantized = quantize(model, calibration, recipe.quantize, integer_only=integer_only, typical=typical)
        running.stage.note = quantization_note(quantized, recipe.quantize)
    if _is_searched(conversion, quantized):
        with conversion.log.stage("search") as running:
            found = improve(quantized, recipe.quantize, recipe.evaluate.min_snr, integer_only=integer_only)
            running.stage.note = search_note(found)
        return _of_search(conversion, found)
    encoded = Encoded(quantized.model, quantized)
    if recipe.quantize.epochs is not None:
        assert conversion.trainer is not None  # require_possible sees to it
        with conversion.log.stage(AWARE):
            aware = conversion.trainer.train_quantized(quantized.model, recipe.quantize, AWARE)
        # The trained weights are what clustering is to match.
        quantized = replace(quantized, model=aware.model, reference=aware.model)
        encoded = Encoded(aware.model, quantized, histories=(aware.history,))
    return _clustered(conversion, encoded, quantized.reference, quantized.calibration.dataset)


def search_again(conversion: Conversion, found: Found, deficit: float) -> Encoded:
    """What a search ended with, improved by as much as it is worse than it should be on samples that did not calibrate,
    measured on these.

    deficit: in dB.
    """
    with conversion.log.stage("search again") as running:
        held_out = conversion.data.check
        again = improve_further(found, held_out, deficit, integer_only=conversion.profile.integer_only)
        new = replace(again, tried=again.tried[len(found.tried) :])
        running.stage.note = f"{deficit:.1f} dB missing on samples that were held out: {search_note(new)}"
    return _of_search(conversion, again)


def _of_search(conversion: Conversion, found: Found) -> Encoded:
    quantized = found.quantized
    recipe = conversion.recipe.model_copy(update={"quantize": found.settings})
    encoded = Encoded(quantized.model, quantized)
    clustered = _clustered(conversion.with_recipe(recipe), encoded, quantized.reference, quantized.calibration.dataset)
    return replace(clustered, found=found)


def _is_searched(conversion: Conversion, quantized: Quantized) -> bool:
    """Whether to search for outputs nearer to the float model's.

    A model that was trained with the scales that it came with need not be near to it. Where there are labels, these
    decide. Random inputs can't tell what is better on typical ones.
    """
    recipe = conversion.recipe
    if recipe.quantize.epochs is not None or not recipe.quantize.search_seconds or not recipe.evaluate.min_snr:
        return False
    if not conversion.data.calibrates_typically:
        return False
    return not (comes_quantized(quantized.model.graph) and conversion.data.labelled)


def encode_again(conversion: Conversion, before: Quantized) -> Encoded:
    """The same float model and calibration with other layers in float."""
    settings = conversion.recipe.quantize
    with conversion.log.stage("quantize again") as running:
        again = quantize_again(before, settings)
        running.stage.note = f"in float: {', '.join(settings.float_layers)}"
    encoded = Encoded(again.model, again)
    return _clustered(conversion, encoded, before.reference, before.calibration.dataset)


def _clustered(conversion: Conversion, encoded: Encoded, reference: ir.Model, calibration: Dataset | None) -> Encoded:
    """The encoded model with clustered weights, if the recipe asks for them.

    reference: the float model that it was annotated from.
    """
    recipe = conversion.recipe
    settings, limit = recipe.cluster, recipe.emit.max_size if "pack" in (recipe.emit.formats or []) else None
    if not settings.is_asked_for:
        return encoded
    from edgecompress.compress.cluster import after_training, cluster, goal  # imports Numba

    histories = encoded.histories
    with conversion.log.stage("cluster") as running:
        run = partial(cluster, encoded.model, reference, calibration, seed=recipe.seed)
        if limit is None:
            clustered = run(settings)
        else:
            clustered = cluster_within(
                limit,
                lambda size: run(settings.model_copy(update={"size": size}), nearest=True),
                lambda candidate: len(emit_pack(candidate, recipe, conversion.profile).data),
            )
        running.stage.note = str(clustered)
    if settings.epochs is not None:
        assert conversion.trainer is not None  # require_possible sees to it
        with conversion.log.stage("train codebooks") as running:
            trained = conversion.trainer.train_quantized(clustered.model, settings, "codebooks")
            clustered = after_training(clustered, trained.model, reference, calibration)
            running.stage.note = str(clustered)
        histories = (*histories, trained.history)
    quantized = encoded.quantized and replace(encoded.quantized, model=clustered.model)
    asked = settings if limit is None else settings.model_copy(update={"size": limit})
    return Encoded(clustered.model, quantized, (goal(clustered, asked),), histories)


def search_note(found: Found) -> str:
    """What the search tried, and what it kept."""
    steps = [f"{t.what}: {t.before:.1f} to {t.after:.1f} dB, {'kept' if t.kept else 'not kept'}" for t in found.tried]
    late = [f"cut short after {found.seconds:.0f} s ([quantize] search_seconds)"] if found.out_of_time else []
    return "; ".join(steps + late) or "not needed"


def quantization_note(quantized: Quantized, settings: Quantize) -> str:
    """How ranges were chosen, and what equalization and bias correction did."""
    chosen = quantized.calibration.method if settings.calibration == "auto" else settings.calibration
    calibrated = f"{chosen} ranges from {quantized.calibration.samples} samples"
    given = "scales that the model came with; "
    others = "its other layers stay in float" if quantized.as_it_came else f"for other values {calibrated}"
    replaced = f"{calibrated}, in place of the few scales that the model came with"
    own = replaced if quantized.replaces_given else calibrated
    notes = [given + others if comes_quantized(quantized.model.graph) else own]
    steps = {"equalization": quantized.equalization, "bias correction": quantized.bias_correction}
    if settings.few_bits:
        notes.append(_types_note(quantized.model))
    return "; ".join(notes + [f"{what}: {step}" for what, step in steps.items() if step is not None])


def _types_note(model: ir.Model) -> str:
    """How many weights have which type."""
    found = [q for v in model.graph.initializers.values() if (q := quantization(v)) is not None and q.narrow_range]
    counts = Counter[str](q.kind for q in found)
    return "weights: " + ", ".join(f"{counts[kind]} {kind}" for kind in BITS if counts[kind])


def diagnose_layers(conversion: Conversion, encoded: Encoded) -> tuple[LayerDiagnosis, ...]:
    """Signal-to-noise ratio of each int8 layer on calibration data, worst first."""
    quantized = encoded.quantized
    if quantized is None:
        return ()
    with conversion.log.stage("diagnose"):
        return tuple(diagnose(quantized.reference, quantized.model, quantized.calibration.dataset))
