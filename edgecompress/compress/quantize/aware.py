"""Quantization-aware training: trains an annotated model with the integers, codebooks and zeros it will have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from edgecompress.compress.cluster.trained import TrainedCodebook
from edgecompress.compress.quantize import operators
from edgecompress.compress.quantize.accumulators import Scales, kernel_scaling, only_moves
from edgecompress.compress.quantize.branches import is_for_int8_alone, is_stored, join_branches, split_branches
from edgecompress.compress.quantize.fake import Bias, Range, Through, Weight
from edgecompress.compress.quantize.fake_few_bits import FewBits, FoldedBias, Normalised, fake_weight
from edgecompress.compress.quantize.requantize import KERNELS, Kernels
from edgecompress.compress.quantize.weight_scales import quantize_bias
from edgecompress.graph.annotations import (
    Quantization,
    codebook,
    quantization,
    set_codebook,
    set_quantization,
    sparsity,
)
from edgecompress.graph.fusion import Layer, constant, layers
from edgecompress.recipe import Train
from edgecompress.record.report import History
from edgecompress.train import DEFAULT_SESSION, Session, TrainData, train
from edgecompress.train.losses import Loss
from edgecompress.train.module.torch_model import TorchModel
from edgecompress.train.module.zeros import Zeros
from edgecompress.train.normalised import Moments, moments

NORMALISED = ("Conv", "Gemm")
SETTLING, BATCH = 40, 128  # batches, after which 1.5 % is left of running statistics as they were
FIXED = {id(q) for rule in operators.RULES.values() for bits in (8, 16) if (q := rule.fixed_at(bits)) is not None}


@dataclass(frozen=True)
class Aware:
    """The model, annotated like the one that was given with what was learned, and the history of its training."""

    model: ir.Model = field(repr=False)
    history: History


def train_quantized(
    model: ir.Model, data: TrainData, training: Train, *, loss: Loss | None = None, session: Session = DEFAULT_SESSION
) -> Aware:
    """Trains a model that quantization, and perhaps clustering, has annotated; the one passed in is not changed.

    Forward it computes what the integers will: values, weights and biases rounded where the annotations say. What
    is learned: the ranges of values (those that operators fix, and of the inputs, stay), weights, and of clustered
    weights the centroids and scales. Weights with a Sparsity stay zero where it says. Indices into codebooks stay.
    Convolutions and dense layers with binary and ternary weights have BatchNorm behind them while they train.
    """
    alone = len(data) == 1 or training.batch == 1  # which has no variance
    fake = FakeQuantized(model, moments=({}, {}) if alone else moments_in_float(model, data))
    training = training.model_copy(update={"precision": "float32"})  # 16 bits can't hold sums of integers
    parameters = fake.parameters(training)
    fake.measure_statistics(data)
    history = train(fake.module, data, training, loss=loss, parameters=parameters, session=session)
    fake.measure_statistics(data)
    return Aware(fake.annotated(), history)


def moments_in_float(model: ir.Model, data: TrainData) -> Moments:
    """Mean and variance of what those layers of an annotated model make in float that are normalized in training."""
    names = [str(layer.node.outputs[0].name) for layer in layers(model.graph) if _is_normalised(layer)]
    return moments(TorchModel(model).eval(), names, data) if names else ({}, {})


def _is_normalised(layer: Layer) -> bool:
    value, bias = operators.weight(layer), layer.bias
    if layer.node.op_type not in NORMALISED or value is None or bias is None or codebook(value) is not None:
        return False
    q = quantization(value)
    return (
        q is not None and q.kind in ("binary", "ternary") and q.axis == 0 and len(value.uses()) == len(bias.uses()) == 1
    )


class FakeQuantized:
    """An annotated model as a TorchModel that rounds where the emitted model will.

    module: gives logits, unless `logits` is False. In evaluation mode it computes as `kernels` (a name in
    requantize.KERNELS) do; only LeakyRelu, PRelu and HardSwish, which compute in fixed point by formulas of their own,
    may be one step off. ranges: the range of each group of values that share a scale, by the identity of the
    Quantization that they share.
    """

    def __init__(
        self, model: ir.Model, kernels: str = "reference", *, logits: bool = True, moments: Moments = ({}, {})
    ) -> None:
        """moments: of what layers make in float that are normalized in training."""
        self.moments = moments
        self.model = model = split_branches(model)
        self.module = TorchModel(model, logits=logits)
        self.ranges: dict[int, Range] = {}
        self._scales: dict[str, Callable[[], Tensor]] = {}  # of an int8 weight, now
        grouped = layers(model.graph)
        for layer in grouped:
            self._prepare(layer)
        self._round_values({v: layer for layer in grouped for v in layer.last.outputs}, KERNELS[kernels])
        for name, value in model.graph.initializers.items():  # operands
            q = quantization(value)
            if q is not None and q.dtype == ir.DataType.INT8 and name not in self._scales:
                self.module.set_weight_transform(name, Through(self._range(value)))

    def _round_values(self, made_by: dict[ir.Value, Layer], kernels: Kernels) -> None:
        done: set[ir.Value] = set()
        scales = Scales(self._range, self._scales)
        for value in _rounded(self.model.graph):
            layer, range_ = made_by.get(value), self._range(value)
            done.add(value)
            if not only_moves(layer, done):
                scaling = kernel_scaling(layer, scales, kernels, range_.zero_point)
                name, through = str(value.name), Through(range_, scaling)
                before = self.module.value_transforms.get(name)
                self.module.set_value_transform(name, nn.Sequential(before, through) if before else through)

    def parameters(self, training: Train) -> list[dict[str, Any]]:
        """Parameter groups for `make_optimizer`, whose steps are relative to a weight's size, as for ranges and
        codebooks.

        The layers of a trained network differ in size by orders of magnitude, and BatchNorm, which made up for it, is
        folded. For w = s u, a step of u by SGD is a step of w at s^2 times the rate, and at s times by Adam.
        """
        groups, power = [], 2 if training.optimizer == "sgd" else 1
        sized = {id(p) for p in self.module.weights.values()}
        for parameter in self.module.parameters():
            size = float(parameter.detach().square().mean().sqrt()) if id(parameter) in sized else 1.0
            groups.append({"params": [parameter], "lr_scale": (size or 1.0) ** power})
        return groups

    def measure_statistics(self, data: TrainData) -> None:
        """Gives the running statistics of normalized layers time to become those of the data, with weights as they
        are."""
        if not self.moments[0]:
            return
        self.module.train()
        random = np.random.default_rng(0)
        with torch.no_grad():
            for _ in range(SETTLING):
                self.module(*data.batch(random.permutation(len(data))[:BATCH]).inputs)
        self.module.eval()

    def annotated(self) -> ir.Model:
        """A copy of the model with weights, ranges and codebooks as they are in the module now."""
        result = self.module.write_back()
        join_branches(result)
        learned = self._learned()
        computed = [v for node in result.graph for v in node.outputs]
        for value in [*result.graph.inputs, *result.graph.initializers.values(), *computed]:
            q = quantization(value)
            if q is not None and id(q) in learned:
                set_quantization(value, learned[id(q)])
        for layer in layers(result.graph):
            self._record(layer)
        return result

    def _range(self, value: ir.Value) -> Range:
        q = quantization(value)
        assert q is not None
        fixed = id(q) in FIXED or value.is_graph_input()
        found = self.ranges.setdefault(id(q), Range(float(q.scale[0]), int(q.zero_point[0]), not fixed, q.dtype))
        if fixed:
            found.log_ratio = None
        return found

    def _prepare(self, layer: Layer) -> None:
        value = operators.weight(layer) if layer.node.op_type in operators.RULES else None
        if value is None or str(value.name) not in self.module.weights:
            return
        name, q, book, pruned = str(value.name), quantization(value), codebook(value), sparsity(value)
        transform: TrainedCodebook | Weight
        if book is not None:
            source = q if book.scale is None else book
            assert source is not None and source.scale is not None
            transform = TrainedCodebook(book, source.scale, source.axis, source is q)
            self._scales[name] = transform.scale
        elif q is not None and q.dtype == ir.DataType.INT8:
            transform = fake_weight(q, None if pruned is None else pruned.mask)
            self._scales[name] = lambda: transform.scale(self._kept(name, transform))
        else:  # in float
            if pruned is not None:
                self.module.set_weight_transform(name, Zeros(torch.from_numpy(pruned.mask).float()))
            return
        self.module.set_weight_transform(name, transform)
        self._prepare_bias(layer, name, transform)

    def _prepare_bias(self, layer: Layer, weight: str, transform: TrainedCodebook | Weight) -> None:
        bias, source = layer.bias, layer.node.inputs[0]
        if source is None or bias is None or quantization(bias) is None or quantization(source) is None:
            return
        if str(bias.name) not in self.module.weights:
            return
        range_ = self._range(source)
        if isinstance(transform, Weight):
            # plain attributes: the module has these already
            object.__setattr__(transform, "bias", self.module.weights[str(bias.name)])
            object.__setattr__(transform, "input", range_)
        rounded: nn.Module = Bias(range_, self._scales[weight])
        output = str(layer.node.outputs[0].name)
        if output in self.moments[0] and isinstance(transform, FewBits):
            mean, variance = (moment[output] for moment in self.moments)
            normalised = Normalised(self.module.weights[str(bias.name)], mean, variance)
            object.__setattr__(transform, "normalised", normalised)
            self.module.set_value_transform(output, normalised)
            rounded = FoldedBias(normalised, rounded)
        self.module.set_weight_transform(str(bias.name), rounded)

    def _kept(self, name: str, transform: Weight) -> Tensor:
        weight = self.module.weights[name]
        return weight if transform.mask is None else weight * transform.mask

    def _learned(self) -> dict[int, Quantization]:
        """The current Quantization of each group, by the identity of its original one."""
        found: dict[int, Quantization] = {}
        for value in [*_rounded(self.model.graph), *self.model.graph.initializers.values()]:
            q = quantization(value)
            if q is not None and id(q) in self.ranges and id(q) not in FIXED:
                range_ = self.ranges[id(q)]
                scale = range_.scale.detach().cpu().numpy().reshape(1).astype(np.float32)
                found[id(q)] = replace(q, scale=scale)
        return found

    def _record(self, layer: Layer) -> None:
        """Annotates the weight and the bias of a layer of the copy."""
        value = operators.weight(layer) if layer.node.op_type in operators.RULES else None
        name = "" if value is None else str(value.name)
        if value is None or name not in self._scales:
            return
        transform, q = self.module.weight_transforms[name], quantization(value)
        if isinstance(transform, TrainedCodebook):
            scale, book = transform.scales(), transform.codebook()
            set_codebook(value, book)
            if not transform.whole:
                value.const_value = ir.tensor(book.values().astype(np.float32), name=name)
        else:
            with torch.no_grad():
                scale = self._scales[name]().cpu().numpy().reshape(-1).astype(np.float32)
        if q is None or q.dtype == ir.DataType.FLOAT16:
            return
        learned = replace(q, scale=scale, zero_point=np.zeros(len(scale), np.int32))
        set_quantization(value, learned)
        if isinstance(transform, TrainedCodebook):
            value.const_value = ir.tensor(learned.dequantize(transform.codebook().values()), name=name)
        source = quantization(layer.node.inputs[0])
        if layer.bias is not None and quantization(layer.bias) is not None and source is not None:
            set_quantization(layer.bias, quantize_bias(learned, source))


def _rounded(graph: ir.Graph) -> list[ir.Value]:
    """The inputs and computed values that int8 layers compute, or that nothing but int8 layers reads."""
    found = []
    for value in [*graph.inputs, *(v for node in graph for v in node.outputs)]:
        q = quantization(value)
        if q is None or q.dtype != ir.DataType.INT8 or constant(value) is not None:
            continue
        if is_stored(value) or (value.uses() and is_for_int8_alone(value)):
            found.append(value)
    return found
