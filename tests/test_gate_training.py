"""Gates: where they go, what budget training reaches, and that int8 keeps what they say."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import edgecompress
from edgecompress.analysis.gated_layers import gated_layers, macs_run
from edgecompress.analysis.statistics import statistics
from edgecompress.compress.gated_channels.gate_start import sorted_channels, start_gates
from edgecompress.compress.gated_channels.gate_training import captured, common_for
from edgecompress.compress.gated_channels.gating import gate
from edgecompress.compress.gated_channels.insertion import with_gates
from edgecompress.compress.quantize import quantize
from edgecompress.emit.pack import plan as lowered
from edgecompress.errors import InputError
from edgecompress.evaluate.dataset import load_data
from edgecompress.evaluate.gate_use import open_gates
from edgecompress.evaluate.interpreters import OnnxRuntime
from edgecompress.ingest import load
from edgecompress.recipe import Emit, Gate, Preprocess, Quantize, Recipe, Train
from edgecompress.train import Session, TrainData
from edgecompress.train.losses import load_loss
from edgecompress.train.module.torch_model import TorchModel
from edgecompress_runtime.codegen.gated_plan import gated
from edgecompress_runtime.families.table import FAMILIES

SEED, SAMPLES, INNER, PLAIN = 0, 400, 16, 6


@pytest.fixture(scope="module")
def model() -> ir.Model:
    """relu(x + conv(relu(conv(x)))) behind a first convolution."""
    random, nodes, tensors = np.random.default_rng(SEED), [], []

    def conv(x: str, y: str, outputs: int, inputs: int) -> None:
        weight = random.standard_normal((outputs, inputs, 3, 3)) * (2 / inputs / 9) ** 0.5
        for name, array in (("w", weight), ("b", random.standard_normal(outputs) / 10)):
            tensors.append(numpy_helper.from_array(array.astype(np.float32), f"{y}/{name}"))
        nodes.append(helper.make_node("Conv", [x, f"{y}/w", f"{y}/b"], [y], name=y, pads=[1] * 4))

    conv("x", "stem", 8, 1)
    nodes.append(helper.make_node("Relu", ["stem"], ["a"]))
    conv("a", "inner", INNER, 8)
    nodes.append(helper.make_node("Relu", ["inner"], ["b"]))
    conv("b", "outer", 8, INNER)
    nodes += [
        helper.make_node("Add", ["a", "outer"], ["sum"]),
        helper.make_node("GlobalAveragePool", ["sum"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Gemm", ["flat", "fc/w", "fc/b"], ["y"], transB=1),
    ]
    tensors.append(numpy_helper.from_array(random.standard_normal((3, 8)).astype(np.float32), "fc/w"))
    tensors.append(numpy_helper.from_array(np.zeros(3, np.float32), "fc/b"))
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [1, 1, 8, 8]), ("y", [1, 3]))]
    graph = helper.make_graph(nodes, "residual", ends[:1], ends[1:], tensors)
    return load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)).model


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    random = np.random.default_rng(SEED)
    sizes = random.uniform(0.2, 3, (SAMPLES, 1, 1, 1))
    return (random.standard_normal((SAMPLES, 1, 8, 8)).astype(np.float32) * sizes).astype(np.float32)


def test_the_inside_of_a_residual_block_gets_a_gate_that_changes_nothing_yet(
    model: ir.Model, images: np.ndarray
) -> None:
    made, gates = with_gates(model, Gate(macs=0.5, block=4))
    assert {row.name: len(row.gates) for row in gated_layers(made) if row.gates} == {"inner": 1, "outer": 1}
    x = {"x": images[:20]}
    assert np.array_equal(OnnxRuntime(made).run(x)[0], OnnxRuntime(model).run(x)[0])
    assert len(gates) == 1 and open_gates(made, load_data(images, model.graph.inputs, Preprocess()))[
        gates[0].gate
    ].shape == (SAMPLES, INNER // 4)


def test_layers_that_cannot_be_gated_are_refused_by_name(model: ir.Model) -> None:
    with pytest.raises(InputError, match=r"\[gate\] layers: 'outer' can't be gated.*'inner'"):
        with_gates(model, Gate(macs=0.5, layers=["outer"]))


@pytest.fixture(scope="module")
def plain() -> ir.Model:
    """Six convolutions of 16 channels, one behind the other, whose channels are of different sizes."""
    random, nodes, tensors, x = np.random.default_rng(SEED), [], [], "x"
    for place in range(PLAIN):
        inputs = INNER if place else 1
        weight = random.standard_normal((INNER, inputs, 3, 3)) * (2 / inputs / 9) ** 0.5
        weight *= np.exp(random.standard_normal((INNER, 1, 1, 1)) / 2)
        tensors.append(numpy_helper.from_array(weight.astype(np.float32), f"w{place}"))
        tensors.append(numpy_helper.from_array((random.standard_normal(INNER) / 10).astype(np.float32), f"b{place}"))
        nodes.append(helper.make_node("Conv", [x, f"w{place}", f"b{place}"], [f"c{place}"], pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{place}"], [x := f"r{place}"]))
    nodes.append(helper.make_node("GlobalAveragePool", [x], ["mean"]))
    nodes.append(helper.make_node("Flatten", ["mean"], ["y"]))
    shapes = (("x", [1, 1, 8, 8]), ("y", [1, INNER]))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes]
    graph = helper.make_graph(nodes, "plain", ends[:1], ends[1:], tensors)
    return load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)).model


def test_gates_start_with_no_layer_shut_and_the_blocks_first_that_do_the_least(
    plain: ir.Model, images: np.ndarray
) -> None:
    data = TrainData.from_arrays([images], np.arange(SAMPLES) % 3)
    ordered, slopes = sorted_channels(plain, Gate(macs=0.5, block=4), data, SEED)
    made, gates = with_gates(ordered, Gate(macs=0.5, block=4))
    start_gates(made, gates, slopes)
    found = captured(TorchModel(made).eval(), [g.logits for g in gates], data)
    logits = {g.gate: found[g.logits] for g in gates}
    common = common_for(gated_layers(made), logits, 0.5 * statistics(plain).macs)
    shares = [float((a + common > 0).mean()) for a in logits.values()]
    assert len(shares) == PLAIN - 2 and min(shares) > 0.2 and max(shares) < 0.98, shares

    right = OnnxRuntime(plain).run({"x": images[:20]})[0]
    assert np.allclose(OnnxRuntime(ordered).run({"x": images[:20]})[0], right, rtol=1e-4, atol=1e-5)
    damage = {g.gate: np.zeros(INNER // 4) for g in gates}
    for g, block in itertools.product(gates, range(INNER // 4)):
        closed, _ = with_gates(ordered, Gate(macs=0.5, block=4))
        bias = np.where(np.arange(INNER // 4) == block, -1, 1).astype(np.float32)
        closed.graph.initializers[g.bias].const_value = ir.tensor(bias, name=g.bias)
        damage[g.gate][block] = np.square(OnnxRuntime(closed).run({"x": images[:20]})[0] - right).mean()
    ranks = [np.corrcoef(logits[k].mean(0).argsort().argsort(), damage[k].argsort().argsort())[0, 1] for k in logits]
    assert np.mean(ranks) > 0.9, ranks
    assert all(a.mean(0)[0] > a.mean(0)[-1] for a in logits.values()), "channels should be sorted by what they do"


@pytest.mark.parametrize("share", [0.45, 0.8])
def test_training_meets_the_budget_and_int8_closes_the_same_channels(
    model: ir.Model, images: np.ndarray, share: float
) -> None:
    data = TrainData.from_arrays([images], np.arange(SAMPLES) % 3)
    training = Train(epochs=3, batch=50, lr=1e-3, validation=0)
    settings = Gate(macs=share, block=4)
    trained = gate(model, data, settings, training, loss=load_loss("cross-entropy", data), session=Session(seed=SEED))
    dataset = load_data(images, model.graph.inputs, Preprocess())
    rows, opened = gated_layers(trained.model), open_gates(trained.model, dataset)
    run, whole = macs_run(rows, opened), statistics(model).macs
    assert run / whole == pytest.approx(share, rel=0.02) and trained.share == pytest.approx(run / whole, rel=0.005)
    (blocks,) = opened.values()
    assert set(np.unique(blocks)) == {0.0, 1.0} and len(np.unique(blocks.sum(1))) > 1, "samples should differ"
    plan = lowered(quantize(trained.model, dataset, Quantize(), integer_only=True).model, io_dtype=ir.DataType.INT8)
    kinds = [o.kind for o in gated(plan, FAMILIES["dsp"]).plan.operators]
    assert "MUL" in {o.kind for o in plan.operators} and "MUL" not in kinds, "the MUL is part of a convolution"


def test_a_budget_below_what_closed_gates_leave_is_refused(model: ir.Model, images: np.ndarray) -> None:
    data = TrainData.from_arrays([images], np.arange(SAMPLES) % 3)
    with pytest.raises(InputError, match=r"with all gates closed, 0.0[0-9]* of the multiply-accumulates still run"):
        gate(
            model,
            data,
            Gate(macs=0.01),
            Train(epochs=1),
            loss=load_loss("cross-entropy", data),
            session=Session(seed=0),
        )


def test_what_was_asked_is_compared_with_data_that_gates_were_not_trained_on(
    model: ir.Model, images: np.ndarray, tmp_path: Path
) -> None:
    labels = np.arange(SAMPLES) % 3
    converted = edgecompress.convert(
        ir.to_proto(model),
        target="cortex-m4",
        recipe=Recipe(
            gate=Gate(macs=0.6, block=4), train=Train(epochs=1, batch=50, validation=0), emit=Emit(formats=["pack"])
        ),
        train=(images, labels),
        eval=(np.full_like(images[:9], 9.0), labels[:9]),
        output=tmp_path / "out",
        max_drop=100,
    )
    (goal,) = (g for g in converted.report.goals if g.what == "MACs run")
    run = float(re.search(r"gates: ([0-9.]+)%.*mean of 9 samples", " ".join(converted.report.notes))[1])
    assert goal.requested == 60 and abs(goal.achieved - 60) > 5 and goal.achieved == pytest.approx(run, abs=0.06)
    assert goal.note.endswith("on the training data")
