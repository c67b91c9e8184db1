"""The gate on thirty networks: no artifact below it leaves with exit code 0.

    python tests/bench/quality.py [NETWORK, kind or target ...]

Converts each network of quality_networks.py for android and for cortex-m4, with 96 calibration samples, and prints the
exit code, the status, the worst slice of each file on the samples that were held out, and what the report says about
layers that are not int8. Where the search for better outputs changed something, the network is also converted without
it, and a table at the end shows from what to what it came, and at what cost.

The .onnx files are then run in ONNX Runtime on 64 fresh samples beside the exported model, and each quantity that is
known to share an output is measured by itself, without this project's code. Exits 1 when a file with exit code 0 has a
quantity below the gate (on fresh samples, less a margin of 2 dB; classes that agree pass).
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from quality_networks import CASES, fitted, seed

TARGETS = ("android", "cortex-m4")
SAMPLES, FRESH = 96, 64
MIN_SNR, MARGIN, SAME_CLASSES = 20.0, 2.0, 97.0


def main() -> int:
    asked = sys.argv[1:]
    targets = [a for a in asked if a in TARGETS] or TARGETS
    chosen = [a for a in asked if a not in TARGETS]
    names = [name for name, case in CASES.items() if not chosen or name in chosen or case.kind in chosen]
    codes: dict[tuple[str, int], int] = {}
    wrong, cures = [], []
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            model, fresh = export(name, Path(folder))
            for target in targets:
                code, problem = converted(name, model, target, fresh)
                cures += cured(f"{name} for {target}", model, target)
                codes[target, code] = codes.get((target, code), 0) + 1
                wrong += [f"{name} for {target}: {problem}"] if problem else []
    for (target, code), count in sorted(codes.items()):
        print(f"{target}: {count} of {len(names)} networks with exit code {code}")
    print("\n".join(["cured: exit code, lowest ratio and bytes of each file without and with it", *cures]))
    print("\n".join(wrong) if wrong else "no file below the gate has exit code 0")
    return 1 if wrong else 0


def export(name: str, folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """(the model's file, with calib.npz beside it; fresh samples)"""
    torch.set_num_threads(1)
    module, case = fitted(name), CASES[name]
    seed(name, "calibration")
    samples = case.inputs(SAMPLES)
    seed(name, "fresh")
    fresh = case.inputs(FRESH)
    names = [f"in{i}" for i in range(len(samples))]
    path = folder / f"{name}.onnx"
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        one = tuple(x[:1] for x in samples)
        torch.onnx.export(module, one, str(path), input_names=names, opset_version=17, dynamo=False)
    np.savez(folder / "calib.npz", **{n: x.numpy() for n, x in zip(names, samples, strict=True)})
    return path, {n: x.numpy() for n, x in zip(names, fresh, strict=True)}


def converted(name: str, model: Path, target: str, fresh: dict[str, np.ndarray]) -> tuple[int, str]:
    """(exit code, what is below the gate although the code is 0)"""
    out, start = model.with_name(target), time.monotonic()
    done = convert(model, target, out)
    head = f"{name:12} {CASES[name].kind:11} {target:9} exit {done.returncode} {time.monotonic() - start:5.1f} s"
    if not (out / "report.json").is_file():
        print(f"{head}  {done.stderr.strip().splitlines()[-1][:300] if done.stderr.strip() else 'nothing was said'}",
              flush=True)  # fmt: skip
        return done.returncode, ""
    report = json.loads((out / "report.json").read_text())
    print(f"{head}  {report['status']}  {'; '.join(_in_words(a) for a in report['artifacts'])}", flush=True)
    for line in _remarks(report):
        print(f"{'':26}{line}", flush=True)
    low = [f"{q['slice']}: {q['snr_db']} dB, {q['equal_percent']} %"
           for a in report["artifacts"] for c in a["checks"] for q in c["qualities"] if _is_low(q, c)]  # fmt: skip
    for artifact in report["artifacts"]:
        if artifact["format"] == "onnx":
            low += _fresh(name, model, out / artifact["path"], fresh)
    return done.returncode, "; ".join(low) if done.returncode == 0 else ""


def convert(model: Path, target: str, out: Path, *options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgecompress", "convert", model, "--target", target, "-o", out, "-q", "--calib",
               model.with_name("calib.npz"), *options]  # fmt: skip
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


def cured(what: str, model: Path, target: str) -> list[str]:
    """What the search for better outputs changed, if it did: without it and with it."""
    report = model.with_name(target) / "report.json"
    if not report.is_file() or not any(cure["kept"] for cure in json.loads(report.read_text())["cures"]):
        return []
    recipe, out = model.with_name("recipe.toml"), model.with_name(f"{target}-uncured")
    recipe.write_text("[quantize]\nsearch_seconds = 0\n")
    convert(model, target, out, "--recipe", recipe)
    states = [json.loads((folder / "report.json").read_text()) for folder in (out, report.parent)]
    words = ["; ".join(map(_in_words, state["artifacts"])) for state in states]
    return [f"{what}: {states[0]['status']}, {words[0]} -> {states[1]['status']}, {words[1]}"]


def _is_low(quality: dict[str, float], check: dict[str, float]) -> bool:
    if quality["exact"] or (check["agreement_percent"] or 0.0) >= SAME_CLASSES:
        return False
    return (quality["snr_db"] or 0.0) < MIN_SNR and (quality["equal_percent"] or 0.0) < 99.0


def _in_words(artifact: dict[str, object]) -> str:
    lowest: dict[str, float] = {}
    for check in artifact["checks"]:
        for q in check["qualities"]:
            figure = q["snr_db"] if q["snr_db"] is not None else 999.0 if q["exact"] else -999.0
            lowest[q["slice"]] = min(lowest.get(q["slice"], 999.0), figure)
    size = f".{artifact['format']} {artifact['bytes']:,} B"
    return f"{size} ({', '.join(f'{figure:.1f}' for figure in lowest.values())} dB)"


def _remarks(report: dict[str, object]) -> list[str]:
    other: dict[str, int] = {}
    for layer in report["layers"]:
        other[layer["encoding"]] = other.get(layer["encoding"], 0) + 1
    lines = [f"layers: {', '.join(f'{count} {encoding}' for encoding, count in other.items())}"]
    lines += [f"cure: {s['note'][:400]}" for s in report["stages"] if s["note"] and s["name"] != "quantize again"]
    lines += [f"verdict: {report['verdict'][:400]}"] if report["verdict"] else []
    return lines


def _fresh(name: str, model: Path, artifact: Path, samples: dict[str, np.ndarray]) -> list[str]:
    """The quantities of an .onnx file that are below the gate on fresh samples."""
    expected, found = _run(model, samples), _run(artifact, samples)
    parts = {f"output {i}": (a, b) for i, (a, b) in enumerate(zip(expected, found, strict=True))}
    for part, (output, axis, where) in CASES[name].parts.items():
        cut = tuple(where if i == axis else slice(None) for i in range(expected[output].ndim))
        parts[part] = expected[output][cut], found[output][cut]
    ratios = {
        part: 10 * np.log10(np.sum(a**2.0) / max(np.sum((a - b) ** 2.0), 1e-30)) for part, (a, b) in parts.items()
    }
    print(f"{'':26}fresh: {', '.join(f'{part} {ratio:.1f} dB' for part, ratio in ratios.items())}", flush=True)
    same = np.mean(expected[0].argmax(1) == found[0].argmax(1)) if expected[0].ndim == 2 else 0.0
    return [
        f"{part}: {ratio:.1f} dB on fresh samples"
        for part, ratio in ratios.items()
        if ratio < MIN_SNR - MARGIN and not (part == "output 0" and 100 * same >= SAME_CLASSES)
    ]


def _run(model: Path, samples: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    # In float, as the file says: on x86 without VNNI, ONNX Runtime's integer kernels saturate, which phones' don't.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    inputs = [i.name for i in session.get_inputs()]
    runs = [session.run(None, {n: samples[n][k : k + 1] for n in inputs}) for k in range(FRESH)]
    return [np.concatenate(output).astype(np.float64) for output in zip(*runs, strict=True)]


if __name__ == "__main__":
    sys.exit(main())
