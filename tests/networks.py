"""The networks that the tests convert: between them, every operator that edgecompress imports.

Each is under 100,000 parameters and runs in milliseconds. Weights come from a seed made of the
network's name, then get the spread that training leaves: output channels of different sizes and
BatchNorm statistics of the data.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from torch import nn

from nets import convolutional as conv
from nets import elementwise, graphs, images, sequence


class Tokens(NamedTuple):
    """An int64 input of values in [0, high)."""

    shape: tuple[int, ...]
    high: int


@dataclass(frozen=True)
class Network:
    """factory: makes a torch module; with exporter "graph", an onnx.ModelProto.

    inputs: one shape an input, batch of 1 first: a tuple is standard normal float32.
    convolutional: int8 must keep 20 dB. dynamic: exported with the first dimension left open.
    """

    factory: Callable[[], Any]
    inputs: tuple[tuple[int, ...] | Tokens, ...]
    convolutional: bool
    exporter: str = "dynamo"
    opset: int = 20
    dynamic: bool = False


IMAGE = (1, 3, 16, 16)

NETWORKS: dict[str, Network] = {
    "residual": Network(conv.Residual, (IMAGE,), True, dynamic=True),
    "inverted_residual": Network(conv.InvertedResidual, (IMAGE,), True),
    "unet_nearest": Network(partial(images.UNet, nn.Upsample(scale_factor=2)), (IMAGE,), True),
    "unet_bilinear": Network(
        partial(images.UNet, nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)),
        (IMAGE,),
        True,
        "torchscript",
        17,
    ),
    "resizes": Network(images.Resizes, (IMAGE,), True),
    "conv1d": Network(conv.Conv1d, ((1, 8, 64),), True, "torchscript", 13),
    "conv1d_dynamo": Network(conv.Conv1d, ((1, 8, 64),), True),
    "dense": Network(conv.Dense, (IMAGE,), True),
    "mobilenet": Network(conv.MobileNet, ((1, 3, 33, 33),), True, "torchscript", 13, dynamic=True),
    "pixel_shuffle": Network(images.PixelShuffle, (IMAGE,), True),
    "norms": Network(images.Norms, (IMAGE,), True, "torchscript", 17),
    "activations": Network(conv.Activations, (IMAGE,), True),
    "activations_torchscript": Network(conv.Activations, (IMAGE,), True, "torchscript", 17),
    "segmentation": Network(images.Segmentation, (IMAGE,), True, opset=18),
    "flatten_to_linear": Network(conv.FlattenToLinear, ((1, 1, 28, 20),), True, "torchscript", 14),
    "pools": Network(conv.Pools, ((1, 3, 18, 18),), True, "torchscript", 17),
    "convnext": Network(conv.ConvNext, (IMAGE,), True),
    "pads": Network(conv.Pads, ((1, 3, 19, 18),), True),
    "upconvolutions": Network(images.Upconvolutions, (IMAGE,), True),
    "grouped_upconvolution": Network(images.GroupedUpconvolution, ((1, 3, 8, 12),), True),
    "channel_shuffle": Network(conv.ChannelShuffle, (IMAGE,), True),
    "channels_last": Network(images.ChannelsLast, ((1, 16, 16, 3),), True, "torchscript", 15),
    "two_branches": Network(conv.TwoBranches, ((1, 3, 24, 24), (1, 1, 12, 12)), True),
    "arithmetic_2d": Network(images.Arithmetic2d, (IMAGE,), True),
    "transformer": Network(sequence.Transformer, ((1, 9, 12),), False),
    "transformer_norm_first": Network(partial(sequence.Transformer, True), ((1, 9, 12),), False, "torchscript", 14),
    "language_model": Network(sequence.CausalLanguageModel, (Tokens((1, 10), 40),), False, "torchscript", 17),
    "language_model_dynamo": Network(sequence.CausalLanguageModel, (Tokens((1, 10), 40),), False),
    "attention": Network(sequence.Attention, ((1, 2, 7, 16), (1, 2, 7, 16)), False),
    "lstm": Network(sequence.LSTM, ((1, 7, 6),), False, "torchscript", 17),
    "lstm_bidirectional": Network(partial(sequence.LSTM, True), ((1, 7, 6),), False, "torchscript", 14),
    "gru": Network(sequence.GRU, ((1, 7, 6),), False, "torchscript", 17),
    "gru_bidirectional": Network(partial(sequence.GRU, True), ((1, 7, 6),), False, "torchscript", 17),
    "autoencoder": Network(sequence.Autoencoder, ((1, 64),), False, dynamic=True),
    "mixer": Network(sequence.Mixer, (IMAGE,), False, opset=23),
    "arithmetic": Network(elementwise.Arithmetic, ((1, 5, 12), (1, 5, 12)), False),
    "reductions": Network(elementwise.Reductions, (IMAGE,), False),
    "masks": Network(elementwise.Masks, ((1, 6, 12), Tokens((1, 6), 3)), False),
    "moves": Network(elementwise.Moves, ((1, 8, 6),), False),
    "moves_torchscript": Network(elementwise.Moves, ((1, 8, 6),), False, "torchscript", 17),
    "scores": Network(elementwise.Scores, ((1, 4, 9),), False),
    "same_pads": Network(graphs.same_pads, (IMAGE,), True, "graph"),
    "depth_to_space": Network(graphs.depth_to_space, ((1, 3, 12, 12),), True, "graph"),
    "resize_graph": Network(graphs.resizes, ((1, 3, 10, 10),), True, "graph"),
    "newest_opset": Network(graphs.newest_opset, ((1, 12),), False, "graph"),
}


@cache
def build(name: str) -> nn.Module | onnx.ModelProto:
    """The network with its weights, in eval mode (for a hand-made graph: the ONNX model)."""
    network = NETWORKS[name]
    if network.exporter == "graph":
        return network.factory()
    with torch.random.fork_rng():
        torch.manual_seed(zlib.crc32(name.encode()))
        module = network.factory()
        _spread(module)
        _settle(module, [torch.from_numpy(x) for x in _arrays(network, 64, 1)])
    return module.eval()


def example(name: str, count: int = 1, seed: int = 0) -> dict[str, np.ndarray]:
    """`count` samples for each input: name -> float32 or int64 [count, ...]."""
    network = NETWORKS[name]
    return dict(zip(input_names(name), _arrays(network, count, seed), strict=True))


def input_names(name: str) -> list[str]:
    network = NETWORKS[name]
    if network.exporter == "graph":
        return [value.name for value in build(name).graph.input]
    return [f"input_{i}" for i in range(len(network.inputs))]


def reference(name: str, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Outputs [n, ...] of inputs [n, ...], a sample at a time, by torch (hand-made graphs: ONNX Runtime)."""
    module, count = build(name), len(next(iter(inputs.values())))
    run = _onnx_runner(module) if isinstance(module, onnx.ModelProto) else _torch_runner(module)
    samples = [run({k: v[i : i + 1] for k, v in inputs.items()}) for i in range(count)]
    return [np.concatenate(outputs) for outputs in zip(*samples, strict=True)]


def export(name: str, folder: str | Path, *, open_batch: bool = False) -> Path:
    """Writes `folder`/NAME.onnx with the network's exporter and opset. Its batch size is open if the network is
    dynamic, or `open_batch` asks for it."""
    network, module, path = NETWORKS[name], build(name), Path(folder) / f"{name}.onnx"
    dynamic = network.dynamic or open_batch
    if isinstance(module, onnx.ModelProto):
        onnx.save(module, path)
        return path
    # of one sample, exporters take the batch size for a constant here and there
    arguments = tuple(torch.from_numpy(x) for x in _arrays(network, 2 if open_batch else 1, 0))
    names: dict[str, Any] = {"input_names": input_names(name), "opset_version": network.opset}
    if network.exporter == "torchscript":
        names["dynamo"] = False
        if dynamic:
            names["dynamic_axes"] = {n: {0: "batch"} for n in input_names(name)}
    else:
        names.update(dynamo=True, verbose=False, external_data=False)
        if dynamic:
            names["dynamic_shapes"] = tuple({0: torch.export.Dim.DYNAMIC} for _ in arguments)
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its fused encoder layer has no ONNX form
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(module, arguments, path, **names)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    return path


def operators(path: str | Path) -> set[str]:
    """Operator types of an ONNX file's main graph and of its functions."""
    model = onnx.load(path)
    return {node.op_type for body in (model.graph, *model.functions) for node in body.node}


def _arrays(network: Network, count: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [
        rng.integers(0, x.high, (count, *x.shape[1:]))
        if isinstance(x, Tokens)
        else rng.normal(0, 1, (count, *x[1:])).astype(np.float32)
        for x in network.inputs
    ]


def _spread(module: nn.Module) -> None:
    """Output channels of unequal size (log-normal), BatchNorm scales and biases off 1 and 0."""
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear):
                size = torch.exp(0.4 * torch.randn(layer.weight.shape[0]))
                layer.weight.mul_(size.reshape(-1, *[1] * (layer.weight.ndim - 1)))
            elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d | nn.InstanceNorm2d | nn.GroupNorm | nn.LayerNorm):
                if layer.weight is not None:
                    layer.weight.uniform_(0.6, 1.4)
                if layer.bias is not None:
                    layer.bias.normal_(0, 0.2)
            elif isinstance(layer, nn.PReLU):
                layer.weight.uniform_(0.05, 0.4)


def _settle(module: nn.Module, inputs: list[torch.Tensor]) -> None:
    """BatchNorm's running statistics as those of the data."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.momentum = None  # a plain mean over the batches seen
            layer.reset_running_stats()
    module.train()
    with torch.no_grad():
        module(*inputs)


def _torch_runner(module: nn.Module) -> Callable[[dict[str, np.ndarray]], list[np.ndarray]]:
    def run(inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        with torch.no_grad():
            outputs = module(*(torch.from_numpy(x) for x in inputs.values()))
        return [y.numpy() for y in ((outputs,) if isinstance(outputs, torch.Tensor) else outputs)]

    return run


def _onnx_runner(model: onnx.ModelProto) -> Callable[[dict[str, np.ndarray]], list[np.ndarray]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return partial(session.run, None)
