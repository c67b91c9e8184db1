"""Soft pruning: gates against the papers' formulas, the budget of every step, masks of exactly the size asked for."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest

import edgecompress
from edgecompress.compress.prune.patterns import parse_pattern
from edgecompress.errors import InputError

torch = pytest.importorskip("torch")

DIGITS = Path(__file__).parent.parent / "samples" / "digits"
MODEL, TRAIN, TEST = DIGITS / "digits.onnx", DIGITS / "train.npz", DIGITS / "test.npz"
FREE = np.ones(1, bool)


def test_thresholds_are_the_papers_equation() -> None:
    """sign(w) max(|w| - t, 0), and the gradients of w and t."""
    from edgecompress.compress.prune.gates import Threshold

    weight = torch.tensor([[0.5, -0.2, 0.1], [-0.9, 0.3, -0.05]], requires_grad=True)
    gate = Threshold(weight.detach(), np.arange(6).reshape(2, 3), FREE)
    gate.common.fill_(-math.log(0.15))
    read = gate(weight)
    expected = weight.detach().sign() * (weight.detach().abs() - 0.15).clamp_min(0)
    assert torch.allclose(read, expected, atol=1e-6)
    read.sum().backward()
    assert torch.allclose(weight.grad, (weight.detach().abs() > 0.15).float(), atol=1e-5)
    # dt / d relative = -t, and each weight that stays shrinks by t towards zero
    assert gate.relative.grad.item() == pytest.approx(0.15 * float(expected.sign().sum()), abs=1e-5)


def test_gates_are_hard_concrete() -> None:
    """Closed with the probability of equation 12; the estimate of equation 13 outside training."""
    from edgecompress.compress.prune.gates import HardConcrete

    count = 40_000
    gate = HardConcrete(torch.ones(count), np.arange(count), FREE)
    gate.common.fill_(0.7)
    gate.draw(np.random.default_rng(0))
    drawn = gate(torch.ones(count)).detach().numpy()
    expected = 1 / (1 + math.exp(-(0.7 - 2 / 3 * math.log(0.1 / 1.1))))
    assert (drawn > 0).mean() == pytest.approx(expected, abs=0.01)
    assert drawn.min() == 0 and drawn.max() == 1
    estimate = gate.eval()(torch.ones(count))
    assert estimate[0].item() == pytest.approx(min(1, 1.2 / (1 + math.exp(-0.7)) - 0.1), abs=1e-5)


@pytest.fixture(scope="module")
def blobs():
    """A small network, and four classes of 12 numbers that it can learn."""
    from edgecompress.ingest import load
    from edgecompress.train import TrainData

    generator = np.random.default_rng(0)
    y = generator.integers(0, 4, 800)
    x = (generator.normal(0, 1, (4, 12))[y] + 0.6 * generator.normal(0, 1, (800, 12))).astype(np.float32)
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(12, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
    return load(network, input_shapes={"input": (1, 12)}).model, TrainData.from_arrays([x], y)


@pytest.mark.parametrize("kind", ["threshold", "l0"])
@pytest.mark.parametrize("pattern", ["unstructured", "block:2x2"])
def test_the_budget_holds_while_training_and_exactly_at_the_end(blobs, kind: str, pattern: str) -> None:
    from edgecompress.compress.prune.gates import Gates
    from edgecompress.compress.prune.pruned_weights import prunable
    from edgecompress.recipe import Train
    from edgecompress.train import train
    from edgecompress.train.module.torch_model import TorchModel

    model, data = blobs
    module = TorchModel(model)
    gates = Gates(module, prunable(model), parse_pattern(pattern), kind, 0.75, 0)
    open_shares: dict[int, float] = {}

    class Watch:
        def before_step(self, step: int, total: int) -> None:
            layers = [(t, module.weights[name].detach()) for name, t in gates.transforms.items()]
            if step < 0.7 * total:
                shares = [(t.open(t.order(w), float(t.common)) @ t.sizes).item() for t, w in layers]
                open_shares[step] = sum(shares) / 512
            else:
                open_shares[step] = sum(int(np.count_nonzero(t(w).detach().numpy())) for t, w in layers) / 512

    training = Train(epochs=10, batch=50, lr=0.01, optimizer="adam", validation=0, precision="float32")
    train(module, data, training, hooks=[gates, Watch()])
    total = 160
    for step in range(0, total, 5):
        expected = 1 - 0.75 + 0.75 * (1 - min(step / 112, 1)) ** 3  # Zhu and Gupta, equation 1
        assert open_shares[step] == pytest.approx(expected, abs=0.02), step
    written = module.write_back().graph.initializers
    masks = gates.masks()
    assert sum(int(m.sum()) for m in masks.values()) == 128  # a quarter of 12 * 32 + 32 * 4
    assert all(not written[name].const_value.numpy()[~mask].any() for name, mask in masks.items())
    if pattern == "block:2x2":
        for mask in masks.values():
            blocks = mask.reshape(mask.shape[0] // 2, 2, mask.shape[1] // 2, 2)
            assert (blocks.all((1, 3)) == blocks.any((1, 3))).all()


@pytest.mark.parametrize("kind", ["threshold", "l0"])
def test_a_stopped_run_goes_on_to_the_same_bytes(blobs, tmp_path: Path, monkeypatch, kind: str) -> None:
    from edgecompress.compress.prune.prune_weights import prune_weights
    from edgecompress.recipe import Prune, Train
    from edgecompress.train import Session, checkpoint

    class Killed(BaseException):
        pass

    def run(session: Session) -> list[bytes]:
        training = Train(epochs=6, batch=50, optimizer="adam", lr=0.01, validation=0.2)
        settings = Prune(sparsity=0.75, schedule="soft", gates=kind)
        found = prune_weights(blobs[0], settings, data=blobs[1], training=training, session=session)
        return [v.const_value.tobytes() for v in found.model.graph.initializers.values()]

    whole = run(Session())
    assert run(Session()) == whole
    saved, saves = checkpoint.save, []

    def save(path: Path, state: dict) -> None:
        saved(path, state)
        saves.append(path)
        if len(saves) in (2, 5):  # while gates are learned, and after
            raise Killed

    monkeypatch.setattr(checkpoint, "save", save)
    for _ in range(2):
        with pytest.raises(Killed):
            run(Session(checkpoint=tmp_path, resume=True))
    assert run(Session(checkpoint=tmp_path, resume=True)) == whole and len(saves) == 6


@pytest.mark.parametrize("kind", ["threshold", "l0"])
def test_the_file_has_the_zeros(tmp_path: Path, kind: str) -> None:
    """From the recipe to the weights of the .onnx, counted with the onnx package."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'[prune]\nsparsity = 0.9\nschedule = "soft"\ngates = "{kind}"\n[quantize]\nweights = "float32"\n'
        '[train]\nepochs = 6\noptimizer = "adam"\nlr = 0.005\nbatch = 64\n'
    )
    result = edgecompress.convert(
        MODEL, "android", train=TRAIN, eval=TEST, recipe=recipe, formats=["onnx"], output=tmp_path / "out"
    )
    graph = onnx.load(result.artifacts["onnx"]).graph
    weights = [a for v in graph.initializer if (a := onnx.numpy_helper.to_array(v)).ndim > 1]
    zeros, total = sum(int((w == 0).sum()) for w in weights), sum(w.size for w in weights)
    assert zeros / total == pytest.approx(0.9, abs=0.03)
    assert result.report.artifacts[0].checks[0].value > 80  # a tenth of it by chance


@pytest.mark.parametrize(
    "text, message",
    [
        ('sparsity = 0.5\nschedule = "soft"', 'prune.schedule = "soft" needs training data'),
        ('pattern = "2:4"\nschedule = "soft"', "can't promise 2:4"),
        ('macs = 0.5\nblocks = 1\nschedule = "soft"', "prune.blocks needs a run of its own"),
        ('macs = 0.5\ncriterion = "scale"\nschedule = "soft"', "gates replace"),
    ],
)
def test_what_cannot_be_is_said(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "recipe.toml").write_text(f"[prune]\n{text}\n")
    with pytest.raises(InputError, match=message):
        edgecompress.convert(MODEL, "android", recipe=tmp_path / "recipe.toml", output=tmp_path / "out")
