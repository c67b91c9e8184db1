"""What pruning of weights leaves: a model whose weights say which of them are zero, and which weights these can be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edgecompress.compress.prune.patterns import Pattern, parse_pattern, to_taps
from edgecompress.compress.quantize import operators
from edgecompress.errors import InputError
from edgecompress.graph.annotations import Sparsity, is_trained, set_sparsity, sparsity
from edgecompress.graph.fusion import layers
from edgecompress.recipe import Prune
from edgecompress.record.report import History


@dataclass(frozen=True)
class Prunable:
    """A weight, the node that multiplies with it, and where it was pruned before."""

    name: str
    node: ir.Node
    pruned: Sparsity | None = field(default=None, repr=False)


@dataclass(frozen=True)
class PrunedLayer:
    """weights: how many the layer has; kept: how many of them may be other than zero."""

    name: str
    weights: int
    kept: int

    @property
    def sparsity(self) -> float:
        """Share of the weights that are zero, 0 to 1."""
        return 1 - self.kept / max(self.weights, 1)


@dataclass(frozen=True)
class PrunedWeights:
    """A model with pruned weights, each annotated with its Sparsity, and how it came about.

    requested, achieved: shares of the weights of all layers that are zero, 0 to 1. histories: of every training. notes:
    what can't be pruned and why.
    """

    model: ir.Model = field(repr=False)
    requested: float
    layers: tuple[PrunedLayer, ...]
    histories: tuple[History, ...]
    notes: tuple[str, ...]

    @property
    def achieved(self) -> float:
        """Share of the weights of all layers that are zero, 0 to 1."""
        return 1 - sum(x.kept for x in self.layers) / max(sum(x.weights for x in self.layers), 1)

    def __str__(self) -> str:
        return f"{100 * self.achieved:.1f} % of {sum(x.weights for x in self.layers):,} weights are zero"


def prunable(model: ir.Model, keep: Sequence[str] = ()) -> list[Prunable]:
    """The weights that can be pruned, in graph order, without those of the nodes named in `keep`.

    Raises InputError when `keep` names no layer with weights.
    """
    found = [(layer.node, operators.weight(layer)) for layer in layers(model.graph)]
    found = [(node, v) for node, v in found if v is None or is_trained(node, v) is not False]
    nodes = {str(node.name): node for node, value in found if value is not None}
    if unknown := [name for name in keep if name not in nodes]:
        raise InputError(f"prune.keep: {unknown[0]!r} is no layer with weights; those are {', '.join(nodes)}")
    kept_back = {id(nodes[name]) for name in keep}
    unique: dict[str, Prunable] = {}
    for node, value in found:
        if value is not None and id(node) not in kept_back:
            unique.setdefault(str(value.name), Prunable(str(value.name), node, sparsity(value)))
    return list(unique.values())


def some_prunable(model: ir.Model, settings: Prune) -> list[Prunable]:
    """The weights to prune. Raises InputError when there are none, or none of a name in `at_most`."""
    weights = prunable(model, settings.keep)
    if not weights:
        beside = " other than those of the layers in prune.keep" if settings.keep else ""
        raise InputError(f"prune: the model has no weights to prune{beside}")
    if unknown := [name for name in settings.at_most if name not in {str(w.node.name) for w in weights}]:
        raise InputError(f"prune.at_most: {unknown[0]!r} is no layer that is pruned")
    return weights


def final_sparsity(settings: Prune) -> float:
    """The share of the weights that is to be zero at the end, 0 to 1: an N:M pattern says it itself."""
    pattern = parse_pattern(settings.pattern)
    if pattern.keep is not None:
        return 1 - pattern.keep / pattern.columns
    assert settings.sparsity is not None  # else nothing is asked for
    return settings.sparsity


def annotated(
    model: ir.Model, weights: Sequence[Prunable], masks: Mapping[str, np.ndarray], asked: str
) -> tuple[ir.Model, tuple[PrunedLayer, ...], tuple[str, ...]]:
    """The model, in place, with the Sparsity of its weights; what became of each layer; and notes of those that stay.

    masks: bool of each weight's shape, by name; True stays. asked: the pattern.
    """
    pattern, pruned, notes = parse_pattern(asked), list[PrunedLayer](), list[str]()
    for w in weights:
        mask = masks[w.name]
        reason = _stays_whole(w, mask.shape, pattern)
        if reason is not None:
            notes.append(f"{w.node.name}: all {mask.size} weights stay: {reason}")
        given_back = pattern.keep is not None and reason is None and mask.all()  # by prune.at_most
        name = "unstructured" if given_back else _pattern_of(w, asked)
        set_sparsity(model.graph.initializers[w.name], Sparsity(mask, name))
        pruned.append(PrunedLayer(str(w.node.name), mask.size, int(mask.sum())))
    return model, tuple(pruned), tuple(notes)


def _pattern_of(w: Prunable, asked: str) -> str:
    """The pattern that holds: zeros anywhere beside those of an earlier pattern of N of M leave that as it was."""
    before = None if w.pruned is None else w.pruned.pattern
    return before if before is not None and before[0].isdigit() and asked == "unstructured" else asked


def _stays_whole(w: Prunable, shape: tuple[int, ...], pattern: Pattern) -> str | None:
    """Why the pattern can't prune a weight of this shape; None: it can."""
    taps = to_taps(w.node, np.zeros(shape))
    if pattern.keep is not None:
        inputs = taps.shape[2]
        return f"{pattern.name} leaves {inputs} of {inputs} inputs" if pattern.n_of_m(taps).all() else None
    return (
        f"the layer is a single block of {pattern.name}, and every layer keeps its best block"
        if pattern.units(taps).size == 1
        else None
    )
