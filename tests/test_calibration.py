"""Histograms, ranges and the calibration pass against brute force on the raw values."""

from __future__ import annotations

import tracemalloc

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgecompress.compress.quantize import calibrate, ranges
from edgecompress.compress.quantize.batch import Runner, batch_size
from edgecompress.compress.quantize.histogram import BINS, Histogram
from edgecompress.errors import InputError
from edgecompress.evaluate.dataset import Dataset, load_data
from edgecompress.ingest import load
from edgecompress.recipe import Preprocess, Quantize

FLOATS = st.floats(-1e6, 1e6, width=32).map(lambda x: 0.0 if abs(x) < 1e-12 else x)
BATCHES = st.lists(arrays(np.float32, st.integers(1, 40), elements=FLOATS), min_size=1, max_size=6)


def histogram(*batches: np.ndarray) -> Histogram:
    result = Histogram()
    for batch in batches:
        result.update(batch)
    return result


@given(BATCHES)
def test_histogram_counts_every_value_in_its_bin(batches):
    values = np.concatenate(batches)
    found = histogram(*batches)
    assert (found.minimum, found.maximum) == (values.min(), values.max())
    expected = np.floor(values.astype(np.float64) / found.width).astype(int) - found.start
    np.testing.assert_array_equal(found.counts, np.bincount(expected, minlength=BINS))
    span = max(values.max(), 0) - min(values.min(), 0)
    assert span == 0 or found.width <= span / (BINS / 2 - 2)


@given(BATCHES, st.randoms(use_true_random=False))
def test_histogram_depends_on_values_alone(batches, random):
    values = np.concatenate(batches)
    shuffled = list(batches)
    random.shuffle(shuffled)
    half = Histogram().merged(histogram(*batches[:2])).merged(histogram(*batches[2:]))
    for other in (histogram(*shuffled), histogram(values), half):
        same = histogram(*batches)
        assert (other.exponent, other.start, other.minimum) == (same.exponent, same.start, same.minimum)
        np.testing.assert_array_equal(other.counts, same.counts)
        assert other.integral == same.integral


@given(BATCHES, st.floats(0.001, 1.0))
def test_quantile_is_within_one_bin(batches, share):
    found = histogram(*batches)
    exact = np.quantile(np.concatenate(batches), share, method="inverted_cdf")
    assert abs(found.quantile(share) - exact) <= found.width


def test_histogram_memory_is_constant():
    rng = np.random.default_rng(0)
    found = histogram(rng.normal(size=10_000))
    batches = [rng.normal(0, 2.0**i, 10_000).astype(np.float32) for i in range(20)]
    found.update(batches[0])
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for batch in batches * 5:
        found.update(batch)
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert found.counts.nbytes == 8 * BINS
    assert after - before < 4 * found.counts.nbytes  # a new counts array at most, whatever the data


def test_histogram_of_zeros_infinities_and_nan():
    found = histogram(np.zeros(7), np.array([np.inf, 1.5, -np.inf]))
    assert (found.minimum, found.maximum, found.total, found.infinities) == (0.0, 1.5, 8, 2)
    with pytest.raises(ValueError, match="NaN"):
        found.update(np.array([0.0, np.nan]))


def test_histogram_knows_whole_numbers():
    assert histogram(np.arange(256)).integral
    assert not histogram(np.arange(256), np.array([0.5])).integral


# ranges ------------------------------------------------------------------------------------------


def distributions() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    normal = rng.normal(size=20_000)
    return {
        "normal": normal,
        "relu": np.maximum(normal, 0),
        "skewed": rng.lognormal(0, 1, 20_000) - 1,
        "outlier": np.append(normal, 60.0),
        "negative": -rng.exponential(size=20_000),
    }


DISTRIBUTIONS = {name: values.astype(np.float32) for name, values in distributions().items()}


def quantization_error(values: np.ndarray, low: float, high: float) -> float:
    """Mean squared error of 256 levels over low..high, straight from the definition."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255
    zero = round(-128 - low / scale)
    stored = np.clip(np.rint(values.astype(np.float64) / scale) + zero, -128, 127)
    return float(np.square((stored - zero) * scale - values).mean())


@pytest.mark.parametrize("values", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS.keys())
def test_mse_is_as_good_as_a_full_search(values):
    low, high = ranges.mse(histogram(values), Quantize())
    grid = np.linspace(0.05, 1.0, 40)
    floor, ceiling = min(values.min(), 0.0), max(values.max(), 0.0)
    best = min(
        quantization_error(values, a * floor, b * ceiling)
        for a in (grid if floor else [1.0])
        for b in (grid if ceiling else [1.0])
    )
    assert quantization_error(values, low, high) <= 1.03 * best


@pytest.mark.parametrize("values", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS.keys())
@pytest.mark.parametrize("percent", [99.0, 99.9])
def test_percentile_matches_numpy(values, percent):
    found = histogram(values)
    low, high = ranges.percentile(found, Quantize(percentile=percent))
    tail = (100 - percent) / 2
    exact = np.percentile(values, [tail, 100 - tail], method="inverted_cdf")
    assert np.abs(np.array([low, high]) - exact).max() <= found.width


def test_minmax_is_exact():
    values = DISTRIBUTIONS["outlier"]
    assert ranges.minmax(histogram(values), Quantize()) == (values.min(), values.max())


@given(arrays(np.int64, st.integers(8, 40), elements=st.integers(0, 50)), st.integers(2, 8), st.data())
@settings(max_examples=50)
def test_kl_divergence_against_a_loop(counts, levels, data):
    end = data.draw(st.integers(levels, len(counts)))
    p = [float(c) for c in counts[:end]]
    q = [0.0] * end
    groups = [[j for j in range(end) if j * levels // end == level] for level in range(levels)]
    for group in groups:
        filled = [j for j in group if counts[j] > 0]
        for j in filled:
            q[j] = sum(counts[k] for k in filled) / len(filled)
    p[-1] += float(sum(counts[end:]))
    found = ranges.kl_divergence(counts, end, levels)
    if sum(q) == 0:
        assert found == float("inf")
        return
    p, q = [x / sum(p) for x in p], [x / sum(q) for x in q]
    expected = sum(x * np.log(x / max(y, 1e-9)) for x, y in zip(p, q) if x > 0)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_entropy_cuts_an_outlier_and_keeps_a_plain_range():
    low, high = ranges.entropy(histogram(DISTRIBUTIONS["outlier"]), Quantize())
    assert high < 10 and low >= DISTRIBUTIONS["outlier"].min()
    uniform = np.random.default_rng(0).uniform(0, 3, 50_000).astype(np.float32)
    assert ranges.entropy(histogram(uniform), Quantize())[1] > 2.8


def test_entropy_counts_zeros_no_more_than_the_bin_beside_them(monkeypatch):
    """The many zeros behind a Relu would decide alone."""
    uniform = np.random.default_rng(0).uniform(0.1, 3, 50_000).astype(np.float32)
    width = histogram(uniform).width
    beside = [np.full(count, (bin_ + 0.5) * width, np.float32) for bin_, count in ((1, 7), (2, 900))]
    values = np.concatenate([np.zeros(20_000, np.float32), *beside, uniform])
    seen, divergence = [], ranges.kl_divergence
    monkeypatch.setattr(
        ranges, "kl_divergence", lambda counts, *rest: seen.append(counts[:3]) or divergence(counts, *rest)
    )
    ranges.entropy(histogram(values), Quantize())
    assert seen and all(list(counts) == [7, 7, 900] for counts in seen)


@pytest.mark.parametrize("method", ranges.METHODS)
def test_degenerate_values(method):
    for values in (np.zeros(9), np.full(9, 3.0), np.full(9, -1e-3), np.array([5.0])):
        low, high = ranges.METHODS[method](histogram(values), Quantize())
        width = histogram(values).width
        assert min(low, 0) == pytest.approx(min(values.min(), 0), abs=width)
        assert max(high, 0) == pytest.approx(max(values.max(), 0), abs=width)


# the pass over the data --------------------------------------------------------------------------

MODEL = """
<ir_version: 10, opset_import: ["" : 21]>
net (float[N, 3, 8, 8] x) => (float[N, 5] y) <float[4, 3, 3, 3] w, float[4] b, float[5, 4] v, float[5] c,
     int64[2] flat = {-1, 4}> {
  conv = Conv <pads = [1, 1, 1, 1]> (x, w, b)
  relu = Relu(conv)
  pool = GlobalAveragePool(relu)
  vector = Reshape(pool, flat)
  y = Gemm <transB = 1> (vector, v, c)
}
"""
MIXING = MODEL.replace("relu = Relu(conv)", "normal = Softmax<axis = 0>(conv) relu = Relu(normal)")


def parse(text: str) -> onnx.ModelProto:
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(7)
    shapes = {"w": (4, 3, 3, 3), "b": (4,), "v": (5, 4), "c": (5,)}
    del model.graph.initializer[:]
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    for name, array in (*arrays.items(), ("flat", np.array([-1, 4]))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return model


def samples(count: int) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(count, 3, 8, 8)).astype(np.float32)


def dataset(model, array: np.ndarray) -> Dataset:
    return load_data({"x": array}, model.graph.inputs, Preprocess())


@pytest.mark.parametrize("text", [MODEL, MIXING], ids=["batchable", "mixes samples"])
def test_calibration_sees_what_onnxruntime_computes(text):
    import onnxruntime

    proto = parse(text)
    model = load(proto).model
    found = calibrate(model, dataset(model, samples(70)), Quantize())
    assert found.samples == 70
    assert "conv" not in found.histograms or text is MIXING  # fused into the Relu: never there at run time
    for name in ("relu", "pool"):
        proto.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    runs = [session.run(["relu", "pool", "y"], {"x": x[None]}) for x in samples(70)]
    for i, name in enumerate(["relu", "pool", "y"]):
        values = np.stack([run[i] for run in runs])
        exact = found.histograms[name]
        assert exact.total == values.size
        extremes = pytest.approx((values.min(), values.max()), rel=1e-5, abs=1e-6)
        assert (exact.minimum, exact.maximum) == extremes
    assert found.histograms["x"].maximum == samples(70).max()


def test_batches_only_where_the_result_is_the_same():
    for text, whole in ((MODEL, True), (MIXING, False)):
        model = load(parse(text)).model
        assert Runner(model, ["y"], 8).takes_all({"x": samples(8)}) is whole


def test_batches_give_what_single_samples_give():
    model = load(parse(MODEL)).model
    few = {"x": samples(13)}
    single, many = Runner(model, ["relu", "y"], 5, whole=False)(few), Runner(model, ["relu", "y"], 5)(few)
    for name in single:
        np.testing.assert_allclose(many[name], single[name], rtol=1e-4, atol=1e-5)


def test_calibration_memory_does_not_grow_with_samples():
    model = load(parse(MODEL)).model
    arrays = [np.repeat(samples(4), n, axis=0) for n in (32, 640)]
    peaks = []
    for data in [dataset(model, array) for array in arrays]:
        tracemalloc.start()
        calibrate(model, data, Quantize())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.25 * peaks[0]


def test_batch_size_is_bounded_by_memory():
    model = load(parse(MODEL)).model
    assert 1 <= batch_size(model) <= 64
    large = parse(MODEL)
    for value in large.graph.input:
        value.type.tensor_type.shape.dim[2].dim_value = value.type.tensor_type.shape.dim[3].dim_value = 1024
    assert batch_size(load(large).model) == 1


def test_calibration_limits_and_errors():
    model = load(parse(MODEL)).model
    assert calibrate(model, dataset(model, samples(9)), Quantize(samples=4)).samples == 4
    with pytest.raises(InputError, match="no calibration samples"):
        calibrate(model, dataset(model, samples(1)).head(0), Quantize())
    with pytest.raises(InputError, match="NaN at value 'relu'"):
        calibrate(model, dataset(model, np.full((2, 3, 8, 8), 3e38, np.float32)), Quantize())
