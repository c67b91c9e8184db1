"""Soft pruning of channels: a gate for each channel, which close while the model trains until a budget is met."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from edgecompress.analysis.channel_groups import ChannelGroup, is_depthwise, name_of
from edgecompress.analysis.statistics import statistics
from edgecompress.compress.prune.closing import FAR, PRIOR, Closing, chance_open, common_shift, hard_concrete, logistic
from edgecompress.compress.prune.criterion import Scores
from edgecompress.compress.prune.widths import narrow
from edgecompress.graph.channel_axes import shape
from edgecompress.graph.fusion import constant
from edgecompress.operators import record_of
from edgecompress.train.module.torch_model import TorchModel


@dataclass(frozen=True)
class Cost:
    """What a layer costs, and which channels decide it: for each position along the axis of the weight that makes
    channels, and along the one that reads them, the number of its channel among those of all groups, or -1 (it stays).
    """

    full: float
    made: np.ndarray
    read: np.ndarray


class ChannelGates(nn.Module):
    """One hard concrete gate for each channel of all groups, [channels] of them, and in the end a mask.

    start: float64 [channels], log alpha of each to begin with.
    """

    noise: Tensor
    mask: Tensor
    final: Tensor
    common: Tensor

    def __init__(self, start: np.ndarray) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.from_numpy(start.astype(np.float32)))
        self.register_buffer("noise", torch.zeros(len(start)), persistent=False)
        self.register_buffer("mask", torch.ones(len(start)))
        self.register_buffer("final", torch.zeros(()))  # 1: the mask has taken the gates' place
        self.register_buffer("common", torch.tensor(FAR))

    def forward(self) -> Tensor:
        """[channels], 0 to 1."""
        if self.final:
            return self.mask
        return hard_concrete(self.alpha + self.common, self.noise if self.training else None)


class Gated(nn.Module):
    """In place of a weight: the weight times the gates of the channels that it reads along an axis.

    That is what the layer computes when the channels themselves are multiplied; BatchNormalization in front of it,
    which would undo a factor in what makes them, has no say.
    """

    channels: Tensor

    def __init__(self, gates: ChannelGates, axis: int, channels: np.ndarray, rank: int) -> None:
        super().__init__()
        self.gates, self.view = gates, [-1 if i == axis else 1 for i in range(rank)]
        self.register_buffer("channels", torch.from_numpy(channels.astype(np.int64)))

    def forward(self, weight: Tensor) -> Tensor:
        """What nodes read."""
        gates = torch.cat([self.gates(), weight.new_ones(1)])  # the last, at -1, is open
        return weight * gates[self.channels].view(self.view)


class SoftChannels(Closing):
    """Gates on the channels of the TorchModel of a model. They start as `scores` rank the channels, and learn. Along a
    schedule they close, so that the share `left` of `what` ("macs", "parameters" or "channels") is expected to be left;
    then the best channels stay, as many as `narrow` leaves, and train on.

    scores: comparable between groups. align, least: as `narrow` takes them.
    """

    def __init__(
        self,
        model: ir.Model,
        scores: Scores,
        what: str,
        left: float,
        *,
        align: int = 1,
        least: Mapping[str, int],
        seed: int,
    ) -> None:
        super().__init__(left, seed)
        self.model, self.what, self.align, self.least = model, what, align, least
        matrices = _matrices(model)
        read = {(m.weight, m.read) for m in matrices}
        # Channels that only products of computed values read, as in attention, have no gate, and stay.
        self.groups = [g for g in scores if any((m.value, m.axis) in read for m in g.members)]
        self.starts = np.cumsum([0, *(g.size for g in self.groups)])
        ranks = np.argsort(np.argsort(np.concatenate([*(scores[g] for g in self.groups), []]), kind="stable"))
        self.channel_gates = ChannelGates(PRIOR * (2 * (ranks + 0.5) / max(len(ranks), 1) - 1))
        self.costs = self._costs(matrices)

    def on_start(self, module: nn.Module) -> None:
        """Put gates on the weights that read channels."""
        assert isinstance(module, TorchModel)
        for m in _matrices(self.model):
            if m.read is None or m.weight not in module.weights:
                continue
            channels = self._numbers(m.weight, m.read, m.sizes[m.read])
            if channels.max() >= 0:
                there = module.weight_transforms.get(m.weight)
                gated = Gated(self.channel_gates, m.read, channels, len(m.sizes))
                module.set_weight_transform(m.weight, gated if there is None else nn.Sequential(there, gated))
        super().on_start(module)

    def gates(self) -> Iterable[nn.Module]:
        """All gates are one module."""
        return [self.channel_gates]

    def draw(self, generators: Callable[[int], np.random.Generator]) -> None:
        """A logistic number for each channel."""
        self.channel_gates.noise.copy_(logistic(generators(0), int(self.starts[-1])))

    @torch.no_grad()
    def meet(self, left: float) -> None:
        """The product of what is open at both ends of a layer, times its cost, summed over layers."""
        alpha = self.channel_gates.alpha.cpu()

        def cost(common: float) -> float:
            is_open = np.append(chance_open(alpha + common).numpy().astype(np.float64), 1.0)
            return sum(c.full * float(is_open[c.made].mean() * is_open[c.read].mean()) for c in self.costs)

        self.channel_gates.common.fill_(common_shift(cost, left * sum(c.full for c in self.costs)))

    @torch.no_grad()
    def close(self) -> None:
        """The channels of the highest log alpha stay, and nothing but them is trained on."""
        alpha = self.channel_gates.alpha.cpu().double().numpy()
        scores = {g: alpha[a:b] for g, a, b in zip(self.groups, self.starts, self.starts[1:])}
        _, removed = narrow(self.model, scores, self.what, self.left, self.align, least=self.least)
        for g, start in zip(self.groups, self.starts):
            self.channel_gates.mask[start + removed.get(g, np.empty(0, np.int64))] = 0
        self.channel_gates.final.fill_(1)

    def removed(self) -> dict[ChannelGroup, np.ndarray]:
        """The channels of each group that the masks leave out."""
        gone = self.channel_gates.mask.cpu().numpy() == 0
        parts = {g: np.flatnonzero(gone[a:b]) for g, a, b in zip(self.groups, self.starts, self.starts[1:])}
        return {g: channels for g, channels in parts.items() if len(channels)}

    def _numbers(self, weight: str, axis: int | None, size: int) -> np.ndarray:
        """[size]: of each position along an axis of a weight the number of its channel, or -1."""
        numbers = np.full(size, -1, np.int64)
        for g, start in zip(self.groups, self.starts):
            for m in g.members:
                if (m.value, m.axis) == (weight, axis):
                    numbers[m.positions] = start + m.channels
        return numbers

    def _costs(self, matrices: Sequence[Matrix]) -> list[Cost]:
        """Of each layer with a weight; of channels, each is a layer that costs 1."""
        if self.what == "channels":
            return [Cost(1.0, np.array([i]), np.array([-1])) for i in range(int(self.starts[-1]))]
        layers = {x.name: x.macs if self.what == "macs" else x.parameters for x in statistics(self.model).layers}
        return [
            Cost(
                float(layers[m.node]),
                self._numbers(m.weight, m.made, m.sizes[m.made]),
                self._numbers(m.weight, m.read, 1 if m.read is None else m.sizes[m.read]),
            )
            for m in matrices
        ]


@dataclass(frozen=True)
class Matrix:
    """A weight of a layer that makes channels along one axis and, but in depthwise layers, reads them along another."""

    node: str
    weight: str
    sizes: tuple[int, ...]
    made: int
    read: int | None


def _matrices(model: ir.Model) -> list[Matrix]:
    found = []
    for node in model.graph:
        for m in record_of(node).weights.matrices:
            value = node.inputs[m.position] if m.position < len(node.inputs) else None
            if value is None or constant(value) is None:
                continue
            sizes = shape(value)
            read = None if is_depthwise(node) or len(sizes) < 2 else m.into % len(sizes)
            found.append(Matrix(name_of(node), str(value.name), sizes, m.out % len(sizes), read))
    return found
