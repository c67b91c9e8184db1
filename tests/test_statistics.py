"""Costs, counted by hand for each operator, and by forward hooks in torch for a network."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import numpy_helper, parser

from edgecompress.analysis.statistics import ModelStatistics, statistics
from edgecompress.ingest import load


def costs(nodes: str, inputs: str, **constants: tuple[int, ...]) -> ModelStatistics:
    proto = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> g ({inputs}) => (float y) {{ {nodes} }}')
    rng = np.random.default_rng(0)
    for name, shape in constants.items():
        proto.graph.initializer.append(numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name))
    return statistics(load(proto).model)


@pytest.mark.parametrize(
    ("nodes", "inputs", "constants", "macs", "parameters"),
    [
        # 4 * 6 * 6 outputs, 3 * 3 * 3 products each
        ("y = Conv(x, w)", "float[1,3,8,8] x", {"w": (4, 3, 3, 3)}, 4 * 36 * 27, 4 * 27 + 4),
        ("y = Conv<group=4>(x, w)", "float[1,4,8,8] x", {"w": (4, 1, 3, 3)}, 4 * 36 * 9, 4 * 9 + 4),
        ("y = Conv(x, w)", "float[1,3,10] x", {"w": (2, 3, 5)}, 2 * 6 * 15, 30 + 2),
        # each of the 3 * 4 * 4 inputs meets 2 * 3 * 3 weights
        ("y = ConvTranspose<strides=[2,2]>(x, w)", "float[1,3,4,4] x", {"w": (3, 2, 3, 3)}, 48 * 18, 54 + 2),
        ("y = MatMul(x, w)", "float[5,6] x", {"w": (6, 7)}, 5 * 6 * 7, 42 + 7),
        ("y = MatMul(x, w)", "float[2,5,6] x", {"w": (6, 7)}, 2 * 5 * 6 * 7, 42),
        ("t = Transpose<perm=[0,2,1]>(x) y = MatMul(x, t)", "float[2,5,6] x", {}, 2 * 5 * 6 * 5, 0),
        # 7 steps of 4 gates of 5 units over 6 inputs and 5 states
        (
            "y, h, c = LSTM<hidden_size=5>(x, w, r)",
            "float[7,1,6] x",
            {"w": (1, 20, 6), "r": (1, 20, 5)},
            7 * 20 * 11,
            20 * 11,
        ),
        (
            "y, h = GRU<hidden_size=5>(x, w, r)",
            "float[7,1,6] x",
            {"w": (1, 15, 6), "r": (1, 15, 5)},
            7 * 15 * 11,
            15 * 11,
        ),
        ("y = Relu(x)", "float[1,3,8,8] x", {}, 0, 0),
    ],
)
def test_macs_and_parameters(nodes: str, inputs: str, constants: dict, macs: int, parameters: int):
    found = costs(nodes, inputs, **constants)
    assert (found.macs, found.parameters) == (macs, parameters)
    assert sum(layer.macs for layer in found.layers) == macs


def test_peak_of_a_chain_is_the_largest_pair():
    # 48 -> 96 (conv and its relu are one step) -> 24 -> 24
    found = costs(
        "c = Conv<pads=[1,1,1,1]>(x, w) r = Relu(c) p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r) y = Tanh(p)",
        "float[1,3,4,4] x",
        w=(6, 3, 3, 3),
    )
    assert found.peak_activation_elements == 48 + 96


def test_the_first_step_frees_what_it_alone_reads():
    # 96 -> 2 -> 98: never more than two neighbours at once
    found = costs("p = GlobalAveragePool(x) y = Conv<pads=[3,3,3,3]>(p, w)", "float[1,2,6,8] x", w=(2, 2, 1, 1))
    assert found.peak_activation_elements == 2 + 98


def test_peak_counts_what_a_branch_keeps_alive():
    # at the second convolution: x (for the addition), the first result, the second result
    found = costs(
        "a = Conv<pads=[1,1,1,1]>(x, w) b = Conv<pads=[1,1,1,1]>(a, w) y = Add(b, x)",
        "float[1,3,4,4] x",
        w=(3, 3, 3, 3),
    )
    assert found.peak_activation_elements == 3 * 48


def test_an_output_stays_alive_to_the_end():
    proto = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[10] x) => (float y, float z) '
        "{ y = Exp(x) a = Tanh(x) z = Abs(a) }"
    )
    assert statistics(load(proto).model).peak_activation_elements == 30


def test_an_input_that_nobody_reads_is_alive_in_the_first_step_alone():
    proto = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[10] x, float[100] u) => (float[30] y) '
        "{ a = Exp(x) y = Concat<axis=0>(a, a, a) }"
    )
    assert statistics(load(proto).model).peak_activation_elements == 10 + 100 + 10


def test_layers_name_shapes_and_own_costs():
    found = costs("c = Conv(x, w) f = Flatten(c) y = Gemm(f, k)", "float[1,3,8,8] x", w=(4, 3, 3, 3), k=(144, 5))
    assert [layer.op_type for layer in found.layers] == ["Conv", "Reshape", "Gemm"]
    last = found.layers[-1]
    assert (last.input_shape, last.output_shape, last.parameters, last.macs) == ((1, 144), (1, 5), 725, 720)


def test_a_network_against_torch_hooks():
    torch = pytest.importorskip("torch")
    nn = torch.nn
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8, padding=1),
        nn.ConvTranspose2d(8, 4, 2, 2),
        nn.Flatten(),
        nn.Linear(4 * 64, 10),
    )
    macs = []

    def count(module: nn.Module, inputs: tuple, output: object) -> None:
        positions = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
        macs.append(
            module.weight[0].numel() * positions[0, 0].numel() * (positions.shape[1] if positions.ndim > 2 else 1)
        )

    for module in net:
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            module.register_forward_hook(count)
    net(torch.zeros(1, 3, 8, 8))
    expected = sum(macs) + 4 * 64 * 10
    found = statistics(load(net, input_shapes={"x": (1, 3, 8, 8)}).model)
    assert found.macs == expected
    assert found.parameters == sum(p.numel() for p in net.parameters())


def test_statistics_take_any_ir_model():
    x = ir.Value(name="x", shape=ir.Shape([2, 3]), type=ir.TensorType(ir.DataType.FLOAT))
    node = ir.node("Relu", [x])
    node.outputs[0].shape = ir.Shape([2, 3])
    model = ir.Model(ir.Graph([x], node.outputs, nodes=[node], opset_imports={"": 21}), ir_version=10)
    assert statistics(model).peak_activation_elements == 12
