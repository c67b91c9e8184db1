"""Weights in 8 and 4 bits beside float activations: as the recipe says, or as a limit on the size of a file asks."""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir

from edgecompress.compress.quantize import quantize_dynamic
from edgecompress.compress.quantize.gptq import samples_for
from edgecompress.compress.quantize.gptq_blocks import round_in_blocks
from edgecompress.compress.quantize.mixed_bits import Choice, choose, options_of
from edgecompress.compress.quantize.tuning import Judge, judge_on
from edgecompress.conversion.artifacts import EMITTERS
from edgecompress.conversion.conversion import Conversion
from edgecompress.graph.annotations import quantization

TRIES = 3  # of a choice for a size
FORMAT = "onnx"  # has int4 in blocks


def store_weights(conversion: Conversion, model: ir.Model) -> tuple[ir.Model, str]:
    """The float model annotated with int8 and int4 weights, and what was done, in words.

    With calibration data GPTQ rounds int4 matrices, where that helps and there may be a search, and a limit on the size
    of the .onnx file decides which weights are int4.
    """
    settings, calibration = conversion.recipe.quantize, conversion.data.calibration
    if calibration is None or not conversion.data.calibrates_typically:
        return quantize_dynamic(model, settings), ""
    judge = judge_on(calibration, model)
    plain, notes = quantize_dynamic(model, settings), []
    if _is_too_large(conversion, plain):
        plain = _within_size(conversion, model, judge)
    if not (kinds := _kinds(plain)):
        return plain, ""
    notes.append(", ".join(f"{count} {kind}" for kind, count in kinds.items()))
    if not settings.search_seconds or not (samples := samples_for(model)):
        return plain, notes[0]
    rounded = round_in_blocks(model, plain, calibration.head(samples), settings.int4_zero_points)
    before, after = judge.of(plain).mean, judge.of(rounded).mean
    kept = "kept" if after > before else "not kept"
    notes.append(f"GPTQ: {before:.1f} to {after:.1f} dB on calibration data, {kept}")
    return rounded if after > before else plain, "; ".join(notes)


def _is_too_large(conversion: Conversion, annotated: ir.Model) -> bool:
    recipe = conversion.recipe
    if recipe.emit.max_size is None or FORMAT not in (recipe.emit.formats or []) or recipe.cluster.is_asked_for:
        return False
    return _bytes(conversion, annotated) > recipe.emit.max_size


def _bytes(conversion: Conversion, annotated: ir.Model) -> int:
    return len(EMITTERS[FORMAT](annotated, conversion.recipe, conversion.profile).data)


def _within_size(conversion: Conversion, model: ir.Model, judge: Judge) -> ir.Model:
    """The largest choice whose file is within the limit, or the smallest choice."""
    settings, limit = conversion.recipe.quantize, conversion.recipe.emit.max_size
    assert limit is not None
    options = options_of(model, judge, settings)
    chosen: Choice = {name: its[0].blocks for name, its in options.items()}
    annotated = quantize_dynamic(model, settings, chosen)
    least = sum(its[0].bytes for its in options.values())
    room = limit - (_bytes(conversion, annotated) - least)  # the rest of the file is all but the same for all choices
    for _ in range(TRIES):
        if room <= least:
            break
        candidate = quantize_dynamic(model, settings, choose(options, room))
        if (over := _bytes(conversion, candidate) - limit) <= 0:
            return candidate
        room -= over + limit / 1000
    return annotated


def _kinds(annotated: ir.Model) -> Counter[str]:
    """How many weights are int4, and in which blocks; empty where none is."""
    every = [q for v in annotated.graph.initializers.values() if (q := quantization(v)) is not None]
    sizes = [q.block if q.scale.shape[1] > 1 else None for q in every if q.block is not None]
    blocks = Counter[str](f"int4 in blocks of {size}" if size else "int4 by channel" for size in sizes)
    eight = sum(q.block is None for q in every)
    return blocks + Counter({"int8": eight}) if blocks else blocks
