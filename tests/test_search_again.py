"""Where held-out samples are worse than those that calibrate, the search goes on; data to evaluate on never chooses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from edgecompress import convert
from edgecompress.api import Result
from edgecompress.conversion import data
from edgecompress.evaluate.held_out import select
from quantizing import normal
from test_quantize_search import HARD, hard

CALIBRATING, HELD, LIMIT = 48, 12, 25.0


@pytest.fixture
def samples(monkeypatch) -> np.ndarray:
    """The last twelve are held out, and larger than the others: their values saturate."""
    monkeypatch.setattr(
        data,
        "hold_out",
        lambda given: (select(given, range(CALIBRATING)), select(given, range(CALIBRATING, len(given)))),
    )
    monkeypatch.setattr(data, "in_order_of_content", lambda given: given)
    return np.concatenate([normal(CALIBRATING, 3, 8, 8), 1.3 * normal(HELD, 3, 8, 8, seed=1)])


def run(model: ir.Model, folder: Path, x: np.ndarray, target: str, **others) -> Result:
    return convert(ir.to_proto(model), target, output=folder, calib={"x": x}, min_snr=LIMIT, **others)


@pytest.mark.parametrize(
    ("kind", "target"),
    [*((kind, "android") for kind in list(HARD)[:4]), ("a sum", "cortex-m4")],
    ids=[*list(HARD)[:4], "cortex-m4"],
)
def test_the_search_goes_on_for_what_is_missing(kind: str, target: str, samples, tmp_path):
    report = run(hard(kind), tmp_path / "o", samples, target).report
    again = [s for s in report.stages if s.name == "search again"]
    missing = [note for note in report.notes if "took part in choosing" in note]
    below = [q.snr_db for a in report.artifacts for c in a.checks for q in c.qualities if (q.snr_db or LIMIT) < LIMIT]
    assert again and (report.status == "ok") == (not below)
    if target == "android":  # floats never saturate
        assert report.status == "ok" and len(missing) == 1 and report.requested.held_out.samples == HELD
        assert any(c.kept and c.what == "float" for c in report.cures)


def test_data_to_evaluate_on_takes_no_part(samples, tmp_path):
    model, calibrating, test = hard("a sum"), samples[:CALIBRATING], samples[CALIBRATING:]
    alone = run(model, tmp_path / "alone", calibrating, "android", eval={"x": calibrating[:HELD]}).report
    report = run(model, tmp_path / "o", calibrating, "android", eval={"x": test}).report
    assert "search again" not in {s.name for s in report.stages}
    assert [c.model_dump() for c in report.cures] == [c.model_dump() for c in alone.cures]
    files = [sorted((tmp_path / name).glob("*.tflite"))[0].read_bytes() for name in ("alone", "o")]
    assert files[0] == files[1]


def test_without_a_deficit_it_ends(samples, tmp_path):
    samples[CALIBRATING:] /= 1.3
    report = run(hard("a sum"), tmp_path / "o", samples, "android").report
    assert report.status == "ok" and "search again" not in {s.name for s in report.stages}
