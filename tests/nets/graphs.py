"""Hand-written ONNX graphs: what torch's exporters never write but other exporters do.

The text is ONNX's own syntax (onnx.parser); weights are added with a fixed seed.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper


def _model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list],
    outputs: dict[str, list],
    weights: dict[str, np.ndarray],
    opset: int,
) -> onnx.ModelProto:
    """A checked model; shapes may have symbolic dimensions (str)."""

    def infos(shapes: dict[str, list]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, shape) for n, shape in shapes.items()]

    graph = helper.make_graph(
        nodes,
        "graph",
        infos(inputs),
        infos(outputs),
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    # IR version 8 and up is what every opset here may be written with.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8 if opset < 21 else 10)
    onnx.checker.check_model(model, full_check=True)
    return model


def _float(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """He-scaled normal weights, float32."""
    fan_in = max(1, int(np.prod(shape[1:])))
    return rng.normal(0, (2 / fan_in) ** 0.5, shape).astype(np.float32)


def same_pads() -> onnx.ModelProto:
    """auto_pad of every kind, odd names, a batch named with a space, Gemm with alpha and beta."""
    rng, node = np.random.default_rng(1), helper.make_node
    nodes = [
        node(
            "Conv",
            ["images:0", "w/conv:0"],
            ["größe/1"],
            "conv 1:a",
            auto_pad="SAME_UPPER",
            strides=[2, 2],
            kernel_shape=[3, 3],
        ),
        node("BatchNormalization", ["größe/1", "gamma", "beta", "mean", "variance"], ["bn;1"], "", epsilon=1e-3),
        node("Relu", ["bn;1"], ["a/Relu:0"]),
        node("Conv", ["a/Relu:0", "w/even:0", "b/even"], ["a//even"], auto_pad="SAME_LOWER", kernel_shape=[2, 2]),
        node("Dropout", ["a//even"], ["dropped"]),
        node("MaxPool", ["dropped"], ["池"], auto_pad="SAME_UPPER", kernel_shape=[3, 3], strides=[2, 2]),
        node("Identity", ["池"], ["same"]),
        node("AveragePool", ["same"], ["mean pool"], auto_pad="VALID", kernel_shape=[2, 2]),
        node("Flatten", ["mean pool"], ["flat"], axis=1),
        node("Gemm", ["flat", "w dense", "b dense"], ["output:0"], alpha=0.5, beta=2.0, transB=0),
    ]
    weights = {
        "w/conv:0": _float(rng, 8, 3, 3, 3),
        "gamma": 1 + 0.3 * _float(rng, 8),
        "beta": 0.2 * _float(rng, 8),
        "mean": 0.2 * _float(rng, 8),
        "variance": 1 + rng.random(8, np.float32),
        "w/even:0": _float(rng, 8, 8, 2, 2),
        "b/even": 0.1 * _float(rng, 8),
        "w dense": _float(rng, 5, 8 * 9).T.copy(),
        "b dense": 0.1 * _float(rng, 5),
    }
    return _model(nodes, {"images:0": ["batch size", 3, 16, 16]}, {"output:0": ["batch size", 5]}, weights, 13)


def depth_to_space() -> onnx.ModelProto:
    """SpaceToDepth, DepthToSpace in both modes, GlobalMaxPool, Squeeze and Unsqueeze, a Reshape by Shape."""
    rng, node = np.random.default_rng(2), helper.make_node
    nodes = [
        node("SpaceToDepth", ["x"], ["folded"], blocksize=2),
        node("Conv", ["folded", "w1", "b1"], ["mixed"], pads=[0, 1, 2, 1], kernel_shape=[3, 3]),
        node("Clip", ["mixed", "zero", "six"], ["clipped"]),
        node("DepthToSpace", ["clipped"], ["dcr"], blocksize=2, mode="DCR"),
        node("DepthToSpace", ["clipped"], ["crd"], blocksize=2, mode="CRD"),
        node("Add", ["dcr", "crd"], ["image"]),
        node("GlobalMaxPool", ["clipped"], ["peaks"]),
        node("Squeeze", ["peaks", "spatial"], ["vector"]),
        node("MatMul", ["vector", "w2"], ["product"]),
        node("Add", ["b2", "product"], ["dense"]),
        node("Unsqueeze", ["dense", "one"], ["row"]),
        node("Shape", ["vector"], ["shape"]),
        node("Gather", ["shape", "first"], ["batch"]),
        node("Concat", ["batch", "rest"], ["target"], axis=0),
        node("Reshape", ["row", "target"], ["logits"]),
    ]
    weights = {
        "w1": _float(rng, 16, 12, 3, 3),
        "b1": 0.1 * _float(rng, 16),
        "zero": np.float32(0),
        "six": np.float32(6),
        "spatial": np.array([2, 3]),
        "w2": _float(rng, 6, 16).T.copy(),
        "b2": 0.1 * _float(rng, 6),
        "one": np.array([1]),
        "first": np.array([0]),
        "rest": np.array([2, 3]),
    }
    return _model(nodes, {"x": ["N", 3, 12, 12]}, {"image": ["N", 4, 12, 12], "logits": ["N", 2, 3]}, weights, 13)


def resizes() -> onnx.ModelProto:
    """Resize as older exporters write it: nearest asymmetric floor by scales, linear half_pixel by sizes."""
    rng, node = np.random.default_rng(3), helper.make_node
    nodes = [
        node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        node(
            "Resize",
            ["y", "", "double"],
            ["near"],
            mode="nearest",
            nearest_mode="floor",
            coordinate_transformation_mode="asymmetric",
        ),
        node("Resize", ["y", "", "", "sizes"], ["half"], mode="linear", coordinate_transformation_mode="half_pixel"),
        node("Resize", ["y", "", "double"], ["plain"], mode="linear", coordinate_transformation_mode="asymmetric"),
    ]
    weights = {
        "w": _float(rng, 6, 3, 3, 3),
        "double": np.array([1, 1, 2, 2], np.float32),
        "sizes": np.array([1, 6, 20, 14]),
    }
    outputs = {"near": [1, 6, 20, 20], "half": [1, 6, 20, 14], "plain": [1, 6, 20, 20]}
    return _model(nodes, {"x": [1, 3, 10, 10]}, outputs, weights, 13)


def newest_opset() -> onnx.ModelProto:
    """What newer opsets write whole: Gelu of both kinds, HardSwish; reductions with axes as inputs."""
    rng, node = np.random.default_rng(4), helper.make_node
    nodes = [
        node("Gemm", ["x", "w", "b"], ["a"], transB=1),
        node("Gelu", ["a"], ["erf"]),
        node("Gelu", ["a"], ["tanh"], approximate="tanh"),
        node("HardSwish", ["a"], ["hard"]),
        node("LayerNormalization", ["hard", "gamma", "beta"], ["normal"], axis=-1, epsilon=1e-5),
        node("Add", ["erf", "tanh"], ["both"]),
        node("Add", ["both", "normal"], ["sum"]),
        node("ReduceMax", ["sum", "last"], ["peak"], keepdims=1),
        node("ReduceSum", ["sum", "last"], ["total"], keepdims=0),
        node("Constant", [], ["factor"], value=numpy_helper.from_array(np.float32(0.25))),
        node("Sub", ["sum", "peak"], ["shifted"]),
        node("Mul", ["shifted", "factor"], ["y"]),
    ]
    weights = {
        "w": _float(rng, 16, 12),
        "b": 0.1 * _float(rng, 16),
        "gamma": 1 + 0.3 * _float(rng, 16),
        "beta": 0.2 * _float(rng, 16),
        "last": np.array([-1]),
    }
    return _model(nodes, {"x": ["batch", 12]}, {"y": ["batch", 16], "total": ["batch"]}, weights, 21)
