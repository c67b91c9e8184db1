"""How much of a model with gates runs on data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgecompress.analysis.gated_layers import gated_layers, macs_run
from edgecompress.evaluate.dataset import Dataset
from edgecompress.evaluate.interpreters import OnnxRuntime
from edgecompress.evaluate.verify import run_dataset
from edgecompress.graph.gate_products import products

SKIPPING = "the runtime leaves closed channels out; .tflite and .onnx files compute them and multiply by 0"


def open_gates(model: ir.Model, data: Dataset) -> dict[str, np.ndarray]:
    """[n, blocks] by gate: 1 where a sample opens it."""
    names = [str(product.gate.name) for product in products(model.graph)]
    results = run_dataset(OnnxRuntime(model, extra_outputs=names), data)
    return dict(zip(names, results[len(model.graph.outputs) :], strict=True))


@dataclass(frozen=True)
class GateUse:
    """share: of the multiply-accumulates without gates that run, mean of `samples`. note: the same and the layers', in
    a sentence."""

    share: float
    samples: int
    note: str


def gate_use(model: ir.Model, data: Dataset, whole: int) -> GateUse:
    """What gates do on this data. whole: how many multiply-accumulates there were without gates."""
    rows, opened = gated_layers(model), open_gates(model, data)
    by_layer = ", ".join(f"{row.name} {float(row.share(opened).mean()):.0%}" for row in rows if row.gates)
    share = macs_run(rows, opened) / whole
    return GateUse(
        share,
        data.count,
        f"gates: {share:.1%} of the multiply-accumulates run on {data.source}, mean of {data.count:,} samples; "
        f"of layers with gates {by_layer}; {SKIPPING}",
    )
