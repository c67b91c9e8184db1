"""RigL and SET: each update against brute force and an independent gradient, resumed runs, zeros in the file."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgecompress
from edgecompress.compress.prune.erdos_renyi import erdos_renyi
from edgecompress.compress.prune.patterns import parse_pattern
from edgecompress.errors import InputError

torch = pytest.importorskip("torch")

DIGITS = Path(__file__).parent.parent / "samples" / "digits"
MODEL, TRAIN, TEST = DIGITS / "digits.onnx", DIGITS / "train.npz", DIGITS / "test.npz"


def different(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """No two numbers have the same size."""
    signs = generator.choice([-1, 1], shape)
    return signs * (1.0 + generator.permutation(int(np.prod(shape))).reshape(shape))


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 9), st.floats(0, 1), st.floats(0, 1), st.integers(0, 99))
def test_the_smallest_go_and_the_steepest_come(o: int, taps: int, i: int, dense: float, share: float, seed: int):
    from edgecompress.compress.prune.rewiring import rewired

    generator = np.random.default_rng(seed)
    weight, growth = different((o, taps, i), generator), np.abs(different((o, taps, i), generator))
    mask = generator.random(weight.shape) < dense
    new = rewired(mask, weight, growth, share, parse_pattern("unstructured"))
    count = int(share * mask.sum())
    active = sorted(np.flatnonzero(mask), key=lambda place: abs(weight.flat[place]))
    left = set(active[count:])
    others = sorted(set(range(mask.size)) - left, key=lambda place: growth.flat[place], reverse=True)
    assert set(np.flatnonzero(new)) == left | set(others[:count])
    assert new.sum() == mask.sum()


@settings(deadline=None)
@given(
    st.integers(1, 6),
    st.integers(1, 3),
    st.integers(1, 9),
    st.sampled_from(["1:2", "2:4", "3:4", "block:4x1", "block:2x2", "block:1x4"]),
    st.integers(0, 99),
)
def test_patterns_hold_and_no_weight_is_lost(o: int, taps: int, i: int, name: str, seed: int) -> None:
    from edgecompress.compress.prune.rewiring import rewired

    generator, pattern = np.random.default_rng(seed), parse_pattern(name)
    weight, growth = different((o, taps, i), generator), np.abs(different((o, taps, i), generator))
    if pattern.keep is not None:
        mask = pattern.n_of_m(generator.random(weight.shape))
    else:
        kept = generator.random(pattern.units(weight).shape) < 0.4
        mask = pattern.mask(kept, weight.shape)
    new = rewired(mask, weight, growth, 0.6, pattern)
    assert new.sum() == mask.sum()
    if pattern.keep is None:
        assert set(np.unique(pattern.units(new))) <= {0.0, 1.0}
        return
    active = sorted(np.flatnonzero(mask), key=lambda place: abs(weight.flat[place]))
    left = set(active[int(0.6 * mask.sum()) :])
    places = np.arange(weight.size).reshape(weight.shape)
    for row, kept, before in zip(places.reshape(-1, i), new.reshape(-1, i), mask.reshape(-1, i)):
        for first in range(0, i, pattern.columns):
            group = set(row[first : first + pattern.columns])
            room = before[first : first + pattern.columns].sum() - len(group & left)
            come = sorted(group - left, key=lambda place: growth.flat[place], reverse=True)[:room]
            assert set(row[kept]) & group == (group & left) | set(come)


def test_blocks_move_as_weights_do() -> None:
    from edgecompress.compress.prune.rewiring import rewired

    def repeated(units: np.ndarray) -> np.ndarray:
        return np.repeat(np.repeat(units, 2, 0), 3, 2)

    generator = np.random.default_rng(0)
    weight, growth = different((5, 4, 6), generator), np.abs(different((5, 4, 6), generator))
    mask = generator.random(weight.shape) < 0.3
    new = rewired(mask, weight, growth, 0.5, parse_pattern("unstructured"))
    blocks = rewired(repeated(mask), repeated(weight), repeated(growth), 0.5, parse_pattern("block:2x3"))
    assert np.array_equal(blocks, repeated(new)) and not np.array_equal(new, mask)


def test_the_share_is_the_papers_and_ends_after_three_quarters() -> None:
    from edgecompress.compress.prune import rewiring

    for t in (0, 10, 37, 74):
        assert rewiring.moved(t / 75) == pytest.approx(0.3 / 2 * (1 + math.cos(t * math.pi / 75)))
    assert rewiring.interval(100_000) == 100 and rewiring.interval(3) == 1


@pytest.mark.parametrize("sparsity", [0.5, 0.8, 0.95])
def test_erdos_renyi_is_the_papers_formula(sparsity: float) -> None:
    shapes = {"first": (16, 3, 3, 3), "middle": (32, 16, 3, 3), "point": (64, 32, 1, 1), "last": (10, 64)}
    found = erdos_renyi(shapes, sparsity)
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    assert sum(found[name] * sizes[name] for name in shapes) == pytest.approx(sparsity * sum(sizes.values()))
    raw = {
        name: sum(shape) / sizes[name] for name, shape in shapes.items()
    }  # (n_in + n_out + w + h) / (n_in n_out w h)
    factors = {name: (1 - found[name]) / raw[name] for name in shapes if found[name]}
    assert len(factors) >= 1 and max(factors.values()) == pytest.approx(min(factors.values()))
    factor = max(factors.values())
    assert all(factor * raw[name] >= 1 - 1e-9 for name in shapes if not found[name])


@pytest.fixture(scope="module")
def blobs():
    """A small network, and four classes of 12 numbers that it can learn."""
    from edgecompress.ingest import load
    from edgecompress.train import TrainData

    generator = np.random.default_rng(0)
    y = generator.integers(0, 4, 200)
    x = (generator.normal(0, 1, (4, 12))[y] + 0.6 * generator.normal(0, 1, (200, 12))).astype(np.float32)
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(12, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
    return load(network, input_shapes={"input": (1, 12)}).model, TrainData.from_arrays([x], y)


class Watch:
    """What weights, masks and the gradient of all weights were before and after each step's update of the masks."""

    def __init__(self, rewiring, data) -> None:
        self.rewiring, self.data, self.steps = rewiring, data, []
        self.state = rewiring.masks.module.weights, rewiring.masks.transforms

    def _now(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        weights, transforms = self.state
        return {name: (weights[name].detach().numpy().copy(), t.mask.numpy() > 0) for name, t in transforms.items()}

    def before_step(self, step: int, total: int) -> None:
        self.before = self._now()  # this hook stands in front of Rewiring

    def on_gradients(self, step: int, total: int) -> None:
        w = {name: torch.tensor(array, requires_grad=True) for name, (array, _) in self.before.items()}
        first, second = w.values()
        biases = [p.detach() for p in self.state[0].values() if p.ndim == 1]
        hidden = torch.relu(self.data.batch(np.arange(200)).inputs[0] @ first.T + biases[0])
        loss = torch.nn.functional.cross_entropy(
            hidden @ second.T + biases[1], torch.from_numpy(np.asarray(self.data.labels))
        )
        self.gradients = dict(zip(w, torch.autograd.grad(loss, list(w.values()))))
        self.rewiring.on_gradients(step, total)
        optimizer = self.rewiring.optimizer
        memory = {n: [m.numpy().copy() for m in optimizer.state[self.state[0][n]].values() if m.ndim] for n in w}
        self.steps.append((step, self.before, self._now(), {n: g.numpy() for n, g in self.gradients.items()}, memory))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_every_update_while_training(blobs, optimizer: str) -> None:
    """One batch is all samples, so that the gradient can be computed by a formula of its own."""
    from edgecompress.compress.prune.allocation import ALLOCATIONS
    from edgecompress.compress.prune.masks import Masks, Scoring
    from edgecompress.compress.prune.pruned_weights import prunable
    from edgecompress.compress.prune.rewiring import Rewiring, interval
    from edgecompress.recipe import Train
    from edgecompress.train import train
    from edgecompress.train.module.torch_model import TorchModel

    model, data = blobs
    module = TorchModel(model)
    masks = Masks(
        module,
        prunable(model),
        parse_pattern("unstructured"),
        lambda _, u, n: ALLOCATIONS["uniform"](u, n),
        Scoring("l1"),
    )
    masks.update(0.7)
    rewiring = Rewiring(masks, "rigl", 0)
    watch = Watch(rewiring, data)

    class Both:  # Watch calls on_gradients itself, in between
        on_start, on_optimizer, before_step = rewiring.on_start, rewiring.on_optimizer, rewiring.before_step

    settings = Train(epochs=200, batch=200, lr=0.02, optimizer=optimizer, validation=0, warmup=0, precision="float32")
    train(module, data, settings, hooks=[watch, Both])
    counts = {name: int(mask.sum()) for name, (_, mask) in watch.steps[0][1].items()}
    updated, grown_in_all = set(), 0
    for step, before, after, gradients, memory in watch.steps:
        for name, (weight, mask) in before.items():
            new_weight, new = after[name]
            assert new.sum() == counts[name]  # at every step
            assert not weight[~mask].any() and not new_weight[~new].any()
            if np.array_equal(mask, new):
                continue
            updated.add(step)
            grown, gone = new & ~mask, mask & ~new
            left = mask & new
            leave = int(0.15 * (1 + math.cos(math.pi * step / 150)) * counts[name])
            lowest = np.sort(np.abs(weight[mask]))[:leave]
            assert 0 < gone.sum() <= leave and np.abs(weight[gone]).max() <= lowest.max()
            assert new[mask & (np.abs(weight) > lowest.max())].all()
            places = np.abs(gradients[name])
            stayed_out = ~new
            assert places[grown].min() >= places[stayed_out].max() * (1 - 1e-4)
            assert not new_weight[grown].any()  # they start at zero
            grown_in_all += int(grown.sum())
            assert all(not m[~left].any() for m in memory[name])  # and without momentum
    assert updated and max(updated) < 150 and all(step % interval(200) == 0 for step in updated)
    assert len(updated) > 20 and grown_in_all > 100
    last = module.write_back().graph.initializers
    assert {name: np.count_nonzero(last[name].const_value.numpy()) for name in counts} == counts


@pytest.mark.parametrize("schedule", ["rigl", "set"])
def test_a_stopped_run_goes_on_to_the_same_bytes(blobs, tmp_path: Path, monkeypatch, schedule: str) -> None:
    from edgecompress.compress.prune.prune_weights import prune_weights
    from edgecompress.recipe import Prune, Train
    from edgecompress.train import Session, checkpoint

    class Killed(BaseException):
        pass

    def run(session: Session) -> list[bytes]:
        training = Train(epochs=8, batch=20, optimizer="adam", lr=0.01, validation=0.2, patience=8)
        settings = Prune(sparsity=0.8, schedule=schedule, allocation="erk")
        found = prune_weights(blobs[0], settings, data=blobs[1], training=training, session=session)
        return [v.const_value.tobytes() for v in found.model.graph.initializers.values()]

    whole = run(Session())
    assert run(Session()) == whole != run(Session(seed=1))
    saved, saves = checkpoint.save, []

    def save(path: Path, state: dict) -> None:
        saved(path, state)
        saves.append(path)
        if len(saves) in (2, 3):
            raise Killed

    monkeypatch.setattr(checkpoint, "save", save)
    for _ in range(2):
        with pytest.raises(Killed):
            run(Session(checkpoint=tmp_path, resume=True))
    assert run(Session(checkpoint=tmp_path, resume=True)) == whole and len(saves) == 8


def test_moved_masks_beat_one_that_stays(monkeypatch) -> None:
    """On the digits from new weights, with 2 % of them: chosen at random, and then moved by gradients or not."""
    from edgecompress.compress.prune import rewiring
    from edgecompress.compress.prune.prune_weights import prune_weights
    from edgecompress.ingest import load
    from edgecompress.recipe import Prune, Train
    from edgecompress.train import TrainData
    from edgecompress.train.module.torch_model import TorchModel
    from edgecompress.train.normalised import with_batchnorm

    train, test = np.load(TRAIN), np.load(TEST)
    data = TrainData.from_arrays([train["x"].astype(np.float32)], train["y"])
    model = with_batchnorm(load(MODEL).model, data)
    training = Train(epochs=10, optimizer="adam", lr=0.01, batch=64, validation=0)
    settings = Prune(sparsity=0.98, schedule="rigl", allocation="erk", criterion="random", fresh=True)

    def top1() -> float:
        found = prune_weights(model, settings, data=data, training=training).model
        with torch.no_grad():
            outputs = TorchModel(found).eval()(torch.from_numpy(test["x"].astype(np.float32)))[0]
        return float((outputs.argmax(1).numpy() == test["y"]).mean())

    moved = top1()
    monkeypatch.setattr(rewiring, "SHARE", 0.0)
    assert moved > top1() + 0.2


@pytest.mark.parametrize("text, share", [("sparsity = 0.9", 0.9), ('pattern = "2:4"', 0.5)])
def test_the_file_has_the_zeros(tmp_path: Path, text: str, share: float) -> None:
    """From the recipe to the weights of the .onnx, counted with the onnx package; 2:4 in each group of inputs."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'[prune]\n{text}\nschedule = "rigl"\nallocation = "erk"\n[quantize]\nweights = "float32"\n'
        '[train]\nepochs = 3\noptimizer = "adam"\nlr = 0.005\nbatch = 64\n'
    )
    result = edgecompress.convert(
        MODEL, "android", train=TRAIN, eval=TEST, recipe=recipe, formats=["onnx"], output=tmp_path / "out"
    )
    goal = next(g for g in result.report.goals if g.what == "zero weights")
    assert goal.what == "zero weights"
    graph = onnx.load(result.artifacts["onnx"]).graph
    weights = [a for v in graph.initializer if (a := onnx.numpy_helper.to_array(v)).ndim > 1]
    zeros, total = sum(int((w == 0).sum()) for w in weights), sum(w.size for w in weights)
    assert zeros / total == pytest.approx(share, abs=0.03)
    assert goal.achieved == pytest.approx(100 * share, abs=3)
    for w in weights if "2:4" in text else []:
        image = w.reshape(len(w), -1, 2, 2) if w.ndim == 2 else w  # a file holds flattened images channels last
        inputs = np.moveaxis(image, 1, -1)
        if inputs.shape[-1] % 4 == 0:
            assert (np.count_nonzero(inputs.reshape(-1, 4), axis=1) <= 2).all()


@pytest.mark.parametrize(
    "text, message",
    [
        ('sparsity = 0.5\nschedule = "rigl"', 'prune.schedule = "rigl" needs training data'),
        ('sparsity = 0.5\nschedule = "set"', 'prune.schedule = "set" needs training data'),
        ('macs = 0.5\nschedule = "rigl"', "applies to single weights only"),
        ('macs = 0.5\nallocation = "erk"', '"erk" applies to single weights only'),
        ("sparsity = 0.5\nfresh = true", 'prune.fresh applies only to prune.schedule = "rigl" and "set"'),
    ],
)
def test_what_cannot_be_is_said(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "recipe.toml").write_text(f"[prune]\n{text}\n")
    with pytest.raises(InputError, match=message):
        edgecompress.convert(MODEL, "android", recipe=tmp_path / "recipe.toml", output=tmp_path / "out")
