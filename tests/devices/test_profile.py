"""`profile`: what each layer costs, here and in firmware."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from layer_cases import FLOAT, VALID, Layers

from command import edgecompress
from edgecompress.api import convert
from edgecompress.devices import converted
from edgecompress.devices.bench import bench
from edgecompress.devices.profile import profile
from edgecompress.errors import DeviceFault, InputError
from edgecompress.recipe import Recipe
from edgecompress_runtime.execute import Executor
from edgecompress_runtime.operators import RECORDS
from edgecompress_runtime.pack import write_pack
from emulators import CORTEX_M


def network() -> Layers:
    """Four int8 layers side by side, of which the second has most of the work."""
    layers = Layers(0)
    layers.convolution((6, 6, 3), 4, (3, 3))
    layers.convolution((12, 12, 8), 16, (3, 3))
    layers.depthwise((6, 6, 8), (3, 3))
    layers.dense(1, 100, 10)
    return layers


DIGITS = Path(__file__).resolve().parents[2] / "samples" / "digits"
MACS = [6 * 6 * 4 * 27, 12 * 12 * 16 * 72, 6 * 6 * 8 * 9, 1000]


@pytest.fixture(scope="module")
def layered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("profile") / "layered.pack"
    path.write_bytes(write_pack(network().plan(), "layered"))
    return path


def test_layers_are_timed_on_this_machine(layered: Path) -> None:
    found = profile(layered, runs=20)
    assert [layer.operator for layer in found.layers] == ["CONV_2D", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"]
    assert [layer.macs for layer in found.layers] == MACS
    constants = [(4, 27), (16, 72), (8, 9), (10, 100)]
    assert [layer.constant_bytes for layer in found.layers] == [n * each + 4 * n for n, each in constants]
    assert found.unit == "ns" and found.runs == 20 and all(layer.cost > 0 for layer in found.layers)
    assert found.total == pytest.approx(sum(layer.cost for layer in found.layers), rel=0.5)
    assert max(map(len, str(found).splitlines())) <= 80 and "16,384" not in str(found) and "165,888" in str(found)


def test_a_conversion_for_devices_reports_what_layers_cost(tmp_path: Path) -> None:
    digits, out = DIGITS / "digits.onnx", tmp_path / "out"
    report = convert(
        digits, "linux-x86", calib=DIGITS / "train.npz", formats=["pack"], devices=["local"], output=out
    ).report
    (costs,) = report.layer_costs
    assert (costs.device, costs.unit, costs.runs) == ("local", "ns", 20)
    assert sum(layer.macs for layer in costs.layers) == report.model.macs
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Layers on local" in page and all(layer.name in page for layer in costs.layers)


def test_layers_that_can_not_be_measured_lose_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digits, out = DIGITS / "digits.onnx", tmp_path / "out"
    report = convert(digits, "linux-x86", calib=DIGITS / "train.npz", formats=["pack"], output=out).report

    def fails(*arguments: object, **options: object) -> None:
        raise DeviceFault("local: no answer")

    monkeypatch.setattr(converted, "profile", fails)
    found = converted.measured(report, out, Recipe(), None, ["local"], None)
    assert len(found.devices) == 1 and not found.layer_costs
    assert any("what its layers cost is not known: local: no answer" in note for note in found.notes)


@CORTEX_M
def test_firmware_counts_its_layers(layered: Path) -> None:
    code, out, error = edgecompress("profile", layered, "--device", "qemu-m4", "--runs", "2", "--json")
    assert code == 0, error
    found = json.loads(out)
    costs = [layer["cost"] for layer in found["layers"]]
    assert found["unit"] == "instructions" and [layer["macs"] for layer in found["layers"]] == MACS
    assert int(np.argmax(costs)) == 1 and costs[1] > sum(costs) / 2
    (whole,) = bench([layered], "qemu-m4", runs=1).results
    assert whole.counts is not None and sum(costs) == pytest.approx(whole.counts.min, rel=0.02)


def test_what_can_not_be_profiled_is_refused(layered: Path, tmp_path: Path, configured) -> None:
    with pytest.raises(InputError, match=r"m.onnx: expected a .pack"):
        from onnx import TensorProto, helper, save

        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
        save(
            helper.make_model(helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", ends[:1], ends[1:])),
            tmp_path / "m.onnx",
        )
        profile(tmp_path / "m.onnx")
    pi = {"driver": "ssh", "host": "127.0.0.1", "target": "raspberry-pi"}
    code, out, error = edgecompress("profile", layered, "--device", "pi", "--config", configured(pi=pi))
    assert code == 2 and out == "" and "device pi: expected local or one that runs firmware" in error
    code, _, error = edgecompress("profile", tmp_path / "none.pack")
    assert code == 2 and "none.pack" in error and error.count("\n") == 1


WINDOW = {"padding": VALID, "strideH": 2, "strideW": 1}
PRODUCTS = {  # kind: shapes of x, of weights or the other operand, of the result; options
    "CONV_2D": ((1, 7, 6, 4), (6, 3, 2, 2), (1, 3, 5, 6), WINDOW),
    "DEPTHWISE_CONV_2D": ((1, 7, 6, 3), (1, 3, 2, 6), (1, 3, 5, 6), {**WINDOW, "depthMultiplier": 2}),
    "TRANSPOSE_CONV": ((1, 3, 4, 5), (6, 3, 2, 5), (1, 7, 5, 6), WINDOW),
    "FULLY_CONNECTED": ((4, 9), (5, 9), (4, 5), {}),
    "BATCH_MATMUL": ((2, 3, 4, 5), (1, 3, 6, 4), (2, 3, 5, 6), {"adjX": True, "adjY": True}),
}


@pytest.mark.parametrize("kind", PRODUCTS)
def test_macs_are_the_products_that_are_added(kind: str) -> None:
    """Of ones: without padding, the sum of the results is the number of products."""
    x, w, y, options = PRODUCTS[kind]
    layers = Layers(0)
    ends = layers.tensor(x, FLOAT), layers.tensor(y, FLOAT)
    weights = layers.constant(np.ones(w, np.float32))
    operands = [layers.ints(*y), weights, ends[0]] if kind == "TRANSPOSE_CONV" else [ends[0], weights]
    layers.layer(kind, operands, [ends[1]], **options)
    plan = layers.plan()
    (operator,) = plan.operators
    inputs, outputs = [plan.tensors[i] for i in operator.inputs], [plan.tensors[i] for i in operator.outputs]
    (result,) = Executor(plan)(np.ones(x, np.float32))
    assert RECORDS[kind].macs(inputs, outputs, operator.options) == result.sum()
