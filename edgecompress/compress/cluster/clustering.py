"""Clustering as a step of a conversion: what the recipe's [cluster] section asks for."""
from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import onnx_ir as ir

from edgecompress.compress.cluster import budget
from edgecompress.compress.cluster.calibrate import Calibrator
from edgecompress.compress.cluster.layer import Bits, Price
from edgecompress.compress.cluster.network import ClusteredLayer, cluster_layers, weight_count
from edgecompress.compress.quantize.noise import judging_batches, output_snr_db
from edgecompress.errors import InputError
from edgecompress.recipe import Cluster

if TYPE_CHECKING:
    from edgecompress.evaluate.data import Dataset

# Where a search starts: this price made 2.4 bits a weight and 20 dB of an image classifier (ResNet-8).
USUAL_PRICE, USUAL_BITS, USUAL_SNR = -2.7, 2.4, 20.0
DB_PER_BIT = 20 * math.log10(2)


@dataclass(frozen=True)
class Clustered:
    """A model with clustered weights, and how it came about.

    layers: in the order in which they were clustered. snr_db: of the model's outputs against the float
    model's, on calibration data; None without data.
    """

    model: ir.Model = field(repr=False)
    layers: tuple[ClusteredLayer, ...]
    snr_db: float | None

    @property
    def bytes(self) -> int:
        """Of all clustered weights: indices entropy coded, codebooks and scales together."""
        return sum(layer.bytes for layer in self.layers)

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.bytes / max(sum(layer.weights for layer in self.layers), 1)

    def __str__(self) -> str:
        noise = "" if self.snr_db is None else f", {self.snr_db:.1f} dB"
        bits = f"{self.bits_per_weight:.2f} bits a weight"
        return f"{len(self.layers)} layers, {bits}, {self.bytes:,} bytes{noise}"


def cluster(
    model: ir.Model, reference: ir.Model, dataset: Dataset | None, settings: Cluster, *, seed: int = 0,
    nearest: bool = False,
) -> Clustered:  # fmt: skip
    """Cluster all weights of Conv, ConvTranspose, Gemm and MatMul; the model passed in is not changed.

    model: canonical, annotated or not: int8 weights get int8 centroids and new scales. Weights that are zero
    have been pruned, and stay so. reference: the float model that it was annotated from (same names, same
    weights); `model` itself if it is float. dataset: calibration data, or None: then errors of all weights of
    a layer count the same, and `bits = "auto"` needs a size. settings: with `bits` set. When no price of a bit
    reaches settings.snr, the result is the one that comes nearest: its snr_db says so. nearest: the same for
    settings.size.
    Raises InputError when settings ask for what can't be: a size that is too small (unless nearest), "auto" without a
    size and without data.
    """
    calibrator = None if dataset is None else Calibrator(reference, dataset, seed)

    def run(how: Bits | Price) -> Clustered:
        found = cluster_layers(model, how, calibrator, per_channel=settings.per_channel)
        if dataset is None:
            return Clustered(found.model, found.layers, None)
        _, judge = judging_batches(dataset, reference)
        return Clustered(found.model, found.layers, output_snr_db(reference, found.model, judge))

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
                f"{found.result.bytes:,} is the least that was found"
            )
        return found.result
    if dataset is None:
        raise InputError('cluster.bits = "auto" without calibration data needs cluster.size')
    return budget.search(
        lambda price: run(Price(2.0**price / weights)),
        lambda result: (settings.snr - (result.snr_db or 0.0)) / DB_PER_BIT,
        USUAL_PRICE + 2 * (USUAL_SNR - settings.snr) / DB_PER_BIT,
        rising=True,
        close=0.1,  # 0.6 dB: the measure itself is no finer
    ).result
