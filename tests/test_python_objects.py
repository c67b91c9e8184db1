"""What only Python can give: DataLoaders, datasets, generators, functions; from `convert` to the recipe."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from edgecompress import InputError, convert, load_recipe
from edgecompress.evaluate import iterables
from edgecompress.evaluate.dataset import load_data
from edgecompress.recipe import Preprocess, Train
from edgecompress.support.user_code import load_function, spec_of

X = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
Y = np.arange(20) % 3


class Pairs(Dataset):
    def __len__(self) -> int:
        return 20

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return torch.from_numpy(X[i]), int(Y[i])


class Named(Pairs):
    def __getitem__(self, i: int) -> dict[str, Any]:  # type: ignore[override]
        return {"a": X[i], "label": Y[i]}


def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for first in range(0, 20, 8):  # the last one has four samples
        yield torch.from_numpy(X[first : first + 8]).requires_grad_(), torch.from_numpy(Y[first : first + 8])


FORMS = {
    "dataset": Pairs,
    "dataset of dicts": Named,
    "tensors": lambda: TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)),
    "loader": lambda: DataLoader(Pairs(), batch_size=8),
    "loader of dicts": lambda: DataLoader(Named(), batch_size=7),
    "loader with a worker": lambda: DataLoader(Pairs(), batch_size=20, num_workers=1),
    "generator": batches,
    "list of samples": lambda: list(zip(X, Y)),
    "list of dicts": lambda: [Named()[i] for i in range(20)],
    "arrays": lambda: (X, Y),
}


def value(name: str, *shape: int) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))


@pytest.mark.parametrize("form", FORMS)
def test_samples_and_labels_are_those_of_the_arrays(form: str) -> None:
    data = load_data(FORMS[form](), [value("a", 1, 4)], Preprocess())
    np.testing.assert_array_equal(next(data.batches(20))["a"], X)
    np.testing.assert_array_equal(data.labels, Y)


@pytest.mark.parametrize("labelled", [False, True])
def test_inputs_in_order(labelled: bool) -> None:
    columns = (X, X[:, :2], Y)[: 3 if labelled else 2]
    loader = DataLoader(TensorDataset(*map(torch.from_numpy, columns)), batch_size=6)
    data = load_data(loader, [value("a", 1, 4), value("b", 1, 2)], Preprocess())
    batch = next(data.batches(20))
    np.testing.assert_array_equal(batch["a"], X)
    np.testing.assert_array_equal(batch["b"], X[:, :2])
    assert (data.labels is not None) == labelled


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (iter([]), "data from a list_iterator: holds no samples"),
        (iter([X, "text"]), "data from a list_iterator: batch 1 holds a str; expected arrays of numbers"),
        (iter([(X, Y), X]), "data from a list_iterator: batch 1 holds [0], but the first one [0, 1]"),
        (iter([X, X[:, :2]]), "data from a list_iterator: samples of shapes [4] and [2]; make them alike"),
        (iter([np.float32(1)]), "data from a list_iterator: batch 0 is a single number"),
        (iter([(X, X, X, Y)]), "data: is a tuple of 4 items; expected (x, y)"),
        ([(X[0], None)], "data from a list: sample 0 holds a NoneType; expected arrays of numbers"),
    ],
)
def test_what_does_not_fit_is_said(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        load_data(given, [value("a", 1, 4)], Preprocess())


def test_an_endless_generator_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless() -> Iterator[np.ndarray]:
        while True:
            yield X

    monkeypatch.setattr(iterables, "LARGEST", 1 << 20)
    with pytest.raises(InputError, match=r"save it as \.npy files"):
        load_data(endless(), [value("a", 1, 4)], Preprocess())


def doubled(outputs: Any, labels: Any, batch: Any) -> torch.Tensor:
    return 2 * torch.nn.functional.cross_entropy(outputs[0], labels)


def test_functions_are_found_by_the_name_that_the_recipe_holds() -> None:
    assert spec_of(doubled) == spec_of(doubled) == f"{Path(__file__)}:doubled"
    assert load_function(spec_of(lambda x: x + 1))(1) == 2
    assert len({spec_of(lambda: 1), spec_of(lambda: 2)}) == 2
    recipe = load_recipe({"train": {"loss": doubled}, "evaluate": {"metric": {"y": doubled}}})
    assert recipe.train.loss == recipe.evaluate.metric["y"] == Train(loss=doubled).loss == f"{Path(__file__)}:doubled"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"train": {"los": "mse"}}, "recipe: unknown key 'train.los': did you mean 'loss'?"),
        ({"prune": {"sparsity": "half"}}, "recipe: key 'prune.sparsity': should be a number"),
        ({"train": {"loss": 3}}, "recipe: key 'train.loss': should be a text in quotes"),
    ],
)
def test_a_dict_is_checked_as_a_file_is(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        load_recipe(given)


def test_a_conversion_from_objects_alone(tmp_path: Path) -> None:
    calls = []

    def accuracy(outputs: list[np.ndarray], labels: np.ndarray) -> float:
        calls.append(len(labels))
        return float((outputs[0].argmax(1) == labels).mean() * 100)

    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
    result = convert(
        model,
        input_shapes={"x": [1, 4]},
        calib=batches(),
        eval=DataLoader(Pairs(), batch_size=8),
        recipe={"evaluate": {"metric": accuracy, "max_drop": 100}},
        output=tmp_path / "out",
    )
    assert calls and f"{Path(__file__).name}:test_a_conversion_from_objects_alone.accuracy" in result.report.recipe
    assert load_recipe(tmp_path / "out" / "recipe.toml").evaluate.max_drop == 100
