"""How far the results of the quantized model are from those of the float model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgecompress.analysis.statistics import statistics
from edgecompress.compress.quantize.batch import Arrays, Runner, batch_size
from edgecompress.compress.quantize.simulate import simulation
from edgecompress.graph.nodes import argument
from edgecompress.operators import record_of

if TYPE_CHECKING:
    from edgecompress.evaluate.dataset import Dataset

MACS = 2_000_000_000  # of one measurement of a candidate: it is to take a fraction of a second
FEWEST, MOST = 8, 128  # samples of one measurement
WORTH_DB = 0.1  # a smaller gain is chance: the step that made it isn't kept


def measured_outputs(model: ir.Model) -> list[str]:
    """Names of the float values that stand for the model's outputs: before a final Softmax and the like."""
    names = []
    for value in model.graph.outputs:
        while (node := value.producer()) is not None and record_of(node).ranks:
            value = argument(node, 0)  # where error still counts
        if value.dtype == ir.DataType.FLOAT:
            names.append(str(value.name))
    return list(dict.fromkeys(names))


class Noise:
    """Running signal and noise power of named values."""

    def __init__(self) -> None:
        """No samples have been seen."""
        self.signal: dict[str, float] = {}
        self.noise: dict[str, float] = {}

    def update(self, reference: Arrays, found: Arrays) -> None:
        """Adds a batch: what the values are, and what they have become."""
        for name, exact in reference.items():
            exact = exact.astype(np.float64)
            self.signal[name] = self.signal.get(name, 0.0) + float(np.square(exact).sum())
            self.noise[name] = self.noise.get(name, 0.0) + float(np.square(found[name] - exact).sum())

    def snr_db(self, name: str) -> float:
        """10 log10(signal power / noise power); inf without noise."""
        return decibels(self.signal[name], self.noise[name])

    def mean_snr_db(self) -> float:
        """The signal-to-noise ratio (dB) of the mean noise-to-signal ratio over all values."""
        ratios = [self.noise[name] / max(self.signal[name], 1e-300) for name in self.signal]
        return decibels(1.0, float(np.mean(ratios))) if ratios else float("inf")


def decibels(signal: float, noise: float) -> float:
    """10 log10(signal / noise) of two powers; infinity without noise."""
    if noise == 0:
        return float("inf")
    return float(10 * (np.log10(max(signal, 1e-300)) - np.log10(noise)))  # their ratio may overflow


def output_snr_db(reference: ir.Model, annotated: ir.Model, inputs: Arrays, outputs: Arrays | None = None) -> float:
    """Signal-to-noise ratio (dB) of the annotated model's outputs against the float model's, on one batch.

    outputs: the `measured_outputs` of the float model for these inputs, where they are known.
    """
    names, samples, noise = measured_outputs(reference), len(next(iter(inputs.values()))), Noise()
    exact = Runner(reference, names, samples)
    found = Runner(simulation(annotated), names, samples, whole=exact.takes_all(inputs), few=True)
    noise.update(exact(inputs) if outputs is None else outputs, found(inputs))
    return noise.mean_snr_db()


def judging_batches(dataset: Dataset, model: ir.Model) -> tuple[Arrays, Arrays]:
    """A batch to fit on and another to judge by; the same one twice when there is no more data."""
    batches = dataset.batches(_half(dataset, model))
    fit = next(batches)
    return fit, next(batches, fit)


def judging_batch(dataset: Dataset, model: ir.Model) -> range:
    """Which samples the second of `judging_batches` holds."""
    size, count = _half(dataset, model), len(dataset)
    return range(size, min(2 * size, count)) if size < count else range(count)


def judging_places(dataset: Dataset, model: ir.Model) -> range:
    """The first sample of each batch of those that candidates are measured on; its step is their size."""
    count = int(np.clip(MACS // max(statistics(model).macs, 1), FEWEST, MOST))
    size = min(count, _half(dataset, model))
    whole = min(1 + max(count // size, 1), len(dataset) // size)
    return range(size if whole > 1 else 0, whole * size, size)


def _half(dataset: Dataset, model: ir.Model) -> int:
    """One batch, of half of the samples at most."""
    return min(batch_size(model), max(len(dataset) // 2, 1))
