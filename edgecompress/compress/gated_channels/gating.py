"""A model with gates, trained to a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgecompress.analysis.gated_layers import gated_layers, macs_run
from edgecompress.analysis.statistics import statistics
from edgecompress.compress.gated_channels.gate_start import sorted_channels, start_gates
from edgecompress.compress.gated_channels.gate_training import Opened, settled_common
from edgecompress.compress.gated_channels.insertion import GateNames, with_gates
from edgecompress.compress.prune.patterns_again import patterns_again
from edgecompress.errors import InputError
from edgecompress.graph.fusion import constant
from edgecompress.ingest import fold_batchnorm
from edgecompress.recipe import Gate, Train
from edgecompress.record.report import History
from edgecompress.train import Session, TrainData, train
from edgecompress.train.losses import Loss
from edgecompress.train.module.torch_model import TorchModel
from edgecompress.train.module.zeros import hold_zeros
from edgecompress.train.normalised import with_batchnorm


@dataclass(frozen=True)
class GatedModel:
    """model: canonical, with gates. share: of the multiply-accumulates without gates that the training data takes in
    the mean, those of the gates included."""

    model: ir.Model
    share: float
    history: History


def gate(
    model: ir.Model, data: TrainData, settings: Gate, training: Train, *, loss: Loss, session: Session
) -> GatedModel:
    """Put gates into a canonical model and train it, so that the data takes settings.macs of its multiply-accumulates
    in the mean. Raises InputError where closed gates alone leave more; and what `with_gates` and `train` raise.
    """
    assert settings.macs is not None
    model, slopes = sorted_channels(model, settings, data, session.seed)
    gated, gates = with_gates(model, settings)
    whole, rows = statistics(model).macs, gated_layers(gated)
    budget = settings.macs * whole
    least = macs_run(rows, {g.gate: np.zeros((1, 1)) for g in gates})
    if budget <= least:
        raise InputError(
            f"[gate] macs = {settings.macs}: with all gates closed, {least / whole:.3g} of the multiply-accumulates "
            "still run; ask for more, or gate more layers"
        )
    normalised, _ = patterns_again(with_batchnorm(gated, data))  # while gates are open, as training begins
    start_gates(normalised, gates, slopes)
    module = TorchModel(normalised, logits=True)
    hold_zeros(module, normalised)
    hook = Opened(module, gates, rows, budget, session.seed)
    history = train(module, data, training, loss=loss, hooks=[hook], session=session)
    result = fold_batchnorm(_shifted(module.write_back(), gates, hook.common))
    common, run = settled_common(result, gates, rows, budget, data)
    return GatedModel(_shifted(result, gates, common), run / whole, history)


def _shifted(model: ir.Model, gates: Sequence[GateNames], common: float) -> ir.Model:
    """A copy with this added to all logits."""
    clone = model.clone()
    for g in gates:
        value = clone.graph.initializers[g.bias]
        array = np.asarray(constant(value)) + np.float32(common)
        value.const_value = ir.tensor(array.astype(np.float32), name=g.bias)
    return clone
