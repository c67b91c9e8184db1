"""Pruning of single weights or blocks of them: they become zero and stay zero, with or without training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from edgecompress.compress.prune.channel_samples import sampled_loss
from edgecompress.compress.prune.defaults import for_weights
from edgecompress.compress.prune.gates import Gates
from edgecompress.compress.prune.initial_weights import start
from edgecompress.compress.prune.layer_shares import comparable
from edgecompress.compress.prune.masks import Masks, Scoring
from edgecompress.compress.prune.patterns import parse_pattern
from edgecompress.compress.prune.pruned_weights import PrunedWeights, annotated, final_sparsity, some_prunable
from edgecompress.compress.prune.recipe_faults import require_possible
from edgecompress.compress.prune.rewiring import GROWTH, Rewiring
from edgecompress.compress.prune.schedules import rounds
from edgecompress.compress.prune.weight_statistics import Samples, WeightStatistics
from edgecompress.recipe import Prune, Train
from edgecompress.record.report import History
from edgecompress.support.present import present
from edgecompress.train import DEFAULT_SESSION, Hook, Session, TrainData, train
from edgecompress.train.few_samples import batch_size
from edgecompress.train.losses import Loss, task_loss
from edgecompress.train.module.torch_model import TorchModel

BATCHES, SAMPLES = 50, 512  # for gradients before anything is pruned


def prune_weights(
    model: ir.Model,
    settings: Prune,
    *,
    data: TrainData | None = None,
    training: Train | None = None,
    loss: Loss | None = None,
    session: Session = DEFAULT_SESSION,
    initial: ir.Model | None = None,
) -> PrunedWeights:
    """Prune the weights of Conv, ConvTranspose, Gemm and MatMul; the model passed in is not changed.

    model: canonical float model. settings: with `sparsity` set, or an N:M pattern. data, training: to train while
    pruning, with `loss` in place of the settings' one; without data weights go at once and the others stay as they
    are. session: its checkpoint is a folder, for a file with the state of each round. initial: the model with the
    weights that schedule = "lottery" starts from and goes back to; by default these are new random ones.
    Raises InputError for settings that contradict each other, or need data that is not there.
    """
    final = final_sparsity(settings)
    require_possible(settings, None if data is None else training.epochs if training is not None else 0)
    module = TorchModel(model, logits=True)
    labels_loss = None if data is None or training is None else task_loss(model, training, data)
    samples = None if data is None or training is None else Samples(data, labels_loss, session.seed)
    if settings.schedule == "soft":
        gates = _gates(module, model, settings, session.seed)
        history = train(
            module, present(data), present(training), loss=loss, hooks=[gates], session=_numbered(session, "prune", 0)
        )
        return _result(module, gates, final, settings, (history,))
    rising = final if samples is not None and settings.schedule == "gradual" else None
    masks = masks_of(module, model, settings, samples, rising=rising, seed=session.seed)
    result = partial(_result, module, masks, final, settings)
    if data is None or training is None:
        masks.update(final)
        return result(())

    def run(stage: str, number: int, *hooks: Hook) -> History:
        return train(module, data, training, loss=loss, hooks=hooks, session=_numbered(session, stage, number))

    if settings.schedule == "gradual":
        return result((run("prune", 0, masks),))
    histories, notes, early = [], [], _Snapshot(settings.rewind)
    if settings.fresh or settings.schedule == "lottery":
        start(module, model, initial, session.seed)
    if settings.schedule == "lottery":
        histories.append(run("before pruning", 0, early, masks))
        notes += early.settle()
    elif masks.statistics is not None:
        _gather(module, masks.statistics, present(samples), batch_size(training, len(data)))
    if settings.schedule in GROWTH:
        masks.update(final)
        return result((run("prune", 0, Rewiring(masks, settings.schedule, session.seed)),))
    count = 1 if settings.schedule == "one-shot" else settings.rounds
    for number in range(1, count + 1):
        masks.update(rounds(number, count, final))
        early.rewind(module)
        _set_zero(module, masks)
        stage = "prune" if count == 1 else f"prune, round {number} of {count}"
        histories.append(run(stage, number, masks))
        _set_zero(module, masks)
    return result(tuple(histories), notes)


def masks_of(
    module: TorchModel,
    model: ir.Model,
    settings: Prune,
    samples: Samples | None,
    *,
    rising: float | None = None,
    seed: int = 0,
) -> Masks:
    """Masks on the weights of the module, which was made of the model, as the settings ask for them.

    samples: for a criterion and an allocation that look at them. rising: the sparsity to reach step by step while
    training. Raises InputError when there is nothing to prune.
    """
    settings = for_weights(settings, trains=samples is not None)
    weights = some_prunable(model, settings)
    by_layer = comparable(settings, model, weights, None if samples is None else samples.data)
    scoring = Scoring(settings.criterion, samples, seed)
    pattern, limits = parse_pattern(settings.pattern), settings.at_most
    return Masks(module, weights, pattern, by_layer, scoring, rising=rising, at_most=limits)


def _numbered(session: Session, stage: str, number: int) -> Session:
    """The session of training 0, 1, .., with a checkpoint in its folder."""
    folder = session.checkpoint
    return replace(session, stage=stage, checkpoint=None if folder is None else folder / f"prune-{number}.pt")


def _gates(module: TorchModel, model: ir.Model, settings: Prune, seed: int) -> Gates:
    weights, pattern = some_prunable(model, settings), parse_pattern(settings.pattern)
    return Gates(module, weights, pattern, settings.gates, final_sparsity(settings), seed)


class _Snapshot(Hook):
    """The weights as they were after some epochs (0: before the first one)."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.weights: dict[str, torch.Tensor] = {}

    def on_start(self, module: nn.Module) -> None:
        assert isinstance(module, TorchModel)
        self.module = module
        if not self.epochs and not self.weights:
            self._take()

    def on_epoch(self, epoch: int) -> None:
        if epoch + 1 == self.epochs:
            self._take()

    def settle(self) -> list[str]:
        """Training may have stopped before the epoch came: then what it ended with is what there is to go back to."""
        if self.weights:
            return []
        self._take()
        return [f"training stopped before epoch {self.epochs}: pruning goes back to its best epoch's weights"]

    def rewind(self, module: TorchModel) -> None:
        with torch.no_grad():
            for name, value in self.weights.items():
                module.weights[name].copy_(value)

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.weights = state["weights"]

    def _take(self) -> None:
        self.weights = {k: v.detach().to("cpu", copy=True) for k, v in self.module.weights.items()}


def _gather(module: TorchModel, statistics: WeightStatistics, samples: Samples, size: int) -> None:
    """What gradients say of the weights before training. size: of a batch."""
    data, generator = samples.data, torch.Generator().manual_seed(samples.seed)
    order = np.random.default_rng(samples.seed).permutation(len(data))
    steps = min(BATCHES, max(len(data) // size, 1))
    for step in range(steps):
        batch = data.batch(order[step * size : (step + 1) * size])
        module.zero_grad()
        outputs = module(*batch.inputs)
        if samples.loss is None:
            value = sampled_loss(outputs, generator) / len(batch.index)
        else:
            value = samples.loss(outputs, batch.labels, batch)
        value.backward()
        statistics.take_step()
        statistics.take_samples(step, -(-SAMPLES // steps))
    module.zero_grad()


def _set_zero(module: TorchModel, masks: Masks) -> None:
    """So that weights that are out don't come back by what they once were."""
    with torch.no_grad():
        for name, mask in masks.masks().items():
            module.weights[name].mul_(torch.from_numpy(mask))


def _result(
    module: TorchModel,
    masks: Masks | Gates,
    final: float,
    settings: Prune,
    histories: tuple[History, ...],
    notes: Sequence[str] = (),
) -> PrunedWeights:
    model, layers, whole = annotated(module.write_back(), masks.weights, masks.masks(), settings.pattern)
    return PrunedWeights(model, final, layers, histories, (*notes, *whole))
