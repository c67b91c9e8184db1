"""Clustering as a step of a conversion: what the recipe's [cluster] section asks for."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import onnx_ir as ir

from edgecompress.compress.cluster import bit_budget as budget
from edgecompress.compress.cluster.layer import Bits, Price
from edgecompress.compress.cluster.network import ClusteredLayer, cluster_layers, clustered_bytes, weight_count
from edgecompress.compress.quantize.layer_inputs import Calibrator
from edgecompress.compress.quantize.noise import judging_batches, output_snr_db
from edgecompress.errors import InputError
from edgecompress.recipe import Cluster
from edgecompress.record.report import Goal

if TYPE_CHECKING:
    from edgecompress.evaluate.dataset import Dataset

# Where a search starts: this price made 2.4 bits a weight and 20 dB of an image classifier (ResNet-8).
USUAL_PRICE, USUAL_BITS, USUAL_SNR = -2.7, 2.4, 20.0
DEFAULT_SNR = 25.0  # dB, where nothing else is asked for
FAR = 1.0  # dB from what was asked for: the search is finer
DB_PER_BIT = 20 * math.log10(2)


@dataclass(frozen=True)
class Clustered:
    """A model with clustered weights, and how it came about.

    layers: in the order in which they were clustered. bytes: of all clustered weights in a .pack: indices entropy
    coded, codebooks and scales together. snr_db: of the model's outputs against the float model's, on calibration
    data; None without data.
    """

    model: ir.Model = field(repr=False)
    layers: tuple[ClusteredLayer, ...]
    bytes: int
    snr_db: float | None

    @property
    def bits_per_weight(self) -> float:
        """Mean over all clustered weights, codebooks and scales included."""
        return 8 * self.bytes / max(sum(layer.weights for layer in self.layers), 1)

    def __str__(self) -> str:
        noise = "" if self.snr_db is None else f", {self.snr_db:.1f} dB"
        bits = f"{self.bits_per_weight:.2f} bits a weight"
        return f"{len(self.layers)} layers, {bits}, {self.bytes:,} bytes{noise}"


def cluster(
    model: ir.Model,
    reference: ir.Model,
    dataset: Dataset | None,
    settings: Cluster,
    *,
    seed: int = 0,
    nearest: bool = False,
) -> Clustered:
    """Cluster all weights of Conv, ConvTranspose, Gemm and MatMul; the model passed in is not changed.

    model: canonical, annotated or not: int8 weights get int8 centroids and new scales. Weights that are zero
    have been pruned, and stay so. reference: the float model that it was annotated from (same names, same
    weights); `model` itself if it is float. dataset: calibration data, or None: then errors of all weights of
    a layer count the same, and a size or bits must be asked for. settings: that ask for clusters. When no price of a
    bit reaches settings.snr, the result is the one that comes nearest: its snr_db says so. nearest: the same for
    settings.size.
    Raises InputError when settings ask for what can't be: a size that is too small (unless nearest), a signal-to-noise
    ratio without data.
    """
    calibrator = None if dataset is None else Calibrator(reference, dataset, seed)

    def run(how: Bits | Price) -> Clustered:
        found = cluster_layers(model, how, calibrator, per_channel=settings.per_channel)
        return Clustered(found.model, found.layers, found.bytes, _snr_db(found.model, reference, dataset))

    if isinstance(settings.bits, int):
        return run(Bits(settings.bits, settings.init, seed))
    weights = max(weight_count(model), 1)
    if settings.size is not None:
        size = settings.size
        start = USUAL_PRICE + 2 * (USUAL_BITS - 8 * size / weights)
        found = budget.search(
            lambda price: run(Price(2.0**price / weights)),
            lambda result: 8 * (result.bytes - size) / weights,
            start,
            rising=False,
            close=0.05,
        )
        if not found.within and not nearest:
            raise InputError(
                f"cluster.size: {size:,} bytes are too few for {weights:,} weights: "
                f"the smallest that was found takes {found.result.bytes:,}"
            )
        return found.result
    if dataset is None:
        raise InputError(
            'cluster.snr and cluster.bits = "auto" need calibration data: give --calib, or set cluster.size or bits = 4'
        )
    snr = DEFAULT_SNR if settings.snr is None else settings.snr
    return budget.search(
        lambda price: run(Price(2.0**price / weights)),
        lambda result: (snr - (result.snr_db or 0.0)) / DB_PER_BIT,
        USUAL_PRICE + 2 * (USUAL_SNR - snr) / DB_PER_BIT,
        rising=True,
        close=0.1,  # 0.6 dB: the measure itself is no finer
    ).result


def goal(found: Clustered, settings: Cluster) -> Goal:
    """What the settings asked for, and what was achieved."""
    bits = f"{found.bits_per_weight:.2f} bits a weight"
    if isinstance(settings.bits, int):
        return Goal(
            what="bits a weight",
            unit="bits",
            requested=settings.bits,
            achieved=found.bits_per_weight,
            note=f"entropy coded, with codebooks; at most {2**settings.bits} values in each layer",
        )
    if settings.size is not None:
        note = bits if found.snr_db is None else f"{bits}, {found.snr_db:.1f} dB"
        return Goal(what="clustered weights", unit="bytes", requested=settings.size, achieved=found.bytes, note=note)
    snr = DEFAULT_SNR if settings.snr is None else settings.snr
    achieved = found.snr_db or 0.0
    note = bits if achieved >= snr - FAR else f"{bits}; no number of clusters comes nearer"
    return Goal(what="clusters' SNR", unit="dB", requested=snr, achieved=achieved, note=note)


def after_training(found: Clustered, model: ir.Model, reference: ir.Model, dataset: Dataset | None) -> Clustered:
    """The same after training, which made `model` of found.model: its centroids and scales moved."""
    return replace(found, model=model, bytes=clustered_bytes(model), snr_db=_snr_db(model, reference, dataset))


def _snr_db(model: ir.Model, reference: ir.Model, dataset: Dataset | None) -> float | None:
    if dataset is None:
        return None
    _, judge = judging_batches(dataset, reference)
    return output_snr_db(reference, model, judge)
