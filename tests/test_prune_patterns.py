"""Patterns of zeros hold in the model that is written: after dead channels, in every kind of layer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from inspect import signature

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgecompress.compress.prune.dead import remove_dead_channels
from edgecompress.compress.prune.patterns_again import patterns_again
from edgecompress.compress.prune.prune_weights import prune_weights
from edgecompress.graph.annotations import sparsity
from edgecompress.graph.fusion import constant
from edgecompress.ingest import load
from edgecompress.recipe import Prune
from pruning import run

FLATTENED = {147: (3, 7, 7)} | {16 * n: (n, 4, 4) for n in range(2, 32)}  # inputs of a layer behind an image
PATTERNS = ("2:4", "1:4", "4:8", "1:2", "block:1x4", "block:4x1", "block:1x16", "block:2x2", "block:8x4")


class Branches(nn.Module):
    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, a, 3, padding=1), nn.Conv2d(3, b, 1)
        self.join, self.up, self.last = nn.Conv2d(a + b, 20, 3), nn.ConvTranspose2d(20, 9, 2), nn.Linear(9, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.first(x).relu(), self.second(x).relu()], 1)
        return self.last(self.up(self.join(x).relu()).relu().mean((2, 3)))


def dense(a: int, b: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(147, a), nn.ReLU(), nn.Linear(a, b), nn.ReLU(), nn.Linear(b, 6))


def convolutions(a: int, b: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, a, 3), nn.ReLU(), nn.Conv2d(a, a, 1, groups=a), nn.ReLU(), nn.Conv2d(a, b, 2), nn.ReLU(),
        nn.Flatten(), nn.Linear(16 * b, 4),
    )  # fmt: skip


NETWORKS: dict[str, Callable[[int, int], nn.Module]] = {
    "dense": dense, "convolutions": convolutions, "branches": Branches,
}  # fmt: skip


@functools.cache
def model_of(name: str, a: int, b: int) -> ir.Model:
    network = NETWORKS[name](a, b).eval()
    argument = next(iter(signature(network.forward).parameters))
    return load(network, input_shapes={argument: (1, 3, 7, 7)}).model


def silenced(model: ir.Model, share: float, seed: int) -> ir.Model:
    """Random weights, but for a share of each hidden layer's channels, whose weights and biases are zero."""
    model, generator = model.clone(), np.random.default_rng(seed)
    layers = [n for n in model.graph if n.op_type in ("Conv", "ConvTranspose", "Gemm")]
    for node in layers:
        weight, bias = (np.array(constant(v)) for v in node.inputs[1:3])
        weight = generator.normal(0, 1, weight.shape) / weight[0].size ** 0.5
        gone = (generator.random(len(bias)) < share) & (node is not layers[-1])
        weight[(slice(None),) * (node.op_type == "ConvTranspose") + (gone,)] = 0
        for value, array in zip(node.inputs[1:3], (weight, np.where(gone, 0, 0.1 * generator.normal(size=len(bias))))):
            value.const_value = ir.tensor(array.astype(np.float32), name=value.name)
    return model


def inputs_side_by_side(node: ir.Node, array: np.ndarray) -> np.ndarray:
    """[output channels, taps, inputs], written out for each operator."""
    if node.op_type == "ConvTranspose":
        array = np.moveaxis(array, 0, 1)
    if node.op_type == "MatMul":
        array = array.T
    if array.ndim == 2 and (image := FLATTENED.get(array.shape[1])) is not None:  # which lies channels last
        array = array.reshape(len(array), *image).transpose(0, 2, 3, 1).reshape(array.shape)
    return np.moveaxis(array.reshape(*array.shape[:2], -1), 1, 2)


def faults(node: ir.Node, array: np.ndarray, mask: np.ndarray, pattern: str) -> int:
    """How many groups hold too many weights, or blocks are neither all there nor all zero."""
    weights, kept = inputs_side_by_side(node, array), inputs_side_by_side(node, mask)
    outputs, taps, inputs = weights.shape
    if not pattern.startswith("block"):
        n, m = map(int, pattern.split(":"))
        groups = [weights[:, :, i : i + m] for i in range(0, inputs, m)]
        return sum(int(((g != 0).sum(2) > -(-g.shape[2] * n // m)).sum()) for g in groups)
    rows, columns = map(int, pattern.removeprefix("block:").split("x"))
    count = 0
    for o in range(0, outputs, rows):
        for i in range(0, inputs, columns):
            block = kept[o : o + rows, :, i : i + columns]
            count += sum(block[:, t].any() != block[:, t].all() for t in range(taps))
    return count


@settings(deadline=None, max_examples=20)
@given(st.sampled_from(PATTERNS), st.sampled_from([(5, 17), (16, 8), (22, 12)]), st.floats(0, 0.7), st.integers(0, 99))
@pytest.mark.parametrize("name", NETWORKS)
def test_a_pattern_holds_when_dead_channels_have_gone(
    name: str, pattern: str, sizes: tuple[int, int], share: float, seed: int
) -> None:
    model = silenced(model_of(name, *sizes), share, seed)
    asked = Prune(pattern=pattern, sparsity=0.6 if pattern.startswith("block") else None, allocation="uniform")
    pruned = prune_weights(model, asked).model
    smaller, _ = remove_dead_channels(pruned)
    again, count = patterns_again(smaller)
    for node in again.graph:
        known = sparsity(node.inputs[1]) if len(node.inputs) > 1 else None
        if known is not None:
            array = constant(node.inputs[1])
            assert not array[~known.mask].any()
            assert faults(node, array, known.mask, pattern) == 0, node.name
    x = {
        str(v.name): np.random.default_rng(seed).normal(0, 1, (1, 3, 7, 7)).astype(np.float32)
        for v in model.graph.inputs
    }
    for ours, expected in zip(run(smaller, x), run(pruned, x), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
    assert count == 0 or not pattern.startswith("block")
