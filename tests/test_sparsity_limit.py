"""A limit on accuracy backs off pruning before it gives up on the model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgecompress import convert
from edgecompress.compress.prune.shares import LayerShare, within
from edgecompress.errors import InputError
from edgecompress.recipe import Recipe

DIGITS = Path(__file__).parent.parent / "samples/digits"
CASES = [(0.97, "lamp"), (0.97, "global"), (0.97, "uniform"), (0.9, "lamp"), (0.8, "uniform")]


def converted(folder: Path, sparsity: float, allocation: str, **limits):
    prune = {"sparsity": sparsity, "allocation": allocation, "schedule": "one-shot"}
    recipe = Recipe.model_validate({"prune": prune, "quantize": {"weights": "float32", "activations": "float32"}})
    with np.load(DIGITS / "test.npz") as stored:
        evaluation = {"x": stored["x"][:150], "y": stored["y"][:150]}
    model = DIGITS / "digits.onnx"
    return convert(model, eval=evaluation, recipe=recipe, formats=["onnx"], output=folder, **limits).report


@pytest.mark.parametrize(("sparsity", "allocation"), CASES)
def test_sparsity_gives_way_until_the_limit_holds(tmp_path, sparsity: float, allocation: str):
    report = converted(tmp_path, sparsity, allocation, max_drop=2.0)
    assert report.status == "ok" and report.achieved.drop <= 2
    (goal,) = (goal for goal in report.goals if goal.what == "zero weights")
    assert goal.requested == pytest.approx(100 * sparsity)
    (note,) = (note for note in report.notes if f"is kept in place of {sparsity:.1%}" in note)
    assert 0 < goal.achieved < 100 * sparsity - 1 and f"points at {2 * sparsity - 1:.1%}" in note


@pytest.mark.parametrize("sparsity", [0.97, 0.9])
def test_layers_that_gave_way_say_how_far(tmp_path, sparsity: float):
    report = converted(tmp_path, sparsity, "uniform", max_drop=2.0)
    less = [layer for layer in report.layers if layer.sparsity_asked is not None]
    assert less and all(layer.sparsity < layer.sparsity_asked for layer in less)
    assert all(layer.sparsity_asked <= 1 for layer in less)  # more than the mean where channels had gone altogether
    (note,) = (note for note in report.notes if note.startswith("less sparse than asked for"))
    assert all(layer.name in note for layer in less)


def test_a_pattern_gives_way_in_whole_layers(tmp_path):
    prune = {"pattern": "1:8", "schedule": "one-shot"}
    recipe = Recipe.model_validate({"prune": prune, "quantize": {"weights": "float32", "activations": "float32"}})
    report = convert(
        DIGITS / "digits.onnx", eval=DIGITS / "test.npz", recipe=recipe, formats=["onnx"], output=tmp_path, max_drop=2.0
    ).report
    assert report.status == "ok" and report.achieved.drop <= 2
    zeros = {layer.sparsity for layer in report.layers if layer.sparsity is not None}
    assert min(zeros) < 0.1
    assert all(goal.achieved == 100 for goal in report.goals if goal.what == "1:8 groups")


def test_the_layer_that_suffers_most_gives_way_first():
    """Noise grows a hundred times as fast in one of two layers of equal size."""
    layers = {"a": LayerShare(100, 0.9, lambda s: 10 * s), "b": LayerShare(100, 0.9, lambda s: 0.1 * s)}
    assert within(layers, 0.9) == pytest.approx({"a": 0.9, "b": 0.9})
    assert within(layers, 0.7) == pytest.approx({"a": 0.5, "b": 0.9}, abs=0.01)
    assert within(layers, 0.3) == pytest.approx({"a": 0.006, "b": 0.594}, abs=0.01)  # equal noise
    whole = {name: replace(layer, all_or_none=True) for name, layer in layers.items()}
    assert within(whole, 0.8) == {"a": 0.0, "b": 0.9} and within(whole, 0.4) == {"a": 0.0, "b": 0.0}


def test_a_limit_of_a_layer_that_is_not_there_is_refused(tmp_path):
    recipe = Recipe.model_validate({"prune": {"sparsity": 0.5, "at_most": {"no such layer": 0.1}}})
    with pytest.raises(InputError, match=r"prune\.at_most: 'no such layer'"):
        convert(DIGITS / "digits.onnx", recipe=recipe, formats=["onnx"], output=tmp_path)


def test_without_a_limit_the_sparsity_stays(tmp_path):
    report = converted(tmp_path, 0.97, "lamp", max_drop=100.0)
    (goal,) = (goal for goal in report.goals if goal.what == "zero weights")
    assert goal.achieved == pytest.approx(97, abs=3) and report.achieved.drop > 10
