"""The search for better outputs reaches the limit where it can, cheapest first, and says what it did."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgecompress import convert
from edgecompress.compress.quantize import quantize, simulation
from edgecompress.compress.quantize.more_bits import Candidates, divided, fewest
from edgecompress.compress.quantize.search import Clock, _Search, improve, improve_further
from edgecompress.compress.quantize.tuning import Judge, Tuner, judge_of_files, judge_on, judging_samples
from edgecompress.evaluate.interpreters import OnnxRuntime
from edgecompress.graph.annotations import activation_bits
from edgecompress.recipe import Quantize
from quantizing import data, network, normal, snr_db

SETTINGS = Quantize(equalize=False, bias_correction=False)
SPREAD = np.geomspace(1, 200, 8, dtype=np.float32)
FIRST = "a = Conv <pads = [1, 1, 1, 1]> (x, w, b) r = Relu(a) "
HARD = {  # channels of very different size meet in one scale, and the small ones count as much
    "one layer behind": FIRST + "y = Conv(r, v, d)",
    "two layers behind": FIRST + "c = Conv(r, v, d) s = Relu(c) y = Conv(s, u, d)",
    "a sum": FIRST + "c = Conv(r, v, d) y = Add(c, x)",
    "an average": FIRST + "p = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (r) y = Conv(p, v, d)",
    "moved in between": FIRST + "q = Transpose <perm = [0, 1, 3, 2]> (r) y = Conv(q, v, d)",
}


def hard(kind: str) -> ir.Model:
    spread = SPREAD.reshape(1, 8, 1, 1)
    w, b = normal(8, 3, 3, 3) / 5 * SPREAD.reshape(8, 1, 1, 1), normal(8) * SPREAD
    v = normal(3, 8, 1, 1) / spread * np.where(SPREAD > 50, 0, 1).reshape(1, 8, 1, 1).astype(np.float32)
    return network(HARD[kind], w=w, b=b, v=v, d=normal(3) / 10, u=normal(3, 3, 1, 1))


@pytest.mark.parametrize("integer_only", [False, True], ids=["float", "int16"])
@pytest.mark.parametrize("kind", HARD)
def test_a_limit_is_reached_at_the_least_cost(kind: str, integer_only: bool):
    model, limit = hard(kind), 25.0
    dataset = data(model, {"x": normal(64, 3, 8, 8)})
    before = quantize(model, dataset, SETTINGS, integer_only=integer_only)
    found = improve(before, SETTINGS, limit, integer_only=integer_only)
    arrays = {"x": normal(32, 3, 8, 8, seed=9)}
    exact = OnnxRuntime(model).run(arrays)[0]
    ratios = [snr_db(exact, OnnxRuntime(simulation(q.model)).run(arrays)[0]) for q in (before, found.quantized)]
    assert ratios[0] < limit < ratios[1]
    assert found.tried[-1].kept and found.tried[-1].after >= limit
    bits = {activation_bits(node) for node in found.quantized.model.graph}
    assert (16 in bits) if integer_only else (None in bits)
    named = found.settings.int16_layers if integer_only else found.settings.float_layers
    assert list(found.tried[-1].names) == named and found.tried[-1].macs > 0


def test_an_input_that_is_padded_can_be_stored_better():
    """The small channels of the input, which one int8 scale loses, decide as much, and nothing but a Pad reads it."""
    spread = np.array([1, 1, 300], np.float32).reshape(1, 3, 1, 1)
    text = 't = Pad <mode = "reflect"> (x, pads) y = Conv(t, v, d)'
    pads, x = np.array([0, 0, 1, 1, 0, 0, 1, 1]), normal(64, 3, 8, 8) * spread
    model = network(text, v=normal(3, 3, 1, 1) / spread, d=normal(3) / 10, pads=pads)
    made = quantize(model, data(model, {"x": x}), SETTINGS)
    candidates = Candidates(made.model, made.reference, float_allowed=True)
    judge = Judge(made.reference, judging_samples(made.calibration.dataset, made.reference))
    all_better = candidates.changes(range(len(candidates.groups)))
    assert judge.of(made.model).worst < 10 and Tuner(judge, made.model).measure(*all_better).worst > 40


def test_biases_that_make_up_for_errors_do_not_hide_what_floats_would_gain():
    """With the mean errors of int8 added to its biases, a network has errors even where all its values are exact."""
    text = "c0 = Conv(x, u, b) r0 = Relu(c0) c1 = Conv(r0, v, b) r1 = Relu(c1) "
    text += "s = Mul(r1, r1) q = Mul(s, s) y = Conv(q, w, b)"
    u, v, w = normal(8, 3, 1, 1), normal(8, 8, 1, 1, seed=1), np.abs(normal(8, 8, 1, 1, seed=2))
    model, settings = network(text, u=u, v=v, w=w, b=np.zeros(8, np.float32)), Quantize(equalize=False)
    before = quantize(model, data(model, {"x": np.abs(normal(64, 3, 8, 8))}), settings)
    search = _Search(before, settings, 60.0, False, Clock(60.0))
    candidates = Candidates(before.model, before.reference, float_allowed=True)
    all_better = candidates.changes(range(len(candidates.groups)))
    assert Tuner(search.judge, before.model).measure(*all_better).worst < 45
    assert search._tuner(before, candidates).measure(*all_better).worst > 60


def test_floats_hold_small_values_beside_large_ones():
    """A spectrum's logarithm: values a millionth of the largest decide as much as that does."""
    text = "c = Conv(x, u, b) e = Exp(c) l = Log(e) y = Conv(l, v, b)"
    u, v = 5 * np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1), normal(3, 3, 1, 1)
    model = network(text, u=u, v=v, b=np.zeros(3, np.float32))
    made = quantize(model, data(model, {"x": normal(64, 3, 8, 8)}), SETTINGS)
    candidates = Candidates(made.model, made.reference, float_allowed=True)
    judge = Judge(made.reference, judging_samples(made.calibration.dataset, made.reference))
    all_better = candidates.changes(range(len(candidates.groups)))
    assert judge.of(made.model).worst < 10 and Tuner(judge, made.model).measure(*all_better).worst > 100


def test_what_is_good_enough_is_left_alone():
    model = hard("one layer behind")
    before = quantize(model, data(model), SETTINGS)
    found = improve(before, SETTINGS, 1.0, integer_only=False)
    assert found.quantized is before and found.settings is SETTINGS and not found.tried


def test_the_same_each_time():
    model = hard("two layers behind")
    found = [improve(quantize(model, data(model), SETTINGS), SETTINGS, 30.0, integer_only=False) for _ in range(2)]
    assert found[0].tried == found[1].tried and found[0].settings == found[1].settings


def test_a_search_without_time_changes_nothing_and_says_so():
    model, settings = hard("one layer behind"), SETTINGS.model_copy(update={"search_seconds": 0.0})
    found = improve(quantize(model, data(model), settings), settings, 30.0, integer_only=False)
    assert not found.tried and found.out_of_time


@pytest.mark.parametrize("kind", ["two layers behind", "a sum"])
def test_a_search_cut_short_keeps_as_few_as_reach_the_limit(kind: str, monkeypatch):
    """No time for methods, GPTQ, or to find out which layers gain most: the fewest in the order of the graph."""
    monkeypatch.setattr(Clock, "part", lambda self, share: Clock(-1.0))
    model = hard(kind)
    before = quantize(model, data(model, {"x": normal(64, 3, 8, 8)}), SETTINGS)
    found = improve(before, SETTINGS, 25.0, integer_only=False)
    integer = [node for node in found.quantized.model.graph if activation_bits(node) == 8]
    assert found.worst >= 25 and found.settings.float_layers and integer and not found.out_of_time


@pytest.mark.parametrize("kind", ["two layers behind", "a sum", "moved in between"])
def test_int16_that_is_not_enough_goes_on_from_there(kind: str):
    """What requantizes between int8 and int16 in the first search's model is no layer of the user's."""
    model = hard(kind)
    before = quantize(model, data(model, {"x": normal(64, 3, 8, 8)}), SETTINGS, integer_only=True)
    first = improve(before, SETTINGS, 22.0, integer_only=True)
    others = data(model, {"x": normal(12, 3, 8, 8, seed=2)})
    again = improve_further(first, others, 8.0, integer_only=True)
    judge = judge_of_files(others, model)
    assert first.settings.int16_layers and again.worst >= judge.of(first.quantized.model).worst
    assert set(again.settings.int16_layers) <= {v.name for node in model.graph for v in node.outputs}


def test_a_search_on_held_out_samples_judges_what_files_give():
    """In front of a Sigmoid, scores near 0 are one large number each, whose errors count little."""
    model = network("c = Conv(x, v, d) y = Sigmoid(c)", v=normal(3, 3, 1, 1), d=np.full(3, -9, np.float32))
    low, others = (data(model, {"x": scale * normal(n, 3, 8, 8, seed=n)}) for n, scale in ((12, 0.2), (64, 20)))
    made, judge = quantize(model, others, SETTINGS), judge_of_files(low, model)
    assert judge.of(made.model).worst < 10 and judge_on(low, model).of(made.model).worst > 20
    found = improve_further(improve(made, SETTINGS, 20.0, integer_only=False), low, 20.0, integer_only=False)
    assert found.worst > 20 and "c" in found.settings.float_layers


@pytest.mark.parametrize("target", [5, 20, 38])
def test_a_few_harmful_candidates_are_found_in_few_measurements(target: int):
    asked = 0

    def gain(part: range) -> float:
        nonlocal asked
        asked += 1
        return 10.0 * (target in part) + 0.001 * len(part)

    whole = divided(64, gain, 0.5, lambda: False)
    assert whole.order(lambda indices: len(list(indices)))[0] == target and asked <= 1 + 2 * 6
    assert sorted(whole.order(lambda indices: 1)) == list(range(64))


def test_candidates_that_help_only_together_stay_together():
    """The first eight, of which each alone gains as little as any other."""
    whole = divided(32, lambda part: 1.0 * (part.start == 0 and len(part) >= 8) + 0.001 * len(part), 0, lambda: False)
    assert sorted(whole.order(lambda indices: len(list(indices)))[:8]) == list(range(8))


def test_what_time_is_left_for_comes_first():
    """One division: the half that harms is known, and costly candidates come behind."""
    steps = iter([False, True])
    whole = divided(4, lambda part: 1.0 * (0 in part) + 0.1, 0, lambda: next(steps))
    assert whole.order(lambda indices: 1) == [0, 1, 2, 3] and len(whole.halves) == 2
    assert whole.order(lambda indices: 100 if 0 in indices else 1) == [2, 3, 0, 1]


@pytest.mark.parametrize("needed", range(1, 12))
def test_the_fewest_are_found_with_few_questions(needed: int):
    asked: list[int] = []

    def reaches(count: int) -> bool:
        asked.append(count)
        return count >= needed

    assert fewest(11, reaches) == needed
    assert needed in asked and (needed == 1 or needed - 1 in asked) and len(asked) == len(set(asked)) <= 8


def test_the_report_lists_what_was_tried(tmp_path):
    recipe = tmp_path / "r.toml"
    recipe.write_text("[quantize]\nequalize = false\nbias_correction = false\n[evaluate]\nmin_snr = 25\n")
    result = convert(
        ir.to_proto(hard("one layer behind")),
        "cortex-m4",
        calib=normal(64, 3, 8, 8),
        recipe=recipe,
        output=tmp_path / "o",
    )
    cure = result.report.cures[-1]
    assert result.report.status == "ok" and cure.kept and cure.what == "int16 activations"
    assert cure.snr_before < 25 < cure.snr_after and "Searched" in (tmp_path / "o/report.html").read_text()
