"""--max-size: what a limit in bytes asks of pruning and clustering."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecompress import cli
from edgecompress.budget import BITS_KEPT, LARGEST_SPARSITY, fit, parse_size, sparsity_for, within_budget
from edgecompress.errors import InputError
from edgecompress.recipe import PRESETS, Recipe, load_recipe

DIGITS = Path(__file__).parent.parent / "samples" / "digits"


@pytest.mark.parametrize(
    "text, size", [("32KB", 32000), ("32 KiB", 32768), ("1.5kb", 1500), ("900", 900), ("1MiB", 2**20)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "KB", "-3KB", "3GB", "0", "3 K", "1e3"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(InputError, match="expected a number"):
        parse_size(text)


@settings(deadline=None)
@given(st.floats(0.2, 3.0))
def test_sparsity_takes_the_bits_that_there_are(bits: float) -> None:
    s = sparsity_for(bits)
    used = -s * math.log2(s) - (1 - s) * math.log2(1 - s) + (1 - s) * BITS_KEPT
    assert used == pytest.approx(bits, abs=1e-3) or s == pytest.approx(LARGEST_SPARSITY) or bits >= 3


class Found:
    """A clustered model whose weights take a number of bytes."""

    def __init__(self, size: int) -> None:
        self.bytes, self.model = size, size


@settings(deadline=None)
@given(st.integers(2000, 10**6), st.floats(0.01, 0.5), st.floats(0.95, 1.0))
def test_the_whole_file_fits_and_hardly_less(limit: int, overhead: float, filled: float) -> None:
    rest = round(limit * overhead)
    found = fit(limit, lambda size: Found(int(size * filled)), lambda weights: weights + rest)
    assert 0.9 * limit <= found.bytes + rest <= limit


def test_a_limit_that_is_too_small_gives_the_least() -> None:
    found = fit(1000, lambda size: Found(max(size, 900)), lambda weights: weights + 300)
    assert found.bytes == 900


def test_what_each_format_needs() -> None:
    def chosen(formats: list[str], size: int, trains: bool) -> Recipe:
        recipe = Recipe.model_validate({"emit": {"formats": formats, "max_size": size}})
        return within_budget(recipe, 80_000, trains=trains)

    assert chosen(["pack"], 60_000, True).prune.sparsity is None  # clustering alone does it
    assert chosen(["pack"], 12_000, True).prune.sparsity > 0.7
    assert chosen(["pack"], 12_000, True).cluster.bits == "auto"
    assert chosen(["pack"], 12_000, False).prune.sparsity is None  # nothing to train on
    assert chosen(["tflite"], 40_000, True).prune.parameters == pytest.approx(0.425)
    unlimited = Recipe()
    assert within_budget(unlimited, 80_000, trains=True) is unlimited


@pytest.mark.parametrize("name", sorted(path.stem for path in PRESETS.glob("*.toml")))
def test_presets_are_recipes(name: str) -> None:
    assert load_recipe(name) != Recipe()


def test_a_size_that_cannot_be_is_told_with_exit_code_4(tmp_path) -> None:
    out = tmp_path / "out"
    arguments = ["convert", DIGITS / "digits.onnx", "--calib", DIGITS / "train.npz", "--max-size", "1KB", "-o", out]
    with pytest.raises(SystemExit) as stop:
        cli.main([str(a) for a in arguments])
    assert stop.value.code == 4
    report = json.loads((out / "report.json").read_text())
    clusters, goal = report["goals"]
    assert clusters["requested"] == 1000 and 0 < clusters["achieved"] < goal["achieved"]
    assert "bits a weight" in clusters["note"]
    assert report["status"] == "size-limit-exceeded"
    assert goal["requested"] == 1000 < goal["achieved"] == (out / "digits.int8.pack").stat().st_size
