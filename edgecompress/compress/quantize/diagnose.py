"""Finds the layers that quantization hurts, and the most likely reason for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgecompress.analysis.statistics import statistics
from edgecompress.compress.quantize import operators
from edgecompress.compress.quantize.attention_masks import with_masked
from edgecompress.compress.quantize.batch import Runner, batch_size
from edgecompress.compress.quantize.histogram import Histogram
from edgecompress.compress.quantize.noise import Noise, decibels
from edgecompress.compress.quantize.simulate import Simulation, simulation
from edgecompress.graph.annotations import INTEGER_RANGE, Quantization, codebook, is_integer, quantization
from edgecompress.graph.fusion import Layer, constant, layers

if TYPE_CHECKING:
    from edgecompress.evaluate.dataset import Dataset

FEWEST, SAMPLES = 4, 64
MACS = 10_000_000_000  # of one run of each model on all samples: a second or so
INHERITED = 0.25  # own noise below this share of all the noise: it came with the inputs
SATURATION = 0.5  # share of a layer's own noise that saturated values make
DOMINATES = 8.0  # largest channel range over the median one
OUTLIER = 4.0  # exact range over the range of all but one in a thousand values
UNUSED = 4.0  # stored range over the range of the values
TINY = 1e-30
RESOLUTION = "8-bit resolution"
WEIGHTS, WIDE_RESOLUTION = "8-bit weights", "16-bit resolution"
INHERITED_NOISE = "error of its inputs"


@dataclass(frozen=True)
class LayerDiagnosis:
    """One int8 layer, compared with the same layer in float.

    name, op_type: those of its main node. output: the value that is compared. snr_db: the output's ratio with all
    errors of the layers before. own_snr_db: the ratio with exact inputs that are only rounded. weight_snr_db: the
    weights' ratio, or None without weights. saturated_percent: the share of the output's values at an end of the range.
    cause: the most likely reason for the noise, in words.
    """

    name: str
    op_type: str
    output: str
    snr_db: float
    own_snr_db: float
    weight_snr_db: float | None
    saturated_percent: float
    cause: str


def diagnose(float_model: ir.Model, quantized_model: ir.Model, dataset: Dataset) -> list[LayerDiagnosis]:
    """Diagnoses all int8 layers on the first SAMPLES samples, or fewer of a large model; the lowest ratio comes first.

    float_model: the model that quantized_model was annotated from (`Quantized.reference`), with the same names and
    weights. What attention masks away is no error: scores are compared from the lowest of their range on.
    """
    known = {v.name for node in float_model.graph for v in node.outputs}  # not what the quantizer put in
    found = [x for x in layers(quantized_model.graph) if x.output.name in known and _computes(x)]
    names = [str(layer.output.name) for layer in found]
    dataset = dataset.head(int(np.clip(MACS // max(statistics(float_model).macs, 1), FEWEST, SAMPLES)))
    size = min(batch_size(float_model), len(dataset))
    whole = Runner(float_model, names, size).takes_all(next(dataset.batches(size)))
    simulated = simulation(quantized_model)
    isolated, exact = _isolated(float_model, quantized_model, simulated)
    all_errors = Runner(simulated, names, size, whole=whole, few=True)
    own_errors = Runner(isolated, [*names, *(exact[name] for name in names)], size, whole=whole, few=True)
    evidence = {name: _Evidence(quantization(layer.output)) for name, layer in zip(names, found)}
    masked = with_masked(float_model.graph).intersection(names)
    total, own = Noise(), Noise()
    for batch in dataset.batches(size):
        alone = own_errors(batch)
        reference = {name: alone.pop(exact[name]) for name in names}
        reference |= {name: np.maximum(reference[name], evidence[name].low) for name in masked}
        total.update(reference, all_errors(batch))
        own.update(reference, alone)
        for name in names:
            evidence[name].update(reference[name], alone[name])
    rows = [_diagnosis(layer, evidence[n], total, own) for n, layer in zip(names, found)]
    return sorted(rows, key=lambda row: row.snr_db)


def _computes(layer: Layer) -> bool:
    """Whether the layer is int8 and computes values of its own: moving values is no source of error."""
    if not is_integer(layer.node) or not operators.outputs(layer):
        return False
    return not operators.RULES[layer.node.op_type].passive or len(operators.data_inputs(layer)) > 1


class _Evidence:
    """Statistics of one output's values, and of the error that its own 8 bits cause."""

    def __init__(self, q: Quantization | None) -> None:
        assert q is not None
        self.q = q
        low, high = INTEGER_RANGE[q.dtype]
        scale, zero = float(q.scale[0]), int(q.zero_point[0])
        self.low, self.high = (low - zero) * scale, (high - zero) * scale
        self.histogram = Histogram()
        self.saturated = 0
        self.saturation_noise = 0.0
        self.channels: np.ndarray | None = None

    def update(self, exact: np.ndarray, alone: np.ndarray) -> None:
        self.histogram.update(exact)
        half = 0.5 * float(self.q.scale[0])
        outside = (exact < self.low - half) | (exact > self.high + half)
        self.saturated += int(outside.sum())
        self.saturation_noise += float(np.square((alone - exact)[outside].astype(np.float64)).sum())
        if exact.ndim > 1:
            ranges = np.abs(exact).max(axis=tuple(i for i in range(exact.ndim) if i != 1))
            self.channels = ranges if self.channels is None else np.maximum(self.channels, ranges)


def _isolated(float_model: ir.Model, quantized: ir.Model, simulated: ir.Model) -> tuple[ir.Model, dict[str, str]]:
    """The simulated model with every layer fed by the float model's values, rounded; and the names that these have in
    it, by their names in the float model."""
    joint = Simulation(quantized, simulated)
    annotations = {str(v.name): quantization(v) for node in quantized.graph for v in node.outputs}
    uses = {name: list(rounding.rounded.uses()) for name, rounding in joint.roundings.items()}
    exact = joint.add_float_model(float_model)
    for name, readers in uses.items():
        q = annotations.get(name)
        if q is None or name not in exact:
            continue  # an input, which is exact as it is, or what the quantizer put in
        rounded = joint.round_trip(exact[name], q)
        for node, index in readers:
            node.replace_input_with(index, rounded)
    return joint.model, {name: str(value.name) for name, value in exact.items()}


def _diagnosis(layer: Layer, evidence: _Evidence, total: Noise, own: Noise) -> LayerDiagnosis:
    name = str(layer.output.name)
    weights = operators.weight(layer)
    weight_snr = None
    if weights is not None and (q := quantization(weights)) is not None:
        array = np.asarray(constant(weights), np.float64)
        error = q.dequantize(q.quantize(array)) - array
        weight_snr = decibels(float(np.square(array).sum()), float(np.square(error).sum()))
    percent = 100.0 * evidence.saturated / max(evidence.histogram.total, 1)
    inherited = own.noise[name] < INHERITED * total.noise[name]
    cause = INHERITED_NOISE if inherited else _own_cause(layer, evidence, own.noise[name], percent)
    return LayerDiagnosis(
        layer.node.name or name,
        layer.node.op_type,
        name,
        total.snr_db(name),
        own.snr_db(name),
        weight_snr,
        percent,
        cause,
    )


def _own_cause(layer: Layer, evidence: _Evidence, noise: float, saturated_percent: float) -> str:
    """The first of the possible causes whose figure is beyond its limit."""
    histogram = evidence.histogram
    stored = evidence.high - evidence.low
    whole = max(histogram.maximum, 0.0) - min(histogram.minimum, 0.0)
    most = max(histogram.quantile(0.9995), 0.0) - min(histogram.quantile(0.0005), 0.0)
    unused, spread = stored / max(whole, TINY), whole / max(most, TINY)
    weights = operators.weight(layer)
    q = quantization(weights)
    weight_ratio = channel_ratio(_channel_ranges(weights, layer)) if q is not None and q.axis is None else 1.0
    activation_ratio = channel_ratio(evidence.channels)
    book = codebook(weights)
    is_int8 = evidence.q.dtype == ir.DataType.INT8  # else its range leaves room on purpose, and 16 bits are fine enough
    facts = (
        (book is not None, f"weights clustered to {0 if book is None else len(book.centroids)} values"),
        (weight_ratio > DOMINATES, f"one weight channel's range is {weight_ratio:.0f} times the median"),
        (evidence.saturation_noise > SATURATION * noise, f"saturation: {saturated_percent:.2g} % of values"),
        (is_int8 and unused > UNUSED, f"shared or fixed scale, {unused:.0f} times as wide as its own range"),
        (is_int8 and spread > OUTLIER, f"outliers: 99.9 % of values lie in 1/{spread:.0f} of the range"),
        (is_int8 and activation_ratio > DOMINATES, f"one channel's range is {activation_ratio:.0f} times the median"),
    )
    resolution = RESOLUTION if is_int8 else WEIGHTS if weights is not None else WIDE_RESOLUTION
    return next((text for holds, text in facts if holds), resolution)


def channel_ratio(ranges: np.ndarray | None) -> float:
    """The largest range over the median of those that aren't zero; 1 when there is nothing to compare."""
    used = ranges[ranges > 0] if ranges is not None else np.empty(0)
    return float(used.max() / np.median(used)) if used.size > 1 else 1.0


def _channel_ranges(weights: ir.Value | None, layer: Layer) -> np.ndarray | None:
    axis = operators.weight_axis(layer.node)
    if weights is None or axis is None:
        return None
    array = np.abs(np.asarray(constant(weights)))
    return array.max(axis=tuple(i for i in range(array.ndim) if i != axis))
