"""Which constants are weights: what was learned is trained and rewound, and what belongs to the formula stays."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from edgecompress import convert
from edgecompress.compress.prune.initial_weights import initialise
from edgecompress.compress.prune.pruned_weights import prunable
from edgecompress.errors import InputError
from edgecompress.graph.fusion import constant
from edgecompress.graph.training_marks import mark_trained
from edgecompress.ingest import load
from edgecompress.operators.example import Example
from edgecompress.train.module.torch_model import TorchModel
from edgecompress.train.module.trainable import trainable

torch.set_num_threads(1)

RNG = np.random.default_rng(0)
T, D, HEADS = 6, 8, 2
SHAPES = {"k": (D, 3, 1, 1), "k2": (4, D, 1, 1), "w": (D, D), "w2": (D, D), "e": (10, D)}


def random(*shape: int) -> np.ndarray:
    return RNG.normal(0, 0.5, shape).astype(np.float32)


def angles(count: int = T, width: int = D // 2) -> np.ndarray:
    return np.arange(count)[:, None] / 100.0 ** (np.arange(width) / width)


def interleaved() -> np.ndarray:
    """Vaswani et al.'s positions."""
    return np.stack([np.sin(angles()), np.cos(angles())], -1).reshape(1, T, D).astype(np.float32)


IMAGE, TOKENS = {"x": (1, 3, 5, 5)}, {"x": (1, T, D)}
CAUSAL = np.where(np.tri(T) > 0, 0, -1e4).astype(np.float32)[None, None]
ALIBI = -np.abs(np.arange(T)[:, None] - np.arange(T)) * np.array([0.5, 0.25])[:, None, None]
SCORES = (
    "q = MatMul (x, w) s = Reshape (q, split) h = Transpose <perm=[0, 2, 1, 3]> (s) "
    "t = Transpose <perm=[0, 2, 3, 1]> (s) m = MatMul (h, t) n = Add (m, c) p = Softmax <axis=-1> (n) "
    "o = MatMul (p, h) r = Transpose <perm=[0, 2, 1, 3]> (o) f = Reshape (r, join) y = MatMul (f, w2)"
)
SPLIT = {"split": np.array([1, T, HEADS, D // HEADS]), "join": np.array([1, T, D])}
GRID = np.stack(np.meshgrid(np.arange(5.0), np.arange(5.0))).astype(np.float32)[None]

# what: (network, inputs, other constants than layers' weights, those of them that were learned)
CASES = {
    "mean and deviation of torchvision": (
        "d = Sub (x, mean) n = Div (d, std) f = Conv (n, k) r = Relu (f) y = Conv (r, k2)",
        IMAGE,
        {
            "mean": np.array([0.485, 0.456, 0.406], np.float32).reshape(3, 1, 1),
            "std": np.array([0.229, 0.224, 0.225], np.float32).reshape(3, 1, 1),
        },
        set(),
    ),
    "one over the deviation": (
        "d = Add (x, mean) n = Mul (d, std) y = MatMul (n, w)",
        TOKENS,
        {"mean": random(D), "std": random(D)},
        set(),
    ),
    "a mean image": ("d = Sub (x, c) y = Conv (d, k)", IMAGE, {"c": random(1, 3, 5, 5)}, set()),
    "minimum and maximum behind a change of layout, as Keras writes it": (
        "n = Transpose <perm=[0, 3, 1, 2]> (x) s = Mul (n, scale) o = Add (s, shift) f = Conv (o, k) y = Relu (f)",
        {"x": (1, 5, 5, 3)},
        {"scale": random(1, 3, 1, 1), "shift": random(1, 3, 1, 1)},
        set(),
    ),
    "learned positions": ("t = MatMul (x, w) p = Add (t, c) y = MatMul (p, w2)", TOKENS, {"c": random(1, T, D)}, {"c"}),
    "positions of the formula": (
        "t = MatMul (x, w) p = Add (t, c) y = MatMul (p, w2)",
        TOKENS,
        {"c": interleaved()},
        set(),
    ),
    "rotations": (
        "t = MatMul (x, w) a = Mul (t, cos) b = Mul (t, sin) s = Add (a, b) y = MatMul (s, w2)",
        TOKENS,
        {
            "cos": np.cos(np.tile(angles(), 2)).astype(np.float32)[None],
            "sin": np.sin(np.tile(angles(), 2)).astype(np.float32)[None],
        },
        set(),
    ),
    "LayerScale": (
        "t = MatMul (x, w) s = Mul (t, c) r = Relu (s) g = Mul (r, g2) y = MatMul (g, w2)",
        TOKENS,
        {"c": np.full(D, 1e-4, np.float32), "g2": random(D)},
        {"c", "g2"},
    ),
    "BatchNormalization behind an activation": (
        "f = Conv (x, k) r = Relu (f) s = Mul (r, scale) t = Add (s, shift) u = Relu (t) y = Conv (u, k2)",
        IMAGE,
        {"scale": random(1, D, 1, 1), "shift": random(1, D, 1, 1)},
        {"scale", "shift"},
    ),
    "anchors and strides of a detector": (
        "f = Conv (x, k) h = Conv (f, k2) s = Sigmoid (h) o = Add (s, grid) y = Mul (o, anchors)",
        IMAGE,
        {"grid": np.concatenate([GRID, GRID], 1), "anchors": random(1, 4, 1, 1)},
        set(),
    ),
    "the unit of a result": (
        "t = MatMul (x, w) s = Sigmoid (t) m = Mul (s, range) y = Add (m, low)",
        TOKENS,
        {"range": random(D), "low": random(D)},
        set(),
    ),
    "bias of a product at the end": ("t = MatMul (x, w) y = Add (t, c)", TOKENS, {"c": random(D)}, {"c"}),
    "a causal mask": (SCORES, TOKENS, {"c": CAUSAL, **SPLIT}, set()),
    "slopes of attention over distances": (SCORES, TOKENS, {"c": ALIBI[None].astype(np.float32), **SPLIT}, set()),
    "learned bias of attention": (SCORES, TOKENS, {"c": random(1, HEADS, T, T), **SPLIT}, {"c"}),
    "a class token": (
        "t = MatMul (x, w) p = Concat <axis=1> (c, t) y = MatMul (p, w2)",
        TOKENS,
        {"c": random(1, 1, D)},
        {"c"},
    ),
    "padding": (
        "f = Conv (x, k) p = Concat <axis=1> (f, c) r = Relu (p) y = GlobalAveragePool (r) z = Conv (r, k3)",
        IMAGE,
        {"c": np.zeros((1, 4, 5, 5), np.float32), "k3": random(4, 12, 1, 1)},
        {"k3"},
    ),
    "coordinates beside features": (
        "f = Conv (x, k) p = Concat <axis=1> (f, c) y = Conv (p, k3)",
        IMAGE,
        {"c": GRID, "k3": random(4, 10, 1, 1)},
        {"k3"},
    ),
    "a constant of several nodes": (
        "t = MatMul (x, w) s = Mul (t, c) r = Relu (s) u = Mul (r, c) y = MatMul (u, w2)",
        TOKENS,
        {"c": random(D)},
        set(),
    ),
    "slopes, tables and affine normalisation": (
        "t = Gather <axis=0> (e, i) n = LayerNormalization <axis=-1> (t, scale, shift) m = MatMul (n, w) "
        "y = PRelu (m, c)",
        {},
        {"scale": random(D), "shift": random(D), "c": random(D)},
        {"scale", "shift", "c"},
    ),
}  # fmt: skip


def model_of(nodes: str, inputs: dict, constants: dict) -> ir.Model:
    words = nodes.replace("(", " ").replace(")", " ").replace(",", " ").split()
    layers = {name: random(*shape) for name, shape in SHAPES.items() if name in words}
    outputs = ("y", "z") if "z" in words else ("y",)
    proto = Example(nodes, inputs or {"i": (1, T)}, constants={**layers, **constants}, outputs=outputs).model()
    if not inputs:
        proto.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    return load(proto).model


@pytest.mark.parametrize("what", CASES)
def test_what_was_learned(what):
    nodes, inputs, constants, learned = CASES[what]
    model = model_of(nodes, inputs, constants)
    found = trainable(model)
    arrays = [constant(v) for v in found]
    for name, array in constants.items():
        if array.dtype != np.float32:
            continue
        forms = [a for a in arrays if a.size == array.size and np.allclose(np.sort(a.ravel()), np.sort(array.ravel()))]
        assert bool(forms) == (name in learned), name
    words = set(nodes.replace("(", " ").replace(")", " ").replace(",", " ").split())
    assert len(found) >= len(words & set(SHAPES))  # and the layers' own weights
    module = TorchModel(model)
    assert set(module.weights) == {str(v.name) for v in found}


def test_the_recipe_decides_first():
    model = model_of(*CASES["mean and deviation of torchvision"][:3])
    (layer,) = [str(n.name) for n in model.graph if n.op_type == "Conv"][:1]
    before = {str(v.name) for v in trainable(model)}
    mark_trained(model.graph, [layer], ["mean"])
    after = {str(v.name) for v in trainable(model.clone())}
    assert before - after == {str(v.name) for n in model.graph if n.name == layer for v in n.inputs[1:]}
    assert after - before == {"mean"}
    assert layer not in {w.node.name for w in prunable(model)}
    with pytest.raises(InputError, match=r"\[train\] freeze: 'meam' is no node .* is it 'mean'"):
        mark_trained(model.graph, ["meam"], [])
    with pytest.raises(InputError, match="'mean' is both in freeze and in trainable"):
        mark_trained(model.graph, ["mean"], ["mean"])


def test_new_weights_are_what_networks_start_with():
    nodes, inputs, constants, _ = CASES["LayerScale"]
    model = model_of(nodes, inputs, constants)
    module = TorchModel(model)
    initialise(module, model, 0)
    assert all((module.weights[name] == 1).all() for name in ("c", "g2"))
    drawn = module.weights["w"].detach().numpy()
    assert drawn.std() == pytest.approx((2 / D) ** 0.5, rel=0.25)
    model = model_of(*CASES["learned positions"][:3])
    module = TorchModel(model)
    initialise(module, model, 0)
    assert 0.01 < module.weights["c"].std() < 0.03


# ---- schedule = "lottery" with the user's initial weights ----

RATES = np.array([0.5, 20, 300, 2000], np.float32)
X = (np.random.default_rng(1).normal(size=(600, 4)) * RATES + 3 * RATES).astype(np.float32)
Y = np.tanh((X / RATES) @ np.random.default_rng(2).normal(size=(4, 2))).astype(np.float32)


class Tabular(torch.nn.Module):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(3 * RATES))
        self.register_buffer("std", torch.from_numpy(RATES))
        self.first, self.last = torch.nn.Linear(4, width), torch.nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.first((x - self.mean) / self.std)))


def export(module: torch.nn.Module, path) -> str:
    torch.onnx.export(module.eval(), (torch.zeros(1, 4),), path, dynamo=False, input_names=["x"], output_names=["y"])
    return str(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(folder, state before training, the trained module): a network with its normalisation in the graph."""
    folder = tmp_path_factory.mktemp("lottery")
    torch.manual_seed(0)
    module = Tabular()
    initial = {k: v.clone() for k, v in module.state_dict().items()}
    export(module, folder / "initial.onnx")
    torch.save(initial, folder / "initial.pt")
    np.savez(folder / "initial.npz", **{k: v.numpy() for k, v in initial.items()})
    optimizer = torch.optim.Adam(module.parameters(), 0.01)
    for _ in range(200):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(module(torch.from_numpy(X[:500])), torch.from_numpy(Y[:500])).backward()
        optimizer.step()
    export(module, folder / "trained.onnx")
    np.savez(folder / "train.npz", x=X[:500], y=Y[:500])
    return folder, initial, module


def lottery(folder, tmp_path, **prune):
    given = {"sparsity": 0.5, "schedule": "lottery", "rounds": 1, **prune}
    recipe = {
        "train": {"optimizer": "adam", "lr": 1e-30, "epochs": 1, "weight_decay": 0.0},
        "prune": given,
        "quantize": {"weights": "float32", "activations": "float32"},
        "evaluate": {"min_snr": 0.0},
    }
    return convert(
        folder / "trained.onnx",
        "linux-x86",
        train=folder / "train.npz",
        recipe=recipe,
        output=tmp_path / "out",
        formats=["onnx"],
    )


def weights_of(result) -> dict[str, np.ndarray]:
    model = load(str(result.artifacts["onnx"])).model
    return {name: np.asarray(constant(v)) for name, v in model.graph.initializers.items()}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("file", ["initial.onnx", "initial.pt", "initial.npz"])
def test_lottery_goes_back_to_the_initial_weights(trained, tmp_path, file):
    """With a learning rate of nearly nothing, what is left are the initial weights; the normalisation is as it was."""
    folder, initial, _ = trained
    found = weights_of(lottery(folder, tmp_path, initial=str(folder / file)))
    arrays = list(found.values())
    matrices = [a for a in arrays if a.ndim == 2 and a.size > 8]
    assert len(matrices) == 2
    for name, matrix in zip(("first.weight", "last.weight"), sorted(matrices, key=lambda a: a.shape[1])):
        kept, given = matrix[matrix != 0], initial[name].numpy().ravel()
        assert 0.2 * given.size < kept.size < 0.9 * given.size
        assert np.abs(kept[:, None] - given).min(1).max() < 1e-6
    for expected in (3 * RATES, RATES):
        assert any(
            np.allclose(a.ravel(), expected) or np.allclose(a.ravel() * expected, 1) for a in arrays if a.size == 4
        )


@pytest.mark.filterwarnings("ignore")
def test_lottery_leaves_a_normalisation_alone(trained, tmp_path):
    folder, _, _ = trained
    arrays = list(weights_of(lottery(folder, tmp_path)).values())
    for expected in (3 * RATES, RATES):
        assert any(
            np.allclose(a.ravel(), expected) or np.allclose(a.ravel() * expected, 1) for a in arrays if a.size == 4
        )


@pytest.mark.filterwarnings("ignore")
def test_initial_weights_that_do_not_fit(trained, tmp_path):
    folder, initial, _ = trained
    few = {k: v.numpy() for k, v in initial.items() if k != "last.weight"}
    np.savez(tmp_path / "few.npz", **few)
    np.savez(tmp_path / "other.npz", **{**few, "last.weight": np.zeros((2, 9), np.float32)})
    np.savez(tmp_path / "names.npz", a=few["first.weight"])
    export(Tabular(8), tmp_path / "narrow.onnx")
    torch.save(Tabular(), tmp_path / "module.pt")
    (tmp_path / "text.npz").write_text("no")
    for file, expected in {
        "few.npz": "few.npz: there is no weight 'last.weight'",
        "other.npz": r"other.npz: weight 'last.weight' is \[2, 9\], and \[2, 16\] in the model",
        "names.npz": "names.npz: no name in it is that of a weight of the model",
        "narrow.onnx": r"prune.initial: weight 'first.weight' is \[8, 4\], and \[16, 4\] in the model",
        "module.pt": "module.pt: not a file of plain tensors",
        "text.npz": "text.npz: not an .npz file of plain arrays",
        "none.npz": "none.npz: no such file",
    }.items():
        with pytest.raises(InputError, match=expected):
            lottery(folder, tmp_path, initial=str(tmp_path / file))
    with pytest.raises(
        InputError, match=r'prune\.initial applies only to weights pruned by prune\.schedule = "lottery"'
    ):
        lottery(folder, tmp_path, initial="x.npz", schedule="gradual", rounds=5)
