"""Effects of channels on samples, from which criteria of channels are computed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgecompress.analysis.channel_groups import ChannelGroup, Member
from edgecompress.compress.prune.criterion import ChannelEvidence, Scores
from edgecompress.graph.channel_axes import shape
from edgecompress.graph.fusion import constant

if TYPE_CHECKING:  # criteria are read without torch, which only those that look at samples need
    import torch
    from torch import Tensor

    from edgecompress.train import TrainData
    from edgecompress.train.train_data import Batch

SAMPLES = 2048  # of the data, that scores are measured on
BATCH = 64
ALONE = 256  # of the data, where samples can only be told apart one by one

Samples = Iterator[dict[ChannelGroup, np.ndarray]]  # [samples, size] each


def mean_over_samples(
    evidence: ChannelEvidence, batches: Samples, of_batch: Callable[[np.ndarray], np.ndarray]
) -> Scores:
    """The mean of what batches say, `of_batch` of [samples, size] each, weighted by how many samples they have."""
    groups = evidence.groups
    total, count = {g: np.zeros(g.size) for g in groups}, 0
    for batch in batches:
        samples = len(batch[groups[0]]) if groups else 0
        for g in groups:
            total[g] += samples * of_batch(batch[g])
        count += samples
    return {g: sums / max(count, 1) for g, sums in total.items()}


def in_batches(samples: Samples) -> Samples:
    """The same samples, BATCH at a time where they came one by one."""
    waiting: list[dict[ChannelGroup, np.ndarray]] = []
    for each in samples:
        waiting.append(each)
        if sum(len(next(iter(w.values()))) for w in waiting) >= BATCH:
            yield {g: np.concatenate([w[g] for w in waiting]) for g in each}
            waiting = []
    if waiting:
        yield {g: np.concatenate([w[g] for w in waiting]) for g in waiting[0]}


def gates(evidence: ChannelEvidence) -> Samples:
    """dL/dg for each sample: the sum of y dL/dy over all that the layers make of a channel."""
    import torch

    from edgecompress.train.module.torch_model import TorchModel

    made = _made(evidence.model, evidence.groups)
    names = sorted({m.value for members in made.values() for m in members})
    module = TorchModel(evidence.model, logits=True).eval()
    generator = torch.Generator().manual_seed(evidence.seed)
    for batch in batches(evidence.samples, evidence.seed, alone=_mixed(evidence.model, names)):
        outputs, values = module(*batch.inputs, capture=names)
        if evidence.loss is None:
            losses = sampled_loss(outputs, generator)
        else:
            losses = evidence.loss(outputs, batch.labels, batch) * len(outputs[0])
        gradients = torch.autograd.grad(losses, [values[n] for n in names], allow_unused=True)
        products = {
            n: np.zeros(values[n].shape) if g is None else (values[n] * g).detach().numpy().astype(np.float64)
            for n, g in zip(names, gradients)
        }
        yield {g: _per_sample(products, members, g.size, len(batch.index)) for g, members in made.items()}


def sizes_as_read(evidence: ChannelEvidence) -> Samples:
    """Mean |value| for each sample, over all positions of a channel in what its readers multiply with."""
    import torch

    from edgecompress.train.module.torch_model import TorchModel

    read = _read(evidence.model, evidence.groups)
    names = sorted({m.value for members in read.values() for m in members})
    module = TorchModel(evidence.model).eval()
    for batch in batches(evidence.samples, 0, alone=_mixed(evidence.model, names)):
        with torch.no_grad():
            _, values = module(*batch.inputs, capture=names)
        sizes = {n: np.abs(v.numpy().astype(np.float64)) / max(v[0].numel(), 1) for n, v in values.items()}
        yield {g: _per_sample(sizes, members, g.size, len(batch.index)) for g, members in read.items()}


def by_channel(array: np.ndarray, axis: int, member: Member, size: int) -> np.ndarray:
    """Sums over all axes but one, of the positions of each channel."""
    line = array.sum(tuple(i for i in range(array.ndim) if i != axis))
    return np.bincount(member.channels, line[member.positions], size)


def _made(model: ir.Model, groups: Sequence[ChannelGroup]) -> dict[ChannelGroup, list[Member]]:
    """The members that are outputs of the layers that make each group, behind their BatchNormalization: without the
    channel, what is there is zero."""
    outputs = {str(n.name or n.outputs[0].name): str(_normalised(n.outputs[0]).name) for n in model.graph}
    made = {g: {outputs[x.node] for x in g.made_by} for g in groups}
    return {g: [m for m in g.members if m.value in made[g] and m.axis > 0] for g in groups}


def _normalised(value: ir.Value) -> ir.Value:
    readers = value.consumers()
    return readers[0].outputs[0] if [n.op_type for n in readers] == ["BatchNormalization"] else value


def _read(model: ir.Model, groups: Sequence[ChannelGroup]) -> dict[ChannelGroup, list[Member]]:
    """The members that layers which read the group multiply with; of a group without any, what its makers make."""
    inputs: dict[str, set[str]] = {}
    for node in model.graph:
        computed = {str(v.name) for v in node.inputs if v is not None and constant(v) is None}
        inputs.setdefault(str(node.name or node.outputs[0].name), set()).update(computed)
    made, read = _made(model, groups), {}
    for g in groups:
        names = set().union(*(inputs.get(x.node, set()) for x in g.read_by))
        read[g] = [m for m in g.members if m.value in names and m.axis > 0] or made[g]
    return read


def _per_sample(values: dict[str, np.ndarray], members: list[Member], size: int, count: int) -> np.ndarray:
    """[samples, size] sums."""
    total = np.zeros((count, size))
    for m in members:
        array = np.moveaxis(values[m.value], m.axis, 1)
        line = array.reshape(*array.shape[:2], -1).sum(2)[:, m.positions]
        line = line.sum(0, keepdims=True) if count == 1 else line
        for sample, row in enumerate(line):
            total[sample] += np.bincount(m.channels, row, size)
    return total


def _mixed(model: ir.Model, names: Sequence[str]) -> bool:
    """Whether the first axis of some of these values is not that of samples, or not of samples alone: an exporter may
    have made rows of all tokens of a batch."""
    return any(str(v.name) in names and shape(v)[0] != 1 for n in model.graph for v in n.outputs)


def batches(data: TrainData, seed: int, *, alone: bool = False) -> Iterator[Batch]:
    """At most SAMPLES of the data, drawn with the seed; or ALONE of them, one by one."""
    limit, size = (ALONE, 1) if alone else (SAMPLES, BATCH)
    chosen = np.random.default_rng(seed).permutation(len(data))[:limit]
    for start in range(0, len(chosen), size):
        yield data.batch(chosen[start : start + size])


def sampled_loss(outputs: Sequence[Tensor], generator: torch.Generator) -> Tensor:
    """A loss without labels whose gradients have the Fisher information as their second moment: of a class drawn by
    the model's own probabilities, or of a normal distribution about the outputs."""
    import torch
    from torch.nn import functional as F

    y = outputs[0]
    if y.ndim == 2 and y.shape[1] > 1:
        drawn = torch.multinomial(torch.softmax(y.detach(), 1), 1, generator=generator)[:, 0]
        return F.cross_entropy(y, drawn, reduction="sum")
    products = [(o * torch.randn(o.shape, generator=generator)).sum() for o in outputs if o.is_floating_point()]
    return functools.reduce(torch.add, products)
