"""int4 weights in blocks beside float activations: what the file holds, and what ONNX Runtime computes of it."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

import edgecompress
from edgecompress.compress.quantize import int4_blocks, quantize_dynamic, simulation
from edgecompress.compress.quantize.gptq_blocks import round_matrix
from edgecompress.compress.quantize.int4_blocks import Blocks, quantize_blocks, steps
from edgecompress.compress.quantize.mixed_bits import Option, choose
from edgecompress.compress.quantize.moments import Accumulator, Moments, unknown
from edgecompress.emit import onnx as onnx_emitter
from edgecompress.emit import pack, tflite
from edgecompress.errors import InputError
from edgecompress.evaluate.file_count import count_file
from edgecompress.evaluate.interpreters import LiteRT, OnnxRuntime, PackRuntime
from edgecompress.ingest import load
from edgecompress.recipe import Quantize
from quantizing import normal, snr_db

Constants = dict[str, np.ndarray]


def built(body: str, inputs: str, **constants: np.ndarray) -> ir.Model:
    text = f'<ir_version: 10, opset_import: ["" : 21]> g ({inputs}) => (float[N, M, K] y) {{ {body} }}'
    model = onnx.parser.parse_model(text)
    for name, array in constants.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return load(model).model


def product(depth: int, width: int, *, gemm: bool = False) -> ir.Model:
    constants = {"w": normal(depth, width), "b": normal(width, seed=1)}
    if not gemm:
        return built("m = MatMul(x, w) y = Add(m, b)", f"float[1, 3, {depth}] x", **constants)
    rows, back = np.array([3, depth]), np.array([1, 3, width])
    body = "r = Reshape(x, rows) g = Gemm(r, w, b) y = Reshape(g, back)"
    return built(body, f"float[1, 3, {depth}] x", rows=rows, back=back, **constants)


def look_up(rows: int, width: int) -> ir.Model:
    return built("e = Gather(t, i) y = Neg(e)", "int64[1, 7] i", t=normal(rows, width))


def int4(model: ir.Model, **keys: object) -> ir.Model:
    return quantize_dynamic(model, Quantize(weights="int4", activations="float32", **keys))


def halves(tensor: onnx.TensorProto) -> np.ndarray:
    """The whole numbers of an INT4 tensor, by hand: the lower four bits of each byte first (ONNX's documentation)."""
    assert tensor.data_type == onnx.TensorProto.INT4
    data = np.frombuffer(tensor.raw_data, np.uint8)
    whole = np.stack([data & 15, data >> 4], axis=1).ravel()[: np.prod(tensor.dims)].astype(np.int64)
    return np.where(whole > 7, whole - 16, whole).reshape(tensor.dims)


def matrix_by_hand(file: onnx.ModelProto) -> np.ndarray:
    """[in, out] float64, of the file's one DequantizeLinear."""
    constants = {t.name: t for t in file.graph.initializer}
    (node,) = [n for n in file.graph.node if n.op_type == "DequantizeLinear"]
    keys = {a.name: a.i for a in node.attribute}
    assert keys["axis"] == 0
    whole, scale = halves(constants[node.input[0]]), onnx.numpy_helper.to_array(constants[node.input[1]])
    zero = halves(constants[node.input[2]]) if len(node.input) > 2 else np.zeros_like(scale, np.int64)
    block = np.arange(len(whole)) // keys["block_size"]
    return (whole - zero[block]) * scale.astype(np.float64)[block]


def optimised(data: bytes, folder: Path) -> list[str]:
    """Operators of the graph that ONNX Runtime makes of a file."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(folder / "optimised.onnx"), 4
    onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return [n.op_type for n in onnx.load(folder / "optimised.onnx").graph.node]


SHAPES = [
    (64, 48, 32, False, False), (100, 37, 32, False, False), (100, 37, 32, True, True), (130, 5, 128, True, False),
    (17, 9, 16, True, True), (96, 40, "channel", False, False), (96, 40, "channel", True, True),
    (5, 3, 64, False, True),
]  # fmt: skip


@pytest.mark.parametrize(("depth", "width", "block", "zero_points", "gemm"), SHAPES)
def test_the_file_holds_blocks_of_halves_that_onnx_runtime_multiplies_by(
    depth: int, width: int, block: int | str, zero_points: bool, gemm: bool, tmp_path: Path
) -> None:
    model = int4(product(depth, width, gemm=gemm), int4_block=block, int4_zero_points=zero_points)
    data, x = onnx_emitter.emit(model), normal(1, 3, depth, seed=4)
    matrix, original = matrix_by_hand(onnx.load_model_from_string(data)), normal(depth, width).astype(np.float64)
    expected = x.astype(np.float64) @ matrix + normal(width, seed=1)
    (found,) = OnnxRuntime(data).run({"x": x})
    assert snr_db(expected, found) > 35  # it may round the rows of x to int8
    (simulated,) = OnnxRuntime(simulation(model)).run({"x": x})
    np.testing.assert_allclose(simulated, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert snr_db(original, matrix) > 16
    assert optimised(data, tmp_path).count("MatMulNBits") == 1


@pytest.mark.parametrize("zero_points", [False, True])
@pytest.mark.parametrize(("rows", "width", "block"), [(40, 64, 32), (50, 70, 32), (40, 51, 16), (40, 33, "channel")])
def test_tables_hold_two_numbers_a_byte(rows: int, width: int, block: int | str, zero_points: bool) -> None:
    model = int4(look_up(rows, width), int4_block=block, int4_zero_points=zero_points)
    data, where = onnx_emitter.emit(model), np.array([[0, 3, rows - 1, 3, 7, -1, 1]])
    file = onnx.load_model_from_string(data)
    bytes_of_rows = [rows, (width + 1) // 2]
    (table,) = [t for t in file.graph.initializer if t.data_type == onnx.TensorProto.UINT8 and t.dims == bytes_of_rows]
    (found,) = OnnxRuntime(data).run({"i": where})
    (expected,) = OnnxRuntime(simulation(model)).run({"i": where})
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert snr_db(-normal(rows, width)[where], found) > 16
    counted = count_file(data, "onnx", {})
    assert counted.weight_bytes["int4"] == rows * ((width + 1) // 2) == len(table.raw_data)
    assert counted.weight_bytes.get("int8", 0) == zero_points * rows * -(
        -width // (10**9 if block == "channel" else block)
    )


def test_steps_are_no_worse_than_those_that_reach_the_largest() -> None:
    rows = normal(500, 32)
    for zero_points in (False, True):
        low, high = rows.min(1), rows.max(1)
        plain = (high - low) / 15 if zero_points else np.maximum(high / 7, low / -8)
        point = np.rint(-8 - low / plain) if zero_points else np.zeros(500)
        found, zero = steps(rows, zero_points)

        def error(scale: np.ndarray, zero: np.ndarray) -> np.ndarray:
            whole = np.clip(np.rint(rows / scale[:, None]) + zero[:, None], -8, 7)
            return np.square((whole - zero[:, None]) * scale[:, None] - rows).sum(1)

        assert (error(found, zero) <= error(plain, point) * 1.001).all()
        assert error(found, zero).sum() < 0.95 * error(plain, point).sum()


def test_what_is_exactly_a_multiple_stays_itself() -> None:
    whole = np.random.default_rng(0).integers(-8, 8, (64, 24))
    whole[0] = -8
    whole[32] = -8
    steps_of_blocks = np.repeat(np.geomspace(0.01, 3, 2), 32)[:, None].astype(np.float32)
    model = built("y = MatMul(x, w)", "float[1, 3, 64] x", w=(whole * steps_of_blocks).astype(np.float32))
    matrix = matrix_by_hand(onnx.load_model_from_string(onnx_emitter.emit(int4(model))))
    np.testing.assert_allclose(matrix, whole * steps_of_blocks, rtol=1e-5)


def test_by_layer_and_by_the_report(tmp_path: Path) -> None:
    model = built(
        "e = Gather(t, i) m = MatMul(e, v) n = Relu(m) y = MatMul(n, w)", "int64[1, 7] i",
        t=normal(50, 32), v=normal(32, 64), w=normal(64, 16),
    )  # fmt: skip
    recipe = {"quantize": {"activations": "float32", "layer_weights": {"y": "int4", "e": "int4"}}}
    made = edgecompress.convert(model, formats=["onnx"], recipe=recipe, output=tmp_path / "out", min_snr=5)
    counted = made.report.artifacts[0].weight_bytes_by_type
    assert counted["int4"] == 50 * 32 // 2 + 64 * 16 // 2
    assert counted["int8"] == 32 * 64
    encodings = {layer.name: layer.encoding for layer in made.report.layers}
    assert encodings["e"] == encodings["y"] == "int4 in blocks of 32 weights"


# GPTQ -------------------------------------------------------------------------------------------------


def of_rows(x: np.ndarray, y: np.ndarray) -> Moments:
    found = Accumulator(centred=False)
    found.add(x[None], y)
    return found.moments()


@pytest.mark.parametrize(("size", "zero_points"), [(32, False), (32, True), (16, False), (128, False)])
def test_gptq_leaves_less_error_on_inputs_that_go_together(size: int, zero_points: bool) -> None:
    matrix, mixed = normal(20, 72), normal(72, 72, seed=1) * np.geomspace(0.02, 1, 72, dtype=np.float32)[:, None]
    x, fresh = normal(600, 72, seed=2) @ mixed, normal(600, 72, seed=3) @ mixed
    rounded = round_matrix(matrix, of_rows(x, x @ matrix.T), size, zero_points, 0.01)
    q = quantize_blocks(matrix, 0, Blocks(size, zero_points))
    plain = q.dequantize(q.quantize(matrix))
    assert rounded.whole.min() >= -8 and rounded.whole.max() <= 7 and (rounded.scale > 0).all()
    assert zero_points or not rounded.zero.any()
    exact = fresh @ matrix.T
    gained = snr_db(exact, fresh @ rounded.real(size).T.astype(np.float32)) - snr_db(exact, fresh @ plain.T)
    assert gained > 3


def test_gptq_with_independent_inputs_is_rounding_to_the_nearest_and_keeps_zeros() -> None:
    matrix = normal(6, 64)
    matrix[:, 5:9] = 0
    rounded = round_matrix(matrix, unknown(matrix, 1), 32, False, 1e-9)
    block = np.arange(64) // 32
    steps_of_blocks = int4_blocks.steps(matrix.reshape(-1, 32), False)[0].reshape(6, 2)[:, block]
    np.testing.assert_array_equal(rounded.whole, np.clip(np.rint(matrix / steps_of_blocks), -8, 7))
    assert not rounded.whole[:, 5:9].any()


def test_steps_behind_gptq_are_those_of_least_squares() -> None:
    x, matrix = normal(200, 48) @ normal(48, 48, seed=1), normal(3, 48, seed=2)
    moments = of_rows(x, x @ matrix.T)
    rounded = round_matrix(matrix, moments, 16, False, 1e-9)
    for channel in range(3):
        parts = rounded.whole[channel].astype(np.float64) * (np.arange(48) // 16 == np.arange(3)[:, None])
        best = np.linalg.lstsq(x @ parts.T, x @ matrix[channel], rcond=None)[0]
        np.testing.assert_allclose(rounded.scale[channel], best, rtol=1e-2)


def test_gptq_needs_calibration_data_and_may_be_turned_off(tmp_path: Path) -> None:
    model = product(64, 48)
    calib = {"x": normal(40, 3, 64) @ (normal(64, 64, seed=1) * np.geomspace(0.02, 1, 64, dtype=np.float32)[:, None])}
    found = {}
    for seconds in (60.0, 0.0):
        recipe = {"quantize": {"weights": "int4", "activations": "float32", "search_seconds": seconds}}
        out = tmp_path / str(seconds)
        made = edgecompress.convert(model, calib=calib, formats=["onnx"], recipe=recipe, output=out, min_snr=5)
        found[seconds] = made.report.artifacts[0].checks[0].snr_db
        assert ("GPTQ" in str([stage.note for stage in made.report.stages])) == (seconds > 0)
    assert found[60.0] > found[0.0] + 1


# a limit on size --------------------------------------------------------------------------------------


def test_what_is_chosen_fits_and_is_nearly_the_best() -> None:
    rng = np.random.default_rng(0)
    options = {}
    for name in "abcd":
        size, sensitivity = rng.integers(100, 1000), rng.uniform(0.01, 1)
        noises = sensitivity * np.array([1.5, 1.0, 0.01])
        kinds = (Blocks(None), Blocks(32), None)
        options[name] = [Option(b, size * bits / 8, n) for b, bits, n in zip(kinds, (4, 5, 8), noises, strict=True)]
    most = sum(its[-1].bytes for its in options.values())
    for room in np.linspace(0.5, 1, 9) * most:
        chosen = choose(options, room)
        by_blocks = {name: {o.blocks: o for o in its} for name, its in options.items()}
        taken = [by_blocks[name][blocks] for name, blocks in chosen.items()]
        assert sum(o.bytes for o in taken) <= room * (1 + 1e-9)
        every = [c for c in itertools.product(*options.values()) if sum(o.bytes for o in c) <= room * (1 + 1e-9)]
        best = min(sum(o.noise for o in c) for c in every)
        assert sum(o.noise for o in taken) <= best * 2


def test_a_limit_on_the_file_mixes_int4_and_int8(tmp_path: Path) -> None:
    model = built(
        "e = Gather(t, i) m = MatMul(e, v) n = Relu(m) o = MatMul(n, u) p = Relu(o) y = MatMul(p, w)",
        "int64[1, 7] i", t=normal(300, 64), v=normal(64, 128), u=normal(128, 128), w=normal(128, 16),
    )  # fmt: skip
    calib = {"i": np.random.default_rng(0).integers(0, 300, (80, 7))}
    given = {"calib": calib, "formats": ["onnx"], "min_snr": 5}
    weights, found = 300 * 64 + 64 * 128 + 128 * 128 + 128 * 16, {}
    for share in (1.2, 0.86, 0.62):
        made = edgecompress.convert(
            model, recipe={"quantize": {"activations": "float32"}}, max_size=int(share * weights),
            output=tmp_path / str(share), **given,
        )  # fmt: skip
        (artifact,) = made.report.artifacts
        assert artifact.bytes <= share * weights and made.report.status == "ok"
        found[share] = artifact
    assert "int4" not in found[1.2].weight_bytes_by_type
    assert {"int4", "int8"} <= set(found[0.86].weight_bytes_by_type)
    snrs = [found[share].checks[0].snr_db for share in found]
    assert snrs[0] > snrs[1] > snrs[2]


FAULTS = {
    "channel of int8 activations": (
        {"int4_block": 32},
        True,
        "int4_block is for int4 weights beside float activations",
    ),
    "no such node": (
        {"layer_weights": {"z": "int4"}},
        False,
        "layer_weights: the model has no node or value named 'z'",
    ),
    "no matrix": ({"layer_weights": {"n": "int4"}}, False, "layer_weights: .* 'n'; remove"),
    "ternary": ({"layer_weights": {"y": "ternary"}}, False, "needs int8 activations beside it"),
    "size": ({"weights": "int4", "int4_block": 48}, False, "int4_block"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_errors_say_what_to_do(name: str, tmp_path: Path) -> None:
    quantize, calibrated, message = FAULTS[name]
    model = built("m = MatMul(x, v) n = Neg(m) y = MatMul(n, w)", "float[1, 3, 8] x", v=normal(8, 8), w=normal(8, 4))
    calib = {"x": normal(16, 3, 8)} if calibrated else None
    with pytest.raises(InputError, match=message):
        edgecompress.convert(
            model, calib=calib, formats=["onnx"], recipe={"quantize": quantize}, output=tmp_path / "out"
        )


def test_other_formats_refuse_blocks_by_one_line(tmp_path: Path) -> None:
    model = built("y = MatMul(x, w)", "float[1, 3, 64] x", w=normal(64, 8))
    made = edgecompress.convert(
        model, formats=["onnx", "pack"], recipe={"quantize": {"weights": "int4"}}, output=tmp_path / "out", min_snr=5
    )
    assert [a.format for a in made.report.artifacts] == ["onnx"]
    assert "int4 weights in blocks" in str(made.report.refused)


# .tflite and .pack ------------------------------------------------------------------------------------

WHOLE = {
    "product": (lambda: product(70, 37), {"x": normal(1, 3, 70, seed=4)}),
    "odd": (lambda: product(33, 5), {"x": normal(1, 3, 33, seed=4)}),
    "gemm": (lambda: product(64, 48, gemm=True), {"x": normal(1, 3, 64, seed=4)}),
    "table": (lambda: look_up(40, 34), {"i": np.array([[0, 3, 39, 3, 7, 1, 1]])}),
    "odd table": (lambda: look_up(40, 33), {"i": np.array([[0, 3, 39, 3, 7, 1, 1]])}),
}


@pytest.mark.parametrize("name", WHOLE)
def test_tflite_has_int4_by_channel_in_all_kernels(name: str) -> None:
    build, inputs = WHOLE[name]
    model = int4(build(), int4_block="channel")
    written = tflite.emit(model)
    (expected,) = OnnxRuntime(simulation(model)).run(inputs)
    for reference in (False, True):
        (found,) = LiteRT(written.data, written, reference=reference).run(inputs)
        assert snr_db(expected, found) > 35  # it rounds the rows of x to int8
    counted = count_file(written.data, "tflite", {})
    (weight,) = [v for v in model.graph.initializers.values() if len(v.shape) == 2]
    if name == "odd table":  # rows begin at whole bytes
        assert counted.weight_bytes["int8"] == 40 * 33
    else:
        assert counted.weight_bytes["int4"] == (np.prod(weight.shape) + 1) // 2
        assert "int8" not in counted.weight_bytes


@pytest.mark.parametrize("name", WHOLE)
def test_pack_has_int4_by_channel_in_four_bits(name: str) -> None:
    build, inputs = WHOLE[name]
    model = int4(build(), int4_block="channel")
    packed = pack.emit(model)
    (expected,) = OnnxRuntime(simulation(model)).run(inputs)
    (found,) = PackRuntime(packed.data, packed).run(inputs)
    assert snr_db(expected, found) > 35
