"""Networks that end early: where exits stand, which is taken, and that all files do the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from onnx import helper, numpy_helper, parser
from torch import nn

import edgecompress
from edgecompress.analysis.statistics import statistics
from edgecompress.compress.early_exit.exit_places import exit_values
from edgecompress.compress.early_exit.first_fit import fitted, without_scales
from edgecompress.compress.early_exit.heads import with_exits
from edgecompress.compress.early_exit.thresholds import Answers, cheapest_thresholds, lowest_threshold
from edgecompress.compress.quantize import quantize
from edgecompress.devices.artifact import open_artifact
from edgecompress.emit import onnx as onnx_emitter
from edgecompress.emit import pack as pack_emitter
from edgecompress.emit import tflite as tflite_emitter
from edgecompress.errors import InputError
from edgecompress.evaluate.dataset import load_data
from edgecompress.evaluate.file_count import count_file
from edgecompress.evaluate.interpreters import LiteRT, OnnxRuntime
from edgecompress.evaluate.taken_exits import costs
from edgecompress.graph.annotations import exits, quantization, set_exits
from edgecompress.ingest import load
from edgecompress.lowering.tensor_io import TFLiteModel
from edgecompress.operators import record_of
from edgecompress.recipe import Preprocess, Quantize
from edgecompress.record.report import Report
from edgecompress.train import TrainData
from edgecompress_runtime.execute import Executor
from edgecompress_runtime.pack import read_pack
from emulators import CORTEX_M

torch.set_num_threads(1)


def pictures(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Four classes; some pictures show theirs clearly, and some hardly."""
    generator = np.random.default_rng(seed)
    y = generator.integers(0, 4, count)
    x = generator.normal(0, 1, (count, 3, 8, 8)).astype(np.float32)
    clear = generator.uniform(0.2, 1.5, count).astype(np.float32)
    x[np.arange(count), y % 3] += (clear * (1 + y // 3))[:, None, None]
    return x, y


def module_of(classes: int = 4) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(384, classes),
    )  # fmt: skip


def file_of(module: nn.Module, end: str = "") -> onnx.ModelProto:
    """Its ONNX model, with another operator behind it. Written here: an export takes longer than all else."""
    shapes, weights, nodes, x = {"Conv": {"pads": [1] * 4}, "Gemm": {"transB": 1}}, [], [], "input"
    kinds = {nn.Conv2d: "Conv", nn.ReLU: "Relu", nn.MaxPool2d: "MaxPool", nn.Flatten: "Flatten", nn.Linear: "Gemm"}
    for i, layer in enumerate(module):
        kind, given = kinds[type(layer)], [x]
        for name, array in layer.named_parameters():
            weights.append(numpy_helper.from_array(array.detach().numpy(), f"{i}.{name}"))
            given.append(f"{i}.{name}")
        x = f"{kind.lower()}_{i}"
        more = {"kernel_shape": [2, 2], "strides": [2, 2]} if kind == "MaxPool" else shapes.get(kind, {})
        nodes.append(helper.make_node(kind, given, [x], name=x, **more))
    if end:
        nodes.append(helper.make_node(end, [x], ["y"], name="y"))
        x = "y"
    ends = (helper.make_tensor_value_info("input", 1, [1, 3, 8, 8]), helper.make_tensor_value_info(x, 1, None))
    graph = helper.make_graph(nodes, "network", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    module = module_of()
    x, y = pictures(400)
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(torch.from_numpy(x)), torch.from_numpy(y)).backward()
        optimizer.step()
    return module.eval()


@pytest.fixture(scope="module", params=["logits", "probabilities"])
def model(request: pytest.FixtureRequest, trained: nn.Module) -> ir.Model:
    """With two exits of least squares."""
    softmax = request.param == "probabilities"
    whole = load(file_of(trained, "Softmax" * softmax)).model
    made = with_exits(whole, exit_values(whole.graph, 2), "Softmax" if softmax else "")
    x, _ = pictures(200)
    data = TrainData.from_dataset(load_data({"x": x}, made.graph.inputs, Preprocess()), made)
    made = without_scales(fitted(made, data))
    said = OnnxRuntime(open_model(made)).run({"input": x})
    names = [v.name for v in made.graph.outputs]
    sure = [said[names.index(e.confidence)].max(axis=1) for e in exits(made.graph)]
    first = np.quantile(sure[0], 0.6)  # each exit takes some
    second = np.quantile(sure[1][sure[0] < first], 0.5)
    thresholds = [int(256 * limit) for limit in (first, second)]
    set_exits(made.graph, tuple(replace(e, threshold=t) for e, t in zip(exits(made.graph), thresholds, strict=True)))
    return made


def open_model(model: ir.Model) -> ir.Model:
    """The same without thresholds: all exits are outputs."""
    clone = model.clone()
    set_exits(clone.graph, ())
    return clone


def by_rule(model: ir.Model, outputs: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(output, exit) of each sample, one after the other."""
    named = dict(zip([v.name for v in model.graph.outputs], outputs, strict=True))
    given, taken = [], []
    for sample in range(len(outputs[0])):
        value, number = outputs[0][sample], len(exits(model.graph)) + 1
        for k, e in reversed(list(enumerate(exits(model.graph), 1))):
            if named[e.confidence][sample].max() >= e.threshold / 256:
                value, number = named[e.value][sample], k
        given.append(value)
        taken.append(number)
    return np.array(given), np.array(taken)


def run_pack(packed: TFLiteModel, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(outputs, exits taken) kernel by kernel."""
    run, (taken,), (given, _) = Executor(read_pack(packed.data).plan()), packed.inputs, packed.outputs
    pairs = [run(taken.to_device(sample[None])) for sample in x]
    return np.concatenate([given.from_device(y) for y, _ in pairs]), np.concatenate([which for _, which in pairs])


def run_tflite(file: TFLiteModel, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(outputs, exits taken) by what the file says itself: its signatures and metadata."""
    content = schema.ModelT.InitFromPackedBuf(file.data, 0)
    (entry,) = [m for m in content.metadata if m.name == b"early_exits"]
    rows = json.loads(bytes(content.buffers[entry.buffer].data))
    interpreter, given, taken = Interpreter(model_content=file.data), [], []
    for sample in x:
        values = {"input": file.inputs[0].to_device(sample[None])}
        for row in rows:
            runner = interpreter.get_signature_runner(row["signature"])
            values |= runner(**{name: values[name] for name in runner.get_input_details()})
            if row["threshold"] is None or real(runner, values, row["confidence"]).max() >= row["threshold"]:
                break
        given.append(real(runner, values, row["value"]))
        taken.append(1 + rows.index(row))
    return np.concatenate(given), np.array(taken)


def real(runner: object, values: dict[str, np.ndarray], name: str) -> np.ndarray:
    scale, zero = runner.get_output_details()[name]["quantization"]
    return (values[name].astype(np.float32) - zero) * np.float32(scale) if scale else values[name]


def test_float_files_end_where_the_rule_says(model: ir.Model) -> None:
    x, _ = pictures(60, seed=1)
    expected, taken = by_rule(model, OnnxRuntime(open_model(model)).run({"input": x}))
    assert set(taken) == {1, 2, 3}
    in_onnx = OnnxRuntime(onnx_emitter.emit(model)).run({"input": x})
    staged = tflite_emitter.emit(model)
    in_checks = LiteRT(staged.data, staged).run({"input": x})
    for found, which in (in_onnx, run_pack(pack_emitter.emit(model), x), run_tflite(staged, x), in_checks):
        np.testing.assert_array_equal(which, taken)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_int8_files_end_where_the_rule_says(model: ir.Model) -> None:
    x, _ = pictures(60, seed=1)
    data = load_data({"x": pictures(100)[0]}, model.graph.inputs, Preprocess())
    encoded = quantize(model, data, Quantize()).model
    outputs = OnnxRuntime(onnx_emitter.emit(open_model(encoded))).run({"input": x})
    expected, taken = by_rule(encoded, outputs)
    assert set(taken) == {1, 2, 3}
    found, which = OnnxRuntime(onnx_emitter.emit(encoded)).run({"input": x})
    np.testing.assert_array_equal(which, taken)
    steps = [q.scale[0] for v in encoded.graph.outputs if (q := quantization(v)) is not None]
    assert np.abs(found - expected).max() <= max(0.02, 1.01 * max(steps))  # a step of scores, by other fused kernels
    whole, (taken_in,) = pack_emitter.emit(open_model(encoded)), pack_emitter.emit(encoded).inputs
    run = Executor(read_pack(whole.data).plan())
    outputs = [np.concatenate(parts) for parts in zip(*(run(taken_in.to_device(sample[None])) for sample in x))]
    for dtype in (ir.DataType.FLOAT, ir.DataType.INT8):
        if dtype == ir.DataType.INT8:  # probabilities as they are stored
            stored = [v.name in {e.confidence for e in exits(encoded.graph)} for v in encoded.graph.outputs]
            outputs = [np.rint(y * 256) / 256 if known else y for known, y in zip(stored, outputs)]
        packed = pack_emitter.emit(encoded, io_dtype=dtype)
        expected, taken = by_rule(encoded, outputs)
        found, which = run_pack(packed, x)
        np.testing.assert_array_equal(which, taken)
        staged = tflite_emitter.emit(encoded, io_dtype=dtype)
        by_file = run_tflite(staged, x)[1]
        assert np.mean(by_file == taken) > 0.9  # optimised kernels may be a step off
        np.testing.assert_array_equal(LiteRT(staged.data, staged).run({"input": x})[1], by_file)
        step = packed.outputs[0].scale if dtype == ir.DataType.INT8 else 1e-6  # scores of exits have other scales
        assert np.abs(found - np.clip(expected, found.min(), found.max())).max() <= step


def test_what_an_exit_does_not_need_stands_behind_it(model: ir.Model) -> None:
    plan = read_pack(pack_emitter.emit(model).data).plan()
    kinds = [o.kind for o in plan.operators]
    first, second = (i for i, kind in enumerate(kinds) if kind == "EXIT")
    convolutions = [i for i, kind in enumerate(kinds) if kind == "CONV_2D"]
    assert len(convolutions) == 3 and convolutions[0] < first < convolutions[1] < second < convolutions[2]
    run, late = Executor(plan), plan.operators[convolutions[2]].outputs[0]
    x, _ = pictures(60, seed=1)
    for sample in x:
        run.tensor(late)
        run._arrays[plan.tensors[late]][:] = 7  # is written over where the layer runs
        which = run(np.ascontiguousarray(sample[None].transpose(0, 2, 3, 1)))[1]
        assert (run.tensor(late) == 7).all() == (which < 3)


def test_branches_of_an_onnx_file_hold_the_rest(model: ir.Model) -> None:
    graph = onnx.load_model_from_string(onnx_emitter.emit(model)).graph
    counts = []
    while graph is not None:
        counts.append(sum(node.op_type == "Conv" for node in graph.node))
        (inner,) = [n for n in graph.node if n.op_type == "If"] or [None]
        graph = None if inner is None else next(a.g for a in inner.attribute if a.name == "else_branch")
    assert counts == [1, 1, 1]


def test_costs_are_counted_in_the_files(model: ir.Model) -> None:
    macs = {str(node.name): record_of(node).macs(node) for node in model.graph}
    spent, packed = costs(model.graph), pack_emitter.emit(model)
    convolutions = 8 * 27 * 64, 16 * 72 * 64, 24 * 144 * 16
    heads = [
        statistics(model).layers[[x.name for x in statistics(model).layers].index(f"exit_{k}/scores")].macs
        for k in (1, 2)
    ]
    behind = np.array([heads[0], sum(heads), sum(heads) + 384 * 4])
    assert spent == tuple(np.cumsum(convolutions) + behind)
    files = {"onnx": onnx_emitter.emit(model), "pack": packed.data, "tflite": tflite_emitter.emit(model).data}
    for format, data in files.items():
        assert sum(count_file(data, format, macs).macs.values()) == spent[-1]


@pytest.mark.parametrize("max_drop", [0.0, 2.0, 20.0])
def test_the_lowest_threshold_is_that_of_all_thresholds(max_drop: float) -> None:
    generator = np.random.default_rng(0)
    confidence = generator.uniform(0.25, 1, (300, 2))
    right = np.column_stack([generator.uniform(0.1, 1.1, (300, 2)) < confidence, generator.uniform(size=300) < 0.95])
    found = lowest_threshold(Answers(confidence, right, (1, 2, 4)), max_drop)
    whole = 100 * right[:, 2].mean()

    def value(threshold: int) -> float:
        said = [
            r[0] if c[0] * 256 >= threshold else r[1] if c[1] * 256 >= threshold else r[2]
            for c, r in zip(confidence, right)
        ]
        return 100 * float(np.mean(said))

    holds = [value(t) >= whole - max_drop - 1e-9 for t in range(1, 257)]
    assert found == 1 + max((i + 1 for i, held in enumerate(holds) if not held), default=0) or found == 256


@pytest.mark.parametrize("max_drop", [0.0, 2.0, 20.0])
def test_two_exits_get_the_cheapest_thresholds_of_all(max_drop: float) -> None:
    generator, levels = np.random.default_rng(1), np.arange(1, 17)  # of sixteen confidences: few enough to try all
    sure = generator.integers(4, 17, (300, 2))
    exits_right = generator.uniform(2, 18, (300, 2)) < sure + np.array([0, 2])
    right = np.column_stack([exits_right, generator.uniform(size=300) < 0.95])
    value, cost = np.empty((16, 16)), np.empty((16, 16))
    for i, first in enumerate(levels):
        for k, second in enumerate(levels):
            taken = [0 if c[0] >= first else 1 if c[1] >= second else 2 for c in sure]
            value[i, k] = 100 * np.mean([r[t] for r, t in zip(right, taken)])
            cost[i, k] = np.mean([(1, 2, 4)[t] for t in taken])
    least = 100 * right[:, 2].mean() - max_drop - 1e-9
    holds = [[(value[i:, k:] >= least).all() for k in range(16)] for i in range(16)]
    answers = Answers(sure / 16, right, (1, 2, 4))
    chosen = answers.at(cheapest_thresholds(answers, max_drop))
    assert chosen.value >= least and chosen.macs == pytest.approx(cost[np.array(holds)].min())
    common = answers.at([lowest_threshold(answers, max_drop)] * 2)
    assert chosen.macs <= common.macs


def test_more_exits_cost_no_more_than_with_one_threshold() -> None:
    generator = np.random.default_rng(0)
    confidence = generator.uniform(0.25, 1, (400, 3))
    likely = generator.uniform(0.1, 1.1, (400, 3)) < confidence + np.array([0, 0.1, 0.2])
    answers = Answers(confidence, np.column_stack([likely, generator.uniform(size=400) < 0.95]), (1, 2, 3, 5))
    chosen = answers.at(cheapest_thresholds(answers, 2.0))
    assert chosen.macs < answers.at([lowest_threshold(answers, 2.0)] * 3).macs
    assert chosen.value >= answers.whole().value - 2.0


HEADS = {  # inputs, nodes, weights, and how the first exit reads its value
    "a sequence": (
        "3,16", "b=Conv<pads=[1,1]>(x,u) c=Relu(b) d=Conv<pads=[1,1]>(c,v) e=Flatten(d)", (8, 3, 3), (8, 8, 3),
        lambda c: c.mean(axis=2),
    ),
    "tokens": ("6,5", "b=MatMul(x,u) c=Relu(b) d=MatMul(c,v) e=Flatten(d)", (5, 7), (7, 7), lambda c: c.mean(axis=1)),
    "features": ("6", "b=MatMul(x,u) c=Relu(b) e=MatMul(c,v)", (6, 8), (8, 8), lambda c: c),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADS)
def test_an_exit_reads_the_mean_over_places_of_each_channel(name: str) -> None:
    size, text, first, second, mean = HEADS[name]
    generator, dims = np.random.default_rng(0), tuple(map(int, size.split(",")))
    depth = {"a sequence": 128, "tokens": 42, "features": 8}[name]
    head = f'<ir_version: 8, opset_import: ["" : 17]> g (float[1,{size}] x) => (float[1,4] y)'
    file = parser.parse_model(f"{head} {{ {text} y=MatMul(e,w) }}")
    for key, dim in (("u", first), ("v", second), ("w", (depth, 4))):
        file.graph.initializer.append(numpy_helper.from_array(generator.normal(0, 1, dim).astype(np.float32), key))
    whole = load(file).model
    x = generator.normal(0, 1, (50, *dims)).astype(np.float32)
    made = with_exits(whole, exit_values(whole.graph, ["c"]), "")
    data = TrainData.from_dataset(load_data({"x": x}, made.graph.inputs, Preprocess()), made)
    made = without_scales(fitted(made, data))
    weights = {name: np.asarray(v.const_value) for name, v in made.graph.initializers.items()}
    y, scores, *_, value = OnnxRuntime(open_model(made), extra_outputs=["c"]).run({"x": x})
    expected = mean(value) @ weights["exit_1/weight"].T + weights["exit_1/bias"]
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-3)
    centred = y - y.mean(axis=1, keepdims=True)
    assert np.square(scores - centred).mean() < np.square(centred - centred.mean(axis=0)).mean()  # than the mean alone


def test_exits_are_spread_by_computation() -> None:
    whole = load(file_of(module_of())).model
    # 13.8, 73.7 and 55.3 thousand multiply-accumulates: half of them lie in front of the second layer's end
    assert [v.producer().op_type for v in exit_values(whole.graph, 1)] == ["Relu"]
    assert len(exit_values(whole.graph, 99)) == 3  # the first ReLU, the second, and the pool behind it
    relus = [str(node.name) for node in whole.graph if node.op_type == "Relu"]
    assert [v.producer().name for v in exit_values(whole.graph, relus[:2])] == relus[:2]
    with pytest.raises(InputError, match=r"has no node 'layer9'"):
        exit_values(whole.graph, ["layer9"])
    with pytest.raises(InputError, match="no place for an exit"):
        exit_values(whole.graph, [str(whole.graph.outputs[0].name)])


def convert(
    folder: Path, model: onnx.ModelProto, labels: bool, target: str = "linux-x86", **options: object
) -> edgecompress.Result:
    x, y = pictures(400)
    tests = pictures(120, seed=2)
    settings = {"train": {"epochs": 6, "validation": 0.3}, "exit": {"after": 2, "max_drop": 3.0}}
    train, evaluated = {"x": x} | ({"y": y} if labels else {}), {"x": tests[0], "y": tests[1]}
    return edgecompress.convert(
        model, target, train=train, eval=evaluated, recipe=settings, output=folder / "out", **options
    )


def check_report(report: Report, format: str) -> None:
    found = report.exits
    assert found is not None and len(found.after) == 2 and found.macs == sorted(found.macs)
    chosen = next(row for row in found.thresholds if row.thresholds == found.chosen)
    whole = found.thresholds[-1]
    assert whole.thresholds is None and len(found.chosen) == 2
    assert whole.value - chosen.value <= 3.0 + 1e-9 and chosen.macs < 0.8 * whole.macs
    macs = [row.macs for row in found.thresholds]
    assert macs == sorted(macs) and macs[-1] == found.macs[-1]
    check = next(a for a in report.artifacts if a.format == format).checks[0]
    assert check.exits is not None and check.exits.macs < 0.8 * whole.macs
    assert check.reference_value is not None and check.value is not None and check.value > check.reference_value - 6
    shares, values = check.exits.shares, [v or 0.0 for v in check.exits.values]
    assert sum(shares) == pytest.approx(100) and np.dot(shares, values) / 100 == pytest.approx(check.value)


def test_a_conversion_trains_exits_and_says_what_they_cost(tmp_path: Path, trained: nn.Module) -> None:
    report = convert(tmp_path, file_of(trained), False, "android", formats=["tflite", "onnx"]).report
    for format in ("tflite", "onnx"):
        check_report(report, format)
    (path,) = (tmp_path / "out").glob("*.tflite")
    with pytest.raises(InputError, match="signatures stage_1, stage_2, stage_3"):
        open_artifact(path)


@pytest.mark.long
@CORTEX_M
def test_firmware_does_not_run_later_layers(tmp_path: Path, trained: nn.Module) -> None:
    formats = ["pack", "tflite"]
    report = convert(tmp_path, file_of(trained), True, "cortex-m4", formats=formats, devices=["qemu-m4"]).report
    assert "runs one graph to its end" in report.refused["tflite"]
    check_report(report, "pack")
    (run,) = report.devices
    assert run.equal and run.counts is not None
    assert run.counts.min < 0.5 * run.counts.max and run.counts.mean < 0.8 * run.counts.max


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"threshold": 0.26}, "a higher [exit] threshold than 0.26"),
        ({"max_drop": 80}, "a lower [exit] max_drop than 80"),
    ],
)
def test_the_verdict_says_what_to_do_where_exits_lose_too_much(
    tmp_path: Path, trained: nn.Module, settings: dict[str, float], remedy: str
) -> None:
    x, _ = pictures(200, seed=3)
    y = trained(torch.from_numpy(x)).argmax(1).numpy()  # all of which the whole network is right about
    recipe = {"train": {"epochs": 1, "validation": 0.3}, "exit": {"after": 2, **settings}, "evaluate": {"max_drop": 1}}
    report = edgecompress.convert(
        file_of(trained), "linux-x86", train={"x": x, "y": y}, eval={"x": x, "y": y}, recipe=recipe, formats=["onnx"],
        output=tmp_path / "out",
    ).report  # fmt: skip
    assert report.status == "accuracy-limit-exceeded"
    assert "points were lost before quantization" in report.verdict and "ask for less" not in report.verdict
    assert f"by 'early exits'; what can help: take exits less often ({remedy})" in report.verdict


def test_thresholds_of_another_number_of_exits_are_refused(tmp_path: Path) -> None:
    x, y = pictures(100)
    with pytest.raises(InputError, match=r"\[exit\] threshold has 2 numbers for 3 exits: give one, or one for each"):
        edgecompress.convert(
            file_of(module_of()), train={"x": x, "y": y}, recipe={"exit": {"after": 3, "threshold": [0.5, 0.9]}},
            output=tmp_path / "out",
        )  # fmt: skip


def test_other_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one output that holds scores or probabilities of classes"):
        convert(tmp_path, file_of(module_of(), "Sigmoid"), False, formats=["pack"])


def test_exits_need_training_data(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\[exit\] needs training data: give --train"):
        edgecompress.convert(file_of(module_of()), recipe={"exit": {"after": "auto"}}, output=tmp_path / "out")
