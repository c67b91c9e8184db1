"""Channels pruned by score: targets are met, bad ones go first, and what can't be done is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch

from edgecompress.analysis.channel_groups import channel_groups, prunable
from edgecompress.analysis.statistics import statistics
from edgecompress.compress.prune.channel_scores import channel_scores
from edgecompress.compress.prune.defaults import CHANNELS, WEIGHTS
from edgecompress.compress.prune.prune_channels import prune_channels
from edgecompress.compress.prune.prune_weights import prune_weights
from edgecompress.compress.prune.slimming import Slimming
from edgecompress.errors import InputError
from edgecompress.evaluate.dataset import load_data
from edgecompress.evaluate.interpreters import OnnxRuntime
from edgecompress.evaluate.metrics import top1
from edgecompress.ingest import fold_batchnorm, load
from edgecompress.recipe import Preprocess, Prune, Train
from edgecompress.train import TrainData, train
from edgecompress.train.losses import cross_entropy
from edgecompress.train.module.torch_model import TorchModel
from edgecompress.train.normalised import refresh_statistics, with_batchnorm
from networks import example

SAMPLE = Path(__file__).parent.parent / "samples" / "digits"
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def digits():
    """(canonical model, training data)"""
    model = load(SAMPLE / "digits.onnx").model
    data = load_data(SAMPLE / "train.npz", model.graph.inputs, Preprocess())
    return model, TrainData.from_dataset(data, model).subset(np.arange(256))


def accuracy(model: ir.Model, data: TrainData) -> float:
    batch = data.batch(np.arange(len(data)))
    with torch.no_grad():
        return top1([TorchModel(model).eval()(*batch.inputs)[0].numpy()], data.labels)


@pytest.mark.parametrize("allocation", ["uniform", "global", "lamp", "sensitivity"])
@pytest.mark.parametrize("target", [{"macs": 0.5}, {"parameters": 0.6}, {"channels": 0.3}])
def test_target_is_met_and_nearly_so(digits, allocation, target):
    model, data = digits
    settings = Prune(criterion="fisher", allocation=allocation, **target)
    found = prune_channels(model, settings, data=data, loss=cross_entropy)
    assert found.achieved <= found.requested <= found.achieved + 0.1
    before, after = statistics(model), statistics(found.model)
    measured = {
        "macs": after.macs / before.macs,
        "parameters": after.parameters / before.parameters,
        "channels": sum(g.after for g in found.groups) / sum(g.before for g in found.groups),
    }
    assert measured[found.what] == pytest.approx(found.achieved)
    assert TorchModel(found.model)(*data.batch(np.arange(2)).inputs)[0].shape == (2, 10)


@pytest.mark.parametrize("target", [{"macs": 0.5}, {"parameters": 0.6}, {"channels": 0.3}])
def test_where_all_channels_are_kept_none_goes(digits, target):
    model, _ = digits
    keep = sorted({x.node for g in prunable(channel_groups(model)) for x in g.made_by})
    found = prune_channels(model, Prune(keep=keep, **target))
    assert found.achieved == 1 and any("at most 0.0 %" in note for note in found.notes)


@pytest.mark.parametrize("target", [{"macs": 0.5}, {"parameters": 0.6}])
def test_shares_are_those_of_the_folded_model(digits, target):
    model, data = digits
    found = prune_channels(with_batchnorm(model, data), Prune(criterion="l2", **target), data=data)
    whole, folded = statistics(model), statistics(fold_batchnorm(found.model))
    share = folded.macs / whole.macs if "macs" in target else folded.parameters / whole.parameters
    assert share == pytest.approx(found.achieved)


@pytest.mark.parametrize("allocation", ["uniform", "global"])
def test_batchnorm_in_place_keeps_more(digits, allocation):
    """Before any training, and with it: its statistics are those of what is left."""
    model, data = digits
    settings = Prune(macs=0.5, criterion="l2", allocation=allocation)
    plain = prune_channels(model, settings, data=data).model
    normalised = prune_channels(with_batchnorm(model, data), settings, data=data).model
    assert accuracy(normalised, data) > accuracy(plain, data) + 5
    module = TorchModel(normalised, logits=True)
    train(module, data, Train(epochs=2, batch=32, optimizer="adam", lr=0.002, validation=0.0), loss=cross_entropy)
    trained = refresh_statistics(module.write_back(), data)
    assert accuracy(trained, data) > accuracy(normalised, data)
    x = data.batch(np.arange(32)).inputs[0]
    with torch.no_grad():
        expected = TorchModel(trained).eval()(x)[0].numpy()
    found = OnnxRuntime(fold_batchnorm(trained)).run({model.graph.inputs[0].name: x.numpy()})[0]
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_align(digits):
    model, _data = digits
    found = prune_channels(model, Prune(macs=0.6, criterion="l1", allocation="global", align=4))
    assert found.achieved <= 0.6
    assert all(g.after % 4 == 0 or g.after == g.before for g in found.groups)


@pytest.mark.parametrize("criterion", ["fisher", "taylor", "activation", "l1", "l2", "random"])
def test_channels_that_do_nothing_go_first(digits, criterion):
    """Half of a layer's weights and biases, and what reads them, made almost zero."""
    model, data = digits
    model = model.clone()
    group = prunable(channel_groups(model))[0]
    weak = np.arange(0, group.size, 2)
    for m in group.members:
        value = model.graph.initializers.get(m.value)
        if value is not None:
            array = value.const_value.numpy().copy()
            array[(slice(None),) * m.axis + (m.positions[np.isin(m.channels, weak)],)] *= 1e-3
            value.const_value = ir.tensor(array, name=value.name)
    (scores,) = channel_scores(model, [group], criterion, data=data, loss=cross_entropy).values()
    if criterion == "random":
        assert len(set(scores)) == group.size
    else:
        strong = np.delete(np.arange(group.size), weak)
        assert scores[weak].max() < np.median(scores[strong])


@pytest.mark.parametrize("normalised", [False, True])
def test_gate_gradients_are_those_of_a_gate(digits, normalised):
    """Finite differences of the loss as a channel is scaled, against the Taylor score."""
    model, data = digits
    data = data.subset(np.arange(64))
    if normalised:
        model = with_batchnorm(model, data)  # whose outputs have the names that those of the layers had
    group = prunable(channel_groups(model))[-1]
    (scores,) = channel_scores(model, [group], "taylor", data=data, loss=cross_entropy).values()
    batch, differences = data.batch(np.arange(64)), []
    outputs = {str(n.name or n.outputs[0].name): n.outputs[0].name for n in digits[0].graph}
    made = {outputs[x.node] for x in group.made_by}
    for channel in range(group.size):
        losses = []
        for factor in (1 + 1e-2, 1 - 1e-2):
            module = TorchModel(model, logits=True).double().eval()
            for m in group.members:
                if m.value in made:
                    module.set_value_transform(m.value, Scaled(m.axis, m.positions[m.channels == channel], factor))
            with torch.no_grad():
                losses.append(cross_entropy(module(*(x.double() for x in batch.inputs)), batch.labels, batch).item())
        differences.append(abs(losses[0] - losses[1]) / 2e-2)
    np.testing.assert_allclose(scores, differences, rtol=0.02, atol=1e-4)


def test_samples_are_told_apart_where_tokens_come_first(exported):
    """This transformer's values are [tokens, samples, features], or rows of both: against samples one by one."""
    model = load(exported("transformer_norm_first")).model
    samples = example("transformer_norm_first", 3)
    data = TrainData.from_arrays(list(samples.values()), np.arange(3) % 2)
    groups = prunable(channel_groups(model))
    found = channel_scores(model, groups, "fisher", data=data, loss=cross_entropy)
    each = [
        channel_scores(model, groups, "fisher", data=data.subset(np.array([i])), loss=cross_entropy) for i in range(3)
    ]
    for group in groups:
        np.testing.assert_allclose(found[group], np.mean([one[group] for one in each], 0), rtol=1e-4, atol=1e-12)


class Scaled(torch.nn.Module):
    def __init__(self, axis: int, positions: np.ndarray, factor: float) -> None:
        super().__init__()
        self.axis, self.positions, self.factor = axis, torch.from_numpy(positions), factor

    def forward(self, x):
        gate = torch.ones(x.shape[self.axis], dtype=x.dtype)
        gate[self.positions] = self.factor
        return x * gate.reshape([-1 if i == self.axis else 1 for i in range(x.ndim)])


def test_fisher_keeps_more_accuracy_than_chance(digits):
    model, data = digits
    kept = {}
    for criterion in ("fisher", "random"):
        settings = Prune(macs=0.7, criterion=criterion, allocation="global")
        kept[criterion] = accuracy(prune_channels(model, settings, data=data, loss=cross_entropy).model, data)
    assert kept["fisher"] > kept["random"] + 10


def test_blocks_that_matter_least_go(exported):
    from edgecompress.compress.prune.channel_sensitivity import noise, remove_blocks

    model = load(exported("residual")).model
    rng = np.random.default_rng(0)
    data = TrainData.from_arrays([rng.normal(0, 1, (32, 3, 16, 16)).astype(np.float32)], None)
    smaller, names = remove_blocks(model, 1, data)
    assert len(names) == 1 and statistics(smaller).macs < statistics(model).macs
    assert noise(model, data)(smaller) > 0
    with pytest.raises(InputError, match="blocks"):
        remove_blocks(model, 9, data)


def test_capacity_keeps_parameters_and_keep_keeps_channels(digits):
    model, _data = digits
    settings = {name: Prune(macs=0.5, criterion="l2", allocation=name) for name in ("capacity", "uniform")}
    found = {name: prune_channels(model, each) for name, each in settings.items()}
    assert all(p.achieved <= 0.5 for p in found.values())
    left = {name: statistics(p.model).parameters for name, p in found.items()}
    assert left["capacity"] > left["uniform"]
    node = str(next(n for n in model.graph if n.op_type == "Conv").name)
    kept = prune_channels(model, Prune(macs=0.7, criterion="l2", keep=[node]))
    (before,) = (n for n in model.graph if n.name == node)
    (after,) = (n for n in kept.model.graph if n.name == node)
    assert after.outputs[0].shape == before.outputs[0].shape and kept.achieved <= 0.7
    with pytest.raises(InputError, match=r"prune.keep: .*'nobody'"):
        prune_channels(model, Prune(macs=0.7, criterion="l2", keep=["nobody"]))


def test_what_cannot_be_done_is_said(digits):
    model, _data = digits
    with pytest.raises(InputError, match="needs training data"):
        prune_channels(model, Prune(macs=0.5, criterion="fisher"))
    with pytest.raises(InputError, match="BatchNormalization"):
        prune_channels(model, Prune(macs=0.5, criterion="scale"))
    found = prune_channels(model, Prune(macs=0.001, criterion="l1", allocation="uniform"))
    assert found.achieved > 0.001 and any("can be removed" in note for note in found.notes)
    assert any("output" in note or "Softmax" in note for note in found.notes)


def test_slimming_adds_the_gradient_of_an_l1_norm(digits):
    """Against autograd of the whole loss."""
    model, data = digits
    normalised = with_batchnorm(model, data)
    gradients = []
    for strength in (0.3, None):
        module = TorchModel(normalised, logits=True)
        slimming = Slimming(normalised, 0.3)
        slimming.on_start(module)
        batch = data.batch(np.arange(16))
        loss = cross_entropy(module(*batch.inputs), batch.labels, batch)
        if strength is not None:
            loss = loss + strength * sum(gamma.abs().sum() for gamma in slimming.scales)
        loss.backward()
        if strength is None:
            slimming.on_gradients(0, 1)
        gradients.append(torch.cat([gamma.grad for gamma in slimming.scales]))
    assert len(gradients[0]) > 8
    torch.testing.assert_close(gradients[0], gradients[1])


def test_a_users_criterion_scores_channels(digits, tmp_path):
    """Its gradients against a loop of plain autograd; sizes alone against ours."""
    model, data = digits
    (tmp_path / "mine.py").write_text(
        "def size(weight, known):\n    return abs(weight)\n\n"
        "def sensitive(weight, known):\n    return weight ** 2 * known.squared_gradient\n"
    )
    groups = prunable(channel_groups(model))
    ours, theirs = (channel_scores(model, groups, c) for c in ("l1", f"{tmp_path}/mine.py:size"))
    assert all(np.array_equal(ours[g], theirs[g]) for g in groups)
    data, group = data.subset(np.arange(64)), groups[0]
    found = channel_scores(model, [group], f"{tmp_path}/mine.py:sensitive", data=data, loss=cross_entropy)[group]
    module, batch = TorchModel(model, logits=True).eval(), data.batch(np.arange(64))  # one batch
    cross_entropy(module(*batch.inputs), batch.labels, batch).backward()
    expected = np.zeros(group.size)
    weights = {x.weight for x in (*group.made_by, *group.read_by)}
    for m in (m for m in group.members if m.value in weights):
        weight = module.weights[m.value]
        score = np.moveaxis((weight * weight.grad).square().detach().numpy(), m.axis, 0)
        for position, channel in zip(m.positions, m.channels):
            expected[channel] += score[position].sum()
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert prune_channels(model, Prune(macs=0.7, criterion=f"{tmp_path}/mine.py:size")).achieved <= 0.7
    (tmp_path / "mine.py").write_text("def size(weight, known):\n    return weight.sum(0)\n")
    with pytest.raises(InputError, match=r"mine.py:size returned shape \[.*\] for layer '"):
        channel_scores(model, groups, f"{tmp_path}/mine.py:size")


@pytest.mark.parametrize("trains", [True, False])
def test_open_choices_are_the_defaults_for_channels(digits, trains):
    """With and without data; what the recipe says itself stays."""
    model, data = digits
    known = {"data": data, "loss": cross_entropy} if trains else {}
    criterion, allocation = CHANNELS[trains]
    same = [
        {},
        {"criterion": criterion},
        {"allocation": allocation},
        {"criterion": criterion, "allocation": allocation},
    ]
    widths = [[g.after for g in prune_channels(model, Prune(macs=0.5, **keys), **known).groups] for keys in same]
    assert all(each == widths[0] for each in widths)
    capacity = prune_channels(model, Prune(macs=0.5, allocation="capacity"), **known)
    assert [g.after for g in capacity.groups] != widths[0] or allocation == "capacity"
    weights = prune_weights(model, Prune(sparsity=0.5)).model
    expected = prune_weights(
        model, Prune(sparsity=0.5, criterion=WEIGHTS[False][0], allocation=WEIGHTS[False][1])
    ).model
    for name, value in expected.graph.initializers.items():
        np.testing.assert_array_equal(value.const_value.numpy(), weights.graph.initializers[name].const_value.numpy())


def test_an_eighth_of_each_group_stays_over_all_parts(digits):
    """Scores are measured again between parts, whose groups are smaller; the limit is of the whole group."""
    model, data = digits
    for allocation in ("global", "lamp", "uniform"):
        found = prune_channels(model, Prune(macs=0.02, criterion="fisher", allocation=allocation), data=data)
        assert all(g.after >= g.before / 8 for g in found.groups)
