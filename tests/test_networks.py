"""The table of networks is complete, and its ONNX files say what torch computes."""

from __future__ import annotations

import numpy as np
import pytest

from networks import NETWORKS, Tokens, build, example, operators, reference

# Every operator that must be imported. Rsqrt is written Reciprocal(Sqrt), Silu is Sigmoid and Mul.
REQUIRED = """
    Conv ConvTranspose Gemm MatMul Add Sub Mul Div Min Max Neg Abs Sqrt Reciprocal Pow Exp Log Erf
    Relu Clip LeakyRelu PRelu Elu Sigmoid HardSigmoid HardSwish Tanh Gelu Softmax LogSoftmax MaxPool
    AveragePool GlobalAveragePool GlobalMaxPool ReduceMean ReduceSum ReduceMax BatchNormalization
    LayerNormalization InstanceNormalization Concat Split Slice Pad Reshape Flatten Squeeze
    Unsqueeze Transpose Expand Tile Resize DepthToSpace SpaceToDepth Gather Where Equal Greater Less
    Not Cast ArgMax Constant Shape LSTM GRU Identity Dropout
""".split()


@pytest.mark.long
def test_every_operator_is_used(exported):
    used = set().union(*(operators(exported(name)) for name in NETWORKS))
    assert not set(REQUIRED) - used


@pytest.mark.parametrize("name", [n for n, network in NETWORKS.items() if network.exporter != "graph"])
def test_export_equals_torch(name, exported):
    import onnxruntime

    inputs = example(name)
    session = onnxruntime.InferenceSession(exported(name), providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == list(inputs)
    for ours, torch_output in zip(session.run(None, inputs), reference(name, inputs), strict=True):
        np.testing.assert_allclose(ours, torch_output, rtol=1e-4, atol=1e-5 * max(1.0, np.abs(torch_output).max()))


@pytest.mark.parametrize("name", NETWORKS)
def test_is_small_and_fixed(name):
    network = NETWORKS[name]
    if network.exporter != "graph":
        assert sum(p.numel() for p in build(name).parameters()) < 100_000
    for shape, array in zip(network.inputs, example(name, 3).values(), strict=True):
        assert array.shape == (3, *(shape.shape if isinstance(shape, Tokens) else shape)[1:])
    build.cache_clear()
    first = reference(name, example(name))
    build.cache_clear()
    for a, b in zip(first, reference(name, example(name)), strict=True):
        np.testing.assert_array_equal(a, b)
