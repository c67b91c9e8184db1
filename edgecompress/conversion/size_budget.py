"""A limit on the size of artifacts: what it asks of pruning and clustering."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import onnx_ir as ir

from edgecompress.compress.prune.recipe_faults import faults
from edgecompress.errors import InputError
from edgecompress.recipe import Recipe

if TYPE_CHECKING:
    from edgecompress.compress.cluster import Clustered

UNITS = {"": 1, "B": 1, "KB": 1000, "KIB": 1024, "MB": 1000**2, "MIB": 1024**2}
OVERHEAD = 0.15  # of a .pack that is no weights, before one has been made
BITS_KEPT = 3.0  # entropy of a weight that stays: clustered to noise that training makes up for
ENOUGH_BITS = 2.6  # a weight: with as many, clustering alone does it
LARGEST_SPARSITY, LEAST_PARAMETERS = 0.98, 0.01
MOST_ZEROS = 0.9  # share of zeros beyond which channels go first: weights alone would end at chance
TRIES, CLOSE = 3, 0.98


def parse_size(text: str) -> int:
    """ "32KB" -> 32000, "32KiB" -> 32768, "900" -> 900 bytes. Raises InputError for anything else."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if found is None or found[2].upper() not in UNITS or float(found[1]) <= 0:
        raise InputError(f"size {text!r}: expected a number followed by B, KB, KiB, MB or MiB, e.g. 32KB")
    return math.ceil(float(found[1]) * UNITS[found[2].upper()])


def within_budget(recipe: Recipe, weights: int, *, trains: bool, room: float | None = None) -> Recipe:
    """The recipe with pruning and clustering that emit.max_size asks for, where it does not say itself.

    weights: of all layers. trains: whether there is training data. room: bytes to choose by in place of the limit, by
    what an artifact of an earlier choice has more (see size_limit.py). A .pack gets fewer distinct weights, and with
    training fewer weights, and fewer channels where too few weights would be left; other formats hold a byte for each
    weight, so that only channels can go.
    """
    limit, result = recipe.emit.max_size, recipe.model_copy(deep=True)
    if limit is None:
        return recipe
    bits = 8 * max(limit if room is None else room, 1) * (1 - OVERHEAD) / max(weights, 1)
    dense = any(name != "pack" for name in recipe.emit.formats or [])
    if dense and trains and not result.prune.is_structured and bits < 8:
        result.prune.parameters = max(math.floor(125 * bits + 1e-6) / 1000, LEAST_PARAMETERS)
    if not dense:
        if result.cluster.bits is None:
            result.cluster.bits = "auto"
        few = bool(result.quantize.few_bits)  # which say how small, and binary weights can't be zero
        if trains and not few and not result.prune.is_asked_for and bits < ENOUGH_BITS:
            if bits < (least := bits_at(MOST_ZEROS)):
                smaller = result.model_copy(deep=True)
                smaller.prune.parameters = max(round(bits / least, 3), LEAST_PARAMETERS)
                if not faults(smaller.prune, smaller.train.epochs):
                    result, bits = smaller, least
            result.prune.sparsity = round(sparsity_for(bits), 3)
    return result


def bits_at(sparsity: float) -> float:
    """How many bits each weight takes at a share of zeros: H(s) + (1 - s) * BITS_KEPT, H for where they are."""
    places = -sparsity * math.log2(sparsity) - (1 - sparsity) * math.log2(1 - sparsity)
    return places + (1 - sparsity) * BITS_KEPT


def sparsity_for(bits: float) -> float:
    """The share of zeros with which weights take this many bits each."""
    low, high = 0.0, LARGEST_SPARSITY
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if bits_at(middle) > bits else (low, middle)
    return high


def cluster_within(limit: int, cluster: Callable[[int], Clustered], whole: Callable[[ir.Model], int]) -> Clustered:
    """Clusters so that the artifact is at most `limit` bytes, and hardly less: the largest that is, or the smallest.

    cluster: to so many bytes for the weights, or as near as it gets. whole: size of the artifact of a model.
    """
    wanted, tried = round(limit * (1 - OVERHEAD)), []
    for _ in range(TRIES):
        found = cluster(max(wanted, 1))
        total = whole(found.model)
        tried.append((total, found))
        if CLOSE * limit <= total <= limit or found.bytes > wanted >= 1:
            break
        wanted = limit - (total - found.bytes) - limit // 200
    inside = [t for t in tried if t[0] <= limit]
    return max(inside, key=lambda t: t[0])[1] if inside else min(tried, key=lambda t: t[0])[1]
