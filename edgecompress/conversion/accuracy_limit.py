"""Quantize, emit and check; when too much accuracy is lost, keep the worst layers in float until the limit holds."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial

import onnx_ir as ir

from edgecompress.compress.quantize import LayerDiagnosis
from edgecompress.compress.quantize.search import Tried
from edgecompress.compress.quantize.weight_types import any_has_few_bits
from edgecompress.conversion.artifacts import Emitted, emit
from edgecompress.conversion.check import check
from edgecompress.conversion.conversion import Conversion
from edgecompress.conversion.encode import Encoded, diagnose_layers, encode, encode_again, search_again
from edgecompress.conversion.float_fault import require_faithful
from edgecompress.emit import onnx as onnx_emitter
from edgecompress.errors import UnsupportedModelError
from edgecompress.evaluate.gate import Verdict, joined, judge
from edgecompress.evaluate.interpreters import OnnxRuntime
from edgecompress.evaluate.verify import Check, compare, refusal, run_dataset, with_exits, worst_value
from edgecompress.ingest.several_shapes import in_own_shape
from edgecompress.recipe import Recipe
from edgecompress.record.report import History

SEARCHES_AGAIN = 3


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
    notes: what a reader should know of it.
    """

    attempt: Attempt
    recipe: Recipe
    diagnoses: tuple[LayerDiagnosis, ...]
    verdict: Verdict
    histories: tuple[History, ...] = ()
    tried: tuple[Tried, ...] = ()
    notes: tuple[str, ...] = ()


def convert_within_accuracy(conversion: Conversion, model: ir.Model) -> Outcome:
    """Artifacts of a float model that lose no more accuracy than the recipe allows, if layers in float can achieve it.

    Layers are added to the float ones in the order of the noise that they add themselves, worst first. Each step is
    measured in ONNX Runtime alone; what passes there is checked everywhere. An integer-only target gets the
    fully quantized model whatever it loses, and so does a model that loses as much in float, or that has weights of few
    bits, as the recipe says.
    """
    conversion = replace(conversion, reference=with_exits(conversion.reference, model))
    judged = _search_again(_judged(conversion, encode(conversion, model)))
    conversion, attempt, verdict, encoded = judged.conversion, judged.attempt, judged.verdict, judged.attempt.encoded
    diagnoses, histories = diagnose_layers(conversion, encoded), encoded.histories
    end = partial(Outcome, tried=encoded.found.tried if encoded.found else (), notes=_notes(judged))
    if not verdict.loses_accuracy or conversion.profile.integer_only or encoded.quantized is None:
        return end(attempt, conversion.recipe, diagnoses, verdict, histories)
    if any_has_few_bits(attempt.model) or _loses_in_float(conversion, encoded.quantized.reference):
        return end(attempt, conversion.recipe, diagnoses, verdict, histories)
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
    return end(attempt, conversion.recipe, diagnoses, verdict, histories)


@dataclass(frozen=True)
class _Judged:
    """An attempt with its verdict. conversion: with the settings that the search left. missing: dB that the attempts
    before it missed, each time, on samples that were held out."""

    conversion: Conversion
    attempt: Attempt
    verdict: Verdict
    missing: tuple[float, ...] = ()


def _judged(conversion: Conversion, encoded: Encoded, missing: tuple[float, ...] = ()) -> _Judged:
    if encoded.found is not None:
        recipe = conversion.recipe.model_copy(update={"quantize": encoded.found.settings})
        conversion = conversion.with_recipe(recipe)
    attempt = _attempt(conversion, encoded)
    return _Judged(conversion, attempt, judge_all(conversion, attempt), missing)


def _search_again(judged: _Judged) -> _Judged:
    """Searches on while the artifacts are too bad on samples that were held out from those that calibrate, or are good
    enough there by chance, and that helps.

    Data that was given to evaluate on takes no part in choosing.
    """
    for _ in range(SEARCHES_AGAIN):
        found, deficit = judged.attempt.encoded.found, judged.verdict.deficit
        if found is None or not judged.conversion.data.held_out or not 0 < deficit < math.inf or found.out_of_time:
            break
        encoded = search_again(judged.conversion, found, deficit)
        if encoded.found is None or not any(t.kept for t in encoded.found.tried[len(found.tried) :]):
            break
        again = _judged(judged.conversion, encoded, (*judged.missing, deficit))
        if again.verdict.deficit >= deficit or again.attempt.refused.keys() - judged.attempt.refused.keys():
            break
        judged = again
    return judged


def _notes(judged: _Judged) -> tuple[str, ...]:
    found, notes = judged.attempt.encoded.found, []
    if judged.missing:
        times = " and ".join(f"{missing:.1f} dB" for missing in judged.missing)
        notes.append(
            f"the {len(judged.conversion.data.check)} samples that were held out took part in choosing: {times} were "
            "missing on them, or may be on others like them, and the search went on there; --eval data takes no part"
        )
    if found is not None and found.out_of_time:
        notes.append(
            f"the search for better outputs was cut short after {found.settings.search_seconds:g} s ([quantize] "
            "search_seconds): a faster machine, or more time, may find a better model"
        )
    return tuple(notes)


def judge_all(conversion: Conversion, attempt: Attempt) -> Verdict:
    """The verdict on all artifacts in all interpreters."""
    settings = conversion.recipe.evaluate
    pairs = [(a.format, c) for a, checks in zip(attempt.artifacts, attempt.checks, strict=True) for c in checks]
    return joined(judge(c, conversion.reference_in(c.shape), settings, format) for format, c in pairs)


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
    interpreter = OnnxRuntime(onnx_emitter.emit(in_own_shape(quantized)))
    measured = compare(interpreter, reference.dataset, run_dataset(interpreter, reference.dataset), reference)
    return not judge(measured, reference, conversion.recipe.evaluate).loses_accuracy


def _loses_in_float(conversion: Conversion, model: ir.Model) -> bool:
    """Whether the model that was quantized, such as a pruned one, loses too much itself: floats can't help then."""
    reference, interpreter = conversion.reference, OnnxRuntime(onnx_emitter.emit(in_own_shape(model)))
    measured = compare(interpreter, reference.dataset, run_dataset(interpreter, reference.dataset), reference)
    return judge(measured, reference, conversion.recipe.evaluate).loses_accuracy


def _with_float_layer(recipe: Recipe, name: str) -> Recipe:
    result = recipe.model_copy(deep=True)
    result.quantize.float_layers = [*result.quantize.float_layers, name]
    return result
