"""Where the training of exits starts: at the dense layer that comes nearest to the network's own scores.

What it reads is brought to mean 0 and variance 1 while it is trained, so that the usual learning rates fit it; the
layer takes that over at the end.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import torch

from edgecompress.graph.annotations import exits
from edgecompress.graph.fusion import constant
from edgecompress.graph.nodes import argument, parameter
from edgecompress.support.present import present
from edgecompress.train.module.ranking import ranked
from edgecompress.train.module.torch_model import TorchModel
from edgecompress.train.train_data import TrainData

SAMPLES, BATCH = 4096, 128
RIDGE = 0.1  # of the features' variance
SMALLEST = 1e-6  # of a probability whose logarithm is taken, and of a deviation


def fitted(model: ir.Model, data: TrainData) -> ir.Model:
    """A copy of a model with untrained exits, whose dense layers are those of least squares, with a small penalty, to
    the centred scores of the network's end."""
    result = model.clone()
    layers = _dense_layers(result)
    names = [str(argument(_affine(layer)[0], 0).name) for layer in layers]
    features, scores = _values(TorchModel(model, logits=True).eval(), names, data)
    for layer, name in zip(layers, names):
        product, addition = _affine(layer)
        x = features[name]
        deviation = np.maximum(x.std(axis=0), SMALLEST * max(float(np.abs(x).max()), 1.0))
        centred = (x - x.mean(axis=0)) / deviation
        gram = centred.T @ centred + RIDGE * len(x) * np.eye(x.shape[1])
        _set(product.inputs[1], 1 / deviation)
        _set(addition.inputs[1], -x.mean(axis=0) / deviation)
        _set(layer.inputs[1], np.linalg.solve(gram, centred.T @ scores).T)
        _set(layer.inputs[2], scores.mean(axis=0))
    return result


def without_scales(model: ir.Model) -> ir.Model:
    """A copy whose exits' dense layers read their features as they are."""
    result = model.clone()
    for layer in _dense_layers(result):
        product, addition = _affine(layer)
        weight, bias = parameter(layer, 1).astype(np.float64), parameter(layer, 2)
        _set(layer.inputs[2], bias + weight @ parameter(addition, 1).reshape(-1))
        _set(layer.inputs[1], weight * parameter(product, 1))
        layer.replace_input_with(0, product.inputs[0])
        for node in (addition, product):
            constants = node.inputs[1]
            result.graph.remove(node, safe=True)
            result.graph.initializers.pop(str(present(constants).name))
    return result


def _dense_layers(model: ir.Model) -> list[ir.Node]:
    ends = {str(v.name): v for v in model.graph.outputs}
    return [present(ranked(ends[e.confidence]).value.producer()) for e in exits(model.graph)]


def _affine(layer: ir.Node) -> tuple[ir.Node, ir.Node]:
    """The product and the sum in front of a dense layer."""
    addition = present(argument(layer, 0).producer())
    return present(argument(addition, 0).producer()), addition


def _values(module: TorchModel, names: list[str], data: TrainData) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """(features of each exit [n, depth] by name, the network's scores [n, classes] less their mean), float64."""
    chosen = np.random.default_rng(0).permutation(len(data))[:SAMPLES]
    parts: list[tuple[dict[str, torch.Tensor], torch.Tensor]] = []
    with torch.no_grad():
        for first in range(0, len(chosen), BATCH):
            outputs, captured = module(*data.batch(chosen[first : first + BATCH]).inputs, capture=set(names))
            parts.append((captured, outputs[0]))
    found = {name: torch.cat([captured[name] for captured, _ in parts]).double().numpy() for name in names}
    scores = torch.cat([y for _, y in parts]).double().numpy()
    if scores.min() >= 0 and np.allclose(scores.sum(axis=1), 1, atol=1e-3):
        scores = np.log(np.maximum(scores, SMALLEST))
    return found, scores - scores.mean(axis=1, keepdims=True)


def _set(value: ir.Value | None, array: np.ndarray) -> None:
    value, old = present(value), present(constant(value))
    value.const_value = ir.tensor(array.reshape(old.shape).astype(np.float32), name=value.name)
