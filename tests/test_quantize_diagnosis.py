"""Diagnosis: planted faults are found, blamed on the right layer, and called by their name."""

from __future__ import annotations

import numpy as np
import pytest

from edgecompress.compress.quantize import calibrate, diagnose, quantize_static, simulation
from edgecompress.evaluate.interpreters import OnnxRuntime
from edgecompress.recipe import Quantize
from quantizing import data, network, normal, samples, snr_db

MINMAX = Quantize(calibration="minmax")
BODY = "a = Conv <pads = [1, 1, 1, 1]> (x, w, b) r = Relu(a) y = Conv <pads = [1, 1, 1, 1]> (r, v, c)"


def plain(**changes: np.ndarray):
    constants = dict(w=normal(8, 3, 3, 3), b=normal(8), v=normal(4, 8, 3, 3), c=normal(4))
    return network(BODY, **(constants | changes))


def rows(model, arrays=None, settings: Quantize = MINMAX):
    calibration = calibrate(model, data(model, arrays), settings)
    annotated = quantize_static(model, calibration, settings)
    found = diagnose(model, annotated, data(model, arrays))
    assert [r.snr_db for r in found] == sorted(r.snr_db for r in found)
    return annotated, {r.output: r for r in found}


def test_figures_match_the_simulated_model():
    model = plain()
    annotated, found = rows(model)
    assert set(found) == {"r", "y"}
    exact = OnnxRuntime(model, extra_outputs=["r"]).run(samples(model))
    rounded = OnnxRuntime(simulation(annotated), extra_outputs=["r"]).run(samples(model))
    for name, x, y in zip(("y", "r"), exact, rounded):
        assert found[name].snr_db == pytest.approx(snr_db(x.astype(float), y.astype(float)), abs=0.05)
    assert found["r"].own_snr_db == pytest.approx(found["r"].snr_db, abs=0.01)  # reads the model's input
    assert found["y"].own_snr_db > found["y"].snr_db
    assert 35 < found["y"].weight_snr_db < 60
    assert {r.cause for r in found.values()} <= {"8-bit resolution", "error of its inputs"}


def test_a_dominating_weight_channel():
    w = normal(8, 3, 3, 3)
    w[5] *= 40
    settings = MINMAX.model_copy(update={"per_channel": False})
    cause = rows(plain(w=w), settings=settings)[1]["r"].cause
    assert cause.startswith("one weight channel's range is ") and 25 < float(cause.split()[5]) < 60
    cause = rows(plain(w=w))[1]["r"].cause  # with scales per channel it is the activation's range
    assert cause.startswith("one channel's range is ")


def test_saturation():
    settings = Quantize(calibration="percentile", percentile=90)
    found = rows(plain(), settings=settings)[1]["y"]
    assert found.cause.startswith("saturation") and 5 < found.saturated_percent < 15


def test_an_outlier():
    arrays = samples(plain(), 32)
    arrays["x"] *= 0.01
    arrays["x"][0, :, 0, 0] = 50
    found = rows(plain(b=np.zeros(8, np.float32), c=np.zeros(4, np.float32)), arrays)[1]["r"]
    assert found.cause.startswith("outliers: 99.9 % of values")


def test_error_that_came_with_the_inputs():
    model = network("t = Tanh(x) y = Conv(t, w, b)", w=normal(4, 3, 1, 1), b=np.zeros(4, np.float32))
    arrays = samples(model, 32)
    arrays["x"][0, 0, 0, 0] = 100  # steps of 0.4, but the Tanh's range is what it always is
    found = rows(model, arrays)[1]
    assert found["t"].own_snr_db < 20 and "error" not in found["t"].cause
    assert found["y"].cause == "error of its inputs" and found["y"].own_snr_db > found["y"].snr_db + 5


def test_a_shared_scale():
    body = "a = Conv(x, w, b) s = Mul(x, small) c = Concat <axis = 1> (a, s) y = Relu(c)"
    model = network(body, w=normal(3, 3, 1, 1), b=normal(3), small=np.float32(0.02))
    found = rows(model)[1]["s"]
    assert found.cause.startswith("shared or fixed scale") and found.snr_db < 25
