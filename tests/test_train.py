"""The training loop learns, stops, keeps the best weights, and goes on bit for bit after a kill."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from edgecompress.errors import InputError, MissingPackageError
from edgecompress.evaluate.dataset import load_data
from edgecompress.evaluate.metrics import top1
from edgecompress.evaluate.metrics.metric import Metric
from edgecompress.ingest import load
from edgecompress.operators.batchnorm_module import BatchNorm
from edgecompress.recipe import Preprocess, Train
from edgecompress.train import Hook, Session, TrainData, train
from edgecompress.train.augment import flip_crop, shift
from edgecompress.train.mixed_precision import choose
from edgecompress.train.module.torch_model import TorchModel
from edgecompress.train.normalised import with_batchnorm
from edgecompress.train.optimizer import learning_rate, make_optimizer

SAMPLE = Path(__file__).parent.parent / "samples" / "digits"
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def digits():
    """(canonical model, training data, test data)"""
    model = load(SAMPLE / "digits.onnx").model
    data = [
        TrainData.from_dataset(load_data(SAMPLE / name, model.graph.inputs, Preprocess()), model)
        for name in ("train.npz", "test.npz")
    ]
    return model, *data


def scrambled(model) -> TorchModel:
    """The network before it has learned anything."""
    module = TorchModel(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in module.weights.values():
            fan_in = p[0].numel() if p.ndim > 1 else 1
            size = (2 / fan_in) ** 0.5 if p.ndim > 1 else 0.0
            p.copy_(size * torch.randn(p.shape, generator=generator))
    return module


def accuracy(module: nn.Module, data: TrainData) -> float:
    batch = data.batch(np.arange(len(data)))
    with torch.no_grad():
        return top1([module(*batch.inputs)[0].numpy()], data.labels)


def blobs(n: int = 96, seed: int = 0) -> TrainData:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    return TrainData.from_arrays([(rng.normal(0, 1, (n, 4)) + 2 * np.eye(3, 4)[labels]).astype(np.float32)], labels)


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 3)
        generator = torch.Generator().manual_seed(1)
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=generator) * 0.3

    def forward(self, x):
        return (self.second(torch.tanh(self.first(x))),)


def bits(module: nn.Module) -> list[bytes]:
    return [v.numpy().tobytes() for v in module.state_dict().values()]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_learns_digits(digits, optimizer):
    model, data, test = digits
    module = scrambled(model)
    assert accuracy(module.eval(), test) < 40
    lr = {"sgd": 0.05, "adam": 0.01}[optimizer]
    settings = Train(epochs=10, batch=64, lr=lr, optimizer=optimizer, augment="shift", clip=5.0, metric="top1")
    lines: list[str] = []
    history = train(module, data, settings, session=Session(log=lines.append))
    assert accuracy(module, test) > 90
    assert len(history.epochs) == len(lines) == 10 and history.samples + history.validation_samples == len(data)
    assert history.epochs[history.best_epoch - 1].validation_value == max(e.validation_value for e in history.epochs)
    assert "top1" in lines[0] and "samples/s" in lines[0] and lines[-1].endswith("0:00 left")


def test_one_step_is_torchs_own():
    """A step over all samples, written out."""
    data, module, twin = blobs(), Tiny(), Tiny()
    settings = Train(epochs=3, batch=96, lr=0.1, warmup=0, validation=0, weight_decay=0.01, clip=0.5)
    train(module, data, settings)
    decayed = [p for p in twin.parameters() if p.ndim > 1]
    plain = [p for p in twin.parameters() if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": plain}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(twin(data.batch(np.arange(len(data))).inputs[0])[0], torch.from_numpy(data.labels)).backward()
        nn.utils.clip_grad_norm_(twin.parameters(), 0.5)
        optimizer.step()
        schedule.step()
    for a, b in zip(module.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kind", ["cosine", "step"])
def test_schedules_equal_torchs(kind):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    schedulers = {
        "cosine": lambda: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40),
        "step": lambda: torch.optim.lr_scheduler.MultiStepLR(optimizer, [20, 30]),
    }
    scheduler = schedulers[kind]()
    settings = Train(lr=0.3, schedule=kind)
    for step in range(40):
        assert learning_rate(settings, 5 + step, 45, 5) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert [learning_rate(settings, i, 45, 5) for i in range(5)] == pytest.approx([0.06, 0.12, 0.18, 0.24, 0.3])


def test_parameter_groups():
    weight, bias = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    frozen = nn.Parameter(torch.ones(2), requires_grad=False)
    groups = [{"params": [weight, frozen], "lr_scale": 0.1}, {"params": [bias]}]
    optimizer = make_optimizer(groups, Train(weight_decay=0.5))
    assert [(len(g["params"]), g["lr_scale"], g["weight_decay"]) for g in optimizer.param_groups] == [
        (1, 0.1, 0.5),
        (1, 1.0, 0.0),
    ]


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    ("augment", "reach", "mode", "flips"), [(flip_crop, 2, "edge", True), (shift, 1, "constant", False)]
)
def test_augmented_images_are_moved_ones(augment, reach, mode, flips, last):
    x = np.random.default_rng(0).normal(size=(40, 3, 16, 13)).astype(np.float32)
    given = torch.from_numpy(np.moveaxis(x, 1, -1) if last else x)
    moved = augment(given, np.random.default_rng(7)).numpy()
    moved = np.moveaxis(moved, -1, 1) if last else moved
    seen = set()
    for image, result in zip(x, moved, strict=True):
        padded = np.pad(image, ((0, 0), (reach, reach), (reach, reach)), mode)
        found = [
            (r, c, flip)
            for r in range(2 * reach + 1)
            for c in range(2 * reach + 1)
            for flip in (False, True)
            if np.array_equal(padded[:, r : r + 16, c : c + 13][..., :: -1 if flip else 1], result)
        ]
        assert len(found) == 1
        seen.add(found[0])
    assert len(seen) > 8 and {flip for *_, flip in seen} == ({False, True} if flips else {False})
    again = augment(given, np.random.default_rng(7)).numpy()
    np.testing.assert_array_equal(np.moveaxis(again, -1, 1) if last else again, moved)


def test_best_weights_and_early_stop(monkeypatch):
    """The metric says that epoch 2 is the best; two worse ones end the run."""
    values = iter([0.1, 0.9, 0.5, 0.4, 1.0])
    kept: list[list[bytes]] = []

    class Keep(Hook):
        def on_epoch(self, epoch):
            kept.append(bits(module))

    module = Tiny()
    monkeypatch.setattr(
        "edgecompress.train.loop.load_metric", lambda name: Metric(name, lambda outputs, labels: next(values))
    )
    settings = Train(epochs=5, batch=16, patience=2, lr=0.1, metric="top1")
    history = train(module, blobs(), settings, hooks=[Keep()])
    assert history.stopped_early and len(history.epochs) == 4 and history.best_epoch == 2
    assert bits(module) == kept[1]


def test_weights_count_once_a_schedule_has_settled(monkeypatch):
    class Schedule(Hook):
        def settled(self, step, total):
            return step > total // 2

    values = iter([0.9, 0.8, 0.3, 0.5])
    module = Tiny()
    monkeypatch.setattr(
        "edgecompress.train.loop.load_metric", lambda name: Metric(name, lambda outputs, labels: next(values))
    )
    settings = Train(epochs=4, batch=16, lr=0.1, metric="top1")
    history = train(module, blobs(), settings, hooks=[Schedule()])
    assert history.best_epoch == 4


def test_losses_of_the_users_own(tmp_path):
    file = tmp_path / "task.py"
    file.write_text(
        "def loss(outputs, labels, batch):\n    return ((outputs[0][:, 0] - batch.inputs[0][:, 0]) ** 2).mean()\n"
        "def bad(outputs, labels, batch):\n    return outputs[0]\n"
    )
    data = TrainData.from_arrays([blobs().batch(np.arange(len(blobs()))).inputs[0].numpy()], None)
    history = train(Tiny(), data, Train(epochs=8, batch=16, lr=0.1, loss=f"{file}:loss"))
    assert history.epochs[-1].loss < 0.3 * history.epochs[0].loss
    with pytest.raises(InputError, match=r"bad returned shape \[16, 3\]; expected a torch tensor without dimensions"):
        train(Tiny(), data, Train(epochs=1, batch=16, loss=f"{file}:bad"))
    with pytest.raises(InputError, match="training needs labels"):
        train(Tiny(), data, Train(epochs=1, batch=16))
    with pytest.raises(InputError, match=r"the loss is .* in epoch .*lower"):
        train(Tiny(), data, Train(epochs=30, batch=16, lr=1e20, loss=f"{file}:loss"))
    with pytest.raises(InputError, match="is for images of 1, 3 or 4 channels"):
        train(Tiny(), blobs(), Train(augment="shift"))


def test_regression_labels_get_mse():
    x = blobs().batch(np.arange(len(blobs()))).inputs[0].numpy()
    data = TrainData.from_arrays([x], x[:, :3] * 2)
    history = train(Tiny(), data, Train(epochs=10, batch=16, lr=0.1))
    assert history.epochs[-1].validation_loss < 0.5 * history.epochs[0].validation_loss


def test_bfloat16_is_taken_only_when_faster(monkeypatch):
    module, loss = Tiny(), lambda m: m(torch.zeros(2, 4))[0].sum()
    cpu = torch.device("cpu")
    assert choose(Train(), cpu, module, loss) == "float32"
    seconds = {"float32": 1.0, "bfloat16": 0.6}
    monkeypatch.setattr("edgecompress.train.mixed_precision._seconds", lambda module, loss, name: seconds[name])
    assert choose(Train(precision="mixed"), cpu, module, loss) == "bfloat16"
    seconds["bfloat16"] = 0.95
    assert choose(Train(precision="mixed"), cpu, module, loss) == "float32"
    monkeypatch.setattr("edgecompress.train.mixed_precision.choose", lambda *arguments: "bfloat16")
    history = train(module, blobs(), Train(epochs=5, batch=16, lr=0.1, precision="mixed"))
    assert history.precision == "bfloat16" and history.epochs[-1].loss < history.epochs[0].loss


class Noise(Hook):
    """Draws from every generator, and counts: what a resumed run must not lose."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.count, self.seconds = 0, seconds

    def on_start(self, module):
        self.module = module

    def after_step(self, step, total):
        self.count += 1
        time.sleep(self.seconds)
        with torch.no_grad():
            factor = 1e-3 * (random.random() + np.random.rand() + self.count)
            self.module.second.bias.add_(torch.rand(3) * factor)

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def noisy_run(checkpoint: Path | None, resume: bool, seconds: float = 0.0, optimizer: str = "adam") -> list[bytes]:
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    module = Tiny()
    settings = Train(epochs=6, batch=16, lr=0.05, optimizer=optimizer, validation=0.2, patience=5)
    session = Session(checkpoint=checkpoint, resume=resume)
    history = train(module, blobs(), settings, hooks=[Noise(seconds)], session=session)
    figures = [np.array([e.loss, e.validation_loss]).tobytes() for e in history.epochs]
    return [*bits(module), *figures, bytes([history.best_epoch])]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_killed_runs_end_the_same(tmp_path, optimizer):
    """SIGKILL at random moments, also while a checkpoint is written; each run goes on from what is there."""
    expected = noisy_run(None, False, optimizer=optimizer)
    rng = np.random.default_rng(0)
    fork = multiprocessing.get_context("fork")
    killed = 0
    path = tmp_path / "run.checkpoint"
    for _ in range(10):
        process = fork.Process(target=noisy_run, args=(path, True, 0.002, optimizer))
        process.start()
        process.join(float(rng.uniform(0.005, 0.06)))
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.join()
    assert killed >= 5
    assert noisy_run(path, True, optimizer=optimizer) == expected
    assert noisy_run(path, True, optimizer=optimizer) == expected  # a finished run has nothing to do
    assert not list(tmp_path.glob("*.partial")) or path.exists()


def test_checkpoints_of_something_else_are_refused(tmp_path):
    path = tmp_path / "run.checkpoint"
    train(Tiny(), blobs(), Train(epochs=1, batch=16), session=Session(checkpoint=path))
    with pytest.raises(InputError, match="is from a run with another settings"):
        train(Tiny(), blobs(), Train(epochs=2, batch=16), session=Session(checkpoint=path, resume=True))
    with pytest.raises(InputError, match="another seed, samples"):
        train(Tiny(), blobs(64), Train(epochs=1, batch=16), session=Session(checkpoint=path, resume=True, seed=1))
    for content in (b"", b"something", path.read_bytes()[:-100]):
        path.write_bytes(content)
        with pytest.raises(InputError, match="not a checkpoint of edgecompress"):
            train(Tiny(), blobs(), Train(epochs=1, batch=16), session=Session(checkpoint=path, resume=True))
    with pytest.raises(InputError, match="can't be written"):
        train(Tiny(), blobs(), Train(epochs=1, batch=16), session=Session(checkpoint=path / "x"))


def test_a_checkpoint_that_the_disk_has_no_room_for(tmp_path):
    """A limit on files' sizes stands in for a full disk: torch raises the same."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    module = Tiny()
    module.first, module.second = nn.Linear(4, 20_000), nn.Linear(20_000, 3)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(InputError, match="c: the checkpoint can't be written, is the disk full"):
            train(module, blobs(), Train(epochs=1, batch=16), session=Session(checkpoint=tmp_path / "c"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_labels_that_the_model_has_no_outputs_for():
    data = blobs()
    data.labels[5] = 99
    with pytest.raises(InputError, match="expected 0 to 2, as the model has 3 outputs; found 0 to 99"):
        train(Tiny(), data, Train(epochs=1, batch=len(data)))


def shared_run() -> tuple[Tiny, list[float], int]:
    module = Tiny()
    history = train(module, blobs(100), Train(epochs=4, batch=24, lr=0.1, validation=0.1, metric="top1", clip=1.0))
    return module, [e.loss for e in history.epochs], history.processes


def process_of_two(rank: int, port: int, out: Path, work: Callable[[], list]) -> None:
    """What torchrun starts."""
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", **address)
    torch.save(work(), out / f"{rank}.pt")


def by_two_processes(work: Callable[[], list], folder: Path) -> list[list]:
    """What each of them found."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    running = [fork.Process(target=process_of_two, args=(rank, port, folder, work)) for rank in range(2)]
    for process in running:
        process.start()
    for process in running:
        process.join(60)
        assert process.exitcode == 0
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def shared_state() -> list:
    module, losses, count = shared_run()
    return [module.state_dict(), losses, count]


def test_two_processes_equal_one(tmp_path):
    alone, losses, _ = shared_run()
    for weights, found, count in by_two_processes(shared_state, tmp_path):
        assert count == 2 and found == pytest.approx(losses, rel=1e-5)
        for name, value in alone.state_dict().items():
            torch.testing.assert_close(weights[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "shape, dtype, tolerance",
    [((6, 5, 3, 4), torch.float32, 1e-5), ((7, 5), torch.float32, 1e-5), ((6, 5, 3, 4), torch.bfloat16, 0.02)],
    ids=str,
)
def test_shared_batchnorm_is_batchnorm(shape: tuple[int, ...], dtype: torch.dtype, tolerance: float) -> None:
    """Outputs, gradients and running statistics of torch's own, when one process shares with itself."""
    generator, found = torch.Generator().manual_seed(0), []
    x = (3 * torch.randn(shape, generator=generator) + 5).to(dtype)
    wanted, weights = torch.randn(shape, generator=generator), torch.rand(4, 5, generator=generator)
    for shared in (True, False):
        layer = BatchNorm(1e-5)
        layer.over_processes = (lambda value: value) if shared else None
        inputs = [v.clone().requires_grad_(i < 3) for i, v in enumerate((x, *weights))]
        y = layer(*inputs)
        (y.float() * wanted).sum().backward()
        assert y.dtype == dtype
        found.append([y, *(v.grad for v in inputs[:3]), *inputs[3:]])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours.float(), theirs.float(), rtol=tolerance, atol=10 * tolerance)


def normalised_run() -> tuple[TorchModel, list[float]]:
    """Convolutions with BatchNorm behind them, of whose batches the two halves differ."""
    model = load(SAMPLE / "digits.onnx").model
    data = TrainData.from_dataset(load_data(SAMPLE / "train.npz", model.graph.inputs, Preprocess()), model)
    data = data.subset(np.arange(240))
    module = TorchModel(with_batchnorm(model, data), logits=True)
    settings = Train(epochs=2, batch=24, lr=0.02, validation=0.1, augment="shift")
    history = [train(module, data, settings), train(module, data, settings.model_copy(update={"epochs": 1}))]
    return module, [e.loss for h in history for e in h.epochs]


def normalised_state() -> list:
    module, losses = normalised_run()
    return [module.state_dict(), losses]


def test_two_processes_equal_one_with_batchnorm(tmp_path):
    alone, losses = normalised_run()
    names = [k for k in alone.state_dict() if k.endswith(("mean", "variance"))]
    assert len(names) > 6
    for weights, found in by_two_processes(normalised_state, tmp_path):
        assert found == pytest.approx(losses, rel=1e-5)
        for name, value in alone.state_dict().items():
            torch.testing.assert_close(weights[name], value, rtol=1e-5, atol=1e-5)


def two_stages() -> list:
    """With a BatchNorm of torch's own, whose statistics are of a process's part of the batch."""
    module = nn.Sequential(nn.BatchNorm1d(4), Tiny())
    for _ in range(2):
        train(module, blobs(100), Train(epochs=1, batch=24, lr=0.1))
    return [module.state_dict()]


def test_two_processes_go_from_stage_to_stage_with_the_same_weights(tmp_path):
    (first,), (second,) = by_two_processes(two_stages, tmp_path)
    assert first.keys() == second.keys() and "0.running_mean" in first
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=0)


def test_softmax_outputs_train_on_logits(digits):
    import onnx.parser

    text = (
        '<ir_version: 10, opset_import: ["" : 21]> g (float[1, 4] x) => (float[1, 3] y)'
        "<float[3, 4] w = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0}, float[3] b = {0, 0, 0}>"
        " { z = Gemm<transB = 1>(x, w, b)\n y = Softmax<axis = 1>(z)\n }"
    )
    model = ir.from_proto(onnx.parser.parse_model(text))
    x = torch.from_numpy(blobs().batch(np.arange(len(blobs()))).inputs[0].numpy())
    torch.testing.assert_close(TorchModel(model)(x)[0], TorchModel(model, logits=True)(x)[0].softmax(1))
    torch.testing.assert_close(TorchModel(model, logits=True)(x)[0], x[:, :3])


def test_tensorboard(tmp_path, monkeypatch):
    with monkeypatch.context() as without:
        without.setattr("edgecompress.train.tensorboard.find_spec", lambda name: None)
        with pytest.raises(MissingPackageError, match=r'pip install "edgecompress\[tensorboard\]"'):
            train(Tiny(), blobs(), Train(epochs=1, batch=16, tensorboard=str(tmp_path)))
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    history = train(
        Tiny(), blobs(), Train(epochs=3, batch=16, tensorboard=str(tmp_path)), session=Session(stage="here")
    )
    events = EventAccumulator(str(tmp_path)).Reload()
    read = [e.value for e in events.Scalars("here/loss")]
    assert read == pytest.approx([e.loss for e in history.epochs])
    assert "here/validation_value" not in events.Tags()["scalars"]  # there was no metric
