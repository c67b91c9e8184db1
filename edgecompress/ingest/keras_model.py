"""A Keras file (.keras, .h5) or a SavedModel -> an ONNX ModelProto, and what TFMOT decided for its weights.

TensorFlow runs in a process of its own (`keras_export`). TensorFlow Model Optimization prunes and clusters the kernels
that Keras holds; conversion scales each output channel of them where a BatchNormalization follows. Zeros stay zeros by
that, and the clusters are found again: what Keras holds, times a factor for each channel.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from edgecompress.errors import InputError, MissingPackageError
from edgecompress.graph.annotations import Codebook, Sparsity, set_codebook, set_sparsity
from edgecompress.graph.fusion import constant, layers
from edgecompress_targets.tools import tied
from edgecompress_targets.work_folder import work_folder

SUFFIXES = (".keras", ".h5", ".hdf5")
SAVED_MODEL = "saved_model.pb"
FEW = 256  # values that a codebook may have, and at most half as many as there are weights
PRUNED = 0.05  # share of zeros from which a weight of a pruned model counts as pruned
TOLERANCE = 1e-5  # of a weight's largest value, between it and its channels' factors times what Keras holds


@dataclass(frozen=True)
class Decided:
    """pruned: whether zeros are there on purpose. clustered: kernels as Keras holds them, of few values each."""

    pruned: bool
    clustered: tuple[np.ndarray, ...]


def is_keras(path: Path) -> bool:
    """Whether the path is a .keras or HDF5 file by its name, or the folder of a SavedModel."""
    return path.suffix in SUFFIXES or (path / SAVED_MODEL).is_file()


def read(path: Path, trust_code: bool) -> tuple[str, onnx.ModelProto, Decided]:
    """trust_code: whether Lambda layers, which hold Python code, may be loaded.

    Raises InputError (unreadable, or it holds code), MissingPackageError (TensorFlow isn't there).
    """
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if find_spec("tensorflow") is None or find_spec("tf2onnx") is None:
        raise MissingPackageError(
            f'{path}: TensorFlow is needed to read it; install it with: pip install "edgecompress[tensorflow]"'
        )
    with work_folder() as work:
        made = _export(path, Path(work), trust_code)
        if "error" in made:
            raise InputError(f"{path}: {made['error']}")
        proto = onnx.load(Path(work, "model.onnx"))
        with np.load(Path(work, "clustered.npz"), allow_pickle=False) as file:
            clustered = tuple(file[name] for name in file.files)
    _simple_names(proto)
    return "keras" if path.is_file() else "saved_model", proto, Decided(bool(made["pruned"]), clustered)


def keep(model: ir.Model, decided: Decided) -> list[str]:
    """Annotates the weights of the canonical model, in place, with what was decided. Returns notes."""
    pruned = clustered = 0
    for layer in layers(model.graph):
        for value in layer.node.inputs:
            weight = constant(value)
            if value is None or weight is None or weight.ndim < 2:
                continue
            if decided.pruned and (weight == 0).mean() >= PRUNED:
                set_sparsity(value, Sparsity(weight != 0, "unstructured"))
                pruned += 1
            if (book := _codebook(weight, decided.clustered)) is not None:
                set_codebook(value, book)
                clustered += 1
    notes = []
    if decided.pruned:
        notes.append(f"pruned by TensorFlow Model Optimization: the zeros of {pruned} weights stay zero")
    if decided.clustered:
        notes.append(f"clustered by TensorFlow Model Optimization: {clustered} weights keep their clusters")
    return notes


def _export(path: Path, folder: Path, trust_code: bool) -> dict[str, object]:
    command = [sys.executable, "-m", "edgecompress.ingest.keras_export", str(path.absolute()), str(folder)]
    environment = os.environ | {
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
    }
    done = subprocess.run(
        tied([*command, *(["--trust-code"] if trust_code else [])]),
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
    )
    try:
        made: dict[str, object] = json.loads((folder / "made.json").read_text())
    except (OSError, ValueError) as error:
        last = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise InputError(f"{path}: TensorFlow can't read it: {last}") from error
    return made


def _codebook(weight: np.ndarray, kernels: tuple[np.ndarray, ...]) -> Codebook | None:
    """The clusters of a weight [out, ..]: of the kernel that it is, but for a factor for each output channel."""
    for kernel in kernels:
        for form in _forms(kernel):
            if form.shape != weight.shape:
                continue
            axes = tuple(range(1, weight.ndim))
            square = np.maximum((form.astype(np.float64) ** 2).sum(axes), 1e-30)
            scale = (weight.astype(np.float64) * form).sum(axes) / square
            made = form * scale.reshape(-1, *(1,) * (weight.ndim - 1))
            if np.abs(made - weight).max() > TOLERANCE * np.abs(weight).max():
                continue
            centroids = np.unique(form).astype(np.float32)
            if len(centroids) <= min(FEW, form.size // 2):
                indices = np.searchsorted(centroids, form).astype(np.uint8)
                return Codebook(centroids, indices, scale.astype(np.float32), 0)
    return None


def _forms(kernel: np.ndarray) -> list[np.ndarray]:
    """As ONNX may hold it: [out, in / groups, height, width], or [out, in]."""
    if kernel.ndim == 4:
        depthwise = kernel.transpose(2, 3, 0, 1)
        return [kernel.transpose(3, 2, 0, 1), depthwise.reshape(-1, 1, *depthwise.shape[2:])]
    if kernel.ndim == 3:
        return [kernel.transpose(2, 1, 0)]
    return [kernel.T] if kernel.ndim == 2 else []


def _simple_names(proto: onnx.ModelProto) -> None:
    """Without TensorFlow's ":0" at the end, where that leaves them different from all others."""
    graph = proto.graph
    names = {n for node in graph.node for n in (*node.input, *node.output)} | {i.name for i in graph.initializer}
    new = {n: n[:-2] for n in names if n.endswith(":0") and n[:-2] not in names}
    for node in graph.node:
        node.input[:] = [new.get(n, n) for n in node.input]
        node.output[:] = [new.get(n, n) for n in node.output]
    for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        value.name = new.get(value.name, value.name)
