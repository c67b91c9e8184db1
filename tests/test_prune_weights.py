"""Pruning of weights: masks against brute force, schedules against their formula, zeros in every artifact."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecompress.compress.prune.allocation import ALLOCATIONS, choose
from edgecompress.compress.prune.patterns import from_taps, parse_pattern, to_taps
from edgecompress.compress.prune.schedules import gradual, rounds
from edgecompress.errors import InputError

torch = pytest.importorskip("torch")


def scores_of(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(int(np.prod(shape))).reshape(shape).astype(float)


@settings(deadline=None)
@given(
    st.integers(1, 6), st.integers(1, 4), st.integers(1, 11), st.integers(1, 3), st.integers(1, 4), st.integers(0, 99)
)
def test_n_of_m_keeps_the_best_of_each_group(o: int, taps: int, i: int, keep: int, more: int, seed: int) -> None:
    pattern = parse_pattern(f"{keep}:{keep + more}")
    scores = scores_of((o, taps, i), seed)
    mask = pattern.n_of_m(scores)
    for row, kept in zip(scores.reshape(-1, i), mask.reshape(-1, i)):
        for first in range(0, i, keep + more):
            group, chosen = row[first : first + keep + more], kept[first : first + keep + more]
            count = -(-len(group) * keep // (keep + more))
            assert chosen.sum() == count
            assert set(group[chosen]) == set(sorted(group)[len(group) - count :])


@settings(deadline=None)
@given(
    st.integers(1, 7), st.integers(1, 3), st.integers(1, 9), st.integers(1, 4), st.integers(1, 4), st.integers(0, 99)
)
def test_blocks_go_and_stay_whole(o: int, taps: int, i: int, rows: int, columns: int, seed: int) -> None:
    pattern = parse_pattern(f"block:{rows}x{columns}")
    scores = scores_of((o, taps, i), seed)
    units, sizes = pattern.units(scores), pattern.sizes(scores.shape)
    assert sizes.sum() == scores.size
    for a in range(units.shape[0]):
        for t in range(taps):
            for b in range(units.shape[2]):
                block = scores[a * rows : (a + 1) * rows, t, b * columns : (b + 1) * columns]
                assert units[a, t, b] == pytest.approx(block.mean()) and sizes[a, t, b] == block.size
    kept = units > np.median(units)
    mask = pattern.mask(kept, scores.shape)
    assert mask.shape == scores.shape and mask.sum() == (sizes * kept).sum()


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=5), st.floats(0.01, 0.99), st.sampled_from(sorted(ALLOCATIONS))
)
def test_as_many_weights_go_as_asked_for(counts: list[int], sparsity: float, allocation: str) -> None:
    raw = [scores_of((n, 1, 1), n) + 1 for n in counts]
    sizes = [np.ones_like(s) for s in raw]
    scores = [ALLOCATIONS[allocation](s, n) for s, n in zip(raw, sizes)]
    kept = choose(scores, sizes, sparsity)
    removed, total = sum(int((~k).sum()) for k in kept), sum(counts)
    emptied = len(counts)  # each layer may keep one weight more than the threshold says
    assert np.ceil(sparsity * total - 1e-6) - emptied <= removed <= np.ceil(sparsity * total) + 1e-6
    for k, s in zip(kept, raw):
        assert k.any()
        assert s[k].min() > s[~k].max(initial=-1)  # within a layer the best stay, whatever the allocation


def test_lamp_is_the_papers_equation() -> None:
    squares = np.array([[[4.0]], [[1.0]], [[9.0]], [[0.25]]])
    found = ALLOCATIONS["lamp"](squares, np.ones_like(squares)).ravel()
    ascending = np.sort(squares.ravel())
    expected = {u: u / ascending[k:].sum() for k, u in enumerate(ascending)}
    assert found == pytest.approx([expected[u] for u in squares.ravel()])


def test_schedules_are_their_formulas() -> None:
    assert [gradual(t / 4, 0.8) for t in range(6)] == pytest.approx(
        [0.8 + (0 - 0.8) * (1 - min(t, 4) / 4) ** 3 for t in range(6)]
    )
    left = 1.0
    for number in range(1, 4):
        left *= 0.1 ** (1 / 3)  # the same share of what is left, each time
        assert 1 - rounds(number, 3, 0.9) == pytest.approx(left)


@pytest.mark.parametrize(
    "shape, op_type", [((4, 3, 2, 5), "Conv"), ((3, 4, 2, 2), "ConvTranspose"), ((6, 5), "Gemm"), ((5, 6), "MatMul")]
)
def test_taps_are_the_weights_in_another_order(shape: tuple[int, ...], op_type: str) -> None:
    node = ir.node(op_type, [ir.Value(name="x"), ir.Value(name="w")])
    weight = np.arange(np.prod(shape)).reshape(shape)
    taps = to_taps(node, weight)
    outputs, inputs = {"Conv": (0, 1), "ConvTranspose": (1, 0), "Gemm": (0, 1), "MatMul": (1, 0)}[op_type]
    assert taps.shape[0] == shape[outputs] and taps.shape[2] == shape[inputs]
    assert np.array_equal(
        taps[1, 0], weight.take(1, outputs).take(0, -1).take(0, -1) if weight.ndim == 4 else weight.take(1, outputs)
    )
    assert np.array_equal(from_taps(node, taps, shape), weight)


@pytest.mark.parametrize("text", ["2:2", "0:4", "block:0x1", "columns", "3", "block:4"])
def test_other_patterns_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"prune.pattern"):
        parse_pattern(text)


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
    model = load(network, input_shapes={"input": (1, 12)}).model
    return model, TrainData.from_arrays([x], y)


def zeros(model: ir.Model) -> float:
    arrays = [v.const_value.numpy() for v in model.graph.initializers.values() if len(v.const_value.shape) == 2]
    return 1 - sum(np.count_nonzero(a) for a in arrays) / sum(a.size for a in arrays)


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"schedule": "one-shot", "criterion": "taylor"},
        {"schedule": "iterative", "rounds": 2},
        {"schedule": "lottery", "rounds": 2, "rewind": 1},
        {"criterion": "movement"},
        {"criterion": "fisher"},
        {"pattern": "1:4"},
        {"pattern": "block:4x1"},
        {"allocation": "sensitivity"},
        {"allocation": "uniform"},
    ],
    ids=str,
)
def test_pruned_training_learns_and_zeros_stay(blobs, keys: dict) -> None:
    from edgecompress.compress.prune.prune_weights import prune_weights
    from edgecompress.graph.annotations import sparsity
    from edgecompress.recipe import Prune, Train
    from edgecompress.train.module.torch_model import TorchModel

    model, data = blobs
    training = Train(epochs=6, optimizer="adam", lr=0.01, batch=50, validation=0)
    found = prune_weights(model, Prune(sparsity=0.75, **keys), data=data, training=training)
    assert found.achieved == pytest.approx(0.75, abs=0.02)
    assert zeros(found.model) == pytest.approx(found.achieved, abs=1e-6)
    for name, value in found.model.graph.initializers.items():
        if (known := sparsity(value)) is not None:
            assert not value.const_value.numpy()[~known.mask].any(), name
    with torch.no_grad():
        outputs = TorchModel(found.model).eval()(data.batch(np.arange(len(data))).inputs[0])[0]
    assert (outputs.argmax(1).numpy() == data.labels).mean() > 0.9  # a quarter of it by chance


def test_without_data_the_smallest_go_and_the_others_stay(blobs) -> None:
    from edgecompress.compress.prune.prune_weights import prune_weights
    from edgecompress.recipe import Prune

    model, _ = blobs
    found = prune_weights(model, Prune(sparsity=0.5, allocation="global", criterion="l1"))
    before = {n: v.const_value.numpy() for n, v in model.graph.initializers.items() if len(v.const_value.shape) == 2}
    threshold = np.median(np.concatenate([np.abs(a).ravel() for a in before.values()]))
    for name, array in before.items():
        after = found.model.graph.initializers[name].const_value.numpy()
        assert np.array_equal(after, np.where(np.abs(array) > threshold, array, 0))


@pytest.mark.parametrize(
    "keys, message",
    [
        ({"criterion": "scale"}, "scores channels"),
        ({"criterion": "taylor"}, "needs training data"),
        ({"schedule": "lottery"}, "needs training data"),
        ({"pattern": "2:4", "sparsity": 0.8}, "makes 50 % of the weights zero"),
        ({"keep": ["nobody"]}, "'nobody' is no layer with weights"),
    ],
)
def test_what_cannot_be_is_said(blobs, keys: dict, message: str) -> None:
    from edgecompress.compress.prune.prune_weights import prune_weights
    from edgecompress.recipe import Prune

    with pytest.raises(InputError, match=message):
        prune_weights(blobs[0], Prune(**{"sparsity": 0.5, **keys}))


def test_a_criterion_is_one_file_that_registers_itself() -> None:
    """Recipes know the names without importing anything; each file scores weights or channels, or prunes layers."""
    from edgecompress.compress.prune.criterion import all_criteria
    from edgecompress.recipe.schema import CRITERIA as NAMES

    criteria = all_criteria()
    assert list(criteria) == NAMES
    for name, each in criteria.items():
        functions = [f for f in (each.weights, each.channels, each.layers) if f is not None]
        assert functions, f"criteria/{name}.py marks no function"
        assert functions[0].__doc__, f"criteria/{name}.py: say what is computed, and who found it"


@pytest.fixture
def criteria_folder(monkeypatch, tmp_path: Path) -> Iterator[Path]:
    """A folder whose files are criteria too, until the test ends."""
    from edgecompress.compress.prune import criteria, criterion

    monkeypatch.setattr(criteria, "__path__", [*criteria.__path__, str(tmp_path)])
    monkeypatch.setattr(criterion, "_registered", dict(criterion._registered))
    yield tmp_path
    for path in tmp_path.glob("*.py"):
        sys.modules.pop(f"{criteria.__name__}.{path.stem}", None)


@pytest.mark.parametrize("order", [("weights", "channels"), ("channels", "weights")], ids="-".join)
def test_a_criterion_marks_its_two_functions_in_any_order(criteria_folder: Path, order: tuple[str, str]) -> None:
    from edgecompress.compress.prune.criterion import criterion

    marked = {
        "weights": "@of_weights(gradients=True, channels=False)\ndef weights(weight, known):\n    return weight\n",
        "channels": "@of_channels(samples=True, damage=True)\ndef channels(evidence):\n    return {}\n",
    }
    name = "_then_".join(order)
    head = "from edgecompress.compress.prune.criterion import of_channels, of_weights\n"
    (criteria_folder / f"{name}.py").write_text(head + "".join(marked[each] for each in order))
    found = criterion(name)
    assert found.weights.__name__ == "weights" and found.channels.__name__ == "channels"
    assert found.gradients and not found.of_channels and found.samples and found.damage


def test_a_file_without_a_criterion_is_named(criteria_folder: Path) -> None:
    from edgecompress.compress.prune.criterion import criterion

    (criteria_folder / "forgotten.py").write_text("def forgotten(weight, known):\n    return abs(weight)\n")
    with pytest.raises(InputError, match=r"forgotten\.py: no function is marked .* write @of_weights\(\) above"):
        criterion("forgotten")


CRITERIA = """
import numpy as np

def size(weight, known):
    return np.abs(weight)

def taylor(weight, known):
    return np.square(weight) * known.squared_gradient

def row(weight, known):
    return weight[0]

def nothing(weight, known):
    return weight * np.nan

def negative(weight, known):
    weight[:] = -1
    return weight

def words(weight, known):
    return "large"

def broken(weight, known):
    return known.gradient * known.hessian
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("own") / "mine.py"
    path.write_text(CRITERIA)
    return str(path)


@pytest.mark.parametrize(
    "name, shipped, keys",
    [("size", "l1", {}), ("taylor", "taylor", {"schedule": "one-shot"}), ("taylor", "taylor", {})],
)
def test_a_users_criterion_is_as_good_as_ours(blobs, own: str, name: str, shipped: str, keys: dict) -> None:
    from edgecompress.compress.prune.prune_weights import prune_weights
    from edgecompress.recipe import Prune, Train

    model, data = blobs
    training = Train(epochs=2, optimizer="adam", lr=0.01, batch=50, validation=0)
    ours, theirs = (
        prune_weights(model, Prune(sparsity=0.75, criterion=criterion, **keys), data=data, training=training).model
        for criterion in (shipped, f"{own}:{name}")
    )
    for key, value in ours.graph.initializers.items():
        assert np.array_equal(value.const_value.numpy(), theirs.graph.initializers[key].const_value.numpy())


@pytest.mark.parametrize(
    "name, message",
    [
        ("row", r"mine.py:row returned shape \[12\] for layer '.+'; expected the weight's, \[32, 12\]"),
        ("nothing", "mine.py:nothing returned scores from nan to nan for layer '.+'; expected finite ones"),
        ("negative", "mine.py:negative returned scores from -1 to -1 for layer '.+'; expected finite ones"),
        ("words", "mine.py:words returned str for layer '.+'; expected an array of shape"),
        ("broken", "mine.py:broken failed with AttributeError: .*hessian"),
        ("nobody", "mine.py has no function 'nobody'"),
    ],
)
def test_what_a_users_criterion_does_wrong_is_said(blobs, own: str, name: str, message: str) -> None:
    from edgecompress.compress.prune.prune_weights import prune_weights
    from edgecompress.recipe import Prune

    before = {n: v.const_value.numpy().copy() for n, v in blobs[0].graph.initializers.items()}
    with pytest.raises(InputError, match=message) as caught:
        prune_weights(blobs[0], Prune(sparsity=0.5, criterion=f"{own}:{name}"))
    assert "\n" not in str(caught.value)
    assert all(np.array_equal(blobs[0].graph.initializers[n].const_value.numpy(), a) for n, a in before.items())


def test_a_single_step_of_the_gradual_schedule_reaches_the_end(blobs) -> None:
    from edgecompress.compress.prune.prune_weights import prune_weights
    from edgecompress.recipe import Prune, Train

    model, data = blobs
    for samples in (50, 100):  # one step, two steps
        training = Train(epochs=1, batch=50, validation=0)
        found = prune_weights(model, Prune(sparsity=0.5), data=data.subset(np.arange(samples)), training=training)
        assert found.achieved == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("allocation", ["uniform", "global", "lamp"])
def test_nothing_to_prune_is_told(blobs, allocation) -> None:
    from edgecompress.compress.prune.prune_weights import prune_weights
    from edgecompress.compress.prune.pruned_weights import prunable
    from edgecompress.recipe import Prune

    model, _ = blobs
    keep = [str(w.node.name) for w in prunable(model)]
    with pytest.raises(InputError, match=r"no weights to prune other than those of the layers in prune.keep"):
        prune_weights(model, Prune(sparsity=0.5, keep=keep, allocation=allocation))


def test_training_that_stops_before_the_rewind_is_told(blobs) -> None:
    from edgecompress.compress.prune.prune_weights import prune_weights
    from edgecompress.recipe import Prune, Train

    model, data = blobs
    training = Train(epochs=9, batch=50, lr=1e-30, patience=1, validation=0.1)  # nothing gets better
    settings = Prune(sparsity=0.5, schedule="lottery", rounds=1, rewind=9)
    found = prune_weights(model, settings, data=data, training=training)
    assert found.histories[0].stopped_early
    assert found.notes == ("training stopped before epoch 9: pruning goes back to its best epoch's weights",)


def test_weights_that_a_pattern_cannot_prune_are_named() -> None:
    from edgecompress.compress.prune.prune_weights import prune_weights
    from edgecompress.ingest import load
    from edgecompress.recipe import Prune

    network = torch.nn.Sequential(torch.nn.Conv2d(4, 4, 1, groups=4), torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 1))
    model = load(network, input_shapes={"input": (1, 4, 5, 5)}).model
    for pattern, whole in {
        "2:4": ["leaves 1 of 1 inputs"],
        "block:4x64": ["is a single block", "is a single block"],
        "unstructured": [],
    }.items():
        found = prune_weights(model, Prune(sparsity=0.5, pattern=pattern, allocation="uniform"))
        assert len(found.notes) == len(whole) and all(part in note for part, note in zip(whole, found.notes))
        named = {note.split(":")[0] for note in found.notes}
        assert named == {x.name for x in found.layers if x.kept == x.weights}
