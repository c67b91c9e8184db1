"""BatchNormalization put back behind convolutions that it was folded into, so that the model trains as it once did; and
its statistics measured again, after channels were removed or weights trained."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import torch

from edgecompress.graph.fusion import constant
from edgecompress.support.present import present
from edgecompress.train.module.torch_model import TorchModel
from edgecompress.train.train_data import TrainData

EPSILON = 1e-5
SAMPLES, BATCH = 1024, 128

Moments = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]  # mean and variance of each channel, by name of the value


def with_batchnorm(model: ir.Model, data: TrainData) -> ir.Model:
    """A copy of a canonical model with a BatchNormalization behind each Conv (that has none), that computes the same.

    Its mean and variance are those of SAMPLES of the data, its scale and bias undo them. Since it makes the
    size of the weights meaningless, these are brought to He et al.'s (mean square 2 / inputs of one output), for which
    usual learning rates are meant. `ingest.fold_batchnorm` gives the canonical form again.
    """
    result = model.clone()
    graph = result.graph
    nodes = [n for n in graph if n.op_type == "Conv" and constant(n.inputs[1]) is not None and len(n.inputs) > 2]
    shared = {id(v) for n in graph for v in n.inputs if v is not None and len(v.uses()) > 1 and constant(v) is not None}
    nodes = [n for n in nodes if not {id(n.inputs[1]), id(n.inputs[2])} & shared and not _is_normalised(n)]
    if not nodes:
        return result
    means, variances = moments(TorchModel(model).eval(), [str(n.outputs[0].name) for n in nodes], data)
    for node in nodes:
        output = node.outputs[0]
        name = str(output.name)
        weight, bias = np.asarray(constant(node.inputs[1])), np.asarray(constant(node.inputs[2]))
        inputs = weight[0].size
        factor = np.sqrt(2 / inputs / max(float(np.square(weight).mean()), 1e-30))
        mean, variance = factor * means[name], factor**2 * variances[name]
        scale = np.sqrt(variance + EPSILON) / factor
        for stored, array in ((node.inputs[1], weight * factor), (node.inputs[2], bias * factor)):
            value = present(stored)
            value.const_value = ir.tensor(array.astype(np.float32), name=value.name)
        parameters, uses = [], list(output.uses())
        for what, array in (("scale", scale), ("bias", means[name]), ("mean", mean), ("variance", variance)):
            tensor = ir.tensor(array.astype(np.float32), name=f"{name}/{what}")
            value = ir.Value(name=tensor.name, const_value=tensor)
            value.shape, value.type = ir.Shape(array.shape), ir.TensorType(ir.DataType.FLOAT)
            graph.register_initializer(value)
            parameters.append(value)
        norm = ir.node(
            "BatchNormalization", [output, *parameters], attributes={"epsilon": EPSILON}, name=f"{name}/norm"
        )
        norm.outputs[0].shape, norm.outputs[0].type = output.shape, output.type
        graph.insert_after(node, norm)
        for reader, index in uses:
            reader.replace_input_with(index, norm.outputs[0])
        for index, value in enumerate(graph.outputs):
            if value is output:
                graph.outputs[index] = norm.outputs[0]
        output.name, norm.outputs[0].name = f"{name}/unnormalised", name
    return result


def _is_normalised(node: ir.Node) -> bool:
    return any(reader.op_type == "BatchNormalization" for reader in node.outputs[0].consumers())


def refresh_statistics(model: ir.Model, data: TrainData) -> ir.Model:
    """A copy whose BatchNormalizations have the means and variances of SAMPLES of the data, in place of those from
    before its channels were removed, or of running averages. Each is measured behind others that use their batch's, as
    in training (Wu and Johnson, "Rethinking 'Batch' in BatchNorm", 2021, section 3: precise BatchNorm).

    The model itself where it has none, or where there is only one sample.
    """
    nodes = [n for n in model.graph if n.op_type == "BatchNormalization"]
    if not nodes or len(data) < 2:
        return model
    names = sorted({str(present(n.inputs[0]).name) for n in nodes})
    means, variances = moments(TorchModel(model).train(), names, data)
    result = model.clone()
    for node in result.graph:
        if node.op_type == "BatchNormalization":
            name = str(present(node.inputs[0]).name)
            for position, array in ((3, means[name]), (4, variances[name])):
                value = present(node.inputs[position])
                value.const_value = ir.tensor(array.astype(np.float32), name=value.name)
    return result


def moments(module: TorchModel, names: list[str], data: TrainData) -> Moments:
    """Mean and variance of each channel of these values [n, channels, ...], over SAMPLES drawn from all of the data,
    which may be sorted by label."""
    chosen = np.random.default_rng(0).permutation(len(data))[:SAMPLES]
    sums: dict[str, tuple[np.ndarray, np.ndarray, int]] = {}
    with torch.no_grad():
        for index in np.array_split(chosen, -(-len(chosen) // BATCH)):  # of one size: none is too small for a variance
            _, captured = module(*data.batch(index).inputs, capture=names)
            for name, value in captured.items():
                rows = value.double().transpose(0, 1).flatten(1)
                total, squares, count = sums.get(name, (np.zeros(len(rows)), np.zeros(len(rows)), 0))
                total, squares = total + rows.sum(1).numpy(), squares + rows.square().sum(1).numpy()
                sums[name] = total, squares, count + rows.shape[1]
    means = {name: total / count for name, (total, _, count) in sums.items()}
    return means, {name: np.maximum(s / n - means[name] ** 2, 0) for name, (_, s, n) in sums.items()}
