"""A family of CPUs, described by how it arranges operands for its kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from edgecompress_runtime.families.shared.arranged_convolution import Arrangement
from edgecompress_runtime.families.shared.arranged_dense import DenseArrangement, SeveralRows, fully_connected_layer
from edgecompress_runtime.families.shared.arranged_depthwise import DepthwiseArrangement
from edgecompress_runtime.families.shared.copies import Copies
from edgecompress_runtime.families.shared.family import Family, Prepare, PrepareGated, first, joined
from edgecompress_runtime.families.shared.float_blocks import FloatUnit
from edgecompress_runtime.families.shared.float_kernels import float_kernels
from edgecompress_runtime.families.shared.layer import convolution_layer
from edgecompress_runtime.families.shared.matrix_products import MatrixArrangement
from edgecompress_runtime.families.shared.pairs import Pairs
from edgecompress_runtime.families.shared.pools import MaxPools
from edgecompress_runtime.families.shared.skipping_arrangement import Cost, Skipping

A = TypeVar("A", Arrangement, DepthwiseArrangement, DenseArrangement)


def _held(row: Sequence[A], coded: bool) -> list[A]:
    return [a if coded else replace(a, coded=None) for a in row]


@dataclass(frozen=True, kw_only=True)
class ArrangedFamily:
    """convolution, depthwise, dense: the first arrangement that can do a layer does it. pairs: of ADD,
    SUB and MUL. products: instructions of a product with all weights, in a convolution and in a fully
    connected layer; lists: of weights that are not zero (all measured: tests/bench/skipping.py). tables: of look-ups of
    sums, as a ratio to a Cortex-M4's (tests/bench/binary_weights.py); 0: products are faster. gated:
    of layers with gates, whose weights are plain. matrices: of products of two that are computed;
    max_pool, copies: of pools and of what moves runs of bytes;
    floats: what it computes float32 with; None for plain kernels."""

    name: str
    convolution: Sequence[Arrangement]
    depthwise: Sequence[DepthwiseArrangement]
    dense: Sequence[DenseArrangement]
    pairs: Pairs
    products: tuple[float, float]
    lists: tuple[Cost, ...]
    tables: float = 0.0
    gated: Mapping[str, PrepareGated] = field(default_factory=dict)
    matrices: MatrixArrangement | None = None
    max_pool: MaxPools | None = None
    copies: Copies | None = None
    floats: FloatUnit | None = None

    def family(self, *, coded: bool) -> Family:
        """coded: whether kernels may hold weights entropy coded and decode them as they run (coding.py)."""
        convs = _held(self.convolution, coded)
        conv, depthwise = first(convs), first(_held(self.depthwise, coded))
        dense = first([*map(SeveralRows, convs), *_held(self.dense, coded)])
        own: dict[str, Prepare] = {
            "CONV_2D": Skipping(conv, self.products[0], convolution_layer, self.lists, self.tables),
            "DEPTHWISE_CONV_2D": depthwise,
            "FULLY_CONNECTED": Skipping(dense, self.products[1], fully_connected_layer, self.lists, self.tables),
        }
        pairs: dict[str, Prepare] = {kind: partial(self.pairs.sum, kind) for kind in ("ADD", "SUB")}
        pairs["MUL"] = self.pairs.product
        matrices: dict[str, Prepare] = {} if self.matrices is None else {"BATCH_MATMUL": self.matrices}
        moves: dict[str, Prepare] = {} if self.copies is None else self.copies.rows()
        if self.max_pool is not None:
            moves["MAX_POOL_2D"] = self.max_pool
        floats = {} if self.floats is None else float_kernels(self.floats)
        return Family(self.name, joined(own | pairs | matrices | moves, floats), self.gated)
