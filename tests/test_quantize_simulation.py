"""The simulated model against real int8 interpreters."""

from __future__ import annotations

import numpy as np
import pytest

from edgecompress.compress.quantize import quantize, simulation
from edgecompress.compress.quantize.calibrate import runtime_values
from edgecompress.emit import onnx as emit_onnx
from edgecompress.emit import tflite as emit_tflite
from edgecompress.evaluate.interpreters import LiteRT, OnnxRuntime
from edgecompress.graph.annotations import is_integer
from edgecompress.recipe import Quantize
from quantizing import CONV, PLAIN, data, network, normal, parameters, samples, snr_db, static

NETWORKS = {
    "conv": dict(body=CONV, w=normal(4, 3, 3, 3), b=normal(4)),
    "residual": dict(
        body="""a = Conv <pads = [1, 1, 1, 1]> (x, w, b) r = Relu(a) s = Add(r, x) t = Relu(s)
            d = Conv <group = 3, pads = [1, 1, 1, 1]> (t, v, b) h = HardSwish(d) y = Mul(h, t)""",
        w=normal(3, 3, 3, 3), v=normal(3, 1, 3, 3), b=normal(3),
    ),
    "concat": dict(
        body="""a = Conv(x, w, b) s = Sigmoid(a) c = Concat <axis = 1> (a, s, x)
            p = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (c) y = LeakyRelu(p)""",
        w=normal(4, 3, 1, 1), b=normal(4),
    ),
    "transposed": dict(
        body="a = ConvTranspose <strides = [2, 2]> (x, w, b) c = Clip(a, zero, six) y = Sub(c, one)",
        w=normal(3, 5, 2, 2), b=normal(5), zero=np.float32(0), six=np.float32(6), one=np.float32(1),
    ),
    "matmul": dict(
        body="m = MatMul(x, w) a = Add(m, b) n = MatMul(a, x) y = ReduceMean <keepdims = 1> (n, axes)",
        w=normal(8, 8), b=normal(8), axes=np.array([3]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_simulation_equals_integer_interpreters(name, per_channel):
    model = network(**NETWORKS[name])
    found = static(model, settings=PLAIN.model_copy(update={"per_channel": per_channel}))
    assert all(is_integer(node) for node in found.graph)
    arrays = samples(model, 8, seed=9)
    simulated = OnnxRuntime(simulation(found)).run(arrays)[0]
    step = parameters(found, "y")[0]
    qdq = OnnxRuntime(emit_onnx.emit(found), optimize=False).run(arrays)[0]
    assert np.abs(simulated - qdq).max() <= 1.01 * step
    assert np.mean(np.abs(simulated - qdq) > 0.01 * step) < 0.01
    emitted = emit_tflite.emit(found)
    integer = LiteRT(emitted.data, emitted).run(arrays)[0]
    exact = OnnxRuntime(model).run(arrays)[0]
    assert snr_db(exact, simulated) > 20
    largest = max(parameters(found, str(v.name))[0] for v in runtime_values(found))
    assert np.abs(simulated - integer).max() <= 3.01 * largest  # LiteRT rounds averages' ties away from zero


def test_values_between_float_and_int8_layers_are_rounded_for_the_int8_ones_only():
    nodes = "e = Erf(x) a = Conv(e, w, b) c = Neg(e) y = Concat <axis = 1> (a, c)"
    model = network(nodes, w=normal(3, 3, 1, 1), b=normal(3))
    arrays = samples(model, 4)
    found = static(model, settings=PLAIN.model_copy(update={"float_layers": ["y"]}))
    assert {n.op_type for n in found.graph if is_integer(n)} == {"Conv"}
    y = OnnxRuntime(simulation(found)).run(arrays)[0]
    exact = OnnxRuntime(model).run(arrays)[0]
    np.testing.assert_allclose(y[:, 3:], exact[:, 3:], rtol=1e-5)  # the float branch reads the exact value
    scale, _zero = parameters(found, "a")
    np.testing.assert_array_equal(y[:, :3], scale * (np.rint(y[:, :3] / scale)).astype(np.float32))
    assert np.any(y[:, :3] != exact[:, :3])


def test_quantize_is_deterministic_and_reports_its_steps():
    model = network(**NETWORKS["residual"])
    results = [quantize(model, data(model), Quantize()) for _ in range(2)]
    assert [r.equalization for r in results] == [results[0].equalization] * 2
    assert results[0].bias_correction is not None and results[0].bias_correction.layers == 2
    first, second = (emit_onnx.emit(r.model) for r in results)
    assert first == second
    plain = quantize(model, data(model), PLAIN)
    assert plain.equalization is None and plain.bias_correction is None and plain.reference is model
