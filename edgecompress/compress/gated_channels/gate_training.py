"""Gates trained to a budget of multiply-accumulates."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from edgecompress.analysis.gated_layers import GatedLayer, macs_run
from edgecompress.compress.gated_channels.insertion import GateNames
from edgecompress.compress.prune.schedules import gradual
from edgecompress.train import Hook, TrainData
from edgecompress.train.module.torch_model import TorchModel

SEEN = 16  # batches whose logits say what the gates of a step will do
SHARE = 0.5  # of the steps, which the schedule takes
UPDATES = 200  # of the budget while a schedule runs
NOISE = 0.3  # of logits, at first; with 1, their own spread, networks learn far less
DAMPING = 0.2  # of a correction, which moves the gates of later layers as well, that is made at a time
FAR = 64.0  # what all logits have in common, at most
SAMPLES, BATCH = 1024, 128  # that the threshold is set by in the end
STEP, HALVINGS = 0.125, 10  # of the search for it


class Logits(nn.Module):
    """Of one gate: passes what it gets, and what all gates have in common, on to `Opening`."""

    seen: Tensor
    common: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("common", torch.tensor(FAR))

    def forward(self, logits: Tensor) -> Tensor:
        """The logits, higher by `common`."""
        self.seen = logits
        return logits + self.common


class Opening(nn.Module):
    """In place of Sign(Relu(logits)): 1 where a noisy logit is above 0, with the gradient of a sigmoid.

    A straight-through sample of the binary concrete distribution (C. Maddison et al., "The concrete distribution", ICLR
    2017; for gates of channels B. Bejnordi et al., "Batch-shaping for learning conditional channel gated networks",
    ICLR 2020, section 3.1), whose noise vanishes while the schedule runs.
    """

    def __init__(self, logits: Logits) -> None:
        super().__init__()
        self.logits = [logits]  # not a part of this module
        self.noise = 1.0
        self.random = torch.Generator()

    def forward(self, gate: Tensor) -> Tensor:
        """[n, blocks], zeros and ones."""
        logits = self.logits[0].seen + self.logits[0].common
        if not self.training:
            return (logits > 0).to(logits.dtype)
        u = torch.rand(logits.shape, generator=self.random).clamp(1e-6, 1 - 1e-6).to(logits.device)
        logits = logits + self.noise * (u.log() - (-u).log1p())
        soft = logits.sigmoid()
        return (logits > 0).to(logits.dtype) + soft - soft.detach()


class Opened(Hook):
    """Gates that close along a schedule, so that at each time a given share of all multiply-accumulates is expected to
    run.

    What all logits have in common meets the budget, as in soft pruning; which gates give way, by sample and layer, is
    left to their gradients. So no price of a multiply-accumulate has to be found.
    """

    def __init__(
        self, module: TorchModel, gates: Sequence[GateNames], layers: Sequence[GatedLayer], budget: float, seed: int
    ) -> None:
        """budget: of multiply-accumulates, mean of all samples. layers: with all of theirs."""
        self.gates, self.layers, self.budget, self.seed = gates, layers, budget, seed
        self.logits = {g.gate: Logits() for g in gates}
        self.openings = [Opening(logits) for logits in self.logits.values()]
        for g, opening in zip(gates, self.openings):
            module.set_value_transform(g.logits, self.logits[g.gate])
            module.set_value_transform(g.gate, opening)
        self.seen: deque[dict[str, np.ndarray]] = deque(maxlen=SEEN)

    def before_step(self, step: int, total: int) -> None:
        """Meet the budget of this step by what gates said in the last ones."""
        last = _last(total)
        noise = NOISE * max(1 - step / last, 0.0) if last else 0.0
        for place, opening in enumerate(self.openings):
            opening.noise = noise
            opening.random.manual_seed(int(np.random.SeedSequence([self.seed, 6, step, place]).generate_state(1)[0]))
        if self.seen and step % max(last // UPDATES, 1) == 0:
            whole = sum(row.macs for row in self.layers)
            share = 1 - gradual(step / max(last, 1), 1 - self.budget / whole)
            logits = {g.gate: np.concatenate([row[g.gate] for row in self.seen]) for g in self.gates}
            wanted, common = common_for(self.layers, logits, share * whole, noise), self.common
            self.common = wanted if common == FAR else common + DAMPING * (wanted - common)

    def after_step(self, step: int, total: int) -> None:
        """Keep what the gates said."""
        self.seen.append({name: t.seen.detach().float().cpu().numpy() for name, t in self.logits.items()})

    def settled(self, step: int, total: int) -> bool:
        """At the end: before it, the epoch that seems the best is one whose gates were further open."""
        return step == total

    def state_dict(self) -> dict[str, Any]:
        """What gates said in the last steps."""
        return {"seen": [{name: torch.from_numpy(a) for name, a in row.items()} for row in self.seen]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on as before."""
        self.seen = deque(({name: a.numpy() for name, a in row.items()} for row in state["seen"]), maxlen=SEEN)

    @property
    def common(self) -> float:
        """What is added to all logits."""
        return float(next(iter(self.logits.values())).common)

    @common.setter
    def common(self, common: float) -> None:
        _set(self.logits.values(), common)


def _set(all_logits: Iterable[Logits], common: float) -> None:
    for logits in all_logits:
        logits.common.fill_(common)


def common_for(
    layers: Sequence[GatedLayer], logits: Mapping[str, np.ndarray], budget: float, noise: float = 0.0
) -> float:
    """What to add to all logits, [n, blocks] by gate, so that the mean of multiply-accumulates is the budget.

    noise: the size of logistic noise that the gates have. Where even closed gates leave more, all are closed.
    """
    low, high = -FAR, FAR
    for _ in range(40):
        middle = (low + high) / 2
        if macs_run(layers, {name: _opened(a + middle, noise) for name, a in logits.items()}) < budget:
            low = middle
        else:
            high = middle
    return high


def settled_common(
    model: ir.Model, gates: Sequence[GateNames], layers: Sequence[GatedLayer], budget: float, data: TrainData
) -> tuple[float, float]:
    """What to add to all logits of a trained model for the budget, and the multiply-accumulates of SAMPLES of the data
    with that, in the mean.

    Found by running the model: with other gates open, later layers read other values, and their gates say something
    else. Where the mean jumps over the budget, the nearest that was seen.
    """
    module, shifts = TorchModel(model).eval(), [Logits() for _ in gates]
    for g, shift in zip(gates, shifts):
        module.set_value_transform(g.logits, shift)
    seen: dict[float, float] = {}

    def run(common: float) -> float:
        _set(shifts, common)
        seen[common] = macs_run(layers, captured(module, [g.gate for g in gates], data))
        return seen[common]

    below = run(0.0) < budget
    side, step = (1.0 if below else -1.0), STEP
    while (run(side * step) < budget) == below and step < FAR:
        step *= 2
    near, far = (0.0 if step == STEP else side * step / 2), side * step
    for _ in range(HALVINGS):
        middle = (near + far) / 2
        near, far = (middle, far) if (run(middle) < budget) == below else (near, middle)
    best = min(seen, key=lambda common: abs(seen[common] - budget))
    return best, seen[best]


def captured(module: TorchModel, names: Sequence[str], data: TrainData) -> dict[str, np.ndarray]:
    """[n, ...] by name, of SAMPLES of the data."""
    chosen = np.sort(np.random.default_rng(0).permutation(len(data))[:SAMPLES])
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    with torch.no_grad():
        for index in np.array_split(chosen, -(-len(chosen) // BATCH)):
            _, values = module(*data.batch(index).inputs, capture=names)
            for name in names:
                found[name].append(values[name].numpy())
    return {name: np.concatenate(rows) for name, rows in found.items()}


def _opened(logits: np.ndarray, noise: float) -> np.ndarray:
    """How likely each is to be open."""
    if noise <= 0:
        return logits > 0
    return 1 / (1 + np.exp(np.clip(-logits / noise, -FAR, FAR)))


def _last(total: int) -> int:
    """The step with which the schedule ends."""
    return min(round(SHARE * total), total - 1)
