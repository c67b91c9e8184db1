"""Training samples, read into memory or where they lie, against the arrays that were stored."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from PIL import Image

from edgecompress.errors import InputError
from edgecompress.evaluate.dataset import load_data
from edgecompress.recipe import Preprocess
from edgecompress.train import train_data
from edgecompress.train.train_data import TrainData

FORMS = ["array", "npy", "turned npy", "npz", "packed npz", "images"]


def model(*shape: int) -> ir.Model:
    value = ir.Value(name="x", shape=ir.Shape((1, *shape)), type=ir.TensorType(ir.DataType.FLOAT))
    return ir.Model(ir.Graph([value], [value], nodes=[]), ir_version=10)


def stored_files(folder: Path, x: np.ndarray) -> dict[str, Any]:
    """The same samples in every form that is read at places in any order."""
    np.save(folder / "x.npy", x)
    np.save(folder / "turned.npy", np.asfortranarray(x))
    np.savez(folder / "x.npz", first=x[:1], x=x)
    np.savez_compressed(folder / "packed.npz", x=x)
    images = folder / "images"
    images.mkdir()
    for i, pixels in enumerate(x):
        Image.fromarray(pixels).save(images / f"{i:03}.png")
    return {
        "array": x,
        "npy": folder / "x.npy",
        "turned npy": folder / "turned.npy",
        "npz": folder / "x.npz",
        "packed npz": folder / "packed.npz",
        "images": images,
    }


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_training_reads_samples_where_they_lie(
    form: str, limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_data, "IN_MEMORY", limit)
    x = np.random.default_rng(0).integers(0, 256, (9, 6, 5, 3)).astype(np.uint8)
    images = model(3, 6, 5)
    data = load_data(stored_files(tmp_path, x)[form], images.graph.inputs, Preprocess(scale=0.5, mean=[3.0]))
    rest, part = TrainData.from_dataset(data, images).split(0.3, 1)
    places = np.concatenate([d.places for d in (rest, part)])
    assert sorted(places) == list(range(9)) and len(part) == 3
    found = np.concatenate([d.batch(np.arange(len(d))).inputs[0].numpy() for d in (rest, part)])
    np.testing.assert_array_equal(found, np.moveaxis(x[places] * np.float32(0.5) - 3, -1, 1))


@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_a_sample_that_is_not_finite_is_named(limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_data, "IN_MEMORY", limit)
    x = np.zeros((9, 4), np.float32)
    x[7, 2] = np.nan
    np.save(tmp_path / "x.npy", x)
    data = load_data(tmp_path / "x.npy", model(4).graph.inputs, Preprocess())
    with pytest.raises(InputError, match=re.escape("x.npy: sample 7 for input 'x' has NaN or infinity")):
        TrainData.from_dataset(data, model(4)).batch(np.array([3, 7]))


def test_a_file_that_is_cut_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_data, "IN_MEMORY", 0)
    np.save(tmp_path / "x.npy", np.zeros((9, 4), np.float32))
    (tmp_path / "x.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-20])
    data = load_data(tmp_path / "x.npy", model(4).graph.inputs, Preprocess())
    with pytest.raises(InputError, match=r"x\.npy: can't be read"):
        TrainData.from_dataset(data, model(4)).batch(np.arange(2))
