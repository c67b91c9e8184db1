"""Half of every group of channels removed: the model is smaller, and computes what the original does with zeros."""

from __future__ import annotations

import numpy as np
import pytest

from edgecompress.compress.prune.channels import remove_channels
from edgecompress.graph.channel_groups import channel_groups, prunable
from edgecompress.graph.channel_rules import RULES
from edgecompress.graph.operators import OPERATORS
from edgecompress.graph.statistics import statistics
from edgecompress.ingest import load
from networks import NETWORKS, example
from pruning import run, zeroed


def test_every_operator_has_a_rule():
    assert set(RULES) == (OPERATORS - {"Reshape"}) | {"BatchNormalization"}


@pytest.mark.parametrize("name", NETWORKS)
def test_half_of_every_group(name, exported):
    model = load(exported(name)).model
    groups = prunable(channel_groups(model))
    rng = np.random.default_rng(0)
    removed = {g: rng.permutation(g.size)[: g.size // 2] for g in groups}
    smaller = remove_channels(model, removed)
    inputs = example(name)
    outputs, before = run(smaller, inputs), statistics(model)
    assert [y.shape for y in outputs] == [tuple(int(d) for d in v.shape) for v in model.graph.outputs]
    if groups:
        assert statistics(smaller).macs < before.macs
    exact = {g: c for g, c in removed.items() if g.approximate is None}
    if len(exact) < len(removed):
        outputs = run(remove_channels(model, exact), inputs)
    for ours, expected in zip(outputs, run(zeroed(model, exact), inputs), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
