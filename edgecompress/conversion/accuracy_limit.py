"""Quantize, emit and check; when too much accuracy is lost, keep the worst layers in float until the limit holds."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from edgecompress.compress.quantize import LayerDiagnosis
from edgecompress.compress.quantize.search import Tried
from edgecompress.conversion.artifacts import Emitted, emit
from edgecompress.conversion.check import check
from edgecompress.conversion.conversion import Conversion
from edgecompress.conversion.encode import Encoded, diagnose_layers, encode, encode_again
from edgecompress.conversion.float_fault import require_faithful
from edgecompress.emit import onnx as onnx_emitter
from edgecompress.errors import UnsupportedModelError
from edgecompress.evaluate.gate import Verdict, joined, judge
from edgecompress.evaluate.interpreters import OnnxRuntime
from edgecompress.evaluate.verify import Check, compare, refusal, run_dataset, worst_value
from edgecompress.recipe import Recipe
from edgecompress.record.report import History


@dataclass(frozen=True)
class Attempt:
    """An encoded model, its artifacts, and their checks in the order of the formats. refused: format -> why there is
    none of it."""

    encoded: Encoded
    artifacts: tuple[Emitted, ...]
    checks: tuple[tuple[Check, ...], ...]
    refused: dict[str, str]

    @property
    def model(self) -> ir.Model:
        """The annotated model."""
        return self.encoded.model

    def worst_drop(self, samples: int) -> float | None:
        """Most points lost by any artifact in any interpreter that ran all samples; None when nothing was measured."""
        return max((c.drop for c in self._full(samples) if c.drop is not None), default=None)

    def worst_value(self, samples: int) -> float | None:
        """The metric where most points were lost."""
        return worst_value(self._full(samples))

    def _full(self, samples: int) -> list[Check]:
        """Checks of all samples."""
        return [c for checks in self.checks for c in checks if c.samples == samples]


@dataclass(frozen=True)
class Outcome:
    """The artifacts of one compressed model.

    recipe: with the layers that stayed in float. diagnoses: of the fully quantized model, worst first. verdict: on the
    quality of all artifacts. histories: of every training, in order. tried: what the search for better quality tried.
    """

    attempt: Attempt
    recipe: Recipe
    diagnoses: tuple[LayerDiagnosis, ...]
    verdict: Verdict
    histories: tuple[History, ...] = ()
    tried: tuple[Tried, ...] = ()


def convert_within_accuracy(conversion: Conversion, model: ir.Model) -> Outcome:
    """Artifacts of a float model that lose no more accuracy than the recipe allows, if layers in float can achieve it.

    Layers are added to the float ones in the order of the noise that they add themselves, worst first. Each step is
    measured in ONNX Runtime alone; what passes there is checked everywhere. An integer-only target gets the
    fully quantized model whatever it loses, and so does a model that loses as much in float.
    """
    encoded = encode(conversion, model)
    if encoded.settings is not None:
        conversion = conversion.with_recipe(conversion.recipe.model_copy(update={"quantize": encoded.settings}))
    attempt, histories, tried = _attempt(conversion, encoded), encoded.histories, encoded.tried
    diagnoses = diagnose_layers(conversion, encoded)
    verdict = judge_all(conversion, attempt)
    if not verdict.loses_accuracy or conversion.profile.integer_only or encoded.quantized is None:
        return Outcome(attempt, conversion.recipe, diagnoses, verdict, histories, tried)
    if _loses_in_float(conversion, encoded.quantized.reference):
        return Outcome(attempt, conversion.recipe, diagnoses, verdict, histories, tried)
    by_own_noise = sorted(diagnoses, key=lambda d: d.own_snr_db)
    for diagnosis in by_own_noise:
        assert encoded.quantized is not None
        conversion = conversion.with_recipe(_with_float_layer(conversion.recipe, diagnosis.output))
        encoded = encode_again(conversion, encoded.quantized)
        histories = (*histories, *encoded.histories)
        if diagnosis is by_own_noise[-1] or _passes_in_onnx_runtime(conversion, encoded.model):
            attempt = _attempt(conversion, encoded)
            verdict = judge_all(conversion, attempt)
            if not verdict.loses_accuracy:
                break
    return Outcome(attempt, conversion.recipe, diagnoses, verdict, histories, tried)


def judge_all(conversion: Conversion, attempt: Attempt) -> Verdict:
    """The verdict on all artifacts in all interpreters."""
    reference, settings = conversion.reference, conversion.recipe.evaluate
    pairs = [(a.format, c) for a, checks in zip(attempt.artifacts, attempt.checks, strict=True) for c in checks]
    return joined(judge(c, reference, settings, format) for format, c in pairs)


def _attempt(conversion: Conversion, encoded: Encoded) -> Attempt:
    """Raises UnsupportedModelError, with the reasons of all formats, when the model can be written in none of them."""
    written, refused = emit(conversion, encoded.model)
    rows = list(zip(written, check(conversion, written), strict=True))
    reasons = [refusal(artifact.format, checks) for artifact, checks in rows]
    runs = [row for row, reason in zip(rows, reasons) if reason is None]
    refused |= {a.format: reason for (a, _), reason in zip(rows, reasons) if reason is not None}
    if not runs:
        raise UnsupportedModelError("; ".join(f"{format}: {reason}" for format, reason in refused.items()))
    artifacts, found = tuple(a for a, _ in runs), tuple(c for _, c in runs)
    require_faithful(conversion, encoded.model, artifacts, found)
    return Attempt(encoded, artifacts, found, refused)


def _passes_in_onnx_runtime(conversion: Conversion, quantized: ir.Model) -> bool:
    reference = conversion.reference
    interpreter = OnnxRuntime(onnx_emitter.emit(quantized))
    measured = compare(interpreter, reference.dataset, run_dataset(interpreter, reference.dataset), reference)
    return not judge(measured, reference, conversion.recipe.evaluate).loses_accuracy


def _loses_in_float(conversion: Conversion, model: ir.Model) -> bool:
    """Whether the model that was quantized, such as a pruned one, loses too much itself: floats can't help then."""
    reference, interpreter = conversion.reference, OnnxRuntime(model)
    measured = compare(interpreter, reference.dataset, run_dataset(interpreter, reference.dataset), reference)
    return judge(measured, reference, conversion.recipe.evaluate).loses_accuracy


def _with_float_layer(recipe: Recipe, name: str) -> Recipe:
    result = recipe.model_copy(deep=True)
    result.quantize.float_layers = [*result.quantize.float_layers, name]
    return result
