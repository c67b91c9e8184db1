"""The way to choose ranges is the one that measures best; the measurement is that of the simulated model itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from edgecompress.compress.quantize import calibrate, noise, quantize_static, simulation
from edgecompress.compress.quantize.choose_method import steps_of, with_best_method
from edgecompress.compress.quantize.ranges import METHODS
from edgecompress.compress.quantize.tuning import Judge, Measured, Tuner, judging_samples
from edgecompress.evaluate.interpreters import OnnxRuntime
from edgecompress.recipe import Quantize
from quantizing import data, network, normal, snr_db

SETTINGS = Quantize(equalize=False, bias_correction=False)
PAIR = "a = Conv <pads = [1, 1, 1, 1]> (x, w, b) r = Relu(a) y = Conv <pads = [1, 1, 1, 1]> (r, v, d)"
BODIES = {
    "two layers": PAIR,
    "sum": PAIR.replace("y =", "c =") + " y = Add(c, x)",
    "function": PAIR.replace("y =", "c =") + " y = Tanh(c)",
    "joined": PAIR.replace("y =", "c =") + " z = Concat <axis = 1> (c, x) y = Relu(z)",
    "pooled": PAIR.replace("y =", "c =") + " y = GlobalAveragePool(c)",
}
SHAPES = {"normal": lambda x: x, "outliers": lambda x: x**5, "positive": np.abs}


def made(body: str) -> ir.Model:
    return network(BODIES[body], w=normal(8, 3, 3, 3) / 5, b=normal(8), v=normal(3, 8, 3, 3) / 5, d=normal(3))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("body", BODIES)
def test_no_method_measures_better_than_the_one_chosen(body: str, shape: str):
    model = made(body)
    dataset = data(model, {"x": SHAPES[shape](normal(64, 3, 8, 8))})
    calibration = calibrate(model, dataset, SETTINGS)
    best = with_best_method(model, calibration, SETTINGS, integer_only=False)
    chosen = best.calibration
    judging = {"x": np.concatenate([batch["x"] for batch in judging_samples(dataset, model)])}
    exact = OnnxRuntime(model).run(judging)[0]
    ratios = {}
    for name in METHODS:
        annotated = quantize_static(model, replace(calibration, method=name), SETTINGS)
        ratios[name] = float(snr_db(exact, OnnxRuntime(simulation(annotated)).run(judging)[0]))
    assert ratios[chosen.method] > max(ratios.values()) - 0.1
    if best.measured is not None:
        again = Judge(model, judging_samples(dataset, model)).of(best.model)
        assert best.measured.mean == pytest.approx(again.mean, abs=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_methods_far_behind_on_the_first_of_many_batches_are_not_measured_on_all(
    shape: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(noise, "batch_size", lambda model: 8)
    measured, real = Counter[int](), Judge.measure

    def counted(judge: Judge, found: dict[str, np.ndarray]) -> Measured:
        measured[len(judge.batches)] += 1
        return real(judge, found)

    monkeypatch.setattr(Judge, "measure", counted)
    test_no_method_measures_better_than_the_one_chosen("two layers", shape)
    assert measured[2] == len(METHODS) and 1 <= measured[7] - 1 <= len(METHODS) + 1


@pytest.mark.parametrize("body", BODIES)
def test_a_tuner_measures_what_the_simulation_does_with_the_same_steps(body: str):
    model = made(body)
    dataset = data(model, {"x": normal(32, 3, 8, 8)})
    calibration = calibrate(model, dataset, SETTINGS)
    judge = Judge(model, judging_samples(dataset, model))
    exact, wide = (quantize_static(model, replace(calibration, method=m), SETTINGS) for m in ("mse", "minmax"))
    tuner = Tuner(judge, exact)
    assert tuner.measure({}).mean == pytest.approx(judge.of(exact).mean, abs=1e-3)
    assert tuner.measure(steps_of(wide)).mean == pytest.approx(judge.of(wide).mean, abs=0.3)
    finer = {name: step.finer(8) for name, step in steps_of(exact).items()}
    assert tuner.measure(finer).worst > tuner.measure({}).worst + 1


def test_a_method_that_the_recipe_names_is_used():
    model = made("two layers")
    dataset = data(model, {"x": normal(32, 3, 8, 8) ** 5})
    for name in METHODS:
        settings = SETTINGS.model_copy(update={"calibration": name})
        named = quantize_static(model, calibrate(model, dataset, settings), settings)
        chosen = replace(calibrate(model, dataset, SETTINGS), method=name)
        assert steps_of(named) == steps_of(quantize_static(model, chosen, SETTINGS))


def test_one_value_can_have_a_method_of_its_own():
    model = made("two layers")
    calibration = calibrate(model, data(model, {"x": normal(32, 3, 8, 8) ** 5}), SETTINGS)
    plain, own = (
        steps_of(quantize_static(model, replace(calibration, methods=methods), SETTINGS))
        for methods in ({}, {"x": "minmax"})
    )
    assert [name for name in plain if plain[name] != own[name]] == ["x"] and own["x"].scale > plain["x"].scale
