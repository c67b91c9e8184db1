"""Moments of layers' inputs, from layer to layer: as if each were measured from the start."""

from __future__ import annotations

import dataclasses
import io
import warnings

import numpy as np
import onnx
import pytest
import torch

from edgecompress.compress.quantize import layer_inputs, matrices, operators, quantize
from edgecompress.compress.quantize.layer_inputs import Calibrator
from edgecompress.evaluate.dataset import load_data
from edgecompress.graph.fusion import constant, layers
from edgecompress.ingest import load
from edgecompress.recipe import Preprocess, Quantize
from nets.families import FAMILIES


class Recurrent(torch.nn.Module):
    """Whose states have the batch along their second axis."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Conv1d(4, 8, 3, padding=1), torch.nn.Linear(12, 3)
        self.inner = torch.nn.LSTM(8, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.first(x)).permute(2, 0, 1)
        return self.last(self.inner(y)[0][-1])


NETWORKS = {name: FAMILIES[name] for name in ("vgg", "inception", "multi_head")} | {"lstm": (Recurrent, (1, 4, 9))}


@pytest.mark.parametrize("room", [1 << 28, 1 << 13])
@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_kept_between_layers_changes_nothing(name: str, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_inputs, "KEPT_BYTES", room)
    monkeypatch.setattr(layer_inputs, "SAMPLES", 20)
    monkeypatch.setattr(layer_inputs, "ROWS", 1 << 8)  # so that small layers take more samples than those in front
    kind, shape = NETWORKS[name]
    torch.manual_seed(0)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(kind().eval(), torch.zeros(shape), file, dynamo=False, opset_version=17)
    model = load(onnx.load_from_string(file.getvalue())).model
    samples = np.random.default_rng(0).standard_normal((48, *shape[1:])).astype(np.float32)
    data = load_data(samples, model.graph.inputs, Preprocess())
    annotated = quantize(model, data, Quantize()).model
    calibrator, compared = Calibrator(model, data, 0), 0
    walk, seen = calibrator.walk(annotated), []
    for layer in layers(annotated.graph):
        if (value := operators.weight(layer)) is None:
            continue
        shape = matrices.to_matrix(layer.node, np.asarray(constant(value))).shape
        found, expected = walk.moments(layer, *shape), calibrator.walk(annotated).moments(layer, *shape)
        for field in dataclasses.fields(found):
            one, other = getattr(found, field.name), getattr(expected, field.name)
            if isinstance(one, np.ndarray):
                np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * np.abs(other).max(), err_msg=field.name)
                compared += 1
        seen.append(layer)
        if layer.bias is not None and layer.bias.const_value is not None:  # what layers behind get to see
            array = np.asarray(constant(layer.bias))
            layer.bias.const_value = type(layer.bias.const_value)(array + 0.1, name=layer.bias.name)
    assert len(seen) > 1 and compared
