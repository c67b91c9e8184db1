"""Recipes: what is written is read back the same, and mistakes are named."""

from __future__ import annotations

import tomllib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecompress.errors import InputError
from edgecompress.recipe import Evaluate, Preprocess, Quantize, Recipe, Section, load_recipe
from edgecompress.recipe.schema import CRITERIA
from edgecompress_runtime.pack import CODECS, FAST

positive = st.floats(min_value=1e-30, max_value=1e30)
numbers = st.just(0.0) | positive | positive.map(lambda number: -number)
recipes = st.builds(
    Recipe,
    seed=st.integers(0, 2**32 - 1),
    preprocess=st.builds(
        Preprocess,
        scale=positive,
        mean=st.lists(numbers, min_size=1),
        std=st.lists(positive, min_size=1),
        resize=st.none() | st.tuples(st.integers(1, 4096), st.integers(1, 4096)),
    ),
    quantize=st.builds(
        Quantize,
        percentile=st.floats(51, 100),
        per_channel=st.booleans(),
        float_layers=st.lists(st.text(st.characters(codec="utf-8"))),
        samples=st.none() | st.integers(1),
    ),
    evaluate=st.builds(
        Evaluate, metric=st.text(st.characters(codec="utf-8"), min_size=1), max_drop=st.none() | st.floats(0, 100)
    ),
)


@given(recipes)
def test_toml_is_read_back_the_same(recipe: Recipe) -> None:
    assert Recipe.model_validate(tomllib.loads(recipe.to_toml())) == recipe


def test_file_round_trip(tmp_path) -> None:
    recipe = Recipe(quantize=Quantize(float_layers=["/conv:1/größe", 'a "quoted" \\ name']))
    path = tmp_path / "recipe.toml"
    path.write_text(recipe.to_toml(), encoding="utf-8")
    assert load_recipe(path) == recipe


def test_every_key_is_documented() -> None:
    def check(kind: type[Section]) -> int:
        for name, field in kind.model_fields.items():
            assert field.description, f"{kind.__name__}.{name}"
        kinds = [f.annotation for f in kind.model_fields.values()]
        return len(kind.model_fields) + sum(check(k) for k in kinds if isinstance(k, type) and issubclass(k, Section))

    assert check(Recipe) > 20


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[quantise]", "unknown key 'quantise': did you mean 'quantize'?"),
        ("[quantize]\ncalibraton = 'mse'", "unknown key 'quantize.calibraton': did you mean 'calibration'?"),
        ("[quantize]\nwieghts = 'int8'", "did you mean 'weights'?"),
        ("[quantize]\nzzz = 1", "known: weights, activations"),
        ("[quantize]\nweights = 'int3'", "key 'quantize.weights': input should be 'int8'"),
        ("[preprocess]\nstd = [0.0]", "key 'preprocess.std': should be one positive number"),
        ("[preprocess]\nscale = nan", "key 'preprocess.scale'"),
        ("[preprocess]\nscale = 0", "key 'preprocess.scale': should not be zero"),
        ("[preprocess]\nstd = [1e-46]", "key 'preprocess.std.0': should be 0, or between"),
        ("[preprocess]\nmean = [1e300]", "key 'preprocess.mean.0': should be 0, or between"),
        ("[preprocess]\nresize = [32]", "key 'preprocess.resize': has too few items: found [32]"),
        ("[preprocess]\nresize = [1, 2, 3]", "key 'preprocess.resize': should have 2 items"),
        ("[preprocess]\nresize = 32", "key 'preprocess.resize': should be a list, found 32"),
        ("[preprocess]\nscale = true", "key 'preprocess.scale': should be a number, found True"),
        ("[preprocess]\nscale = '0.5'", "key 'preprocess.scale': should be a number, found '0.5'"),
        ("[preprocess]\nmean = true", "key 'preprocess.mean.0': should be a number"),
        ("[preprocess]\nstd = []", "key 'preprocess.std': should not be empty, found []"),
        ("[quantize]\nper_channel = 'yes'", "key 'quantize.per_channel': should be true or false, found 'yes'"),
        ("[quantize]\nequalize = 1", "key 'quantize.equalize': should be true or false, found 1"),
        ("[quantize]\nsamples = 2.0", "key 'quantize.samples': should be a whole number, found 2.0"),
        ("[quantize]\npercentile = true", "key 'quantize.percentile': should be a number"),
        ("[quantize]\nfloat_layers = 'a'", "key 'quantize.float_layers': should be a list"),
        ("[evaluate]\nmetric = ''", "key 'evaluate.metric': should not be empty"),
        ("[evaluate]\nmetric = 1", "key 'evaluate.metric': should be a text in quotes, found 1"),
        ("[prune]\ncriterion = 'no-such-one'", f"key 'prune.criterion': should be one of {', '.join(CRITERIA)}, or "),
        ("seed = true", "key 'seed': should be a whole number, found True"),
        ("quantize = 3", "key 'quantize': should be a table, found 3"),
        ("seed = -1", "key 'seed'"),
        ("[evaluate]\nmax_drop = -1", "key 'evaluate.max_drop'"),
        ("[emit]\nformats = []", "key 'emit.formats'"),
        ("seed =", "not valid TOML"),
        ("seed = " + "9" * 6000, "not valid TOML"),
        ("seed = " + "[" * 5000, "not valid TOML: nested too deep"),
    ],
)
def test_mistakes_are_one_line_that_names_file_and_key(tmp_path, text: str, expected: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_recipe(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and expected in message and "\n" not in message


def test_coders_are_the_default_and_the_slow_codecs(tmp_path) -> None:
    file = tmp_path / "r.toml"
    for coder in ("huffman", *set(CODECS).difference(FAST)):
        file.write_text(f'[emit]\ncoder = "{coder}"\n')
        assert load_recipe(file).emit.coder == coder
    file.write_text('[emit]\ncoder = "golomb"\n')
    with pytest.raises(InputError, match=r"'emit.coder': input should be 'huffman' or 'rans'.*, found 'golomb'$"):
        load_recipe(file)


def test_mean_and_std_may_be_one_number(tmp_path) -> None:
    (tmp_path / "mine.toml").write_text("[preprocess]\nmean = 0.5\nstd = 2\n")
    found = load_recipe(tmp_path / "mine.toml").preprocess
    assert (found.mean, found.std) == ([0.5], [2.0])


def test_whole_and_numpy_numbers_are_numbers() -> None:
    found = Preprocess(scale=np.float32(0.5), mean=(np.float32(2), 1), std=2)
    assert (found.scale, found.mean, found.std) == (0.5, [2.0, 1.0], [2.0])
    assert Evaluate(max_drop=1).max_drop == 1.0 and Quantize(percentile=99).percentile == 99.0


def test_all_mistakes_in_one_message(tmp_path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("sed = 1\n[quantize]\nsamples = 0\n")
    with pytest.raises(InputError, match=r"quantize\.samples.*unknown key 'sed': did you mean 'seed'"):
        load_recipe(path)


def test_unreadable_files(tmp_path) -> None:
    with pytest.raises(InputError, match="can't be read: No such file"):
        load_recipe(tmp_path / "none.toml")
    with pytest.raises(InputError, match="can't be read: Is a directory"):
        load_recipe(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not valid TOML"):
        load_recipe(tmp_path / "binary.toml")
