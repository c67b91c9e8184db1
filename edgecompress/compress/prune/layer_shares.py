"""How much of each layer goes: scores that can be compared between layers, and the shares that follow from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgecompress.compress.prune.allocation import ALLOCATIONS, rank
from edgecompress.compress.prune.erdos_renyi import erdos_renyi
from edgecompress.compress.prune.patterns import parse_pattern
from edgecompress.compress.prune.pruned_weights import Prunable, final_sparsity
from edgecompress.graph.fusion import constant
from edgecompress.recipe import Prune
from edgecompress.support.present import present

if TYPE_CHECKING:
    from edgecompress.train import TrainData

TINY = 1e-9  # in place of no share at all

# Name of a weight, scores of its blocks, their sizes -> scores that can be compared between layers.
Comparable = Callable[[str, np.ndarray, np.ndarray], np.ndarray]


def comparable(settings: Prune, model: ir.Model, weights: Sequence[Prunable], data: TrainData | None) -> Comparable:
    """As the allocation of the settings, which is decided, has it. data: for one that measures outputs."""
    if settings.allocation == "sensitivity":
        from edgecompress.compress.prune.weight_sensitivity import noise_of_layers

        assert data is not None  # recipe_faults sees to it
        noise = noise_of_layers(model, weights, parse_pattern(settings.pattern), data)
        uniform = ALLOCATIONS["uniform"]
        return lambda name, units, sizes: noise[name](uniform(units, sizes))
    if settings.allocation == "erk":
        shapes = {w.name: present(constant(model.graph.initializers[w.name])).shape for w in weights}
        shares = erdos_renyi(shapes, final_sparsity(settings))
        return lambda name, units, sizes: rank(units, sizes) / max(shares[name], TINY)
    return lambda name, units, sizes: ALLOCATIONS[settings.allocation](units, sizes)
