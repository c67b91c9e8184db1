"""Every record of edgecompress/operators/ and everything that reads one: a record that says too little fails here, with
a sentence that says what to write.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

import quantizing
from channel_oracle import channel_faults, values_of
from edgecompress.analysis.channel_groups import channel_groups
from edgecompress.analysis.statistics import statistics
from edgecompress.analysis.value_bounds import intervals
from edgecompress.compress.quantize.precision import require_integer
from edgecompress.emit import pack, tflite
from edgecompress.errors import UnsupportedModelError
from edgecompress.graph.annotations import is_integer
from edgecompress.graph.channel_rules import elementwise
from edgecompress.graph.standard_functions import has_function
from edgecompress.ingest import load
from edgecompress.operators import OPERATORS, Operator
from edgecompress.operators.example import Example
from edgecompress.operators.record import register
from edgecompress.operators.rewriting import integer_parts, tflite_lowering, tflite_parts
from edgecompress.recipe import Quantize
from edgecompress.report.layers import report_layers
from edgecompress.train.module.torch_model import TorchModel
from formats import FORMATS, check_close, feeds, int8, original
from pruning import run

NAMES = sorted(OPERATORS)
DEPLOYED = [name for name in NAMES if not OPERATORS[name].only_in_training]
ON_INT8 = [name for name in DEPLOYED if OPERATORS[name].int8 is not None]
SAME_TRUTHS = 0.95  # of comparisons, in int8 and in float
LEAST_DB = 20.0  # of int8 against float, on data like the calibration's
ONE_STEP_DB = 40.0  # where few numbers differ, by one step
# functions of one value that have no int8 kernel, and no `function` to make a table of
STAY_FLOAT = {"Cast"}
# what the runtime has no kernel for, in float (Cos, Sin and Tan are tables on int8)
NOT_IN_FLOAT = {
    ("Cos", "pack"): "COS",
    ("ReduceProd", "pack"): "REDUCE_PROD",
    ("ScatterElements", "pack"): "SCATTER_ND",
    ("ScatterND", "pack"): "SCATTER_ND",
    ("Sin", "pack"): "SIN",
    ("Tan", "pack"): "COS",
    ("TensorScatter", "pack"): "FLOOR_MOD",
    ("TopK", "pack"): "TOPK_V2",
}
# exp overflows in float32 from 88.7; steps and bends are near zero
WIDE = np.union1d(np.linspace(-200, 200, 401), np.linspace(-4, 4, 129)).astype(np.float32)[None]


def complaint(name: str, what: str) -> str:
    return f"record {name} in edgecompress/operators/: {what}"


def is_of_one_value(record: Operator) -> bool:
    """Whether it computes each element from that of x alone."""
    alone = all(set(example.inputs) == {"x"} and not example.weights for example in record.examples)
    return record.function is not None or (record.channels is elementwise and alone)


def incomplete(record: Operator) -> str | None:
    """What a record lacks, in words, or None."""
    if not record.examples:
        return f"record {record.name} has no example: give examples=(Example(...),)"
    node = ir.node(record.name, [])
    if record.tflite is None and record.parts is None and not has_function(node) and not record.only_in_training:
        return f"record {record.name} can't be written to TFLite: give tflite=... or parts=..."
    if record.torch is None and record.parts is None and not has_function(node):
        return f"record {record.name} can't be trained: give torch=... or parts=..."
    if record.weights.view is not None and (record.integer is None or record.integer.weight is None):
        return f"record {record.name} is a product with a weight: say which in integer=Integer(weight=...)"
    stays_float = record.int8 is None and not record.integer_parts
    if is_of_one_value(record) and stays_float and record.name not in STAY_FLOAT:
        return (
            f"record {record.name} would stay float on int8: give function=Function(...), which makes it a table, or "
            "name it in STAY_FLOAT in tests/test_operators.py"
        )
    return None


@cache
def models(name: str) -> tuple[ir.Model, ...]:
    """The canonical models of the record's examples."""
    folds = not OPERATORS[name].only_in_training
    return tuple(load(example.model(), fold_batchnorm=folds).model for example in OPERATORS[name].examples)


@pytest.mark.parametrize("name", NAMES)
def test_is_complete(name: str) -> None:
    assert (what := incomplete(OPERATORS[name])) is None, what


def test_a_record_that_lacks_something_is_told_what() -> None:
    assert "Erfinv has no example: give examples=" in str(incomplete(Operator("Erfinv")))
    assert "give tflite=... or parts=..." in str(incomplete(Operator("Erfinv", (Example("y = Erfinv(x)"),))))
    assert "give function=Function(...)" in str(incomplete(replace(OPERATORS["Softplus"], function=None)))
    with pytest.raises(ValueError, match="Relu has two records"):
        register(Operator("Relu", (Example("y = Relu(x)"),)))


@pytest.mark.parametrize("name", NAMES)
def test_examples_are_read_and_every_analysis_knows_them(name: str) -> None:
    assert any(n.op_type == name for model in models(name) for n in model.graph), complaint(
        name, "no example has it after reading: the canonical form has other operators"
    )
    for model, example in zip(models(name), OPERATORS[name].examples):
        inputs = feeds(model)
        check_close(run(model, inputs), original(example, inputs), f"{example.nodes}: as it is read")
        assert statistics(model).operators[name] or name not in {n.op_type for n in model.graph}
        for group in channel_groups(model):
            assert str(group)
        outputs = {str(v.name): v for v in model.graph.outputs}
        bounds = {str(v.name): interval for v, interval in intervals(model).items()}
        for (output, _), y in zip(outputs.items(), run(model, inputs), strict=True):
            slack = 1e-5 * max(1.0, float(np.abs(y).max()))
            inside = (y >= bounds[output].low - slack) & (y <= bounds[output].high + slack)
            assert inside.all(), complaint(name, f"bounds=... are wrong for {example.nodes}")


@pytest.mark.parametrize("name", NAMES)
def test_channels_that_a_rule_lets_go_can_be_removed(name: str) -> None:
    """Against ONNX Runtime, so that a rule that couples too little or other positions is seen."""
    found = []
    for model, example in zip(models(name), OPERATORS[name].examples):
        values = values_of(model, feeds(model))
        for place in (i for i, node in enumerate(model.graph) if node.op_type == name):
            found += [f"{example.nodes}: {fault}" for fault in channel_faults(model, place, values)]
    assert not found, complaint(name, f"channels=... has to couple these positions otherwise, or fix them: {found[0]}")


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", DEPLOYED)
def test_every_format_computes_the_same_in_float(name: str, kind: str) -> None:
    if (name, kind) in NOT_IN_FLOAT:
        with pytest.raises(
            UnsupportedModelError, match=f"the runtime has no kernel for {NOT_IN_FLOAT[name, kind]} .*'y'"
        ):
            pack.emit(models(name)[0])
        return
    for model, example in zip(models(name), OPERATORS[name].examples):
        inputs = feeds(model)
        check_close(FORMATS[kind](model, inputs), original(example, inputs), f"{example.nodes} as .{kind}")


@pytest.mark.parametrize("name", [n for n in DEPLOYED if is_of_one_value(OPERATORS[n])])
def test_functions_of_one_value_are_right_for_large_values(name: str) -> None:
    """Wherever ONNX Runtime's result is finite, that of every format is the same."""
    record = OPERATORS[name]
    for example in (replace(e, inputs={"x": WIDE.shape}) for e in record.examples if set(e.inputs) == {"x"}):
        (expected,), model = original(example, {"x": WIDE}), load(example.model()).model
        found = {
            f"tflite=... or parts=... as .{kind}": run_on(model, {"x": WIDE})[0]
            for kind, run_on in FORMATS.items()
            if (name, kind) not in NOT_IN_FLOAT
        }
        if record.function is not None and len(model.graph) == 1:
            node = model.graph[0]
            with np.errstate(all="ignore"):
                found["function=..."] = record.function.compute(node, WIDE.astype(np.float64))
        finite = np.isfinite(expected)
        for what, y in found.items():
            wrong = finite & ~np.isclose(y, expected, rtol=1e-4, atol=1e-5)
            message = f"{what} is wrong for x = {WIDE[wrong].tolist()[:3]}, where ONNX Runtime's result is finite"
            assert not wrong.any(), complaint(name, f"{example.nodes}: {message}")
        if record.function is not None and record.function.rises and len(model.graph) == 1:
            assert (np.diff(found["function=..."]) >= 0).all(), complaint(name, "its function falls: rises is wrong")


@pytest.mark.parametrize(
    "name", [n for n in DEPLOYED if OPERATORS[n].function is not None and OPERATORS[n].tflite is None]
)
def test_functions_without_a_kernel_are_tables_on_int8(name: str) -> None:
    for model in models(name):
        kinds = [operator.kind for operator in pack.plan(int8(model)).operators]
        assert "TABLE" in kinds, complaint(name, f"its function is no table on int8, but {', '.join(kinds)}")


@pytest.mark.parametrize("name", ON_INT8)
def test_int8_is_near_and_equal_in_all_formats(name: str) -> None:
    """LiteRT's reference kernels and the runtime's give the same numbers, ONNX Runtime's nearly."""
    seen = False
    for model, example in zip(models(name), OPERATORS[name].examples):
        quantized = int8(model)
        seen |= any(n.op_type == name and is_integer(n) for n in quantized.graph)
        inputs = feeds(model)
        exact = original(example, inputs)
        found = {kind: run_on(quantized, inputs) for kind, run_on in FORMATS.items()}
        for i, expected in enumerate(exact):
            if "ArgMax" in example.nodes or not np.abs(expected).any():
                continue
            for kind in FORMATS:
                if "Cast<to=1>" in example.nodes:  # of what is true
                    assert (expected == found[kind][i]).mean() > SAME_TRUTHS, f"{example.nodes} as int8 .{kind}"
                    continue
                snr = quantizing.snr_db(expected, found[kind][i])
                assert snr > LEAST_DB, f"{example.nodes} as int8 .{kind}: {snr:.1f} dB"
            ours, theirs = (found[kind][i : i + 1] for kind in ("pack", "tflite"))
            if "Resize" in example.nodes and "FULLY_CONNECTED" in {o.kind for o in pack.plan(quantized).operators}:
                assert quantizing.snr_db(theirs[0], ours[0]) > ONE_STEP_DB  # LiteRT's reference rounds it once
                continue
            check_close(ours, theirs, f"{example.nodes}: .pack and .tflite")
    assert seen or (OPERATORS[name].integer is not None and OPERATORS[name].integer.passive), complaint(
        name, "integer=... says it computes on int8, but no example does: give one, or leave integer out"
    )


@pytest.mark.parametrize("name", NAMES)
def test_training_computes_the_same(name: str) -> None:
    for model, example in zip(models(name), OPERATORS[name].examples):
        inputs = feeds(model)
        module = TorchModel(model).eval()
        with torch.no_grad():
            outputs = module(*(torch.from_numpy(inputs[str(v.name)]) for v in model.graph.inputs))
        check_close([y.numpy() for y in outputs], original(example, inputs), f"{example.nodes} in torch")


@pytest.mark.parametrize("name", [n for n in DEPLOYED if OPERATORS[n].parts or OPERATORS[n].integer_parts])
def test_parts_compute_the_same(name: str) -> None:
    for model, example in zip(models(name), OPERATORS[name].examples):
        inputs, written = feeds(model), [tflite_parts(model.clone())]
        if OPERATORS[name].integer_parts:
            written.append(integer_parts(model.clone()))
        for parts in written:
            check_close(run(parts, inputs), original(example, inputs), f"{example.nodes} in parts")
        assert all(tflite_lowering(node) is not None for node in written[0].graph)


def named(example: Example) -> onnx.ModelProto:
    """The network, its nodes called act0, act1, ..."""
    proto = example.model()
    for i, node in enumerate(proto.graph.node):
        node.name = f"act{i}"
    return proto


@pytest.mark.parametrize(
    ("text", "user"),
    [
        ("y = ReduceMin<axes=[1]>(x)", "ReduceMin 'act0'"),  # rewritten when it is read
        ("a = Relu(x) y = MeanVarianceNormalization(a)", "MeanVarianceNormalization 'act1'"),  # the standard's body
        ("y = LayerNormalization(x, s)", "LayerNormalization 'act0'"),  # parts of the record
    ],
)
def test_refusals_name_the_users_node(text: str, user: str) -> None:
    model = tflite_parts(load(named(Example(text, weights={"s": (5,)}, opset=17))).model)
    assert len(model.graph) > 2
    with pytest.raises(UnsupportedModelError) as refused:
        require_integer(model, Quantize())
    assert str(refused.value).count("act") == str(refused.value).count(user) == 1
    with pytest.raises(UnsupportedModelError, match=f"does not have these operators: .*{user}"):
        tflite.emit(model, operators=["RELU"])


def test_layers_of_a_report_are_the_users_nodes() -> None:
    example = Example("y = LSTM<hidden_size=4>(x, w, r)", {"x": (3, 1, 5)}, {"w": (1, 16, 5), "r": (1, 16, 4)})
    model = load(named(example)).model
    rows = report_layers(integer_parts(model.clone()), {}, model, {})
    assert {row.name for row in rows} == {"act0"}
    assert {row.op for row in rows} == {"Add of LSTM", "MatMul of LSTM", "Mul of LSTM"}


@pytest.mark.parametrize(
    "nodes",
    [
        "a = Greater(x, z) b = Cast<to=1>(a)",
        "a = Less(z, x) c = Not(a) b = Cast<to=1>(c)",
        "a = Add(x, z) b = Softsign(a)",
    ],
)
def test_what_works_in_any_layout_leaves_images_as_convolutions_take_them(nodes: str) -> None:
    example = Example(f"{nodes} y = Conv(b, w)", {"x": (1, 4, 6, 5), "z": (1, 4, 6, 5)}, {"w": (3, 4, 3, 3)})
    operators = tflite.build(load(example.model()).model).buffer.operators
    assert "TRANSPOSE" not in {operator.kind for operator in operators}
