"""Whole networks: every tensor of every layer, with LiteRT's reference kernels and with the runtime's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from lite import every_tensor, file_of, plain, plan_of, quantized, run_reference, yardstick

from edgecompress.compress.quantize import calibrate, quantize_dynamic, quantize_static, to_float16
from edgecompress.emit.tflite import emit
from edgecompress.evaluate.dataset import load_data
from edgecompress.ingest import load
from edgecompress.recipe import Preprocess, Quantize
from edgecompress_runtime.errors import RuntimeModelError, UnsupportedOperatorError
from edgecompress_runtime.execute import Executor
from edgecompress_runtime.plan import Operator, Plan

DIGITS = Path(__file__).resolve().parents[2] / "samples" / "digits"
PLAIN = Quantize(equalize=False, bias_correction=False, calibration="minmax")
# between them: residual sums, depthwise, pools, resizing, concatenation, transposed and dilated convolutions,
# splits, pads, attention and layer norm
NETWORKS = ["residual", "inverted_residual", "unet_bilinear", "resizes", "dense", "segmentation", "pools", "pads",
            "upconvolutions", "channel_shuffle", "two_branches", "convnext", "transformer", "autoencoder"]  # fmt: skip


def int8(model: ir.Model, samples: dict[str, np.ndarray]) -> ir.Model:
    dataset = load_data(samples, model.graph.inputs, Preprocess())
    return quantize_static(model, calibrate(model, dataset, PLAIN), PLAIN)


def same_tensors(data: bytes, feeds: list[np.ndarray]) -> None:
    """int8 equal bit for bit; float32 that int8 layers made too, others to rounding."""
    plan = plan_of(data)
    executor = Executor(plan)
    executor(*feeds)
    for index, theirs in every_tensor(data, feeds).items():
        ours, name = executor.tensor(index), plan.tensors[index].name
        if ours.dtype == np.float32:
            np.testing.assert_allclose(ours.ravel(), theirs.ravel(), rtol=1e-5, atol=1e-6, err_msg=name)
        else:
            np.testing.assert_array_equal(ours.ravel(), theirs.ravel(), err_msg=name)


@pytest.mark.parametrize("name", NETWORKS)
def test_quantized_networks(exported, name):
    networks = pytest.importorskip("networks", exc_type=ImportError)
    model = load(str(exported(name)), input_shapes={k: v.shape for k, v in networks.example(name).items()}).model
    emitted = emit(int8(model, networks.example(name, 8, 1)))
    samples = networks.example(name, 1, 3)
    same_tensors(emitted.data, [io.to_device(samples[io.name]) for io in emitted.inputs])


@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16 weights"])
@pytest.mark.parametrize("name", ["residual", "resizes", "convnext", "transformer"])
def test_float_networks(exported, name, half):
    networks = pytest.importorskip("networks", exc_type=ImportError)
    model = load(str(exported(name)), input_shapes={k: v.shape for k, v in networks.example(name).items()}).model
    emitted = emit(to_float16(model) if half else model)
    samples = networks.example(name, 1, 3)
    same_tensors(emitted.data, [io.to_device(samples[io.name]) for io in emitted.inputs])


@pytest.mark.parametrize("name", ["residual", "autoencoder"])
def test_networks_with_int8_weights_alone_compute_in_float(exported, name):
    """LiteRT rounds activations to int8 in such a network; we expand the weights: we are nearer to the float model."""
    networks = pytest.importorskip("networks", exc_type=ImportError)
    model = load(str(exported(name)), input_shapes={k: v.shape for k, v in networks.example(name).items()}).model
    emitted = emit(quantize_dynamic(model, PLAIN))
    samples = networks.example(name, 1, 3)
    feeds = [io.to_device(samples[io.name]) for io in emitted.inputs]
    ours, theirs = Executor(plan_of(emitted.data))(*feeds), run_reference(emitted.data, feeds)
    exact = networks.reference(name, samples)
    for io, a, b, y in zip(emitted.outputs, ours, theirs, exact):
        errors = [np.sqrt(np.square(io.from_device(found) - y).mean()) for found in (a, b)]
        assert errors[0] < errors[1] and errors[0] < 0.05 * np.abs(y).max()


def test_the_digits_sample_predicts_the_same_bits():
    model = load(str(DIGITS / "digits.onnx")).model
    with np.load(DIGITS / "train.npz") as train, np.load(DIGITS / "test.npz") as test:
        (name,) = [v.name for v in model.graph.inputs]
        images = {split: next(a for a in f.values() if a.ndim > 1) for split, f in (("train", train), ("test", test))}
    emitted = emit(int8(model, {name: images["train"][:64].astype(np.float32)}), io_dtype=ir.DataType.INT8)
    executor = Executor(plan_of(emitted.data))
    for image in images["test"][:40].astype(np.float32):
        feed = emitted.inputs[0].to_device(image[None])
        for ours, theirs in zip(executor(feed), yardstick(emitted.data, [feed]), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_operators_without_a_kernel_are_all_named():
    plan = plan_of(file_of("RELU", [plain((2,))], [plain((2,))]))
    strange = [Operator(kind, (0,), (1,)) for kind in ("SVDF", "RELU", "RFFT2D")]
    with pytest.raises(UnsupportedOperatorError, match="RFFT2D, SVDF"):
        Executor(Plan(plan.tensors, tuple(strange), plan.inputs, plan.outputs))


def test_a_type_without_a_kernel_is_refused():
    for kind in ("DIV", "POW"):
        plan = plan_of(file_of(kind, [plain((2,), np.int32)] * 2, [plain((2,), np.int32)]))
        with pytest.raises(UnsupportedOperatorError, match="is int32"):
            Executor(plan)


def test_inputs_that_do_not_fit_are_refused():
    executor = Executor(plan_of(file_of("RELU", [quantized((2, 3), 0.1)], [quantized((2, 3), 0.1)])))
    with pytest.raises(RuntimeModelError, match="expected 1 inputs, got 0"):
        executor()
    with pytest.raises(RuntimeModelError, match=r"expected int8 \(2, 3\), got float32 \(2, 3\)"):
        executor(np.zeros((2, 3), np.float32))
