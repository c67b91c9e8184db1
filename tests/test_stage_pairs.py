"""All pairs of stages: what the first has made of the weights is there in the file that the second leaves."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from torch import nn

import edgecompress
from edgecompress.analysis.statistics import statistics
from edgecompress.compress.cluster import cluster
from edgecompress.compress.prune.prune_channels import prune_channels
from edgecompress.compress.prune.prune_weights import prune_weights
from edgecompress.errors import InputError
from edgecompress.ingest import load
from edgecompress.recipe import Cluster, Prune

torch.set_num_threads(1)
SPARSITY, BITS = 0.5, 3


def pictures(count: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    y = generator.integers(0, 4, count)
    x = generator.normal(0, 1, (count, 3, 8, 8)).astype(np.float32)
    x[np.arange(count), y % 3] += 1 + (y // 3)[:, None, None]
    return x, y


X, Y = pictures(96)


@pytest.fixture(scope="module")
def float_model() -> ir.Model:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(288, 16), nn.ReLU(), nn.Linear(16, 4),
    )  # fmt: skip
    return load(network, input_shapes={"input": (1, 3, 8, 8)}).model


def zeros(model: ir.Model, **keys: object) -> ir.Model:
    return prune_weights(model, Prune.model_validate({"allocation": "uniform", **keys})).model


# What the first stage makes of a float model.
FIRST: dict[str, Callable[[ir.Model], ir.Model]] = {
    "zeros": lambda m: zeros(m, sparsity=SPARSITY),
    "2:4": lambda m: zeros(m, pattern="2:4"),
    "blocks": lambda m: zeros(m, pattern="block:4x1", sparsity=SPARSITY),
    "clusters": lambda m: cluster(m, m, None, Cluster(bits=BITS)).model,
    "fewer channels": lambda m: prune_channels(m, Prune(macs=0.5, criterion="l2")).model,
}
# What the second is asked for. Each recipe trains for one epoch where it trains.
SECOND = {
    "distill": "[distill]\nwidth = 0.75\n",
    "prune channels": "[prune]\nmacs = 0.7\n",
    "prune weights": "[prune]\nsparsity = 0.7\n",
    "prune by movement": '[prune]\nsparsity = 0.3\ncriterion = "movement"\n',
    "quantize": "",
    "train int8": "[quantize]\nepochs = 1\n",
    "train int8 beside a float layer": '[quantize]\nepochs = 1\nfloat_layers = ["LAYER"]\n',
    "cluster": f"[cluster]\nbits = {BITS}\n",
    "train codebooks": f"[cluster]\nbits = {BITS}\nepochs = 1\n",
    "train both": f"[quantize]\nepochs = 1\n[cluster]\nbits = {BITS}\nepochs = 1\n",
    "train int4": '[quantize]\nweights = "int4"\nepochs = 1\n',
    "train binary": '[quantize]\nweights = "binary"\nepochs = 1\n',
    "train ternary, and codebooks": '[quantize]\nweights = "ternary"\nepochs = 1\n'
    f"[cluster]\nbits = {BITS}\nepochs = 1\n",
}
FEW = {"int4": 7, "ternary": 1, "binary": 1}  # largest number of the layers between the first and the last
# Each weight is trained by itself, or its channel is gone: the report says that clusters are.
UNDOES_CLUSTERS = {"distill", "prune channels", "prune weights", "prune by movement"}


def stored(tflite: bytes) -> list[np.ndarray]:
    """Weights [output channels, .., inputs] of the dense layers of a .tflite file, where nothing is coded further."""
    model = schema.ModelT.InitFromPackedBuf(tflite, 0)
    graph, found = model.subgraphs[0], []
    dense = (schema.BuiltinOperator.CONV_2D, schema.BuiltinOperator.FULLY_CONNECTED)
    for op in graph.operators:
        if model.operatorCodes[op.opcodeIndex].builtinCode in dense:
            tensor = graph.tensors[op.inputs[1]]
            dtype = {schema.TensorType.INT8: np.int8, schema.TensorType.FLOAT32: np.float32}[tensor.type]
            data = np.asarray(model.buffers[tensor.buffer].data, np.uint8)
            found.append(np.frombuffer(data.tobytes(), dtype).reshape(tensor.shape))
    return found


def groups_over(weights: np.ndarray) -> int:
    """How many groups of 4 inputs hold more than 2 weights."""
    padded = np.pad(weights != 0, [(0, 0)] * (weights.ndim - 1) + [(0, -weights.shape[-1] % 4)])
    return int((padded.reshape(-1, 4).sum(1) > 2).sum())


# The others take longer together than they tell.
QUICK = {
    ("zeros", "prune by movement"), ("2:4", "prune channels"), ("2:4", "train both"), ("blocks", "distill"),
    ("clusters", "quantize"), ("clusters", "train int8"), ("fewer channels", "train codebooks"),
    ("zeros", "train int4"), ("2:4", "train binary"),
}  # fmt: skip
PAIRS = [
    pytest.param(first, second, marks=() if (first, second) in QUICK else pytest.mark.long)
    for first in FIRST
    for second in SECOND
]


@pytest.mark.parametrize("first, second", PAIRS)
def test_what_a_stage_makes_survives_the_next(first: str, second: str, float_model: ir.Model, tmp_path: Path) -> None:
    model = FIRST[first](float_model)
    layer = str(next(n for n in model.graph if n.op_type == "Gemm").name)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        SECOND[second].replace("LAYER", layer) + '[train]\nepochs = 1\nbatch = 16\noptimizer = "adam"\nvalidation = 0\n'
        "[evaluate]\nmin_snr = 0\n"
    )
    convert = partial(
        edgecompress.convert, model, train=(X, Y), eval=(X, Y), recipe=recipe, formats=["tflite"], max_drop=100,
        output=tmp_path / "out",
    )  # fmt: skip
    if second == "train binary" and first in ("zeros", "2:4", "blocks"):
        with pytest.raises(InputError, match="binary weights are -1 or 1, but pruning makes zeros in"):
            convert()
        return
    made = convert()
    weights = stored(made.artifacts["tflite"].read_bytes())
    assert len(weights) == 4
    total, zero = sum(w.size for w in weights), sum(int((w == 0).sum()) for w in weights)
    if first in ("zeros", "2:4", "blocks"):  # what channels took with them were zeros more than others
        assert zero / total > SPARSITY - (0.15 if second in ("distill", "prune channels") else 0.02)
    if first == "2:4":
        assert sum(groups_over(w) for w in weights) == 0
    if first == "clusters":
        note = any("clusters that" in n and "gone" in n for n in made.report.notes)
        assert note == (second in UNDOES_CLUSTERS)
        assert note or all(len(np.unique(w)) <= 2**BITS for w in weights)
    if first == "fewer channels":
        assert total <= statistics(model).parameters
    for kind, largest in FEW.items():
        if kind in second:
            middle = [np.unique(w) for w in weights[1:-1]]
            assert first == "clusters" or all(np.abs(w).max() <= largest for w in middle)
            assert kind != "binary" or first == "clusters" or all(list(w) == [-1, 1] for w in middle)
    if second in ("train both", "train ternary, and codebooks"):  # codebooks beside rounded activations
        assert [h.stage for h in made.report.training] == ["quantization-aware training", "codebooks"]
    if "codebooks" in second or second in ("cluster", "train both"):
        assert all(len(np.unique(w)) <= 2**BITS for w in weights)
