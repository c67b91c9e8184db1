"""Criteria against their definitions: gradients by plain PyTorch, and what the loss really gains without a channel."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature

import numpy as np
import onnx_ir as ir
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from edgecompress.analysis.channel_groups import channel_groups, prunable
from edgecompress.compress.prune.channel_scores import channel_scores
from edgecompress.compress.prune.channels import remove_channels
from edgecompress.compress.prune.defaults import for_channels
from edgecompress.compress.prune.masks import Masks, Scoring
from edgecompress.compress.prune.patterns import parse_pattern
from edgecompress.compress.prune.prune_channels import prune_channels
from edgecompress.compress.prune.prune_weights import prune_weights
from edgecompress.compress.prune.pruned_weights import prunable as prunable_weights
from edgecompress.compress.prune.weight_statistics import Samples
from edgecompress.ingest import load
from edgecompress.recipe import Prune, Train
from edgecompress.train import TrainData
from edgecompress.train.losses import cross_entropy
from edgecompress.train.module.torch_model import TorchModel

torch.set_num_threads(1)
CLASSES, SIDE = 4, 8


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Conv2d(i, 8, 3, padding=1) for i in (1, 8, 8, 8))
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        x = F.relu(x + self.c(F.relu(self.b(x))))
        return self.head(F.relu(self.d(x)).mean((2, 3)))


class Gated(nn.Module):
    """Depthwise, with squeeze and excitation, and two branches that are joined."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.c, self.d = nn.Conv2d(8, 6, 1), nn.Conv2d(8, 6, 3, padding=1)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.b(F.relu(self.a(x))))
        x = x * self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))).sigmoid()
        return self.head(torch.cat([F.relu(self.c(x)), F.relu(self.d(x))], 1).mean((2, 3)))


def plain(activation: type[nn.Module] = nn.ReLU, *, norm: bool = False) -> nn.Module:
    def block(i: int, o: int) -> list[nn.Module]:
        return [nn.Conv2d(i, o, 3, padding=1), *([nn.BatchNorm2d(o)] if norm else []), activation()]

    return nn.Sequential(
        *block(1, 8), nn.MaxPool2d(2), *block(8, 12), nn.Flatten(), nn.Linear(12 * 16, 16), activation(),
        nn.Linear(16, CLASSES),
    )  # fmt: skip


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "dense": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, CLASSES)
    ),
    "convolutions": plain,
    "BatchNorm": lambda: plain(norm=True),
    "hard swish": lambda: plain(nn.Hardswish),
    "residual": Residual,
    "gated": Gated,
}


@pytest.fixture(scope="module")
def images() -> TrainData:
    """Four classes of noisy pictures, each at a place that varies."""
    generator = np.random.default_rng(0)
    shapes = generator.normal(0, 1, (CLASSES, 1, SIDE, SIDE))
    y = generator.integers(0, CLASSES, 512)
    x = np.stack([np.roll(shapes[k], tuple(generator.integers(-1, 2, 2)), (1, 2)) for k in y])
    return TrainData.from_arrays([(x + generator.normal(0, 0.7, x.shape)).astype(np.float32)], y)


LONG = {"convolutions", "hard swish", "residual"}


@pytest.fixture(scope="module", params=[pytest.param(n, marks=pytest.mark.long if n in LONG else ()) for n in NETWORKS])
def learned(request, images: TrainData) -> tuple[nn.Module, ir.Model]:
    """(a network that has learned the pictures, its canonical model, whose weights have the same names)"""
    torch.manual_seed(0)
    network = NETWORKS[request.param]()
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    batch = images.batch(np.arange(len(images)))
    (x,), y = batch.inputs, batch.labels
    for _ in range(8):
        for part in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(network(x[part]), y[part]).backward()
            optimizer.step()
    name = next(iter(signature(network.forward).parameters))
    return network.eval(), load(network, input_shapes={name: (1, 1, SIDE, SIDE)}).model


def gathered(model: ir.Model, data: TrainData, criterion: str, steps: int) -> tuple[TorchModel, Masks]:
    """A model of which random halves of all weights are pruned, after so many steps of SGD on batches of 32."""
    module = TorchModel(model, logits=True).eval()
    scoring = Scoring(criterion, Samples(data, cross_entropy))
    masks = Masks(module, prunable_weights(model), parse_pattern("unstructured"), lambda n, u, s: u, scoring)
    for place, transform in enumerate(masks.transforms.values()):
        generator = np.random.default_rng(place)
        transform.mask.copy_(torch.from_numpy(generator.random(transform.mask.shape) < 0.5))
    optimizer = torch.optim.SGD(module.parameters(), 0.05)
    for step in range(steps):
        batch = data.batch(np.arange(32 * step, 32 * (step + 1)))
        optimizer.zero_grad()
        cross_entropy(module(*batch.inputs), batch.labels, batch).backward()
        masks.on_gradients(step, steps)
        optimizer.step()
    return module, masks


def masked_gradients(model: ir.Model, weights: dict[str, Tensor], x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """dL/dw' by another way than the probes: a module whose weights are themselves the products w' = w m."""
    module = TorchModel(model, logits=True).eval()
    keys = {name: next(k for k, v in module.named_parameters() if v is p) for name, p in module.weights.items()}
    leaves = {name: value.detach().clone().requires_grad_() for name, value in weights.items()}
    outputs = functional_call(module, {keys[n]: v for n, v in leaves.items()}, (x,))
    F.cross_entropy(outputs[0], y).backward()
    return {name: leaf.grad for name, leaf in leaves.items()}


def test_movement_is_the_papers_equation_and_goes_on_for_pruned_weights(learned, images) -> None:
    """Equation 3 by plain SGD on the masked weights: S -= w dL/dw', while w moves only where the mask lets it."""
    model, steps, rate = learned[1], 4, 0.05
    _, masks = gathered(model, images, "movement", steps)
    start = TorchModel(model, logits=True)
    values = {name: p.detach().clone() for name, p in start.weights.items()}
    mask = {name: t.mask for name, t in masks.transforms.items()}
    scores = {name: torch.zeros_like(m) for name, m in mask.items()}
    for step in range(steps):
        batch = images.batch(np.arange(32 * step, 32 * (step + 1)))
        read = {name: v * mask[name] if name in mask else v for name, v in values.items()}
        for name, g in masked_gradients(model, read, batch.inputs[0], batch.labels).items():
            if name in mask:
                scores[name] -= values[name] * g
            values[name] = values[name] - rate * g * mask.get(name, 1.0)
    for name, expected in scores.items():
        found = masks.statistics.of(name)["movement"]
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-3, atol=1e-6)
        assert np.abs(found[mask[name].numpy() == 0]).max() > 0  # these are scored too


def test_fisher_is_the_mean_of_squared_gradients_of_single_samples(learned, images) -> None:
    """Each weight's figure against a loop over single samples; squares of batch gradients are another thing."""
    model, few = learned[1], images.subset(np.arange(48))
    module, masks = gathered(model, few, "fisher", 0)
    masks.statistics.take_samples(0, 1500)
    read = {
        n: p.detach() * (masks.transforms[n].mask if n in masks.transforms else 1) for n, p in module.weights.items()
    }
    total = dict.fromkeys(masks.transforms, 0.0)
    for i in range(len(few)):
        batch = few.batch(np.array([i]))
        gradients = masked_gradients(model, read, batch.inputs[0], batch.labels)
        total = {name: t + gradients[name].double() ** 2 / len(few) for name, t in total.items()}
    found = np.concatenate([masks.statistics.of(n)["fisher"].ravel() for n in total])
    expected = torch.cat([t.flatten() for t in total.values()]).numpy()
    assert np.corrcoef(found, expected)[0, 1] > 0.95
    assert found.sum() == pytest.approx(expected.sum(), rel=0.35)  # drawn at random, the later the more


def loss_of(model: ir.Model, data: TrainData) -> float:
    batch = data.batch(np.arange(len(data)))
    with torch.no_grad():
        return float(F.cross_entropy(TorchModel(model, logits=True).eval()(*batch.inputs)[0], batch.labels))


def test_channels_rank_as_the_loss_does_without_them(learned, images) -> None:
    """Spearman's correlation with what the loss really gains, over all channels of all groups."""
    model = learned[1]
    groups = [g for g in prunable(channel_groups(model)) if g.approximate is None]
    whole = loss_of(model, images)
    true = np.concatenate(
        [[loss_of(remove_channels(model, {g: [i]}), images) - whole for i in range(g.size)] for g in groups]
    )
    for criterion, least in (("taylor", 0.7), ("fisher", 0.7)):
        scores = channel_scores(model, groups, criterion, data=images, loss=cross_entropy)
        found = spearmanr(np.concatenate([scores[g] for g in groups]), true).statistic
        assert found > least, f"{criterion}: {found:.2f}"


def test_taylor_of_channels_squares_what_batches_say(learned, images) -> None:
    """Gates of plain PyTorch behind the first layer; the mean over samples before squares would be another thing."""
    network, model = learned
    names = [n for n, m in network.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    name = {"Residual": "b", "Gated": "squeeze"}.get(type(network).__name__, names[0])  # the only maker of its channels
    group = next(g for g in channel_groups(model) if [x.weight.split(".")[0] for x in g.made_by] == [name])
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]  # which the model has folded
    layer = norms[0] if norms else network.get_submodule(name)
    kept: dict[str, Tensor] = {}

    def gate(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        kept["gate"] = torch.ones(output.shape[1], requires_grad=True)
        return output * kept["gate"].reshape(-1, *[1] * (output.ndim - 2))

    data, handle, squares = images.subset(np.arange(256)), layer.register_forward_hook(gate), []
    order = np.random.default_rng(0).permutation(256)
    for start in range(0, 256, 64):
        batch = data.batch(order[start : start + 64])
        F.cross_entropy(network(*batch.inputs), batch.labels).backward()
        squares.append(kept["gate"].grad.square())
    handle.remove()
    found = channel_scores(model, [group], "taylor", data=data, loss=cross_entropy, seed=0)[group]
    np.testing.assert_allclose(found, torch.stack(squares).mean(0).sqrt().numpy(), rtol=0.02, atol=1e-5)


class Scaled(nn.Module):
    """A convolution whose channels 0 to 3 are below `below` on every sample, then an activation, then `behind`."""

    def __init__(self, activation: nn.Module, below: float, behind: nn.Module, norm: bool) -> None:
        super().__init__()
        self.make, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8) if norm else nn.Identity()
        self.activation, self.behind, self.read = activation, behind, nn.LazyConv2d(6, 1)
        with torch.no_grad():
            (self.norm if norm else self.make).bias[:4] = below
            self.make.weight *= 0.3

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.behind(self.activation(self.norm(self.make(x))))).mean((2, 3))


@pytest.mark.parametrize(
    "activation, below, behind, norm",
    [
        (nn.ReLU(), -30.0, nn.Identity(), False),
        (nn.ReLU6(), -30.0, nn.MaxPool2d(2), False),
        (nn.Hardswish(), -30.0, nn.Identity(), False),
        (nn.ReLU(), -30.0, nn.AvgPool2d(2), True),
        (nn.Sigmoid(), -30.0, nn.Identity(), False),
        (nn.GELU(), -30.0, nn.Conv2d(8, 8, 3, groups=8, bias=False), False),
    ],
    ids=["ReLU", "ReLU6 and MaxPool", "Hardswish", "BatchNorm, ReLU and AvgPool", "Sigmoid", "GELU and depthwise"],
)
@pytest.mark.parametrize(
    "criterion", ["activation", *(pytest.param(c, marks=pytest.mark.long) for c in ("taylor", "fisher"))]
)
def test_channels_that_an_activation_switches_off_go_first(activation, below, behind, norm, criterion, images) -> None:
    torch.manual_seed(0)
    network = Scaled(activation, below, behind, norm)
    network(torch.zeros(2, 1, SIDE, SIDE))
    model = load(network.eval(), input_shapes={"x": (1, 1, SIDE, SIDE)}, fold_batchnorm=not norm).model
    group = prunable(channel_groups(model))[0]
    scores = channel_scores(model, [group], criterion, data=images.subset(np.arange(128)), loss=cross_entropy)[group]
    assert set(np.argsort(scores, kind="stable")[:4]) == {0, 1, 2, 3} and scores[4:].min() > 10 * scores[:4].max()


def test_slimming_ranks_the_scales_of_all_layers_together(images) -> None:
    """As published, one threshold: a layer whose scales are small loses most of its channels."""
    torch.manual_seed(0)
    network = plain(norm=True).eval()
    with torch.no_grad():
        network[1].weight.copy_(torch.linspace(0.9, 1.0, 8))
        network[5].weight.copy_(torch.linspace(0.1, 1.2, 12))
    model = load(network, input_shapes={"input": (1, 1, SIDE, SIDE)}, fold_batchnorm=False).model
    keep = [str(n.name) for n in model.graph if n.op_type == "Gemm"]
    settings = for_channels(Prune(channels=0.4, criterion="scale", keep=keep[:1]), trains=True)
    assert settings.allocation == "global"
    found = prune_channels(model, settings)
    scales = np.sort(np.concatenate([np.linspace(0.9, 1.0, 8), np.linspace(0.1, 1.2, 12)]))
    threshold = scales[8]  # 0.4 of 20
    expected = [int((s >= threshold).sum()) for s in (np.linspace(0.9, 1.0, 8), np.linspace(0.1, 1.2, 12))]
    assert [g.after for g in found.groups] == expected
    named = Prune(channels=0.4, criterion="scale", allocation="uniform")
    assert for_channels(named, trains=True).allocation == "uniform"


def test_movement_learns_where_chance_does_not(images) -> None:
    """95 % of the weights go while the model learns; what is kept is what moved away from zero."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, CLASSES)
    )
    model = load(network, input_shapes={"input": (1, 1, SIDE, SIDE)}).model
    training = Train(epochs=12, batch=32, optimizer="adam", lr=3e-3, validation=0)
    losses = {}
    for criterion in ("movement", "random"):
        asked = Prune(sparsity=0.95, criterion=criterion, allocation="global")
        losses[criterion] = loss_of(prune_weights(model, asked, data=images, training=training).model, images)
    assert losses["movement"] < 0.5 * losses["random"]


def test_sensitivity_harms_less_than_alike_shares(learned, images) -> None:
    """Half to three quarters of the weights go at once, and nothing is trained to make up for it."""
    model = learned[1]
    still = Train(epochs=1, batch=256, lr=1e-12, validation=0)
    for sparsity in (0.5, 0.75):
        losses = {}
        for allocation in ("sensitivity", "uniform"):
            asked = Prune(sparsity=sparsity, allocation=allocation, schedule="one-shot")
            losses[allocation] = loss_of(prune_weights(model, asked, data=images, training=still).model, images)
        assert losses["sensitivity"] < losses["uniform"], sparsity
