"""int16 activations: ONNX Runtime, LiteRT and TensorFlow Lite Micro on emitted files, against the simulation."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgecompress.compress.quantize import simulation
from edgecompress.compress.quantize.bit_widths import with_int16
from edgecompress.emit import onnx as emit_onnx
from edgecompress.emit import pack as emit_pack
from edgecompress.emit import tflite as emit_tflite
from edgecompress.errors import InputError
from edgecompress.evaluate.interpreters import LiteRT, OnnxRuntime, PackRuntime
from edgecompress.graph.annotations import activation_bits, quantization
from edgecompress.ingest import load
from edgecompress.lowering.tensor_io import TFLiteModel
from edgecompress.operators import OPERATORS
from edgecompress.operators.record import never
from edgecompress_runtime.execute import Executor
from edgecompress_runtime.pack import read_pack
from quantizing import CONV, PLAIN, network, normal, samples, snr_db, static

NETWORKS = {
    "conv": dict(body=CONV, w=normal(4, 3, 3, 3), b=normal(4)),
    "residual": dict(
        body="""a = Conv <pads = [1, 1, 1, 1]> (x, w, b) r = Relu(a) s = Add(r, x) t = Relu(s)
            d = Conv <group = 3, pads = [1, 1, 1, 1]> (t, v, b) h = LeakyRelu(d) y = Mul(h, t)""",
        w=normal(3, 3, 3, 3), v=normal(3, 1, 3, 3), b=normal(3),
    ),
    "concat": dict(
        body="""a = Conv(x, w, b) s = Sigmoid(a) c = Concat <axis = 1> (a, s, x)
            p = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (c) y = LeakyRelu(p)""",
        w=normal(4, 3, 1, 1), b=normal(4),
    ),
    "transposed": dict(
        body="a = ConvTranspose <strides = [2, 2]> (x, w, b) c = Relu(a) y = Sub(c, one)",
        w=normal(3, 5, 2, 2), b=normal(5), one=np.float32(1),
    ),
    "clipped": dict(
        body="a = Conv(x, w, b) c = Clip(a, zero, six) t = Tanh(c) y = Add(t, c)",
        w=normal(4, 3, 3, 3), b=normal(4), zero=np.float32(0), six=np.float32(6),
    ),
    "attention": dict(
        body="""m = MatMul(x, w) a = Add(m, b) t = Transpose <perm = [0, 1, 3, 2]> (x) n = MatMul(a, t)
            p = Softmax(n) z = MatMul(p, x) y = ReduceMean <keepdims = 1> (z, axes)""",
        w=normal(8, 8), b=normal(8), axes=np.array([3]),
    ),
    "pools": dict(
        body="""m = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x)
            p = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 0, 1]> (m) q = Pad(p, amounts, value)
            e = Max(q, q) g = GlobalAveragePool(e) y = Mul(g, p)""",
        amounts=np.array([0, 0, 1, 0, 0, 0, 0, 2]), value=np.float32(0.5),
    ),
}  # fmt: skip


def _micro(emitted: TFLiteModel, arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
    """TensorFlow Lite Micro's interpreter, sample by sample."""
    runtime = pytest.importorskip("tflite_micro").runtime
    interpreter = runtime.Interpreter.from_bytes(emitted.data)
    results = []
    for sample in range(len(next(iter(arrays.values())))):
        for index, io in enumerate(emitted.inputs):
            interpreter.set_input(io.to_device(arrays[io.name][sample : sample + 1]), index)
        interpreter.invoke()
        results.append([io.from_device(interpreter.get_output(i)) for i, io in enumerate(emitted.outputs)])
    return [np.concatenate(parts) for parts in zip(*results)]


def _executed(pack: TFLiteModel, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """The first output of the runtime's kernels, called one by one."""
    executor, (first, *_) = Executor(read_pack(pack.data).plan()), pack.outputs
    count = len(next(iter(arrays.values())))
    runs = [executor(*(io.to_device(arrays[io.name][i : i + 1]) for io in pack.inputs))[0] for i in range(count)]
    return np.concatenate([first.from_device(run) for run in runs])


def _steps(model: ir.Model) -> float:
    values = [v for node in model.graph for v in node.outputs]
    return max(float(q.scale[0]) for v in values if (q := quantization(v)) is not None)


@pytest.mark.parametrize("io_dtype", [ir.DataType.FLOAT, ir.DataType.INT8])
@pytest.mark.parametrize("name", NETWORKS)
def test_int16_layers_are_the_same_in_all_interpreters(name: str, io_dtype: ir.DataType) -> None:
    model = network(**NETWORKS[name])
    found = static(model, settings=with_int16(PLAIN, ["*"]), integer_only=True)
    assert {activation_bits(node) for node in found.graph} == {16}
    arrays = samples(model, 6, seed=9)
    exact, simulated = OnnxRuntime(model).run(arrays)[0], OnnxRuntime(simulation(found)).run(arrays)[0]
    eight = OnnxRuntime(simulation(static(model, integer_only=True))).run(arrays)[0]
    emitted = emit_tflite.emit(found, io_dtype=io_dtype)
    integer = LiteRT(emitted.data, emitted, reference=True).run(arrays)[0]
    qdq = OnnxRuntime(emit_onnx.emit(found)).run(arrays)[0]
    micro, pack = _micro(emitted, arrays)[0], emit_pack.emit(found, io_dtype=io_dtype)
    np.testing.assert_array_equal(_executed(pack, arrays), micro)
    for other in (simulated, qdq, micro):
        assert np.abs(other - integer).max() <= 8 * _steps(found)
    if name != "attention":  # LiteRT scales sums of FULLY_CONNECTED in float64
        np.testing.assert_array_equal(micro, integer)
    assert snr_db(exact, integer) > max(40, snr_db(exact, eight))


@pytest.mark.parametrize("wide", [["a"], ["s"], ["t"], ["h", "y"], ["a", "y"], ["*"]])
def test_values_change_width_between_layers(wide: list[str]) -> None:
    """Only PRelu has no int16 kernel; values pass from int8 to int16 layers and back, from inputs too."""
    model = network(
        """a = Conv <pads = [1, 1, 1, 1]> (x, w, b) r = Relu(a) s = Add(r, x) g = PRelu(s, slope)
        t = Conv <pads = [1, 1, 1, 1]> (g, w, b) h = Mul(t, s) c = Concat <axis = 1> (h, g) y = Sigmoid(c)""",
        w=normal(3, 3, 3, 3) * 0.2, b=normal(3), slope=np.float32([[[0.1]], [[0.3]], [[-0.2]]]),
    )  # fmt: skip
    found = static(model, settings=with_int16(PLAIN, wide), integer_only=True)
    bits = {str(node.outputs[0].name): activation_bits(node) for node in found.graph}
    assert {name for name in "asthy" if bits[name] == 16} == ({*"asthy"} if wide == ["*"] else {*wide})
    assert bits["g"] == 8
    for node in found.graph:
        for value in node.outputs:
            q = quantization(value)
            if q is not None:  # a fused layer's values inside have none
                assert q.dtype == (ir.DataType.INT16 if activation_bits(node) == 16 else ir.DataType.INT8)
                assert q.dtype == ir.DataType.INT8 or int(q.zero_point[0]) == 0
    arrays = samples(model, 6, seed=9)
    simulated = OnnxRuntime(simulation(found)).run(arrays)[0]
    for io_dtype in (ir.DataType.FLOAT, ir.DataType.INT8):
        emitted = emit_tflite.emit(found, io_dtype=io_dtype)
        integer = LiteRT(emitted.data, emitted, reference=True).run(arrays)[0]
        np.testing.assert_array_equal(_micro(emitted, arrays)[0], integer)
        assert snr_db(simulated, integer) > 35
    qdq = OnnxRuntime(emit_onnx.emit(found)).run(arrays)[0]
    assert snr_db(simulated, qdq) > 50


def test_a_pack_loads_and_runs_compiled() -> None:
    model = network(**NETWORKS["residual"])
    pack = emit_pack.emit(static(model, settings=with_int16(PLAIN, ["s", "d"])))
    arrays = samples(model, 4, seed=3)
    np.testing.assert_array_equal(PackRuntime(pack.data, pack).run(arrays)[0], _executed(pack, arrays))


def test_a_named_layer_without_an_int16_kernel_is_refused() -> None:
    model = network("a = Conv(x, w, b) y = HardSwish(a)", w=normal(3, 3, 3, 3), b=normal(3))
    with pytest.raises(InputError, match=r"int16_layers: these nodes have no int16 kernel: .*HardSwish"):
        static(model, settings=with_int16(PLAIN, ["y"]))
    with pytest.raises(InputError, match="int16_layers: the model has no node or value named 'nobody'"):
        static(model, settings=with_int16(PLAIN, ["nobody"]))


WITH_INT16 = [name for name, record in OPERATORS.items() if record.int8 is not None and record.int8.int16 is not never]


@pytest.mark.parametrize("name", WITH_INT16)
def test_examples_of_operators_are_near_the_simulation_in_all_formats(name: str) -> None:
    for example in OPERATORS[name].examples:
        model = load(example.model()).model
        arrays = samples(model, 4)
        found = static(model, arrays, with_int16(PLAIN, ["*"]))
        if not any(node.op_type == name and activation_bits(node) == 16 for node in found.graph):
            continue  # it only moves numbers between the ends of the model
        simulated = OnnxRuntime(simulation(found)).run(arrays)[0]
        qdq = OnnxRuntime(emit_onnx.emit(found)).run(arrays)[0]
        emitted, pack = emit_tflite.emit(found), _executed(emit_pack.emit(found), arrays)
        if not np.abs(simulated).any():
            continue
        assert snr_db(simulated, qdq) > 90  # ONNX Runtime rounds no weight again
        # a ConvTranspose with groups or dilations is written in parts, which compute in float
        if name != "ConvTranspose" or not any(word in example.nodes for word in ("group", "dilations")):
            assert snr_db(simulated, pack) > 60
            np.testing.assert_array_equal(_micro(emitted, arrays)[0], pack)
