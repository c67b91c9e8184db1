"""The zoo's networks through other converters, with the same samples.

    python tests/bench/zoo_peers.py MODEL.onnx CALIBRATION.npz TARGET.onnx

is ONNX Runtime's `quantize_static` as its documentation has it: `quant_pre_process`, then QDQ, weights per channel.
`onnx2tf_command` is onnx2tf's: a model of fixed shapes, as open ones fail more often there, and `-oiqt`. Since onnx2tf
requires packages of certain versions it stands in an environment of its own, whose Python EDGECOMPRESS_ONNX2TF names.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx.version_converter

PER_CHANNEL = 13  # the first opset whose DequantizeLinear has an axis


def samples(model: onnx.ModelProto, calibration: Path) -> Iterator[dict[str, np.ndarray]]:
    """Each sample as the model takes it: with a batch of one, or, for a state, as the whole input."""
    taken = {v.name: v.type.tensor_type for v in model.graph.input}
    with np.load(calibration) as archive:
        arrays = {name: archive[name] for name in archive.files if name in taken}
    for rows in zip(*arrays.values(), strict=True):
        yield {
            name: np.asarray(x) if len(taken[name].shape.dim) == np.ndim(x) else np.asarray(x)[None]
            for name, x in zip(arrays, rows)
        }


def quantize_static(source: Path, calibration: Path, target: Path) -> None:
    """Writes the quantized model."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quant_pre_process
    from onnxruntime.quantization import quantize_static as quantize

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.samples = samples(onnx.load(source), calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.samples, None)

    os.chdir(target.parent)  # where it leaves what it works with
    prepared, model = target.with_name("prepared.onnx"), onnx.load(source)
    if any(o.version < PER_CHANNEL for o in model.opset_import if o.domain in ("", "ai.onnx")):
        model = onnx.version_converter.convert_version(model, PER_CHANNEL)
    whole = target.with_name("whole.onnx")  # it can't read data in a file of its own
    onnx.save(model, whole)
    try:
        quant_pre_process(whole, prepared)
    except Exception as error:  # shapes that it can't infer
        print(f"without symbolic shapes: {error}", file=sys.stderr)
        quant_pre_process(whole, prepared, skip_symbolic_shape=True)
    quantize(prepared, target, Reader(), quant_format=QuantFormat.QDQ, per_channel=True)


def onnx2tf_command(source: Path, calibration: Path, folder: Path) -> list[str]:
    """Writes into the folder what onnx2tf reads. Empty where it is not installed."""
    python = os.environ.get("EDGECOMPRESS_ONNX2TF")
    if not python:
        return []
    model = onnx.load(source)
    fixed = next(samples(model, calibration))
    for value in model.graph.input:
        for dimension, size in zip(value.type.tensor_type.shape.dim, fixed[value.name].shape):
            dimension.dim_value = size
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    names = {name: re.sub(r"\W", "_", name) for name in fixed}  # it does not find other names again
    _rename(model.graph, names)
    onnx.save(onnx.shape_inference.infer_shapes(model, data_prop=True), folder / "fixed.onnx")
    path = f"PATH={Path(python).parent}:{os.environ['PATH']}"  # where it finds onnxsim
    command = [
        "env",
        path,
        python,
        "-m",
        "onnx2tf",
        "-i",
        str(folder / "fixed.onnx"),
        "-o",
        str(folder / "onnx2tf"),
        "-oiqt",
    ]
    with np.load(calibration) as archive:
        for i, name in enumerate(fixed):
            x = archive[name]
            x = x.reshape(-1, *fixed[name].shape[1:])  # it takes the first axis for that of samples
            image = x.ndim == 4
            np.save(folder / f"{i}.npy", np.moveaxis(x, 1, -1) if image else x)  # images become NHWC
            command += [
                "-cind",
                names[name],
                str(folder / f"{i}.npy"),
                "0",
                "1",
                *([] if image else ["-kat", names[name]]),
            ]
    return command


def _rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    """Inputs of the graph, wherever they are read."""
    for value in graph.input:
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _rename(attribute.g, names)


if __name__ == "__main__":
    quantize_static(*(Path(argument).resolve() for argument in sys.argv[1:]))
