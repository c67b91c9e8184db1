"""The gate: which artifacts leave with exit code 0. Chance is SciPy's binomial test, kappa is scikit-learn's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from scipy.stats import binomtest
from sklearn.metrics import cohen_kappa_score

from command import edgecompress
from edgecompress.evaluate.dataset import load_data
from edgecompress.evaluate.gate import CHANCE, Verdict, chance, judge
from edgecompress.evaluate.metrics import Paired, paired, same_classes
from edgecompress.evaluate.verify import Check, Reference, compare, reference
from edgecompress.recipe import Evaluate, Preprocess
from edgecompress.report import summaries
from edgecompress.report.terminal import snr_cell
from test_interpreters import parse

RNG = np.random.default_rng(0)
DEFAULTS = Evaluate()
LOGITS = RNG.normal(size=(400, 5)).astype(np.float32) * 4
OTHER = RNG.normal(size=(400, 3)).astype(np.float32)
LABELS = LOGITS.argmax(axis=1)


# The first output is scores of classes, which have another shape than the input.
GRAPH = """(float[1, 5, 1] a, float[1, 3] b) => (float[1, 5] y, float[1, 3] z) {
    s = Constant<value_ints=[1, 5]>() r = Reshape(a, s) y = Neg(r) z = Neg(b) }"""


class Outputs:
    """An interpreter that says what it is told."""

    name, version = "told", "1"

    def __init__(self, outputs: Sequence[np.ndarray]) -> None:
        self.outputs = list(outputs)

    def run(self, inputs: object) -> list[np.ndarray]:
        return self.outputs


def case(outputs: Sequence[np.ndarray], labels: np.ndarray | None = None, graph: str = "") -> tuple[Reference, Check]:
    """A model that passes on its two inputs, and what an artifact with these outputs is found to be."""
    model = parse(graph or GRAPH)
    shape = model.graph.inputs[0].shape
    inputs = {"a": -LOGITS.reshape(400, *shape.numpy()[1:]), "b": -OTHER}
    data = inputs if labels is None else (inputs, labels)
    exact = reference(model, load_data(data, model.graph.inputs, Preprocess()))
    return exact, compare(Outputs(outputs), exact.dataset, outputs, exact)


def noisy(x: np.ndarray, decibels: float) -> np.ndarray:
    noise = RNG.normal(size=x.shape) * np.sqrt(np.mean(np.square(x)) / 10 ** (decibels / 10))
    return (x + noise).astype(np.float32)


def wrong(n: int) -> np.ndarray:
    """The logits, but n samples whose class is another: float is right on every one."""
    x = LOGITS.copy()
    x[:n] = np.roll(x[:n], 1, axis=1)
    return x


def texts(verdict: Verdict) -> str:
    return "; ".join(s.text for s in verdict.shortfalls)


NAN = OTHER * np.where(np.arange(3) == 1, np.nan, 1).astype(np.float32)
WITHOUT_LABELS = {
    "above": ([noisy(LOGITS, 21), noisy(OTHER, 21)], {}, ""),
    "below in one output": ([noisy(LOGITS, 21), noisy(OTHER, 18)], {}, "dB, and at least 20 dB are asked for"),
    "worst first": ([noisy(LOGITS, 9), noisy(OTHER, 5)], {}, "output 'y': 9"),
    "a limit of the user's": ([noisy(LOGITS, 31), noisy(OTHER, 29)], {"min_snr": 30.0}, "output 'z': 29"),
    "turned off": ([noisy(LOGITS, 2), noisy(OTHER, 2)], {"min_snr": 0.0}, ""),
    "NaN": ([LOGITS, NAN], {}, "output 'z': values are lost or not finite"),
    "infinite": ([LOGITS, np.full_like(OTHER, np.inf)], {}, "output 'z': values are lost"),
    "exact": ([LOGITS, OTHER], {"min_snr": 200.0}, ""),
}


@pytest.mark.parametrize("name", WITHOUT_LABELS)
def test_without_labels_every_slice_has_to_be_good(name):
    outputs, settings, expected = WITHOUT_LABELS[name]
    exact, check = case(outputs)
    verdict = judge(check, exact, Evaluate(**settings))
    assert (expected in texts(verdict)) if expected else not verdict.shortfalls
    assert not verdict.loses_accuracy


FEW = {  # dB of each of twelve samples in turn, labels, and whether chance may hide that the limit is missed
    "much above": ([30.0], False, False),
    "all alike": ([20.5], False, False),
    "two bad ones": ([40.0] * 5 + [14.0], False, True),
    "two bad ones, with labels": ([40.0] * 5 + [14.0], True, False),
}


@pytest.mark.parametrize("name", FEW)
def test_what_few_samples_say_by_chance_is_doubted(name):
    decibels, labelled, doubted = FEW[name]
    model, few = (
        parse("(float[1, 40] a) => (float[1, 40] y) { y = Neg(a) }"),
        RNG.normal(size=(12, 40)).astype(np.float32),
    )
    found = np.concatenate([noisy(few[i : i + 1], decibels[i % len(decibels)]) for i in range(12)])
    given = (-few, few.argmax(1)) if labelled else -few
    exact = reference(model, load_data(given, model.graph.inputs, Preprocess()))
    verdict = judge(compare(Outputs([found]), exact.dataset, [found], exact), exact, DEFAULTS)
    assert not verdict.shortfalls and bool(verdict.doubts) == doubted == (verdict.deficit > 0)
    assert not doubted or "more samples tell" in verdict.doubts[0].text


BEHIND = {  # what the graph ends with, and whether equal classes suffice there
    "a Softmax": ("y = Softmax(n)", True),
    "the logarithm of one": ("y = LogSoftmax(n)", True),
    "a Softmax, reshaped": ("p = Softmax(n) y = Reshape(p, s)", True),
    "no Softmax": ("y = Neg(r)", False),
    "a Sigmoid": ("y = Sigmoid(n)", False),
}


@pytest.mark.parametrize("name", BEHIND)
def test_equal_classes_pass_below_the_limit_where_the_model_says_that_they_are_classes(name):
    end, suffices = BEHIND[name]
    start = "s = Constant<value_ints=[1, 5]>() r = Reshape(a, s) n = Neg(r)"
    exact, _ = case([LOGITS], graph=f"(float[1, 5, 1] a) => (float[1, 5] y) {{ {start} {end} }}")
    (y,) = exact.outputs
    order = np.argsort(np.argsort(y, axis=1), axis=1)

    def verdict(changed: int, settings: Evaluate) -> tuple[Check, Verdict]:
        """Of outputs in the same order as the right ones, but for some samples."""
        low = (order * 3 + 40).astype(np.float32)
        low[:changed] = np.roll(low[:changed], 1, axis=1)
        check = compare(Outputs([low]), exact.dataset, [low], exact)
        assert check.snr_db is not None and check.snr_db < 10
        return check, judge(check, exact, settings)

    check, found = verdict(0, DEFAULTS)
    assert check.agreement_percent == 100 and (not found.shortfalls) == suffices
    assert verdict(0, Evaluate(min_snr=21))[1].shortfalls
    assert (not verdict(11, DEFAULTS)[1].shortfalls) == suffices  # 97.25 %
    assert verdict(13, DEFAULTS)[1].shortfalls  # 96.75 %


def test_always_the_same_class_says_nothing():
    one = LOGITS * np.float32(0.01) + np.array([9, 0, 0, 0, 0], np.float32)
    other = RNG.normal(size=(400, 2, 2)).astype(np.float32)
    model = parse("(float[1, 5] a) => (float[1, 5] y) { y = Softmax(a) }")
    exact = reference(model, load_data(one, model.graph.inputs, Preprocess()))
    found = one.copy()
    found[:, 1:] = other.reshape(400, 4) * 4
    check = compare(Outputs([found]), exact.dataset, [found], exact)
    assert exact.classifier and judge(check, exact, DEFAULTS).shortfalls


@pytest.mark.parametrize(("equal", "passes"), [(396, True), (395, True), (388, True), (387, False), (300, False)])
def test_indices_of_classes_agree_to_97_percent(equal, passes):
    graph = "(float[1, 5] a, float[1, 3] b) => (int64[1] y) { n = Neg(a) y = ArgMax<axis=1, keepdims=0>(n) }"
    found = LABELS.copy()
    found[equal:] = (found[equal:] + 1) % 5
    exact, check = case([found], graph=graph)
    assert check.equal_percent == pytest.approx(equal / 4) == check.agreement_percent
    assert (not judge(check, exact, DEFAULTS).shortfalls) == passes
    assert (not judge(check, exact, Evaluate(min_equal=99.5)).shortfalls) == (equal > 398)
    assert not judge(check, exact, Evaluate(min_equal=0)).shortfalls


@pytest.mark.parametrize(("equal", "passes"), [(1200, True), (1188, True), (1187, False), (0, False)])
def test_other_integers_agree_to_99_percent(equal, passes):
    graph = "(float[1, 5] a, float[1, 3] b) => (int32[1, 3] y) { s = Round(b) y = Cast<to=6>(s) }"
    exact = np.round(-OTHER).astype(np.int32)
    found = exact.copy().reshape(-1)
    found[equal:] += 1
    of, check = case([found.reshape(exact.shape)], graph=graph)
    assert check.equal_percent == pytest.approx(equal / 12) and check.snr_db is None
    verdict = judge(check, of, DEFAULTS)
    assert (not verdict.shortfalls) == passes
    assert passes or "% of the values are equal, and at least 99 % are asked for" in texts(verdict)


TWO = """(float[1, 5] a, float[1, 3] b) => (float[1, 5] y, int32[1, 3] z) {
    y = Neg(a) s = Round(b) z = Cast<to=6>(s) }"""
WHOLE = np.round(-OTHER).astype(np.int32)
EXACT = {  # the outputs of an artifact, the graph: whether a report says exact, and in its column of ratios
    "all are equal": ([LOGITS, OTHER], GRAPH, True, "exact"),
    "one value is not": ([LOGITS + np.float32(1e-3) * (np.arange(5) == 2), OTHER], GRAPH, False, None),
    "integers too": ([LOGITS, WHOLE], TWO, True, "exact"),
    "an integer is not": ([LOGITS, WHOLE + (np.arange(1200) == 7).reshape(400, 3)], TWO, False, "exact"),
    "lost": ([LOGITS, NAN], GRAPH, False, "lost"),
    "never finite": ([np.full_like(LOGITS, np.nan), np.full_like(OTHER, np.inf)], GRAPH, False, "lost"),
}


@pytest.mark.parametrize("name", EXACT)
def test_a_report_says_exact_where_all_was_compared_and_is_equal(name):
    outputs, graph, exact, cell = EXACT[name]
    found = summaries.check(case(outputs, graph=graph)[1])
    assert found.exact == exact and (cell is None or snr_cell(found) == cell)


def test_a_report_does_not_say_exact_of_what_was_not_compared():
    found = summaries.check(Check("TFLM", "1", "top1", None, None, None, (), 0, "it lacks EXP"))
    assert not found.exact and snr_cell(found) == "-"


WITH_LABELS = {
    "no loss, whatever the ratio": (wrong(0) * np.float32(0.3), {}, "ok"),
    "one point": (wrong(4), {}, "ok"),
    "more than a point, by chance": (wrong(6)[:, ::1], {"flip": 6}, "note"),
    "more than chance explains": (wrong(8), {}, "accuracy"),
    "asked for, strictly": (wrong(5), {"max_drop": 1.0}, "accuracy"),
    "asked for, and met": (wrong(8), {"max_drop": 2.0}, "ok"),
    "none at all": (wrong(1), {"max_drop": 0.0}, "accuracy"),
    "NaN, whatever the accuracy": (np.where(np.eye(400, 5, k=-7) > 0, np.nan, LOGITS), {}, "lost"),
}


@pytest.mark.parametrize("name", WITH_LABELS)
def test_with_labels_the_metric_decides(name):
    scores, settings, expected = WITH_LABELS[name]
    labels, settings = LABELS.copy(), dict(settings)
    flip = settings.pop("flip", 0)  # of the last samples the labels are others, so that float is wrong there
    if flip:
        labels[-flip:] = (labels[-flip:] + 1) % 5
        scores = scores.copy()
        scores[-1] = np.roll(scores[-1], 1)  # gained
    exact, check = case([scores, OTHER], labels)
    verdict = judge(check, exact, Evaluate(**settings))
    assert verdict.loses_accuracy == (expected == "accuracy")
    assert bool(verdict.notes) == (expected == "note")
    assert ("lost or not finite" in texts(verdict)) == (expected == "lost")
    assert bool(verdict.shortfalls) == (expected in ("accuracy", "lost"))


def test_outputs_that_the_metric_does_not_read_have_their_ratio():
    exact, check = case([LOGITS, noisy(OTHER, 6)], LABELS)
    verdict = judge(check, exact, DEFAULTS)
    assert not verdict.loses_accuracy and "output 'z': 6" in texts(verdict)


def test_few_labels_leave_it_to_the_ratio():
    few = slice(0, 12)
    model = parse("(float[1, 5] a) => (float[1, 5] y) { y = Neg(a) }")
    exact = reference(model, load_data((-LOGITS[few], LABELS[few]), model.graph.inputs, Preprocess()))
    bad = wrong(4)[few]
    assert chance(Paired(4, 0)) > CHANCE
    check = compare(Outputs([bad]), exact.dataset, [bad], exact)
    assert judge(check, exact, DEFAULTS).loses_accuracy


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (1, 0), (4, 0), (5, 0), (7, 4), (30, 12), (0, 9), (200, 150)])
def test_chance_is_the_sign_test(lost, gained):
    expected = binomtest(lost, lost + gained, alternative="greater").pvalue if lost + gained else 1.0
    assert chance(Paired(lost, gained)) == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(50, 4), (50, 4, 3, 3), (50, 2)])
def test_predictions_are_paired_and_compared_beyond_chance(shape):
    a, b = RNG.normal(size=shape), RNG.normal(size=shape)
    b[:40] = a[:40]
    first, second = (x.argmax(axis=1).reshape(50, -1) for x in (a, b))
    same = same_classes(a, b)
    assert same.percent == pytest.approx(100 * np.mean(first == second))
    assert same.kappa == pytest.approx(cohen_kappa_score(first.ravel(), second.ravel()))
    assert paired(a, b, first) == Paired(int(np.any(first != second, axis=1).sum()), 0)
    assert paired(b, a, first) == Paired(0, int(np.any(first != second, axis=1).sum()))


# the command ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def deep(tmp_path_factory) -> tuple[Path, Path]:
    """A network that int8 does not take well, and data: products of differences."""
    folder = tmp_path_factory.mktemp("deep")
    weights = [RNG.normal(size=(24, 24)).astype(np.float32) / 5 for _ in range(6)]
    nodes, name = [], "x"
    for i in range(6):
        nodes += [helper.make_node("MatMul", [name, f"w{i}"], [f"m{i}"], name=f"layer{i}"),
                  helper.make_node("Mul", [f"m{i}", f"m{i}"], [f"s{i}"]), helper.make_node("Sub", [f"s{i}", f"m{i}"],
                                                                                           [f"h{i}"])]  # fmt: skip
        name = f"h{i}"
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "deep", [value("x", TensorProto.FLOAT, [1, 24])], [value(name, TensorProto.FLOAT, [1, 24])],
        [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)])  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "deep.onnx").write_bytes(model.SerializeToString())
    np.savez(folder / "data.npz", x=RNG.normal(size=(64, 24)).astype(np.float32))
    return folder / "deep.onnx", folder / "data.npz"


@pytest.mark.parametrize(
    ("options", "code"), [(["--min-snr", "0"], 0), (["--min-snr", "90"], 4), (["--min-snr", "1"], 0)]
)
def test_below_the_limit_is_exit_4_with_one_line(deep, tmp_path, options, code):
    model, data = deep
    out = tmp_path / "out"
    found, printed, _ = edgecompress(
        "convert", model, "--target", "cortex-m4", "--calib", data, "-o", out, *map(str, options)
    )
    report = json.loads((out / "report.json").read_text())
    (artifact,) = report["artifacts"]
    assert found == code, printed
    assert (out / artifact["path"]).is_file() and (out / "report.html").is_file()
    assert report["status"] == ("quality-below-limit" if code else "ok") and bool(report["verdict"]) == bool(code)
    if code:
        line = report["verdict"]
        assert "output 'h5'" in line and " dB are asked for (.tflite in " in line and "worst layers: " in line
        assert "what can help: more than " in line and "--eval with labels" in line
        shown = " ".join(printed.split())
        assert f"quality-below-limit: {line}" in shown
        assert "quality-below-limit" in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("prune", "stage", "remedy"),
    [
        ("sparsity = 0.9", "prune weights", "let sparsity give way (--max-drop 1)"),
        ("sparsity = 0.9\n[quantize]\nweights = 'float32'", "prune weights", "give training data (--train)"),
        ("channels = 0.7", "prune channels", "give training data (--train)"),
    ],
)
def test_what_pruning_lost_is_not_laid_to_the_integers(tmp_path, prune, stage, remedy):
    digits = Path(__file__).parent.parent / "samples" / "digits"
    (tmp_path / "recipe.toml").write_text(f"[prune]\n{prune}\n")
    calib = [] if "float32" in prune else ["--calib", digits / "train.npz"]
    found, printed, _ = edgecompress(
        "convert", digits / "digits.onnx", "--format", "onnx", "--recipe", tmp_path / "recipe.toml",
        "--eval", digits / "test.npz", "-o", tmp_path / "out", *calib,
    )  # fmt: skip
    line = json.loads((tmp_path / "out" / "report.json").read_text())["verdict"]
    assert found == 4, printed
    assert f"points were lost before quantization, by '{stage}'" in line and "worst layers" not in line
    assert "what can help: ask for less of it, " in line and remedy in line


@pytest.mark.parametrize(
    ("first", "slow", "passes"), [(15.0, 15.0, True), (15.0, 14.5, True), (15.0, 12.0, False), (40.0, 15.0, False)]
)
def test_a_slow_interpreter_on_few_samples_fails_only_where_another_is_better_on_the_same(
    first: float, slow: float, passes: bool
):
    """Few samples may be hard ones; decibels are those of the noise that was added."""
    exact, check = case([LOGITS, noisy(OTHER, slow)])
    (own,) = (q for q in check.qualities if q.slice.output == "z")
    assert own.snr_db == pytest.approx(slow, abs=0.3)
    beside = case([LOGITS, noisy(OTHER, first)])[1].qualities
    few = replace(check, samples=1, beside=beside)
    assert (not judge(few, exact, DEFAULTS).shortfalls) == passes
    assert judge(replace(few, beside=()), exact, DEFAULTS).shortfalls
    assert judge(replace(few, samples=check.samples), exact, DEFAULTS).shortfalls
