"""Small canonical models with data, and what the tests of quantization ask of them."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from edgecompress.compress.quantize import calibrate, quantize_static
from edgecompress.evaluate.dataset import Dataset, load_data
from edgecompress.graph.annotations import quantization
from edgecompress.ingest import load
from edgecompress.recipe import Preprocess, Quantize

PLAIN = Quantize(equalize=False, bias_correction=False, calibration="minmax")


def network(body: str, *, output: str = "float[N, C, H, W] y", **constants) -> ir.Model:
    """Canonical model of an ONNX text with input x, its constants given as arrays."""
    header = f'<ir_version: 10, opset_import: ["" : 21]> net (float[1, 3, 8, 8] x) => ({output})'
    text = f"{header} {{ {body} }}"
    model = onnx.parser.parse_model(text)
    for name, array in constants.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    return load(model).model


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).normal(size=shape).astype(np.float32)


def samples(model: ir.Model, count: int = 32, seed: int = 1) -> dict[str, np.ndarray]:
    return {v.name: normal(count, *v.shape.numpy()[1:], seed=seed) for v in model.graph.inputs}


def data(model: ir.Model, arrays: dict[str, np.ndarray] | None = None) -> Dataset:
    return load_data(samples(model) if arrays is None else arrays, model.graph.inputs, Preprocess())


def static(model: ir.Model, arrays=None, settings: Quantize = PLAIN, **keywords) -> ir.Model:
    calibration = calibrate(model, data(model, arrays), settings)
    return quantize_static(model, calibration, settings, **keywords)


def parameters(model: ir.Model, name: str) -> tuple[float, int]:
    q = quantization(value(model, name))
    assert q is not None and q.axis is None
    return float(q.scale[0]), int(q.zero_point[0])


def value(model: ir.Model, name: str) -> ir.Value:
    computed = [v for node in model.graph for v in node.outputs]
    return next(v for v in (*model.graph.inputs, *computed) if v.name == name)


def snr_db(exact: np.ndarray, found: np.ndarray) -> float:
    return 10 * np.log10(np.square(exact).sum() / max(np.square(found - exact).sum(), 1e-30))


CONV = "y = Conv <pads = [1, 1, 1, 1]> (x, w, b)"
