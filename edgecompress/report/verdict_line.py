"""What is wrong with artifacts that are below a limit, and what can be done, in one line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgecompress.compress.quantize import LayerDiagnosis
from edgecompress.compress.quantize.diagnose import INHERITED_NOISE
from edgecompress.conversion.sequence import Converted
from edgecompress.evaluate.metrics import METRICS, gain
from edgecompress.recipe import EarlyExit
from edgecompress.support.present import present

WORST_LAYERS = 3
EXITS = "early exits"
FLOAT_STAGES = ("distill", "prune channels", "prune weights", EXITS, "gate channels")
MANY_SAMPLES = 100  # of calibration data, beyond which more of it rarely helps


def verdict_line(converted: Converted) -> str:
    """The worst of what is below a limit, the layers that lose most, and what can be done; empty if nothing is."""
    shortfalls = converted.compressed.outcome.verdict.shortfalls
    if not shortfalls:
        return ""
    worst, places = shortfalls[0], {s.where for s in shortfalls}
    others = f" and in {len(places) - 1} more" if len(places) > 1 else ""
    parts = [f"{worst.text} ({worst.where}{others})"]
    before = _lost_in_float(converted) if worst.metric else None
    if before is not None and before.points > -worst.value / 2:
        parts.append(f"{before.points:.2f} points were lost before quantization, by {before.name!r}")
        return "; ".join([*parts, f"what can help: {', or '.join(_less_of_it(converted, before.name))}"])
    if layers := _worst_layers(converted.compressed.outcome.diagnoses):
        parts.append(f"worst layers: {layers}")
    return "; ".join([*parts, f"what can help: {', or '.join(_remedies(converted, metric=worst.metric))}"])


@dataclass(frozen=True)
class _Loss:
    """The points of the metric that the float model had lost after all stages, and the stage that lost most of them."""

    name: str
    points: float


def _lost_in_float(converted: Converted) -> _Loss | None:
    """What the stages that train lost together; None where they did not run, or nothing measured them."""
    reference = converted.conversion.reference
    stages = [s for s in converted.conversion.log.stages if s.name in FLOAT_STAGES and s.accuracy is not None]
    if not stages or reference.score is None or reference.metric not in METRICS:
        return None
    gains = [gain(reference.metric, score) for score in (reference.score, *(present(s.accuracy) for s in stages))]
    worst = max(range(len(stages)), key=lambda i: gains[i] - gains[i + 1])
    return _Loss(stages[worst].name, gains[0] - gains[-1])


def _less_of_it(converted: Converted, stage: str) -> Iterator[str]:
    recipe = converted.conversion.recipe
    yield _fewer_exits(recipe.exit) if stage == EXITS else "ask for less of it"
    if converted.conversion.trainer is None:
        yield "give training data (--train)"
    else:
        yield f"train longer than {recipe.train.epochs} epochs, or on more data"
    if recipe.prune.is_asked_for and recipe.evaluate.max_drop is None:
        yield "let sparsity give way (--max-drop 1)"
    yield "accept it with a higher --max-drop"


def _fewer_exits(settings: EarlyExit) -> str:
    if settings.threshold is None:
        return f"take exits less often (a lower [exit] max_drop than {settings.max_drop:g})"
    return f"take exits less often (a higher [exit] threshold than {', '.join(f'{t:g}' for t in settings.threshold)})"


def _worst_layers(diagnoses: tuple[LayerDiagnosis, ...]) -> str:
    """Those that lose most by themselves."""
    own = [d for d in diagnoses if d.cause != INHERITED_NOISE] or list(diagnoses)
    rows = sorted(own, key=lambda d: d.own_snr_db)[:WORST_LAYERS]
    return ", ".join(f"{d.op_type} {d.name!r} {d.own_snr_db:.1f} dB" for d in rows)


def _remedies(converted: Converted, *, metric: bool) -> Iterator[str]:
    conversion, recipe = converted.conversion, converted.compressed.recipe
    calibration = conversion.data.calibration
    if converted.encoding == "int8":
        if converted.on_random_data:
            yield "give typical data with --calib"
        elif calibration is not None and len(calibration) < MANY_SAMPLES:
            yield f"more than {len(calibration)} calibration samples"
        if not conversion.profile.integer_only:
            yield "keep these layers in float ([quantize] float_layers)"
        if recipe.quantize.epochs is None:
            yield "train it as integers (--train with [quantize] epochs)"
    elif not converted.request.data.calibrates and converted.request.data.evaluation is None:
        yield "check it on typical data (--calib or --eval): these inputs were random"
    if metric and recipe.exit.is_asked_for:
        yield _fewer_exits(recipe.exit)
    if not conversion.data.labelled:
        yield "let accuracy decide (--eval with labels)"
    yield "accept it with a higher --max-drop" if metric else "accept it with a lower --min-snr or --min-equal"
