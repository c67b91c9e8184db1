"""The report of a conversion, made of what its steps returned."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import zip_longest
from typing import Literal

import onnx_ir as ir

from edgecompress import __version__
from edgecompress.conversion.data import describe_calibration
from edgecompress.conversion.memory_fit import ACTIVATION_BYTES
from edgecompress.conversion.sequence import Converted
from edgecompress.emit.clusters import plain_clusters
from edgecompress.evaluate.gate import drop_limit
from edgecompress.evaluate.measures import Metrics
from edgecompress.graph.annotations import activation_bits, is_integer
from edgecompress.graph.fusion import layers
from edgecompress.recipe.effective import Encoding
from edgecompress.record.report import Achieved, Report, Requested
from edgecompress.record.units import size
from edgecompress.report import summaries
from edgecompress.report.arena import memory_plan
from edgecompress.report.float_parts import float_notes
from edgecompress.report.layers import report_layers
from edgecompress.report.pruned import counted_goals
from edgecompress.report.verdict_line import verdict_line


def report_of(converted: Converted) -> Report:
    """Everything that was asked for, achieved and measured."""
    conversion, outcome = converted.conversion, converted.compressed.outcome
    ingested, attempt = converted.imported.ingested, outcome.attempt
    return Report(
        edgecompress_version=__version__,
        command=converted.request.command,
        created=datetime.now(UTC),
        status=_status(converted),
        verdict=verdict_line(converted),
        model=converted.imported.summary,
        target=summaries.target_summary(conversion.profile),
        requested=_requested(converted),
        achieved=_achieved(converted),
        stages=conversion.log.stages,
        goals=counted_goals(converted.compressed.goals, attempt.model),
        cures=[summaries.cure(tried) for tried in outcome.tried],
        exits=summaries.early_exits(attempt.model, [o for step in converted.compressed.steps for o in step.operations]),
        training=list(converted.compressed.histories),
        layers=report_layers(attempt.model, {d.output: d for d in outcome.diagnoses}, ingested.model, converted.counts),
        memory=memory_plan(attempt.model),
        artifacts=[
            summaries.artifact(emitted, _counted(converted, emitted.format), attempt.model, checks, fitted)
            for emitted, checks, fitted in zip_longest(attempt.artifacts, attempt.checks, converted.fitted)
        ],
        refused=attempt.refused,
        recipe=outcome.recipe.to_toml(),
        notes=_notes(converted),
    )


Status = Literal["ok", "accuracy-limit-exceeded", "quality-below-limit", "size-limit-exceeded", "format-refused"]


def _status(converted: Converted) -> Status:
    verdict = converted.compressed.outcome.verdict
    if verdict.shortfalls:
        return "accuracy-limit-exceeded" if verdict.loses_accuracy else "quality-below-limit"
    if not converted.compressed.within_size:
        return "size-limit-exceeded"
    return "format-refused" if converted.compressed.outcome.attempt.refused else "ok"


def _requested(converted: Converted) -> Requested:
    conversion, recipe = converted.conversion, converted.compressed.recipe
    data, trainer = conversion.data, conversion.trainer
    evaluates = converted.request.data.evaluation is not None
    return Requested(
        formats=list(converted.names),
        weights=recipe.quantize.weights,
        activations=recipe.quantize.activations,
        calibration=None if converted.on_random_data else summaries.data_summary(data.calibration),
        evaluation=summaries.data_summary(data.check) if evaluates else None,
        held_out=summaries.data_summary(data.check) if data.held_out else None,
        training=None if trainer is None else summaries.data_summary(trainer.source),
        metric=conversion.reference.metric if data.labelled else _named(recipe.evaluate.metric),
        max_drop=recipe.evaluate.max_drop,
        min_snr=recipe.evaluate.min_snr,
        min_equal=recipe.evaluate.min_equal,
    )


def _encoding(converted: Converted) -> Encoding:
    """What all files are at least: where they differ, the one that is most float."""
    order: tuple[Encoding, ...] = ("int8", "dynamic", "float16", "float32")
    return max((count.encoding for count in converted.counts.values()), key=order.index)


def _counted(converted: Converted, format: str) -> summaries.Counted:
    count = converted.counts[format]
    return summaries.Counted(converted.names[format], count.encoding, count)


def _named(metric: Metrics) -> str:
    """What the recipe calls it."""
    return metric if isinstance(metric, str) else ", ".join(f"{output}: {name}" for output, name in metric.items())


def _achieved(converted: Converted) -> Achieved:
    conversion, outcome = converted.conversion, converted.compressed.outcome
    labelled, score = conversion.data.labelled, conversion.reference.score
    # Without labels, values say how often artifacts agree with the float model, which is no accuracy.
    drop = outcome.attempt.worst_drop(len(conversion.data.check)) if labelled else None
    return Achieved(
        encoding=_encoding(converted),
        float_layers=outcome.recipe.quantize.float_layers,
        float_value=score if labelled else None,
        worst_value=None if drop is None else outcome.attempt.worst_value(len(conversion.data.check)),
        drop=drop,
    )


def _notes(converted: Converted) -> list[str]:
    compressed, ingested = converted.compressed, converted.imported.ingested
    asked, attempt, reference = compressed.recipe, compressed.outcome.attempt, converted.conversion.reference
    notes = [
        *ingested.notes,
        *converted.conversion.data.notes,
        *compressed.notes,
        *compressed.outcome.notes,
        *(note for step in compressed.steps for note in step.notes),
        *_calibration_notes(converted),
    ]
    if converted.encoding == "int8" and not any(is_integer(node) for node in attempt.model.graph):
        notes.append("no layer computes on int8, because none has an int8 kernel or all values are too large for int8")
    notes += _int16_note(attempt.model)
    cured = {name for tried in compressed.outcome.tried if tried.kept for name in tried.names}
    float_layers = compressed.outcome.recipe.quantize.float_layers[len(asked.quantize.float_layers) :]
    if added := [name for name in float_layers if name not in cured]:
        notes.append(
            f"these layers stay in float, to lose at most {drop_limit(reference, asked.evaluate):g} points: "
            f"{', '.join(added)}"
        )
    if converted.encoding == "int8":
        notes += float_notes(attempt.model, converted.counts, compressed.outcome.recipe.quantize.float_layers)
    notes += [*compressed.outcome.verdict.notes, *(d.text for d in compressed.outcome.verdict.doubts[:1])]
    if asked.cluster.is_asked_for:
        notes += plain_clusters(attempt.model, asked.emit.formats or [])
    notes += dict.fromkeys(note for a in attempt.artifacts for note in a.notes)
    parts = [summaries.output_parts(a.io) for a in attempt.artifacts if a.io is not None]
    notes += dict.fromkeys(note for listed in parts for note in listed)
    for emitted, checks in zip(attempt.artifacts, attempt.checks, strict=True):
        notes += [f"{c.interpreter} {c.version}, {emitted.format}: {c.error}" for c in checks if c.error]
    return notes


def _int16_note(model: ir.Model) -> list[str]:
    """How many of the integer layers have int16 activations, if some have."""
    found = [activation_bits(x.node) for x in layers(model.graph) if x.node.op_type != "Identity"]
    wide, integer = found.count(16), found.count(16) + found.count(8)
    return [f"{wide} of {integer} integer layers have int16 activations"] if wide else []


def _calibration_notes(converted: Converted) -> list[str]:
    """What calibration data was used for, or what it could be used for."""
    data, asked, kind = converted.conversion.data, converted.compressed.recipe, converted.encoding
    if data.calibration is not None and kind != "int8":
        checked = data.check.source == data.calibration.source
        use = "was only used to check the artifacts" if checked else "was not used"
        if asked.cluster.is_asked_for:
            use = "was only used to choose the clusters"
        quantize = asked.quantize
        return [
            f"calibration data {use}: the recipe asks for {quantize.weights} weights and {quantize.activations} "
            "activations; remove weights and activations from its [quantize] to make both int8"
        ]
    if kind == "dynamic":
        peak, model = converted.imported.facts.peak_activation_elements, converted.imported.ingested.model
        return [
            "weights are int8, activations float; calibration data would make activations int8 as well, with "
            f"integer kernels and {size(peak * ACTIVATION_BYTES['int8'])} of activation memory in place of "
            f"{size(peak * ACTIVATION_BYTES[kind])}: {describe_calibration(model)}"
        ]
    return []
