"""A limit on accuracy backs off pruning before it gives up on the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecompress import convert
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
    (note,) = (note for note in report.notes if f"in place of {sparsity:.1%}" in note)
    assert 0 < goal.achieved < 100 * sparsity - 1 and f"points at {2 * sparsity - 1:.1%}" in note


def test_without_a_limit_the_sparsity_stays(tmp_path):
    report = converted(tmp_path, 0.97, "lamp", max_drop=100.0)
    (goal,) = (goal for goal in report.goals if goal.what == "zero weights")
    assert goal.achieved == pytest.approx(97, abs=3) and report.achieved.drop > 10
