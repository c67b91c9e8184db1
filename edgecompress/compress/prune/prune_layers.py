"""Prunes weights by calibration data alone: layer after layer, each by its inputs from the pruned layers in front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgecompress.compress.prune.allocation import choose
from edgecompress.compress.prune.criterion import criterion as criterion_of
from edgecompress.compress.prune.defaults import for_layers
from edgecompress.compress.prune.layer_matrix import Columns, LayerMatrix
from edgecompress.compress.prune.layer_shares import comparable
from edgecompress.compress.prune.patterns import parse_pattern, to_taps
from edgecompress.compress.prune.pruned_weights import Prunable, PrunedWeights, annotated, final_sparsity, some_prunable
from edgecompress.compress.quantize import operators
from edgecompress.compress.quantize.piecewise import Piecewise
from edgecompress.errors import InputError
from edgecompress.evaluate.dataset import Dataset
from edgecompress.graph.fusion import constant, layers
from edgecompress.graph.provenance import label
from edgecompress.recipe import Prune
from edgecompress.support.present import present

if TYPE_CHECKING:
    from edgecompress.train import TrainData

SAMPLES = 64  # that allocation = "sensitivity" measures outputs on: each layer is pruned alone, several times
MOST_NAMES = 3


@dataclass(frozen=True)
class _Inputs:
    """A layer's inputs as calibration data makes them, for the columns of its matrix: E[x x^T] [groups, k, k], E[x]
    [groups, k]."""

    moments: np.ndarray
    means: np.ndarray

    @property
    def dead(self) -> int:
        """How many are always 0."""
        return int((np.diagonal(self.moments, axis1=1, axis2=2) == 0).sum())


def prune_layers(model: ir.Model, settings: Prune, dataset: Dataset, seed: int = 0) -> PrunedWeights:
    """Prune the weights of Conv, ConvTranspose, Gemm and MatMul without training; the model passed in is not changed.

    model: canonical float model. settings: with a criterion that `calibrates`, and `sparsity` or an N:M pattern.
    dataset: calibration data; labels are not looked at. seed: of the choice of positions that statistics are over.
    A layer's bias takes over what the mean of its outputs lacks. Weights that several layers share, such as the steps
    of a recurrent network, are pruned by the inputs of the first.
    Raises InputError where nothing can be pruned, and for a layer whose inputs are all 0, or not finite, on the data.
    """
    settings, clone = for_layers(settings), model.clone()
    weights, prune = some_prunable(clone, settings), present(criterion_of(settings.criterion).layers)
    shares = _shares(clone, weights, settings, dataset, seed)
    pattern, run, masks = parse_pattern(settings.pattern), Piecewise(clone, dataset, seed), dict[str, np.ndarray]()
    dead, biases = list[str](), _biases(clone)
    for w in weights:
        weight = present(constant(clone.graph.initializers[w.name]))
        columns = Columns(w.node, weight.shape)
        inputs, free = _inputs(run, w, columns), np.ones(weight.shape, bool) if w.pruned is None else w.pruned.mask
        if inputs.dead:
            dead.append(f"{label(w.node)} ({inputs.dead:,} of {inputs.means.size:,})")
        if not shares[w.name]:
            masks[w.name] = free
            continue
        matrix = columns.matrix(weight).astype(np.float64)
        layer = LayerMatrix(
            matrix, inputs.moments, columns.matrix(free), pattern, columns.inputs, sparsity=shares[w.name]
        )
        pruned, mask = prune(layer)
        masks[w.name] = columns.weight(mask)
        made = {w.name: columns.weight(pruned).astype(weight.dtype)}
        if (bias := biases.get(w.name)) is not None:
            lost = (
                (matrix - pruned).reshape(len(inputs.means), -1, matrix.shape[1]) @ inputs.means[:, :, None]
            ).ravel()
            made[bias] = (present(constant(clone.graph.initializers[bias])) + lost).astype(np.float32)
        for each in (clone, run.model):
            _put(each, made)
    result, of_layers, whole = annotated(clone, weights, masks, settings.pattern)
    if all(mask.all() for mask in masks.values()):
        share = final_sparsity(settings)
        raise InputError(f"[prune]: no layer has so many weights that a sparsity of {share:.2%} makes one of them zero")
    notes = [f"always 0 on the calibration data, so that their weights go first: {_listed(dead)}"] if dead else []
    return PrunedWeights(result, final_sparsity(settings), of_layers, (), (*notes, *whole))


def _inputs(run: Piecewise, w: Prunable, columns: Columns) -> _Inputs:
    """Raises InputError for inputs that say nothing."""
    moments, means = run.second_moments(str(w.node.name), len(columns.order))
    found = _Inputs(moments[:, columns.order[:, None], columns.order], means[:, columns.order])
    if not np.isfinite(found.moments).all():
        raise InputError(f"[prune]: inputs of {label(w.node)} are not finite on the calibration data")
    if found.dead == found.means.size:
        raise InputError(
            f"[prune]: inputs of {label(w.node)} are 0 in all calibration samples, which say nothing of its weights: "
            f"give samples that reach it, or name it in prune.keep ({str(w.node.name)!r})"
        )
    return found


def _biases(model: ir.Model) -> dict[str, str]:
    """Name of a weight -> that of its bias, where one layer alone reads each."""
    found = [(v, layer.bias) for layer in layers(model.graph) if (v := operators.weight(layer)) is not None]
    return {
        str(weight.name): str(bias.name)
        for weight, bias in found
        if bias is not None and len(weight.consumers()) == len(bias.consumers()) == 1
    }


def _put(model: ir.Model, arrays: Mapping[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        model.graph.initializers[name].const_value = ir.tensor(array, name=name)


def _shares(
    model: ir.Model, weights: Sequence[Prunable], settings: Prune, dataset: Dataset, seed: int
) -> dict[str, float]:
    """The sparsity of each weight, by name: as in the settings, or by what the allocation says of the float model."""
    final, pattern = final_sparsity(settings), parse_pattern(settings.pattern)
    shares = {w.name: final for w in weights}
    if settings.allocation != "uniform" and pattern.keep is None:
        run, scores, sizes = Piecewise(model, dataset, seed), [], []
        by_layer = comparable(settings, model, weights, _train_data(model, settings, dataset))
        for w in weights:
            weight = present(constant(model.graph.initializers[w.name]))
            columns = Columns(w.node, weight.shape)
            energy = np.diagonal(_inputs(run, w, columns).moments, axis1=1, axis2=2)
            lost = np.square(columns.matrix(weight), dtype=np.float64)  # of the outputs' energy, by each weight
            lost *= np.repeat(energy, len(lost) // len(energy), axis=0)
            taps = to_taps(w.node, columns.weight(lost / max(float(lost.sum()), np.finfo(np.float64).tiny)))
            sizes.append(pattern.sizes(taps.shape))
            scores.append(by_layer(w.name, pattern.units(taps), sizes[-1]))
        kept = choose(scores, sizes, final)
        shares = {w.name: 1 - float((k * n).sum() / n.sum()) for w, k, n in zip(weights, kept, sizes, strict=True)}
    for w in weights:
        if (most := settings.at_most.get(str(w.node.name), 1.0)) < shares[w.name]:
            shares[w.name] = 0.0 if pattern.keep is not None else most
    return shares


def _train_data(model: ir.Model, settings: Prune, dataset: Dataset) -> TrainData | None:
    """For an allocation that measures outputs."""
    if settings.allocation != "sensitivity":
        return None
    from edgecompress.train import TrainData

    return TrainData.from_dataset(dataset.head(SAMPLES).without_labels(), model)


def _listed(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f", and inputs of {more} more layers" if more > 0 else "")
