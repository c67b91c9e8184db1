"""Gates on channels: what they compute, the budget of every step, and exactly their channels gone at the end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import edgecompress
from edgecompress.analysis.channel_groups import channel_groups, prunable
from edgecompress.analysis.statistics import statistics
from edgecompress.compress.prune.channels import remove_channels
from edgecompress.ingest import load
from edgecompress.recipe import Train

torch = pytest.importorskip("torch")

DIGITS = Path(__file__).parent.parent / "samples" / "digits"
MODEL, TRAIN, TEST = DIGITS / "digits.onnx", DIGITS / "train.npz", DIGITS / "test.npz"


class Residual(torch.nn.Module):
    """Two convolutions around a shortcut, a depthwise and a 1x1 one, all with BatchNorm, and four classes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.BatchNorm2d(8), torch.nn.ReLU())
        self.inner = torch.nn.Sequential(
            torch.nn.Conv2d(8, 12, 3, padding=1), torch.nn.BatchNorm2d(12), torch.nn.ReLU(),
            torch.nn.Conv2d(12, 8, 3, padding=1), torch.nn.BatchNorm2d(8),
        )  # fmt: skip
        self.apart = torch.nn.Sequential(
            torch.nn.Conv2d(8, 8, 3, padding=1, groups=8), torch.nn.BatchNorm2d(8), torch.nn.ReLU(),
            torch.nn.Conv2d(8, 16, 1), torch.nn.BatchNorm2d(16), torch.nn.ReLU(),
        )  # fmt: skip
        self.last = torch.nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.last(self.apart(x + self.inner(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def bars():
    """The network, and 640 images of 8x8 with a bar in one of four directions."""
    from edgecompress.train import TrainData
    from edgecompress.train.normalised import with_batchnorm

    generator = np.random.default_rng(0)
    y = generator.integers(0, 4, 640)
    x = (0.5 * generator.normal(size=(640, 1, 8, 8))).astype(np.float32)
    places = generator.integers(0, 8, 640)
    line = np.arange(8)
    for image, kind, place in zip(x[:, 0], y, places):
        rows = {0: (place, line), 1: (line, place), 2: (line, (line + place) % 8), 3: (line, (place - line) % 8)}[kind]
        image[rows] += 1.5
    torch.manual_seed(0)
    data = TrainData.from_arrays([x], y)
    model = load(Residual().eval(), input_shapes={"x": (1, 1, 8, 8)}).model
    return with_batchnorm(model, data), data


def gates_of(model, left: float, what: str = "macs", **options):
    from edgecompress.compress.prune.channel_gates import SoftChannels

    random = np.random.default_rng(1)
    scores = {g: random.random(g.size) for g in prunable(channel_groups(model))}
    return SoftChannels(model, scores, what, left, seed=0, least={g.name: 1 for g in scores}, **options)


def test_closed_gates_compute_what_the_model_without_the_channels_does(bars) -> None:
    from edgecompress.train.module.torch_model import TorchModel

    model, data = bars
    gates, module = gates_of(model, 0.4), TorchModel(model)
    gates.on_start(module)
    gates.close()
    removed = gates.removed()
    assert removed and len(gates.groups) == len(prunable(channel_groups(model)))
    x = data.batch(np.arange(16)).inputs[0]
    smaller = remove_channels(model, removed)
    with torch.no_grad():
        (masked,), (cut,) = module.eval()(x), TorchModel(smaller).eval()(x)
    torch.testing.assert_close(masked, cut, rtol=1e-4, atol=1e-5)
    macs = [statistics(m).macs for m in (smaller, model)]
    assert macs[0] / macs[1] <= 0.4


def test_half_open_gates_multiply_the_channels(bars) -> None:
    """Against the same numbers multiplied into the input channels of the weights that read them."""
    from edgecompress.train.module.torch_model import TorchModel

    model, data = bars
    gates, module, plain = gates_of(model, 0.5), TorchModel(model).eval(), TorchModel(model).eval()
    gates.on_start(module)
    gates.meet(0.5)
    factors = gates.channel_gates().detach().numpy()
    assert ((factors > 0) & (factors < 1)).any()
    start = 0
    for group in gates.groups:
        for layer in group.read_by:
            weight = plain.weights[layer.weight]
            if weight.ndim == 4 and weight.shape[1] == 1:
                continue  # depthwise: the next layer reads the same channels
            with torch.no_grad():
                shaped = [-1 if i == 1 else 1 for i in range(weight.ndim)]
                weight.mul_(torch.from_numpy(factors[start : start + group.size]).view(shaped))
        start += group.size
    x = data.batch(np.arange(16)).inputs[0]
    with torch.no_grad():
        torch.testing.assert_close(module(x)[0], plain(x)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("what", ["macs", "parameters", "channels"])
def test_the_budget_holds_while_training_and_at_the_end(bars, what: str) -> None:
    from edgecompress.compress.prune.closing import chance_open
    from edgecompress.train import train
    from edgecompress.train.module.torch_model import TorchModel

    model, data = bars
    gates, module, shares = gates_of(model, 0.5, what), TorchModel(model), {}

    class Watch:
        def before_step(self, step: int, total: int) -> None:
            if step < 0.7 * total:
                parts = gates.channel_gates
                chances = np.append(chance_open(parts.alpha.detach() + parts.common).numpy(), 1)
                costs = [c.full * chances[c.made].mean() * chances[c.read].mean() for c in gates.costs]
                shares[step] = sum(costs) / sum(c.full for c in gates.costs)

    training = Train(epochs=10, batch=64, lr=0.01, optimizer="adam", validation=0, precision="float32")
    history = train(module, data, training, hooks=[gates, Watch()])
    for step in range(0, 70, 10):
        assert shares[step] == pytest.approx(0.5 + 0.5 * (1 - step / 70) ** 3, abs=0.02), step
    removed = gates.removed()
    smaller = remove_channels(module.write_back(), removed)
    if what == "channels":
        achieved = 1 - sum(map(len, removed.values())) / sum(g.size for g in gates.groups)
    else:
        achieved = getattr(statistics(smaller), what) / getattr(statistics(model), what)
    assert 0.35 < achieved <= 0.5 + (0.02 if what == "parameters" else 0)  # BatchNorm's parameters are not counted
    assert history.epochs[-1].loss < 1.2  # ln 4 is 1.39


def test_a_stopped_run_goes_on_to_the_same_bytes(bars, tmp_path: Path, monkeypatch) -> None:
    from edgecompress.train import Session, checkpoint, train
    from edgecompress.train.module.torch_model import TorchModel

    class Killed(BaseException):
        pass

    def run(session: Session) -> list[bytes]:
        gates, module = gates_of(bars[0], 0.5), TorchModel(bars[0])
        train(module, bars[1], Train(epochs=4, batch=64, lr=0.02, validation=0.2), hooks=[gates], session=session)
        return [t.detach().numpy().tobytes() for t in module.state_dict().values()]

    whole = run(Session())
    save, saved = checkpoint.save, []

    def save_and_die(*arguments, **options):
        save(*arguments, **options)
        saved.append(1)
        if len(saved) == 2:
            raise Killed

    monkeypatch.setattr(checkpoint, "save", save_and_die)
    with pytest.raises(Killed):
        run(Session(checkpoint=tmp_path / "run.pt"))
    monkeypatch.setattr(checkpoint, "save", save)
    assert run(Session(checkpoint=tmp_path / "run.pt", resume=True)) == whole


def test_convert_removes_them(tmp_path: Path) -> None:
    """From the recipe to a smaller file, which is as accurate as the digits allow."""
    recipe = tmp_path / "soft.toml"
    recipe.write_text('[train]\nepochs = 6\n[prune]\nmacs = 0.5\nschedule = "soft"\n', encoding="utf-8")
    result = edgecompress.convert(
        MODEL, "android", output=tmp_path / "out", recipe=recipe, train=TRAIN, eval=TEST, formats=["onnx"], max_drop=0
    )
    (goal,) = [g for g in result.report.goals if g.what == "macs kept"]
    assert goal.achieved <= 50
    (check,) = result.report.artifacts[0].checks
    assert check.value > 85
    shapes = [t.dims for t in onnx.load(result.artifacts["onnx"]).graph.initializer if len(t.dims) == 4]
    before = [t.dims for t in onnx.load(MODEL).graph.initializer if len(t.dims) == 4]
    assert sum(s[0] for s in shapes) < sum(s[0] for s in before)
