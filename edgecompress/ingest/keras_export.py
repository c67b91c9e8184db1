"""Exports a Keras model or a SavedModel as model.onnx, clustered.npz and made.json; runs as a process of its own.

    python -m edgecompress.ingest.keras_export MODEL FOLDER [--trust-code]

TensorFlow is kept out of the process that converts: environment variables decide which Keras it uses before it is
imported, and its memory is freed when this process ends. When a model can't be read, made.json holds {"error": reason}.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OPSET = 18
IMAGE = 4  # dimensions: NHWC


class _Refused(Exception):
    pass


def main(source: Path, folder: Path, trusts: bool) -> None:
    """Exports the model at `source` into `folder`, where made.json says what was written or why nothing was."""
    try:
        made = _export(source, folder, trusts)
    except _Refused as error:
        made = {"error": str(error)}
    (folder / "made.json").write_text(json.dumps(made))


def _export(source: Path, folder: Path, trusts: bool) -> dict[str, Any]:
    if source.is_dir():
        return _saved_model(source, folder)
    version, config = _keras_zip(source) if zipfile.is_zipfile(source) else _hdf5(source)
    classes = list(_classes(config))
    if "Lambda" in classes and not trusts:
        raise _Refused("a Lambda layer holds Python code, which loading would run: give --trust-code if you trust it")
    legacy = version.startswith(("1.", "2."))
    os.environ["TF_USE_LEGACY_KERAS"] = "1" if legacy else "0"
    optimised = [name for name in classes if name in _WRAPPERS]
    scopes = _scopes() if optimised else []
    keras = importlib.import_module("tf_keras" if legacy else "keras")
    unsafe = {"safe_mode": False} if trusts else {}
    try:
        with contextlib.ExitStack() as stack:
            for scope in scopes:
                stack.enter_context(scope)
            model = keras.models.load_model(source, compile=False, **unsafe)
    except Exception as error:
        other = "; TensorFlow Model Optimization's models are safest as .h5" if optimised else ""
        raise _Refused(f"Keras {keras.__version__} can't load it: {_one_line(error)}{other}") from error
    clustered = [layer.layer.name for layer in model.layers if type(layer).__name__ == "ClusterWeights"]
    if optimised:
        model = _stripped(model, optimised)
    _from_keras(model, folder)
    _write_kernels(folder, [array for name in clustered for array in model.get_layer(name).get_weights()])
    return {"pruned": "PruneLowMagnitude" in optimised}


_WRAPPERS = {"PruneLowMagnitude", "ClusterWeights", "QuantizeWrapper", "QuantizeWrapperV2", "QuantizeLayer",
             "QuantizeAnnotate"}  # fmt: skip


def _keras_zip(source: Path) -> tuple[str, Any]:
    try:
        with zipfile.ZipFile(source) as archive:
            metadata, config = (json.loads(archive.read(name)) for name in ("metadata.json", "config.json"))
        return str(metadata["keras_version"]), config
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise _Refused(f"not a whole .keras file: {_one_line(error)}") from error


def _hdf5(source: Path) -> tuple[str, Any]:
    import h5py

    try:
        with h5py.File(source) as file:
            version, config = file.attrs.get("keras_version", "2."), file.attrs["model_config"]
        return version if isinstance(version, str) else version.decode(), json.loads(config)
    except KeyError as error:
        raise _Refused("it holds only weights and no model: save the whole model with model.save(...)") from error
    except (OSError, ValueError) as error:
        raise _Refused(f"neither a .keras nor an HDF5 file: {_one_line(error)}") from error


def _classes(config: Any) -> Iterator[str]:
    """Every class_name in a model's configuration."""
    if isinstance(config, dict):
        if isinstance(config.get("class_name"), str):
            yield config["class_name"].rpartition(">")[2]
        for value in config.values():
            yield from _classes(value)
    elif isinstance(config, list):
        for value in config:
            yield from _classes(value)


def _scopes() -> list[Any]:
    """Contexts in which Keras knows the classes of TensorFlow Model Optimization."""
    try:
        import tensorflow_model_optimization as tfmot
    except ImportError as error:
        raise _Refused('needs TensorFlow Model Optimization: pip install "edgecompress[tensorflow]"') from error
    keras = tfmot.sparsity.keras, tfmot.clustering.keras, tfmot.quantization.keras
    return [keras[0].prune_scope(), keras[1].cluster_scope(), keras[2].quantize_scope()]


def _stripped(model: Any, optimised: list[str]) -> Any:
    import tensorflow_model_optimization as tfmot

    if "PruneLowMagnitude" in optimised:
        model = tfmot.sparsity.keras.strip_pruning(model)
    if "ClusterWeights" in optimised:
        model = tfmot.clustering.keras.strip_clustering(model)
    return model


def _from_keras(model: Any, folder: Path) -> None:
    import tensorflow as tf

    inputs = model.inputs
    names = [_plain(str(value.name)) for value in inputs]
    specs = [tf.TensorSpec([1, *value.shape[1:]], value.dtype, name=n) for value, n in zip(inputs, names)]
    function = tf.function(lambda *values: model(values[0] if len(values) == 1 else list(values), training=False))
    _to_onnx(function, specs, names, folder)


def _saved_model(source: Path, folder: Path) -> dict[str, Any]:
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(str(source))
    except Exception as error:
        raise _Refused(f"TensorFlow {tf.__version__} can't load it: {_one_line(error)}") from error
    signature = loaded.signatures.get("serving_default") or next(iter(loaded.signatures.values()), None)
    if signature is None:
        raise _Refused("it has no signature: export it with model.export(...), or tf.saved_model.save with one")
    specs = list(signature.structured_input_signature[1].values())
    names = list(signature.structured_input_signature[1])
    specs = [tf.TensorSpec([1 if d is None else d for d in s.shape], s.dtype, name=n) for s, n in zip(specs, names)]
    function = tf.function(lambda *values: list(signature(**dict(zip(names, values))).values()))
    _to_onnx(function, specs, names, folder)
    _write_kernels(folder, [])
    return {"pruned": False}


def _to_onnx(function: Any, specs: list[Any], names: list[str], folder: Path) -> None:
    import tf2onnx

    images = [f"{n}:0" for n, spec in zip(names, specs) if len(spec.shape) == IMAGE]
    try:
        proto, _ = tf2onnx.convert.from_function(
            function, input_signature=specs, opset=OPSET, inputs_as_nchw=images or None
        )
    except Exception as error:
        raise _Refused(f"tf2onnx {tf2onnx.__version__} can't convert it: {_one_line(error)}") from error
    (folder / "model.onnx").write_bytes(proto.SerializeToString())


def _write_kernels(folder: Path, arrays: list[Any]) -> None:
    """Writes the arrays that have more than one dimension, which are no biases, to clustered.npz."""
    import numpy as np

    np.savez(folder / "clustered.npz", **{f"kernel{i}": a for i, a in enumerate(arrays) if a.ndim > 1})


def _plain(name: str) -> str:
    """ "image:0" -> "image"."""
    return name.partition(":")[0].replace("/", "_")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), "--trust-code" in sys.argv[3:])
