"""Compression in a training loop of one's own: what `prepare` computes, and what `finish` hands to `convert`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import edgecompress
from edgecompress.errors import InputError
from edgecompress.evaluate.saturation import as_devices_compute
from edgecompress.graph.fusion import constant
from edgecompress.ingest.torch_export import export_module

STEPS = 60


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.last = nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(F.relu(self.norm(self.first(x)))).relu()
        return self.last(x.mean((2, 3)))


def blobs(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images with a bright quarter, whose place is the class."""
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((count, 1, 8, 8)).astype(np.float32), rng.integers(0, 4, count)
    for image, label in zip(x, y):
        image[0, label // 2 * 4 :, label % 2 * 4 :][:4, :4] += 1.5
    return x, y


X, Y = blobs(512, 0)
HELD_X, HELD_Y = blobs(256, 1)


def loop(module: Any, steps: int = STEPS, lr: float = 5e-3) -> None:
    optimizer = torch.optim.Adam(module.parameters(), lr=lr)
    rng = np.random.default_rng(0)
    module.train()
    for _ in range(steps):
        index = rng.choice(len(X), 64, replace=False)
        loss = F.cross_entropy(module(torch.from_numpy(X[index])), torch.from_numpy(Y[index]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if isinstance(module, edgecompress.Prepared):
            module.step()


def accuracy(module: nn.Module) -> float:
    with torch.no_grad():
        return float((module.eval()(torch.from_numpy(HELD_X)).argmax(1).numpy() == HELD_Y).mean() * 100)


@pytest.fixture(scope="module")
def trained() -> Net:
    torch.manual_seed(0)
    net = Net()
    loop(net, 150)
    assert accuracy(net.eval()) > 90
    return net


@pytest.fixture(scope="module")
def exported(trained: Net) -> onnx.ModelProto:
    """The same, exported once for all tests."""
    return export_module(trained, (torch.zeros(1, 1, 8, 8),))


def converted(model: Any, folder: Path, recipe: Any = None, **given: Any) -> edgecompress.Result:
    data = {"eval": (HELD_X, HELD_Y), "formats": ["onnx"], "output": folder}
    return edgecompress.convert(model, recipe=recipe, **data, **given)


def run(path: Path, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(as_devices_compute(path.read_bytes()))
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: sample[None]})[0] for sample in x])


def test_before_training_it_computes_what_the_module_does(trained: Net) -> None:
    prepared = edgecompress.prepare(trained, {"prune": {"sparsity": 0.8}}, torch.zeros(1, 1, 8, 8), steps=STEPS)
    x = torch.from_numpy(HELD_X)
    torch.testing.assert_close(prepared.eval()(x), trained.eval()(x), atol=1e-4, rtol=1e-4)
    assert {p.shape for p in prepared.parameters()} == {p.shape for p in trained.parameters()}, "BatchNorm is there"


@pytest.mark.parametrize("prune", [{"sparsity": 0.8}, {"pattern": "2:4"}, {"sparsity": 0.75, "schedule": "one-shot"}])
def test_zeros_stay_zero_to_the_end(
    trained: Net, exported: onnx.ModelProto, prune: dict[str, Any], tmp_path: Path
) -> None:
    prepared = edgecompress.prepare(exported, {"prune": prune}, steps=STEPS)
    loop(prepared)
    model = edgecompress.finish(prepared)
    layers = [w for v in model.graph.initializers.values() if (w := constant(v)) is not None and w.ndim > 1]
    zeros = sum((w == 0).sum() for w in layers) / sum(w.size for w in layers)
    # The first layer has a single input, so that 2:4 leaves it whole.
    assert zeros == pytest.approx(prune.get("sparsity", 0.49), abs=0.02)
    result = converted(model, tmp_path, {"cluster": {"bits": 4}, "quantize": {"bias_correction": False}}, calib=X[:64])
    outputs = run(result.artifacts["onnx"], HELD_X)
    assert (outputs.argmax(1) == HELD_Y).mean() * 100 > accuracy(trained) - 6
    stored = [onnx.numpy_helper.to_array(t) for t in onnx.load(result.artifacts["onnx"]).graph.initializer]
    kept = sum((w != 0).sum() for w in stored if w.dtype == np.int8 and w.ndim > 1)
    assert 0 < kept <= sum((w != 0).sum() for w in layers)


def test_int8_and_clusters_end_as_they_were_trained(trained: Net, exported: onnx.ModelProto, tmp_path: Path) -> None:
    recipe = {"quantize": {"activations": "int8"}, "cluster": {"bits": 2}}
    prepared = edgecompress.prepare(exported, recipe, calib=X[:64])
    before = accuracy(prepared)
    loop(prepared, lr=1e-3)
    assert accuracy(prepared) >= max(before, accuracy(trained) - 6)
    with torch.no_grad():
        expected = prepared.eval()(torch.from_numpy(HELD_X)).numpy()
    result = converted(edgecompress.finish(prepared), tmp_path)
    np.testing.assert_allclose(run(result.artifacts["onnx"], HELD_X), expected, atol=0.02 * np.abs(expected).max())
    again = edgecompress.convert(edgecompress.finish(prepared), output=tmp_path / "pack", formats=["pack"])
    assert again.artifacts["pack"].stat().st_size < result.artifacts["onnx"].stat().st_size


@pytest.mark.parametrize(
    "kind, numbers", [("ternary", {-1, 0, 1}), pytest.param("int4", set(range(-7, 8)), marks=pytest.mark.long)]
)
def test_weights_of_few_bits_end_as_they_were_trained(
    exported: onnx.ModelProto, tmp_path: Path, kind: str, numbers: set[int]
) -> None:
    prepared = edgecompress.prepare(exported, {"quantize": {"weights": kind}}, calib=X[:64])
    before = accuracy(prepared)
    loop(prepared, lr=3e-3)
    assert accuracy(prepared) > before - 1
    with torch.no_grad():
        expected = prepared.eval()(torch.from_numpy(HELD_X)).numpy()
    model = edgecompress.finish(prepared)
    result = converted(model, tmp_path)
    np.testing.assert_allclose(run(result.artifacts["onnx"], HELD_X), expected, atol=0.02 * np.abs(expected).max())
    stored = [onnx.numpy_helper.to_array(t) for t in onnx.load(result.artifacts["onnx"]).graph.initializer]
    middle = [set(np.unique(w).tolist()) for w in stored if w.shape == (16, 8, 3, 3)]
    assert len(middle) == 1 and middle[0] <= numbers
    changed = edgecompress.convert(
        model, train=(X, Y), recipe={"prune": {"channels": 0.5}, "train": {"epochs": 1}}, formats=["onnx"],
        output=tmp_path / "pruned",
    )  # fmt: skip
    assert any("few bits have changed" in note for note in changed.report.notes)


def test_channels_go_at_once(trained: Net, exported: onnx.ModelProto) -> None:
    prepared = edgecompress.prepare(exported, {"prune": {"channels": 0.5}})
    assert sum(p.numel() for p in prepared.parameters()) < 0.5 * sum(p.numel() for p in trained.parameters())
    loop(prepared)
    assert accuracy(prepared) > accuracy(trained) - 10


def test_a_run_that_was_stopped_goes_on(exported: onnx.ModelProto) -> None:
    def made() -> edgecompress.Prepared:
        return edgecompress.prepare(exported, {"prune": {"sparsity": 0.9, "criterion": "movement"}}, steps=20)

    whole, part = made(), made()
    loop(whole, 10)
    loop(part, 10)
    other = made()
    other.load_state_dict(part.state_dict())
    for module in (whole, other):
        loop(module, 10)
    for a, b in zip(whole.state_dict().values(), other.state_dict().values()):
        if isinstance(a, torch.Tensor):
            torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("recipe", "given", "message"),
    [
        ({}, {}, "the recipe asks for nothing that is trained"),
        ({"prune": {"sparsity": 0.5}}, {}, 'prune.schedule = "gradual" needs steps='),
        ({"prune": {"sparsity": 0.5, "schedule": "lottery"}}, {"steps": 9}, 'prune.schedule = "lottery" has loops'),
        ({"quantize": {"activations": "int8"}}, {}, "int8 needs calibration data: give calib="),
        ({"prune": {"sparsity": 0.5}, "cluster": {"bits": 2}}, {"steps": 9}, "prepare with [prune] first"),
    ],
)
def test_what_one_loop_cannot_do_is_said(
    exported: onnx.ModelProto, recipe: dict[str, Any], given: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        edgecompress.prepare(exported, recipe, **given)


@pytest.mark.parametrize("set_to_none", [True, False])
def test_gradients_may_be_set_to_zero_before_the_step(exported: onnx.ModelProto, set_to_none: bool) -> None:
    def pruned(early: bool) -> dict[str, torch.Tensor]:
        prepared = edgecompress.prepare(exported, {"prune": {"sparsity": 0.8, "criterion": "taylor"}}, steps=10)
        optimizer = torch.optim.SGD(prepared.parameters(), lr=0.01)
        for start in range(0, 320, 32):
            part = slice(start, start + 32)
            F.cross_entropy(prepared(torch.from_numpy(X[part])), torch.from_numpy(Y[part])).backward()
            optimizer.step()
            if early:
                optimizer.zero_grad(set_to_none)
            prepared.step()
            optimizer.zero_grad()
        return prepared.state_dict()

    early, late = pruned(early=True), pruned(early=False)
    for name, value in early.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(value, late[name], rtol=0, atol=0)


def test_a_step_without_gradients_is_said(exported: onnx.ModelProto) -> None:
    prepared = edgecompress.prepare(exported, {"prune": {"sparsity": 0.8, "criterion": "taylor"}}, steps=10)
    with pytest.raises(InputError, match=r"step\(\) found no gradients"):
        prepared.step()


def test_a_missing_torch_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "edgecompress.own_loop")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(edgecompress.MissingPackageError, match=r"edgecompress.prepare needs PyTorch: pip install"):
        edgecompress.prepare  # noqa: B018


def test_a_schedule_that_did_not_end_is_said(exported: onnx.ModelProto) -> None:
    prepared = edgecompress.prepare(exported, {"prune": {"sparsity": 0.5}}, steps=STEPS)
    loop(prepared, 5)
    with pytest.raises(InputError, match=r"step\(\) was called 5 of 60 times"):
        edgecompress.finish(prepared)
