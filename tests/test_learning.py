"""`convert --train`: every stage in one run on the sample, what the report says of it, and stopping in between."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import edgecompress
from edgecompress.errors import InputError

pytest.importorskip("torch")

DIGITS = Path(__file__).parent.parent / "samples" / "digits"
MODEL, TRAIN, TEST = DIGITS / "digits.onnx", DIGITS / "train.npz", DIGITS / "test.npz"
RECIPE = """
[train]
optimizer = "adam"
lr = 0.002
batch = 64
epochs = 2
[prune]
parameters = 0.8
sparsity = 0.6
[quantize]
epochs = 1
lr = 0.0003
[cluster]
bits = 3
epochs = 1
lr = 0.0003
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "all.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory, recipe):
    """A run that nothing stops."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    return edgecompress.convert(
        MODEL, "cortex-m4", train=TRAIN, eval=TEST, recipe=recipe, formats=["pack", "tflite"], output=folder
    )


def test_all_stages_in_one_run(whole) -> None:
    report = whole.report
    assert [
        s.name
        for s in report.stages
        if s.name not in ("import", "float reference", "check on calibration data", "diagnose")
    ] == [
        "prune channels",
        "prune weights",
        "quantize",
        "quantization-aware training",
        "cluster",
        "train codebooks",
        "emit pack",
        "emit tflite",
        "check pack",
        "check tflite",
    ]
    assert [h.stage for h in report.training] == ["prune channels", "prune", "quantization-aware training", "codebooks"]
    kept, pruned, clustered = report.goals
    assert kept.what == "parameters kept" and kept.achieved <= kept.requested == 80
    assert pruned.what == "zero weights" and pruned.achieved == pytest.approx(60, abs=2)
    pack, _ = report.artifacts  # what the clusters are said to take is in the file, which has little else
    assert (clustered.unit, clustered.requested) == ("bits", 3)
    assert 0 < clustered.achieved * sum(x.weights or 0 for x in report.layers) / 8 < pack.bytes
    assert not whole.directory.with_name("out.checkpoints").exists()
    assert report.requested.training is not None and report.requested.training.samples == len(np.load(TRAIN)["y"])
    # the sample's float model has 98.9 %; a tenth of it is chance
    assert all(c.value > 90 for a in report.artifacts for c in a.checks if c.value is not None)


def test_zeros_and_few_values_arrive_in_the_artifact(whole) -> None:
    """Counted in the .tflite as LiteRT reads it."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(whole.artifacts["tflite"]))
    interpreter.allocate_tensors()
    weights = [
        interpreter.get_tensor(detail["index"])
        for detail in interpreter.get_tensor_details()
        if detail["dtype"] == np.int8 and len(detail["quantization_parameters"]["scales"]) > 1
    ]
    assert len(weights) == 5
    assert all(len(np.unique(w)) <= 8 for w in weights)  # 2^bits
    zero, total = sum(int((w == 0).sum()) for w in weights), sum(w.size for w in weights)
    assert zero / total > 0.59  # 0.6, and channels of a padded layer are none of them


def test_a_stopped_run_goes_on_to_the_same_bytes(whole, recipe, tmp_path, monkeypatch) -> None:
    """Stopped in the third of four trainings, as by a kill: nothing is cleaned up."""
    from edgecompress.train import checkpoint

    class Killed(BaseException):
        pass

    saved, saves = checkpoint.save, []

    def save(path: Path, state: dict) -> None:
        saved(path, state)
        saves.append(path.name)
        if len(saves) == 5:
            raise Killed

    arguments = dict(train=TRAIN, eval=TEST, recipe=recipe, formats=["pack"], output=tmp_path / "out")
    monkeypatch.setattr(checkpoint, "save", save)
    with pytest.raises(Killed):
        edgecompress.convert(MODEL, "cortex-m4", **arguments)
    assert saves[-1] == "quantization-aware-training.pt" and not (tmp_path / "out").exists()
    saves.clear()
    resumed = edgecompress.convert(MODEL, "cortex-m4", resume=True, **arguments)
    assert saves == ["codebooks.pt"]  # what had been finished was not trained again
    assert resumed.artifacts["pack"].read_bytes() == whole.artifacts["pack"].read_bytes()


@pytest.mark.long
def test_a_student_takes_the_models_place(tmp_path) -> None:
    path = tmp_path / "student.toml"
    path.write_text('[distill]\nwidth = 0.5\n[train]\noptimizer = "adam"\nlr = 0.005\nepochs = 12\nbatch = 32\n')
    result = edgecompress.convert(
        MODEL, train=np.load(TRAIN)["x"], eval=TEST, recipe=path, formats=["onnx"], output=tmp_path / "out"
    )
    stage = next(s for s in result.report.stages if s.name == "distill")
    assert stage.macs < 0.35 * result.report.model.macs
    assert stage.accuracy > 80  # it saw no labels


@pytest.mark.long
def test_network_slimming(tmp_path) -> None:
    recipe = tmp_path / "slim.toml"
    recipe.write_text('[train]\nepochs = 1\nlr = 0.02\n[prune]\nmacs = 0.5\ncriterion = "scale"\n')
    made = edgecompress.convert(
        MODEL, "cortex-m4", train=TRAIN, eval=TEST, recipe=recipe, formats=["tflite"], output=tmp_path / "out"
    )
    assert [h.stage for h in made.report.training] == ["network slimming", "prune channels"]
    assert made.report.goals[0].achieved <= 50
    assert all(c.value > 80 for a in made.report.artifacts for c in a.checks if c.value is not None)


def test_what_needs_training_data_says_so(recipe, tmp_path) -> None:
    with pytest.raises(InputError, match=r"\[quantize\] epochs, \[cluster\] epochs needs training data: give --train"):
        edgecompress.convert(MODEL, calib=TRAIN, recipe=recipe, output=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_report_holds_every_epoch(whole) -> None:
    report = json.loads((whole.directory / "report.json").read_text())
    assert [len(h["epochs"]) for h in report["training"]] == [2, 2, 1, 1]
    assert all(h["validation_samples"] > 0 for h in report["training"])


@pytest.fixture
def no_training(monkeypatch) -> None:
    def trained(*_):
        raise AssertionError("something was trained first")

    monkeypatch.setattr("edgecompress.train.loop._Run.__call__", trained)


@pytest.mark.parametrize(
    "text, message",
    [
        (
            '[prune]\nmacs = 0.7\nsparsity = 0.5\ncriterion = "scale"',
            'criterion = "scale" scores channels only; for weights',
        ),
        (
            '[prune]\nmacs = 0.7\nsparsity = 0.5\nallocation = "capacity"',
            "applies to channels only; for weights use uniform",
        ),
        ('[prune]\nmacs = 0.7\ncriterion = "movement"', "scores single weights only; for channels use"),
        (
            '[prune]\nmacs = 0.7\nsparsity = 0.5\nschedule = "lottery"',
            "applies to single weights only; for channels use",
        ),
        ("[prune]\nmacs = 0.7\nparameters = 0.5", "prune.macs and prune.parameters each say"),
        ('[prune]\nmacs = 0.7\npattern = "2:4"\nsparsity = 0.8', '"2:4" makes 50 % of the weights zero: remove'),
        ('[prune]\nmacs = 0.7\npattern = "block:4x1"', '"block:4x1" needs prune.sparsity'),
        ('[prune]\nmacs = 0.7\npattern = "4:4"', "prune.pattern: expected"),
        (
            '[prune]\nsparsity = 0.5\nschedule = "lottery"\nrewind = 3',
            "rewind = 3 is after the end of training (2 epochs)",
        ),
        (
            "[prune]\nsparsity = 0.5\nrounds = 3",
            'prune.rounds applies only to prune.schedule = "iterative" and "lottery"',
        ),
        ("[prune]\nsparsity = 0.5\nrewind = 1", 'prune.rewind applies only to prune.schedule = "lottery"'),
        ('[prune]\nmacs = 0.7\ncriterion = "none.py:f"', "none.py:f: there is no file none.py"),
        ('[prune]\nsparsity = 0.7\nkeep = ["nobody"]\n[distill]', "prune.keep: 'nobody' is no layer with weights"),
        ('[prune]\nmacs = 0.7\n[quantize]\nfloat_layers = ["nobody"]', "no node or value named 'nobody'"),
        ('[prune]\nmacs = 0.7\n[quantize]\nweights = "float16"\nepochs = 2', "quantize.epochs trains int8 weights"),
        (
            "[prune]\nmacs = 0.7\n[cluster]\nepochs = 2",
            "[cluster] epochs trains clusters, but none are asked for: add bits",
        ),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_trained(no_training, tmp_path, text: str, message: str) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f"{text}\n[train]\nepochs = 2\n")
    with pytest.raises(InputError) as caught:
        edgecompress.convert(MODEL, "android", train=TRAIN, recipe=recipe, output=tmp_path / "out")
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [recipe]


@pytest.mark.parametrize(
    "text, message",
    [
        ('macs = 0.7\ncriterion = "fisher"', 'prune.criterion = "fisher" needs training data: give --train'),
        ('macs = 0.7\ncriterion = "activation"', 'prune.criterion = "activation" needs training data: give --train'),
        ('macs = 0.7\nschedule = "iterative"', 'prune.schedule = "iterative" needs training data: give --train'),
        ('sparsity = 0.7\nschedule = "lottery"', 'prune.schedule = "lottery" needs training data: give --train'),
        ('sparsity = 0.7\nallocation = "sensitivity"', 'prune.allocation = "sensitivity" needs training data'),
        ("blocks = 1", "prune.blocks needs training data: give --train"),
    ],
)
def test_what_needs_training_data_to_prune_says_so(tmp_path, text: str, message: str) -> None:
    (tmp_path / "recipe.toml").write_text(f"[prune]\n{text}\n")
    with pytest.raises(InputError, match=message):
        edgecompress.convert(MODEL, "android", recipe=tmp_path / "recipe.toml", output=tmp_path / "out")


def test_slimming_needs_scales_everywhere_before_it_trains(no_training, tmp_path) -> None:
    import torch

    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 8), torch.nn.ReLU(), torch.nn.Linear(8, 10))
    (tmp_path / "recipe.toml").write_text('[prune]\nmacs = 0.5\ncriterion = "scale"\n')
    with pytest.raises(InputError, match="no BatchNormalization follows"):
        edgecompress.convert(
            network,
            train=TRAIN,
            recipe=tmp_path / "recipe.toml",
            output=tmp_path / "out",
            input_shapes={"input": (1, 1, 8, 8)},
        )
    assert [p.name for p in tmp_path.iterdir()] == ["recipe.toml"]


@pytest.mark.long
def test_channels_in_rounds(tmp_path) -> None:
    (tmp_path / "recipe.toml").write_text(
        '[train]\nepochs = 1\noptimizer = "adam"\nlr = 0.002\n[prune]\nmacs = 0.5\nschedule = "iterative"\nrounds = 3\n'
    )
    made = edgecompress.convert(
        MODEL, train=TRAIN, eval=TEST, recipe=tmp_path / "recipe.toml", formats=["onnx"], output=tmp_path / "out"
    )
    names = ["prune channels, round 1 of 3", "prune channels, round 2 of 3", "prune channels"]
    assert [h.stage for h in made.report.training] == names
    (goal,) = made.report.goals
    stage = next(s for s in made.report.stages if s.name == "prune channels")
    assert 40 < goal.achieved <= goal.requested == 50
    assert 100 * stage.macs / made.report.model.macs == pytest.approx(goal.achieved) and stage.accuracy > 90


def test_blocks_are_a_goal_of_their_own(exported, tmp_path) -> None:
    x = np.random.default_rng(0).normal(0, 1, (40, 3, 16, 16)).astype(np.float32)
    (tmp_path / "recipe.toml").write_text("[train]\nepochs = 1\nbatch = 20\n[prune]\nblocks = 1\n")
    made = edgecompress.convert(
        exported("residual"), train=x, recipe=tmp_path / "recipe.toml", formats=["onnx"], output=tmp_path / "out"
    )
    (goal,) = made.report.goals
    assert (goal.what, goal.unit, goal.requested, goal.achieved) == ("left out", "blocks", 1, 1)
    assert "1 block " in str(made)
    assert any("block that ends in" in note for note in made.report.notes)


def test_a_pattern_without_training_says_what_it_leaves(tmp_path) -> None:
    (tmp_path / "recipe.toml").write_text('[prune]\nsparsity = 0.5\npattern = "2:4"\n')
    made = edgecompress.convert(MODEL, recipe=tmp_path / "recipe.toml", formats=["onnx"], output=tmp_path / "out")
    notes = "\n".join(made.report.notes)
    assert "2:4 leaves 1 of 1 inputs" in notes and 'prune.schedule = "gradual" needs training data' in notes
