"""Checks of data before it is used: each says what was seen and what to check, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgecompress.errors import InputError
from edgecompress.evaluate.data_facts import DataFacts, InputFacts
from edgecompress.graph.annotations import given_quantization

FEW = 20  # calibration samples, of which typical ranges can't be told
OUTLIER = 15  # times the typical sample's largest value
RARE = 0.02  # share of the samples that may be outliers
COPIES = 0.05  # share of the samples
APART = 1.0  # of the calibration data's range, by which other data may leave it
WIDER = 20  # times the range of other data


@dataclass(frozen=True, eq=False)
class Given:
    """Data as it was given. ranges: whether calibration data chooses the ranges of activations."""

    model: ir.Model
    calibration: DataFacts | None
    evaluation: DataFacts | None
    ranges: bool


Check = Callable[[Given], str | None]


def check_data(given: Given) -> tuple[str, ...]:
    """What is worth checking. Raises InputError for calibration data that no range can be learned from."""
    if given.ranges and (reason := constant_calibration(given)) is not None:
        raise InputError(reason)
    return tuple(message for check in CHECKS if (message := check(given)) is not None)


def constant_calibration(given: Given) -> str | None:
    """All float values are the same, in every sample."""
    data = given.calibration
    inputs = {} if data is None else {name: facts for name, facts in data.inputs.items() if facts.floats}
    if data is None or not inputs or not all(facts.constant for facts in inputs.values()):
        return None
    values = ", ".join(f"{facts.low:g} for input {name!r}" for name, facts in inputs.items())
    return f"{data.source}: every value is {values}; calibration needs typical samples, which differ"


def constant_input(given: Given) -> str | None:
    """One float input of several never changes."""
    for data in _all(given):
        floats = {name: facts for name, facts in data.inputs.items() if facts.floats}
        same = [f"{name!r} is {facts.low:g}" for name, facts in floats.items() if facts.constant]
        if same:
            return f"{data.source}: input {', '.join(same)} in every sample: check that this is typical"
    return None


def outlier(given: Given) -> str | None:
    """A few samples hold values far above those of all others."""
    if not given.ranges:
        return None
    for name, facts in _floats(given.calibration):
        typical = float(np.median(facts.peaks))
        high = facts.peaks > OUTLIER * typical
        if typical > 0 and 0 < high.sum() <= max(1, RARE * len(high)):
            assert given.calibration is not None
            place = int(facts.peaks.argmax())
            return (
                f"{given.calibration.source}: sample {place} for input {name!r} reaches {facts.peaks[place]:.3g}, and "
                f"the typical sample reaches {typical:.3g}: scales that fit it are too coarse for others; check it"
            )
    return None


def few_samples(given: Given) -> str | None:
    """Too few samples to calibrate with."""
    data = given.calibration
    if not given.ranges or data is None or data.samples >= FEW:
        return None
    return f"{data.source}: calibrated on {data.samples} samples; 100 or more typical ones find better ranges"


def copies(given: Given) -> str | None:
    """Samples that occur several times."""
    for data in _all(given):
        count = len(data.digests) - len(set(data.digests))
        if count > COPIES * len(data.digests) and any(facts.floats for facts in data.inputs.values()):
            return f"{data.source}: {count} of {len(data.digests)} samples are copies of others: check how it was made"
    return None


def shared_samples(given: Given) -> str | None:
    """Samples that both calibrate and measure."""
    a, b = given.calibration, given.evaluation
    if a is None or b is None or not given.ranges:
        return None
    known = set(a.digests)
    count = sum(digest in known for digest in b.digests)
    if count <= COPIES * len(b.digests):
        return None
    return (
        f"{count} of {len(b.digests)} evaluation samples also calibrate, so what is measured on them may look better "
        "than it is"
    )


def far_apart(given: Given) -> str | None:
    """Evaluation data that lies outside of what calibrated, or in a small part of it."""
    if given.evaluation is None or not given.ranges:
        return None
    for name, facts in _floats(given.calibration):
        other = given.evaluation.inputs[name]
        span, whole = facts.high - facts.low, max(facts.high, other.high) - min(facts.low, other.low)
        outside = max(facts.low - other.low, other.high - facts.high) > APART * span > 0
        if outside or (span > WIDER * (other.high - other.low) > 0 and whole > 0):
            return (
                f"input {name!r}: calibration data reaches from {facts.low:.4g} to {facts.high:.4g}, evaluation data "
                f"from {other.low:.4g} to {other.high:.4g}: check that both are preprocessed alike"
            )
    return None


def outside_given_range(given: Given) -> str | None:
    """Values that the range which the model brings along can't hold."""
    for data in _all(given):
        for value in given.model.graph.inputs:
            quantization, facts = given_quantization(value), data.inputs[str(value.name)]
            if quantization is None:
                continue
            low, high = map(float, quantization.dequantize(np.array([-128, 127], np.int8)))
            if max(low - facts.low, facts.high - high) > APART * (high - low):
                return (
                    f"{data.source}: input {value.name!r} reaches from {facts.low:.4g} to {facts.high:.4g}, but the "
                    f"model was quantized for {low:.4g} to {high:.4g}: check the preprocessing"
                )
    return None


CHECKS: tuple[Check, ...] = (
    constant_input,
    outlier,
    few_samples,
    copies,
    shared_samples,
    far_apart,
    outside_given_range,
)


def _all(given: Given) -> Iterator[DataFacts]:
    return (data for data in (given.calibration, given.evaluation) if data is not None)


def _floats(data: DataFacts | None) -> Iterator[tuple[str, InputFacts]]:
    return iter(()) if data is None else ((name, facts) for name, facts in data.inputs.items() if facts.floats)
