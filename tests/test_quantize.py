"""Which layers get int8 and with which scales."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgecompress.compress.quantize import require_integer, simulation
from edgecompress.emit import tflite
from edgecompress.errors import InputError, UnsupportedModelError
from edgecompress.evaluate.interpreters import LiteRT, OnnxRuntime
from edgecompress.graph.annotations import is_integer, quantization
from quantizing import CONV, PLAIN, network, normal, parameters, samples, snr_db, static, value


def test_relu_and_image_input_and_fixed_outputs():
    body = "c = Conv <pads = [1, 1, 1, 1]> (x, w, b) r = Relu(c) y = Sigmoid(r)"
    model = network(body, w=normal(4, 3, 3, 3), b=normal(4))
    pixels = np.random.default_rng(0).integers(0, 256, (8, 3, 8, 8)).astype(np.float32)
    pixels[0, 0, 0, :2] = 0, 255
    found = static(model, {"x": pixels})
    assert parameters(found, "x") == (1.0, -128)
    assert parameters(found, "r")[1] == -128
    assert parameters(found, "y") == (1 / 256, -128)
    assert quantization(value(found, "c")) is None  # inside the fused layer
    conv = next(n for n in found.graph if n.op_type == "Conv")
    assert quantization(conv.inputs[1]).axis == 0 and quantization(conv.inputs[2]).dtype == ir.DataType.INT32
    assert [is_integer(node) for node in found.graph] == [True, True, False]  # Sigmoid: probabilities at the end
    assert all(is_integer(node) for node in static(model, {"x": pixels}, integer_only=True).graph)
    assert not any(v.meta for n in model.graph for v in n.outputs)  # the model given is as it was


@pytest.mark.parametrize(
    "end",
    [
        "y = ReduceMean <keepdims = 1> (s, axes)",
        "m = ReduceMean <keepdims = 1> (s, axes) y = Transpose <perm = [0, 2, 3, 1]> (m)",
        "y = GlobalAveragePool (s)",
    ],
)
def test_a_mean_of_probabilities_holds_those_that_calibration_lacks(end: str):
    model = network(
        f"c = Conv (x, w, b) r = Relu (c) d = Conv (r, v, e) s = Sigmoid (d) {end}",
        w=normal(4, 3, 3, 3), b=normal(4), v=normal(2, 4, 1, 1), e=np.full(2, -3, np.float32), axes=np.array([2, 3]),
    )  # fmt: skip
    found, before = static(model), static(model, integer_only=True)
    assert {n.op_type for n in found.graph if is_integer(n)} == {"Conv", "Relu"}
    assert parameters(found, "y") == (1 / 256, -128) and parameters(before, "y")[0] < 1 / 300
    x = {"x": 5 * samples(model)["x"]}  # with means that no calibration sample has
    exact, given = (OnnxRuntime(m).run(x)[0] for m in (model, simulation(found)))
    assert exact.max() > 256 * parameters(before, "y")[0] and given.max() > 256 * parameters(before, "y")[0]


def test_a_softmax_of_numbers_too_small_for_its_kernels_stays_float():
    """The attention of a network whose weights for it began at zero."""
    model = network(
        "c = Conv (x, w, b) s = Softmax <axis = 1> (c) y = Conv (s, v, d)",
        w=normal(4, 3, 3, 3) * np.float32(1e-10), b=np.zeros(4, np.float32), v=normal(2, 4, 1, 1), d=normal(2),
    )  # fmt: skip
    found, arrays = static(model), samples(model, seed=3)
    assert [n.op_type for n in found.graph if not is_integer(n)] == ["Softmax"]
    emitted = tflite.emit(found)
    exact, given = OnnxRuntime(model).run(arrays)[0], LiteRT(emitted.data, emitted).run(arrays)[0]
    assert snr_db(exact, given) > 30


def test_scales_are_shared_where_the_operator_does_not_rescale():
    model = network(
        """a = Conv <pads = [1, 1, 1, 1]> (x, w, b) p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (a)
        z = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (x) c = Concat <axis = 1> (p, z)
        t = Transpose <perm = [0, 2, 3, 1]> (c) y = GlobalAveragePool(t)""",
        w=9 * normal(4, 3, 3, 3),
        b=normal(4),
    )
    found = static(model)
    group = {name: parameters(found, name) for name in ("a", "p", "x", "z", "c", "t")}
    assert len(set(group.values())) == 1
    assert parameters(found, "y")[0] < group["t"][0] / 3  # a mean rescales


def test_an_average_over_the_whole_image_has_a_scale_of_its_own():
    """It is emitted as a mean, which rescales; with padding it is a pool like any other, which does not."""
    body = "p = AveragePool <kernel_shape = [8, 8]> (x) y = Relu(p)"
    whole = static(network(body))
    assert parameters(whole, "y")[0] < parameters(whole, "x")[0] / 3
    padded = static(
        network(
            body.replace("[8, 8]", "[8, 8], pads = [1, 1, 1, 1]").replace("y = Relu(p)", "y = Reshape(p, s)"),
            s=np.array([1, 27]),
        )
    )
    assert parameters(padded, "y") == parameters(padded, "x")


def test_a_fixed_scale_leaves_a_group_by_requantizing():
    model = network(
        "a = Conv(x, w, b) s = Sigmoid(a) y = Concat <axis = 1> (a, s) z = Relu(y)",
        output="float[N, C, H, W] z",
        w=5 * normal(4, 3, 1, 1),
        b=normal(4),
    )
    found = static(model)
    identity = next(n for n in found.graph if n.op_type == "Identity")
    assert is_integer(identity) and identity.inputs[0].name == "s"
    assert parameters(found, "s") == (1 / 256, -128)
    shared = {parameters(found, name) for name in (str(identity.outputs[0].name), "a", "y")}
    assert len(shared) == 1
    alone = network("s = Softmax(x) y = Reshape(s, shape)", output="float[A, B] y", shape=np.array([1, 192]))
    assert [n.op_type for n in static(alone).graph] == ["Softmax", "Reshape"]
    assert parameters(static(alone), "y") == (1 / 256, -128)


def test_constants_shared_between_layers_get_their_own_scales():
    constant = np.array([0.5, -0.25, 3.0], np.float32).reshape(1, 3, 1, 1)
    model = network("a = Add(x, k) m = Max(a, k) y = Mul(m, k)", k=constant)
    found = static(model)
    used = {n.op_type: next(v for v in n.inputs if v.const_value is not None) for n in found.graph}
    assert len({v.name for v in used.values()}) == 3
    assert quantization(used["Max"]).same_as(quantization(value(found, "m")))
    assert not quantization(used["Mul"]).same_as(quantization(used["Max"]))
    for v in used.values():
        q = quantization(v)
        np.testing.assert_allclose(q.dequantize(q.quantize(constant)), constant, atol=float(q.scale[0]))


def test_float_layers_and_what_only_moves_between_them_stay_float():
    body = """a = Conv(x, w, b) t = Transpose <perm = [0, 2, 3, 1]> (a) s = Softmax(t)
        u = Transpose <perm = [0, 3, 1, 2]> (s) y = Conv(u, v, c)"""
    model = network(body, w=normal(4, 3, 1, 1), b=normal(4), v=normal(4, 4, 1, 1), c=normal(4))
    nodes = list(model.graph)
    settings = PLAIN.model_copy(update={"float_layers": [str(nodes[0].outputs[0].name), "s"]})
    found = static(model, settings=settings)
    assert [is_integer(n) for n in found.graph] == [False, False, False, True, True]
    assert quantization(next(iter(found.graph)).inputs[1]) is None
    with pytest.raises(InputError, match="no node or value named 'nothing'"):
        static(model, settings=PLAIN.model_copy(update={"float_layers": ["nothing"]}))


def test_integer_only_names_every_node_without_a_kernel():
    model = network("a = Erf(x) b = Relu(a) c = Neg(b) y = HardSigmoid(c)")
    with pytest.raises(UnsupportedModelError) as caught:
        static(model, integer_only=True)
    with pytest.raises(UnsupportedModelError) as early:
        require_integer(model, PLAIN)
    assert str(caught.value) == str(early.value)
    listed = str(early.value)
    assert all(name in listed for name in ("Erf", "Neg", "HardSigmoid")) and "Relu" not in listed
    require_integer(network(CONV, w=normal(4, 3, 3, 3), b=normal(4)), PLAIN)


def test_values_too_large_for_a_scale_stay_float():
    model = network(CONV, w=normal(4, 3, 3, 3), b=normal(4))
    huge = {name: array * np.float32(1e36) for name, array in samples(model).items()}
    assert not any(is_integer(node) for node in static(model, huge).graph)
    with pytest.raises(InputError, match=r"too large for int8.*'x'"):
        static(model, huge, integer_only=True)


def test_a_log_softmax_beyond_its_fixed_range_stays_float():
    model = network("m = Mul(x, k) l = LogSoftmax <axis = 1> (m) y = Relu(l)", k=np.float32(40))
    assert [is_integer(n) for n in static(model).graph] == [True, False, True]
    assert [is_integer(n) for n in static(model, integer_only=True).graph] == [True, True, True]
    small = network("l = LogSoftmax <axis = 1> (x) y = Relu(l)")
    assert all(is_integer(n) for n in static(small).graph)


@pytest.mark.parametrize("masked", [-1e4, float(np.finfo(np.float32).min), -np.inf])
def test_a_mask_does_not_take_the_range(masked):
    allowed = np.tril(np.ones((1, 1, 8, 8), bool))
    model = network("m = Where(keep, x, low) y = Softmax(m)", keep=allowed, low=np.float32(masked))
    arrays = samples(model, 16, seed=5)
    exact = OnnxRuntime(model).run(arrays)[0]
    found = OnnxRuntime(simulation(static(model, integer_only=True))).run(arrays)[0]
    assert snr_db(exact, found) > 30
    assert np.abs(found[np.broadcast_to(~allowed, found.shape)]).max() == 0


def test_the_range_of_a_mask_reaches_as_far_beyond_the_values_as_they_do_themselves():
    """The values take -1000..500: a mask's minus infinity saturates 1500 below, and one of -1200 is represented."""
    for masked, lowest in ((-np.inf, -2500.0), (-1200.0, -1200.0)):
        model = network(
            "keep = Less(x, top) m = Where(keep, x, low) y = Add(m, x)", top=np.float32(1e4), low=np.float32(masked)
        )
        arrays = {"x": np.linspace(-1000, 500, 4 * 192).reshape(4, 3, 8, 8).astype(np.float32)}
        scale, zero = parameters(static(model, arrays), "m")
        assert (-128 - zero) * scale == pytest.approx(lowest, rel=0.01)
        assert (127 - zero) * scale == pytest.approx(500, rel=0.02)


def test_names_with_any_characters_and_taken_ones():
    model = network("r = Relu(x) s = Sigmoid(r) y = Concat <axis = 1> (x, s)")
    for node, name in zip(model.graph, ("ä:0/requantized", "ä:0", "y")):
        node.outputs[0].name = name
    found = static(model)
    names = [v.name for n in found.graph for v in n.outputs]
    assert len(set(names)) == len(names) == 4
    arrays = samples(found, 4)
    exact, y = OnnxRuntime(model).run(arrays)[0], OnnxRuntime(simulation(found)).run(arrays)[0]
    assert snr_db(exact, y) > 30
