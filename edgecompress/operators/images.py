"""Helpers that convolutions, pools and pads share in torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import onnx_ir as ir

from edgecompress.graph.nodes import integers

if TYPE_CHECKING:
    from torch import Tensor


def node_pads(node: ir.Node) -> tuple[list[int], list[int]]:
    """Pads (before, after) of each spatial dimension."""
    pads = integers(node, "pads")
    return pads[: len(pads) // 2], pads[len(pads) // 2 :]


def torch_order(before: Sequence[int], after: Sequence[int]) -> list[int]:
    """Pads as torch.nn.functional.pad takes them: from the last dimension on."""
    return [n for pair in zip(reversed(before), reversed(after)) for n in pair]


def torch_layer(
    kind: Literal["conv", "conv_transpose", "max_pool", "avg_pool"], dimensions: int
) -> Callable[..., Tensor]:
    """torch.nn.functional's layer for signals (one dimension) or images (two)."""
    from torch.nn import functional as F

    found: Callable[..., Tensor] = getattr(F, f"{kind}{dimensions}d")
    return found
