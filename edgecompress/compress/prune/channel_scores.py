"""How much each channel of a group matters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from edgecompress.analysis.channel_groups import ChannelGroup, Member
from edgecompress.compress.prune.criteria import Statistics, load_criterion, uses_gradients
from edgecompress.errors import InputError
from edgecompress.graph.fusion import constant

if TYPE_CHECKING:
    from edgecompress.train import TrainData
    from edgecompress.train.losses import Loss

SAMPLES = 2048  # of the data, that scores are measured on
BATCH = 64

Scores = dict[ChannelGroup, np.ndarray]


def channel_scores(
    model: ir.Model,
    groups: Sequence[ChannelGroup],
    criterion: str,
    *,
    data: TrainData | None = None,
    loss: Loss | None = None,
    seed: int = 0,
) -> Scores:
    """float64 [size] for each group; the channels of lowest score should go first.

    A criterion in ON_DATA looks at what happens to samples; any other, also a user's, is summed over the weights that
    make or read the channel. loss: of the data's labels, or what stands in for them when it is None.
    Raises InputError when the criterion needs data that isn't there, is not for channels, or returns no scores.
    """
    if criterion in ON_DATA:
        if data is None:
            raise InputError(f'prune.criterion = "{criterion}" needs training data; "l1", "l2" and "random" do not')
        return ON_DATA[criterion](model, groups, data, loss, seed)
    if criterion == "movement":
        raise InputError('prune.criterion = "movement" is for single weights; for channels take "fisher"')
    if criterion == "scale":
        return {g: _scales(model, g) for g in groups}
    score, random = load_criterion(criterion), np.random.default_rng(seed)
    known = _gradients(model, data, loss, seed) if data is not None and uses_gradients(criterion) else {}

    def scores(weight: str, layer: str) -> np.ndarray:
        array = constant(model.graph.initializers[weight]).astype(np.float64)
        return score(array, Statistics(draw=random.random(array.shape), **known.get(weight, {})), layer)

    return {g: _of_weights(g, scores) for g in groups}


def _of_weights(group: ChannelGroup, scores: Callable[[str, str], np.ndarray]) -> np.ndarray:
    layers = {x.weight: x.node for x in (*group.made_by, *group.read_by)}
    total = np.zeros(group.size)
    for m in group.members:
        if m.value in layers:
            total += _by_channel(scores(m.value, layers[m.value]), m.axis, m, group.size)
    return total


def _gradients(model: ir.Model, data: Any, loss: Any, seed: int) -> dict[str, dict[str, np.ndarray]]:
    """For each weight what `Statistics` calls gradient and squared_gradient, means over batches."""
    import torch

    from edgecompress.train.module.torch_model import TorchModel

    module = TorchModel(model, logits=True).eval()
    generator = torch.Generator().manual_seed(seed)
    names, count = list(module.weights), 0
    sums = {n: [np.zeros(tuple(w.shape)), np.zeros(tuple(w.shape))] for n, w in module.weights.items()}
    for batch in _batches(data, seed):
        outputs = module(*batch.inputs)
        value = _sampled(outputs, generator) / len(batch.index) if loss is None else loss(outputs, batch.labels, batch)
        gradients = torch.autograd.grad(value, [module.weights[n] for n in names], allow_unused=True)
        for n, g in zip(names, gradients):
            array = 0.0 if g is None else g.numpy().astype(np.float64)
            sums[n][0] += array
            sums[n][1] += np.square(array)
        count += 1
    return {n: {"gradient": s / max(count, 1), "squared_gradient": q / max(count, 1)} for n, (s, q) in sums.items()}


def _by_channel(array: np.ndarray, axis: int, member: Member, size: int) -> np.ndarray:
    """Sums over all axes but one, of the positions of each channel."""
    line = array.sum(tuple(i for i in range(array.ndim) if i != axis))
    return np.bincount(member.channels, line[member.positions], size)


def _scales(model: ir.Model, group: ChannelGroup) -> np.ndarray:
    """|gamma| of the BatchNormalizations that the channels go through (Z. Liu et al., "Network slimming", 2017)."""
    gammas = {n.inputs[1].name: np.abs(constant(n.inputs[1])) for n in model.graph if n.op_type == "BatchNormalization"}
    found = [_by_channel(gammas[m.value], 0, m, group.size) for m in group.members if m.value in gammas]
    if not found:
        raise InputError(
            f'prune.criterion = "scale": no BatchNormalization behind {group.name}; take another criterion, or load '
            "the model with fold_batchnorm=False"
        )
    return np.sum(found, axis=0)


def _taylor(model: ir.Model, groups: Sequence[ChannelGroup], data: Any, loss: Any, seed: int) -> Scores:
    """|E[dL/dg]| for a gate g = 1 on the channel (P. Molchanov et al., "Importance estimation for neural network
    pruning", 2019, section 3.2)."""
    return _mean(groups, _gates(model, groups, data, loss, seed), np.asarray, np.abs)


def _fisher(model: ir.Model, groups: Sequence[ChannelGroup], data: Any, loss: Any, seed: int) -> Scores:
    """E[(dL/dg)^2] / 2: the loss's second-order change without the channel (L. Theis et al., "Faster gaze prediction
    with dense networks and Fisher pruning", 2018, equation 5; L. Liu et al., "Group Fisher pruning", 2021)."""
    return _mean(groups, _gates(model, groups, data, loss, seed), np.square, lambda mean: mean / 2)


def _activation(model: ir.Model, groups: Sequence[ChannelGroup], data: Any, loss: Any, seed: int) -> Scores:
    """Mean |output| of the layers that make the channel."""
    return _mean(groups, _outputs(model, groups, data), np.asarray, np.asarray)


ON_DATA: dict[str, Callable[..., Scores]] = {"activation": _activation, "fisher": _fisher, "taylor": _taylor}

Samples = Iterator[dict[ChannelGroup, np.ndarray]]  # [samples, size] each


def _mean(
    groups: Sequence[ChannelGroup], batches: Samples, each: Callable[..., Any], after: Callable[..., Any]
) -> Scores:
    total, count = {g: np.zeros(g.size) for g in groups}, 0
    for batch in batches:
        for g in groups:
            total[g] += each(batch[g]).sum(0)
        count += len(batch[groups[0]]) if groups else 0
    return {g: after(sums / max(count, 1)) for g, sums in total.items()}


def _made(model: ir.Model, groups: Sequence[ChannelGroup]) -> dict[ChannelGroup, list[Member]]:
    """The members that are outputs of the layers that make each group."""
    outputs = {str(n.name or n.outputs[0].name): n.outputs[0].name for n in model.graph}
    made = {g: {outputs[x.node] for x in g.made_by} for g in groups}
    return {g: [m for m in g.members if m.value in made[g] and m.axis > 0] for g in groups}


def _gates(model: ir.Model, groups: Sequence[ChannelGroup], data: Any, loss: Any, seed: int) -> Samples:
    """dL/dg for each sample: the sum of y dL/dy over all that the layers make of a channel."""
    import torch

    from edgecompress.train.module.torch_model import TorchModel

    made = _made(model, groups)
    names = sorted({m.value for members in made.values() for m in members})
    module = TorchModel(model, logits=True).eval()
    generator = torch.Generator().manual_seed(seed)
    for batch in _batches(data, seed):
        outputs, values = module(*batch.inputs, capture=names)
        losses = _sampled(outputs, generator) if loss is None else loss(outputs, batch.labels, batch) * len(outputs[0])
        gradients = torch.autograd.grad(losses, [values[n] for n in names], allow_unused=True)
        products = {
            n: np.zeros(values[n].shape) if g is None else (values[n] * g).detach().numpy().astype(np.float64)
            for n, g in zip(names, gradients)
        }
        yield {g: _per_sample(products, members, g.size, len(batch.index)) for g, members in made.items()}


def _outputs(model: ir.Model, groups: Sequence[ChannelGroup], data: Any) -> Samples:
    import torch

    from edgecompress.train.module.torch_model import TorchModel

    made = _made(model, groups)
    names = sorted({m.value for members in made.values() for m in members})
    module = TorchModel(model).eval()
    for batch in _batches(data, 0):
        with torch.no_grad():
            _, values = module(*batch.inputs, capture=names)
        sizes = {n: np.abs(v.numpy().astype(np.float64)) / max(v[0].numel(), 1) for n, v in values.items()}
        yield {g: _per_sample(sizes, members, g.size, len(batch.index)) for g, members in made.items()}


def _batches(data: Any, seed: int) -> Iterator[Any]:
    chosen = np.random.default_rng(seed).permutation(len(data))[:SAMPLES]
    for start in range(0, len(chosen), BATCH):
        yield data.batch(chosen[start : start + BATCH])


def _per_sample(values: dict[str, np.ndarray], members: list[Member], size: int, count: int) -> np.ndarray:
    """[samples, size] sums."""
    total = np.zeros((count, size))
    for m in members:
        array = np.moveaxis(values[m.value], m.axis, 1)
        line = array.reshape(*array.shape[:2], -1).sum(2)[:, m.positions]
        for sample, row in enumerate(line):
            total[sample] += np.bincount(m.channels, row, size)
    return total


def _sampled(outputs: Any, generator: Any) -> Any:
    """A loss without labels whose gradients have the Fisher information as their second moment: of a class drawn by
    the model's own probabilities, or of a normal distribution about the outputs."""
    import torch
    from torch.nn import functional as F

    y = outputs[0]
    if y.ndim == 2 and y.shape[1] > 1:
        drawn = torch.multinomial(torch.softmax(y.detach(), 1), 1, generator=generator)[:, 0]
        return F.cross_entropy(y, drawn, reduction="sum")
    return sum((o * torch.randn(o.shape, generator=generator)).sum() for o in outputs if o.is_floating_point())
