"""What each group of channels is worth: the table fits, and the figures are those of the pruned models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import edgecompress.inspection.layer_sensitivity as command
from edgecompress.cli import main
from edgecompress.errors import InputError
from edgecompress.report.tables import as_text

SAMPLE = Path(__file__).parent.parent / "samples" / "digits"
MODEL, DATA = SAMPLE / "digits.onnx", SAMPLE / "test.npz"


def test_command(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["sensitivity", str(MODEL), "--eval", str(DATA), "--ratio", "0.5", "--json", "--samples", "200"])
    found = json.loads(capsys.readouterr().out)
    assert not stopped.value.code and found["ratios"] == [0.5] and found["samples"] == 200
    with np.load(DATA) as z:
        x, y = z["x"][:200].astype(np.float32), z["y"][:200]
    session = onnxruntime.InferenceSession(str(MODEL), providers=["CPUExecutionProvider"])
    name, shape = session.get_inputs()[0].name, [1, *session.get_inputs()[0].shape[1:]]
    predicted = [int(session.run(None, {name: sample.reshape(shape)})[0].argmax()) for sample in x]
    assert found["original"] == pytest.approx(100 * np.mean(predicted == y))
    values = [g["values"][0] for g in found["groups"]]
    assert values == sorted(values, reverse=True) and min(values) < found["original"]
    assert all(g["macs"][0] < found["original_macs"] for g in found["groups"])
    assert any("stay" in note for note in found["fixed"])


def test_table_fits_and_snr_without_labels():
    with np.load(DATA) as z:
        found = command.sensitivity(MODEL, z["x"], samples=50)
    assert found.metric == "SNR dB" and found.original is None
    assert all(list(g.values) == sorted(g.values, reverse=True) for g in found.groups)
    assert max(map(len, as_text(found.__rich__()).splitlines())) <= 80


def test_a_group_that_nobody_reads_costs_nothing():
    """All weights that read it made zero: nothing is lost, whatever goes."""
    model = onnx.load(MODEL)
    first = command.sensitivity(MODEL, DATA, ratios=[0.5], samples=50).groups[-1].name
    from edgecompress.analysis.channel_groups import channel_groups
    from edgecompress.ingest import load

    group = next(g for g in channel_groups(load(model).model) if g.name == first)
    readers = {x.weight for x in group.read_by}
    for tensor in model.graph.initializer:
        if tensor.name in readers:
            tensor.CopyFrom(onnx.numpy_helper.from_array(0 * onnx.numpy_helper.to_array(tensor), tensor.name))
    found = command.sensitivity(model, DATA, ratios=[0.25, 0.75], samples=50)
    values = next(g.values for g in found.groups if g.name == first)
    assert values == [found.original, found.original]


@pytest.mark.parametrize("ratios", [[], [0.0], [1.0], [-1.0]])
def test_ratios_are_shares(ratios):
    with pytest.raises(InputError, match="ratios"):
        command.sensitivity(MODEL, DATA, ratios=ratios)


def test_criteria(tmp_path):
    """All that look at no training, with labels and without; what scores alike finds the same."""
    pytest.importorskip("torch")
    own = tmp_path / "mine.py"
    own.write_text("def size(weight, known):\n    assert known.gradient is not None\n    return abs(weight)\n")
    found = {
        c: command.sensitivity(MODEL, DATA, ratios=[0.5], samples=50, criterion=c).groups
        for c in ("l1", f"{own}:size", "fisher", "taylor", "activation", "random")
    }
    assert found["l1"] == found[f"{own}:size"] and len({str(groups) for groups in found.values()}) == 5
    with np.load(DATA) as z:
        x = z["x"][:50]
    assert command.sensitivity(MODEL, x, ratios=[0.5], criterion="fisher").criterion == "fisher"
    for criterion, message in {
        "taylor": "needs class labels",
        "movement": "single weights only",
        "no-such-one": "'no-such-one': expected one of .*l1, .*l2, .*file.py",
        f"{own}:nobody": "no function 'nobody'",
        "scale": "no BatchNormalization",
    }.items():
        with pytest.raises(InputError, match=message):
            command.sensitivity(MODEL, x, ratios=[0.5], criterion=criterion)


def test_scales_of_batchnorm():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.Conv2d(4, 2, 3),
        torch.nn.Flatten(),
        torch.nn.Linear(32, 3),
    )
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([1.0, 0.0, 1.0, 0.0]))  # and no bias: two channels are always zero
    x = np.random.default_rng(0).normal(size=(20, 1, 8, 8)).astype(np.float32)
    with pytest.raises(InputError, match="no BatchNormalization follows"):  # of the second layer
        command.sensitivity(network.eval(), x, criterion="scale", ratios=[0.5], input_shapes={"input": (1, 1, 8, 8)})
    network[3] = torch.nn.Sequential(network[3], torch.nn.BatchNorm2d(2).eval())
    found = command.sensitivity(network, x, criterion="scale", ratios=[0.5], input_shapes={"input": (1, 1, 8, 8)})
    assert found.groups[0].channels == 4 and found.groups[0].values[0] > 100  # dB
