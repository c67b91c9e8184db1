"""Channels that have no effect on the outputs are removed without any data, and the outputs stay as they were."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from edgecompress.analysis.channel_groups import channel_groups, prunable
from edgecompress.analysis.statistics import statistics
from edgecompress.analysis.value_bounds import intervals
from edgecompress.compress.prune.dead import remove_dead_channels
from edgecompress.compress.prune.measured_values import difference_on_data, measured_values
from edgecompress.evaluate.dataset import load_data
from edgecompress.graph.fusion import constant
from edgecompress.ingest import load
from edgecompress.recipe import Preprocess
from networks import example
from pruning import run

NAMES = ("residual", "inverted_residual", "dense", "mobilenet", "flatten_to_linear", "autoencoder")
MORE = (*NAMES, "channel_shuffle", "activations", "convnext", "pools", "pads", "norms", "unet_bilinear")


def with_zeros(model: ir.Model, seed: int) -> tuple[ir.Model, dict[str, int]]:
    """Some channels' makers made zero (biases stay), some channels' readers; how many of a group nothing reads."""
    model, rng, unread = model.clone(), np.random.default_rng(seed), {}
    for group in prunable(channel_groups(model)):
        order = rng.permutation(group.size)
        silent, ignored = order[: group.size // 4], order[group.size // 4 : group.size // 2]
        if group.approximate is None and group.read_by:
            unread[group.name] = len(ignored)
        makers, readers = ({x.weight for x in layers} for layers in (group.made_by, group.read_by))
        for m in group.members:
            for names, channels in ((makers, silent), (readers, ignored)):
                if m.value in names and not (m.value in makers and m.value in readers):
                    value = model.graph.initializers[m.value]
                    array = constant(value).copy()
                    array[(slice(None),) * m.axis + (m.positions[np.isin(m.channels, channels)],)] = 0
                    value.const_value = ir.tensor(array, name=m.value)
    return model, unread


@pytest.mark.parametrize("name", NAMES)
def test_outputs_stay_the_same(name, exported):
    model, unread = with_zeros(load(exported(name)).model, 0)
    smaller, dead = remove_dead_channels(model)
    found = {d.group: d for d in dead}
    for group, count in unread.items():
        assert count == 0 or found[group].unread >= count - 1
    assert statistics(smaller).parameters < statistics(model).parameters
    for seed in (0, 1):
        inputs = example(name, seed=seed)
        for ours, expected in zip(run(smaller, inputs), run(model, inputs), strict=True):
            np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    assert remove_dead_channels(smaller)[1] == ()


def two_layers(pads: int, weight: float, bias: float, activation: str) -> ir.Model:
    """Three channels, of which the first has this weight (all taps) and bias; read by a 3 x 3 convolution."""
    rng = np.random.default_rng(0)
    first, second = (rng.normal(0, 1, (a, b, 3, 3)).astype(np.float32) for a, b in ((3, 2), (4, 3)))
    first[0] = weight
    biases = np.array([bias, 0.3, -0.2], np.float32)
    model = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["": 21]> g (float[1, 2, 8, 8] x) => (float[1, 4, h, w] y) {{
            a = Conv<pads=[1, 1, 1, 1]>(x, w1, b1)  b = {activation}(a)
            y = Conv<pads=[{pads}, {pads}, {pads}, {pads}]>(b, w2)
        }}"""
    )
    for name, array in (("w1", first), ("b1", biases), ("w2", second)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return load(model).model


@pytest.mark.parametrize(
    ("pads", "bias", "activation", "dead"),
    [
        (1, -0.5, "Relu", 1),  # zero everywhere
        (0, 0.7, "Relu", 1),  # the reader's bias takes 0.7 over
        (1, 0.7, "Relu", 0),  # but not where there are pads: it is 0.7 inside and 0 in them
        (0, 0.7, "Sigmoid", 1),
        (1, 0.0, "Sigmoid", 0),
        (1, 0.0, "Tanh", 1),
    ],
)
def test_constant_channels_and_pads(pads, bias, activation, dead):
    model = two_layers(pads, 0.0, bias, activation)
    smaller, found = remove_dead_channels(model)
    assert sum(d.constant for d in found) == sum(d.count for d in found) == dead
    x = {"x": np.random.default_rng(1).normal(0, 1, (1, 2, 8, 8)).astype(np.float32)}
    np.testing.assert_allclose(run(smaller, x)[0], run(model, x)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("pads", "weight", "bias", "dead"),
    [
        (0, 1e-12, 0.3, 1),  # one value, which the second layer's bias takes over
        (0, 1e-7, 0.3, 0),  # varies by more than what is rounded off
        (1, 1e-12, 0.3, 0),  # pads differ from it
        (1, 1e-12, -0.3, 1),  # zero
        (1, 1e-12, 1e-13, 1),  # anything, but so small
        (0, 0.5, -30.0, 0),  # zero on the data, but not for inputs four times as large
    ],
)
def test_channels_that_are_all_but_zero(pads, weight, bias, dead):
    model = two_layers(pads, weight, bias, "Relu")
    assert remove_dead_channels(model)[1] == () or bias < 0 < dead
    samples = np.random.default_rng(1).normal(0, 1, (40, 2, 8, 8)).astype(np.float32)
    data = load_data(samples, model.graph.inputs, Preprocess())
    smaller, found = remove_dead_channels(model, partial(measured_values, dataset=data))
    assert sum(d.count for d in found) == dead
    for x in (samples[:1], 4 * samples[1:2], np.ones_like(samples[:1])):
        ours, expected = run(smaller, {"x": x})[0], run(model, {"x": x})[0]
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
    assert difference_on_data(model, smaller, data) < 1e-6


def test_what_values_are_on_data():
    model = two_layers(0, 0.5, 0.1, "Relu")
    samples = np.random.default_rng(1).normal(0, 1, (7, 2, 8, 8)).astype(np.float32)
    measured = measured_values(model, load_data(samples, model.graph.inputs, Preprocess()))
    outputs = np.concatenate([run(model, {"x": x[None]})[0] for x in samples])
    for value, array in ((model.graph.inputs[0], samples), (model.graph.outputs[0], outputs)):
        assert measured.largest[value.name] == pytest.approx(np.abs(array).max(), rel=1e-6)
        np.testing.assert_allclose(measured.along(value, 1), np.abs(array).mean((0, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize(("size", "dead"), [(1e-12, 1), (1e-5, 0)])
def test_negligible_only_below_rounding(size, dead):
    """The second layer's sums are at least 100 - 2 |w|: a channel of at most 1 with weights of 1e-12 is no part of
    their float32 values."""
    model = two_layers(0, 0.5, 0.1, "Sigmoid")
    reader = model.graph[-1]
    weight, bias = constant(reader.inputs[1]).copy(), np.full(4, 1000, np.float32)
    weight[:, 0] = size
    reader.inputs[1].const_value = ir.tensor(weight)
    reader.inputs[2].const_value = ir.tensor(bias)
    smaller, found = remove_dead_channels(model)
    assert sum(d.negligible for d in found) == dead
    x = {"x": np.random.default_rng(1).normal(0, 1, (1, 2, 8, 8)).astype(np.float32)}
    if dead:
        np.testing.assert_array_equal(run(smaller, x)[0], run(model, x)[0])


@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 4), ("GRU", 3)])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize(("width", "hidden"), [(5, 5), (6, 5), (9, 4), (4, 9)])
def test_dead_channels_in_front_of_a_recurrent_layer_of_another_width(kind, gates, direction, width, hidden):
    """Of the channels that the recurrent layer gets, one is not read."""
    ways = 2 if direction == "bidirectional" else 1
    model = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["": 21]> g (float[3, 1, 5] x) => (float[3, {ways}, 1, {hidden}] y) {{
            a = MatMul(x, w1)  b = Relu(a)
            y = {kind}<hidden_size={hidden}, direction="{direction}">(b, w, r)
        }}"""
    )
    rng = np.random.default_rng(0)
    shapes = {"w1": (5, width), "w": (ways, gates * hidden, width), "r": (ways, gates * hidden, hidden)}
    arrays = {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}
    arrays["w"][:, :, 2] = 0
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in arrays.items())
    model = load(model).model
    smaller, found = remove_dead_channels(model)
    assert sum(d.unread for d in found) == 1
    inputs = {"x": rng.normal(size=(3, 1, 5)).astype(np.float32)}
    np.testing.assert_allclose(run(smaller, inputs)[0], run(model, inputs)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MORE)
def test_bounds_hold(name, exported):
    """Every value of a run lies within its interval."""
    from edgecompress.evaluate.interpreters import OnnxRuntime

    model = load(exported(name)).model
    found = {v: i for v, i in intervals(model).items() if constant(v) is None and v.name}
    names = [str(v.name) for v in found if not v.is_graph_input() and not v.is_graph_output()]
    values = OnnxRuntime(model, extra_outputs=names, optimize=False).run(example(name))
    finite = 0
    for value, interval in found.items():
        if value.name in names:
            array = values[len(model.graph.outputs) + names.index(value.name)]
            slack = 1e-5 * np.abs(array).max()
            assert (array >= interval.low - slack).all() and (array <= interval.high + slack).all()
            finite += bool(np.isfinite(interval.low).any())
    assert finite > 0


def test_the_model_itself_when_nothing_is_dead():
    model = load(Path(__file__).parent.parent / "samples" / "digits" / "digits.onnx").model
    smaller, found = remove_dead_channels(model)
    assert found == () and smaller is model


def test_convert_removes_them_first(tmp_path):
    import edgecompress

    model = ir.to_proto(two_layers(1, 0.0, -0.5, "Relu"))
    result = edgecompress.convert(model, target="android", output=tmp_path / "out", formats=["onnx"])
    assert any("1 channels that have no effect on the outputs" in note for note in result.report.notes)


def test_convert_says_what_is_all_but_zero(tmp_path):
    import edgecompress

    model = ir.to_proto(two_layers(0, 1e-12, 0.3, "Relu"))
    calib = np.random.default_rng(1).normal(0, 1, (40, 2, 8, 8)).astype(np.float32)
    result = edgecompress.convert(model, target="android", calib=calib, output=tmp_path / "out", formats=["onnx"])
    (note,) = [n for n in result.report.notes if "no effect on the outputs" in n]
    assert "1 constant" in note and "on the data; no value was taken to be above 8 times its largest" in note
