"""--max-size: what a limit in bytes asks of pruning and clustering."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import edgecompress
from edgecompress import cli
from edgecompress.conversion import size_limit
from edgecompress.conversion.conversion import Conversion
from edgecompress.conversion.float_steps import FloatModel
from edgecompress.conversion.size_budget import (
    BITS_KEPT,
    LARGEST_SPARSITY,
    cluster_within,
    parse_size,
    sparsity_for,
    within_budget,
)
from edgecompress.conversion.size_limit import Compressed, convert_within_size
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
    found = cluster_within(limit, lambda size: Found(int(size * filled)), lambda weights: weights + rest)
    assert 0.9 * limit <= found.bytes + rest <= limit


def test_a_limit_that_is_too_small_gives_the_least() -> None:
    found = cluster_within(1000, lambda size: Found(max(size, 900)), lambda weights: weights + 300)
    assert found.bytes == 900


def chosen(formats: list[str], size: int, trains: bool, **prune: object) -> Recipe:
    """For a model of 80,000 weights."""
    recipe = Recipe.model_validate({"emit": {"formats": formats, "max_size": size}, "prune": prune})
    return within_budget(recipe, 80_000, trains=trains)


def test_what_each_format_needs() -> None:
    assert chosen(["pack"], 60_000, True).prune.sparsity is None  # clustering alone does it
    assert chosen(["pack"], 12_000, True).prune.sparsity > 0.7
    assert chosen(["pack"], 12_000, True).cluster.bits == "auto"
    assert chosen(["pack"], 12_000, False).prune.sparsity is None  # nothing to train on
    assert chosen(["tflite"], 40_000, True).prune.parameters == pytest.approx(0.425)
    assert chosen(["tflite"], 3, True).prune.parameters == 0.01
    unlimited = Recipe()
    assert within_budget(unlimited, 80_000, trains=True) is unlimited


@pytest.mark.parametrize("size", [6000, 4000, 1000])
def test_channels_go_where_too_few_weights_would_be_left(size: int) -> None:
    prune = chosen(["pack"], size, True).prune
    bits = -0.9 * math.log2(0.9) - 0.1 * math.log2(0.1) + 0.1 * BITS_KEPT
    assert prune.sparsity == 0.9
    assert prune.parameters * 80_000 * bits == pytest.approx(8 * size * 0.85, rel=0.02)


def test_channels_stay_where_more_weights_are_left_or_the_recipe_excludes_them() -> None:
    assert chosen(["pack"], 9500, True).prune.parameters is None
    assert 0.85 < chosen(["pack"], 9500, True).prune.sparsity < 0.9
    for keys in ({"criterion": "movement"}, {"macs": 0.5}, {"schedule": "lottery"}):
        prune = chosen(["pack"], 4000, True, **keys).prune
        assert prune.parameters is None and prune.sparsity > 0.95


@pytest.mark.parametrize("name", sorted(path.stem for path in PRESETS.glob("*.toml")))
def test_presets_are_recipes(name: str) -> None:
    assert load_recipe(name) != Recipe()


def test_a_size_that_cannot_be_is_told_with_exit_code_4(tmp_path) -> None:
    out = tmp_path / "out"
    with np.load(DIGITS / "train.npz") as z:
        np.savez(tmp_path / "few.npz", x=z["x"][:200])
    arguments = ["convert", DIGITS / "digits.onnx", "--calib", tmp_path / "few.npz", "--max-size", "1KB", "-o", out]
    arguments += ["--min-snr", 0]
    with pytest.raises(SystemExit) as stop:
        cli.main([str(a) for a in arguments])
    assert stop.value.code == 4
    report = json.loads((out / "report.json").read_text())
    clusters, goal = report["goals"]
    assert clusters["requested"] == 1000 and 0 < clusters["achieved"] < goal["achieved"]
    assert "bits a weight" in clusters["note"]
    assert report["status"] == "size-limit-exceeded"
    assert goal["requested"] == 1000 < goal["achieved"] == (out / "digits.int8.pack").stat().st_size


def limited(monkeypatch, limit: int, overhead: int, **prune: object) -> tuple[Compressed, list[tuple[float, int]]]:
    """Of a model of 10,000 weights, whose file has so many bytes beside them; what each try chose, and began with."""
    tries = []

    def run_float_steps(conversion, done=(), until=4):
        if until == 3:
            tries.append((conversion.recipe.prune.parameters, len(done)))
        return [*done, *[FloatModel(None)] * (until + 1 - len(done))]

    def convert_within_accuracy(conversion, model):
        size = round(10_000 * (conversion.recipe.prune.parameters or 1)) + overhead
        return SimpleNamespace(attempt=SimpleNamespace(artifacts=[SimpleNamespace(file=bytes(size))]), histories=())

    monkeypatch.setattr(size_limit, "run_float_steps", run_float_steps)
    monkeypatch.setattr(size_limit, "statistics", lambda model: SimpleNamespace(parameters=10_000))
    monkeypatch.setattr(size_limit, "convert_within_accuracy", convert_within_accuracy)
    trainer = SimpleNamespace(for_try=lambda number: None)
    recipe = Recipe.model_validate({"emit": {"formats": ["tflite"], "max_size": limit}, "prune": prune})
    return convert_within_size(Conversion(None, None, recipe, None, None, trainer, None)), tries


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(3000, 9000), st.integers(0, 2500))
def test_what_was_too_large_is_within_the_limit_at_the_second_try(monkeypatch, limit: int, overhead: int) -> None:
    found, tries = limited(monkeypatch, limit, overhead)
    assert found.bytes <= limit and len(found.notes) == len(tries) - 1 <= 1
    assert [done for _, done in tries] == [2, 2][: len(tries)]  # the second begins behind the student


def test_a_limit_below_everything_ends_with_the_smallest(monkeypatch) -> None:
    found, tries = limited(monkeypatch, 3000, 4000)
    assert found.bytes == 4100 and [share for share, _ in tries] == [0.255, 0.01]  # no less could be tried
    found, tries = limited(monkeypatch, 12_000, 4000, criterion="movement")  # which is not for channels
    assert found.bytes == 14_000 and tries == [(None, 2)]
    found, _ = limited(monkeypatch, 3000, 4000)
    assert found.notes == ("6,550 bytes with prune.parameters = 0.255: 3,550 above the limit, so compressed again",)


@pytest.mark.long  # a run that was stopped in its first try goes on in every run (test_learning.py)
def test_a_second_try_that_was_stopped_goes_on_to_the_same_bytes(tmp_path, monkeypatch) -> None:
    pytest.importorskip("torch").set_num_threads(1)
    from edgecompress.train import checkpoint

    class Killed(BaseException):
        pass

    saved, saves = checkpoint.save, []

    def save(path: Path, state: dict) -> None:
        saved(path, state)
        saves.append(path)
        if len(saves) == 3:
            raise Killed

    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[distill]\nwidth = 0.9\n[train]\nepochs = 1\nbatch = 64\noptimizer = "adam"\nlr = 0.002\n')

    def convert(folder: str, resume: bool = False) -> edgecompress.Result:
        return edgecompress.convert(
            DIGITS / "digits.onnx",
            "cortex-m4",
            train=(x, y),
            recipe=recipe,
            formats=["tflite"],
            max_size=7000,
            max_drop=100,  # one epoch teaches little
            output=tmp_path / folder,
            resume=resume,
        )

    with np.load(DIGITS / "train.npz") as z:
        x, y = z["x"][:200], z["y"][:200]
    whole = convert("whole")
    assert [h.stage for h in whole.report.training] == ["distillation", "prune channels", "prune channels"]
    size, goal = whole.artifacts["tflite"].stat().st_size, whole.report.goals[-1]
    assert (goal.what, goal.requested, goal.achieved) == ("size of .tflite", 7000, size) and whole.ok and size <= 7000
    assert any("above the limit, so compressed again" in note for note in whole.report.notes)
    monkeypatch.setattr(checkpoint, "save", save)
    with pytest.raises(Killed):
        convert("out")
    assert saves[-1].parent.name == "try-2"
    resumed = convert("out", resume=True)
    assert len(saves) == 3  # nothing was trained again
    assert resumed.artifacts["tflite"].read_bytes() == whole.artifacts["tflite"].read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "recipe.toml", "whole"]
