"""The bytes of what twelve networks become, as they were recorded: a change of structure must not change them.

    python tests/golden.py [NAME ...]          converts all of them, or these, and compares; exits 1 for a difference
    python tests/golden.py record [NAME ...]   writes what they are now to golden.json, for a change that is meant to

A NAME is a network's ("lstm"), or that and a recipe's ("lstm clustered"); exits 2 where nothing is recorded.

Every network is converted by each of RECIPES to TFLite, ONNX and `.pack`, and the `.pack` is compiled for a Cortex-M4.
Calibration and training compute in float32, whose last bits depend on the processor and on the libraries. So the
digests are kept by `environment`, and a machine that none were recorded for can only say so.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from threadpoolctl import threadpool_limits

import edgecompress
from edgecompress.conversion import artifacts
from edgecompress.devices.firmware import build

ROOT = Path(__file__).resolve().parent
FILE = ROOT / "golden.json"
LIBRARIES = ("numpy", "onnx", "onnxruntime", "torch", "numba", "llvmlite", "ai-edge-litert")
NETWORKS = (
    "residual", "inverted_residual", "unet_bilinear", "dense", "mobilenet", "activations", "convnext", "upconvolutions",
    "transformer", "lstm", "masks", "moves",
)  # fmt: skip
# recipe -> its text, and which data it is given
RECIPES: dict[str, tuple[str, str]] = {
    "float16": ('[quantize]\nweights = "float16"\n', "none"),
    "clustered": ('[cluster]\nbits = "auto"\nsnr = 25.0\n', "calib"),
    "learned": (
        "[train]\nepochs = 1\nbatch = 16\n[prune]\nsparsity = 0.5\n[quantize]\nepochs = 1\n[cluster]\nbits = 4\n",
        "train",
    ),
}
SAMPLES = 32
VERSION = "0.1.0"  # of edgecompress, which stands in every .tflite; a release changes nothing else


def environment() -> str:
    """Digest of what the last bits depend on: the libraries' versions, and sums as this processor makes them."""
    generator = np.random.default_rng(0)
    a, b = (generator.normal(size=(64, 193)).astype(np.float32) for _ in range(2))
    image, kernel = (
        torch.from_numpy(a[:16].reshape(1, 16, 193, 1)),
        torch.from_numpy(b[:16, :144].reshape(16, 16, 9, 1)),
    )
    torch.set_num_threads(1)
    with threadpool_limits(1):
        sums = [a @ b.T, np.exp(a), torch.nn.functional.conv2d(image, kernel).numpy(), torch.sigmoid(image).numpy()]
        sums.append(_runtime_sums(a[:16, :192].reshape(1, 16, 12, 16)))
    text = [f"{name} {version(name)}" for name in LIBRARIES]
    return hashlib.sha256(repr(text).encode() + b"".join(s.tobytes() for s in sums)).hexdigest()[:16]


def _runtime_sums(image: np.ndarray) -> np.ndarray:
    """What ONNX Runtime makes of a convolution, its bias and a Softmax; `image` float32 [1, 16, 12, 16]."""
    weights = onnx.numpy_helper.from_array(image.reshape(12, 16, 4, 4), "w")
    graph = onnx.parser.parse_graph(
        "g (float[1,16,12,16] x) => (float[1,12,9,13] y) { c = Conv(x, w) s = Sigmoid(c) y = Softmax(s) }"
    )
    graph.initializer.append(weights)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": image})[0]


@threadpool_limits.wrap(1)
def digests(network: str, recipe: str, folder: Path) -> dict[str, str]:
    """Kind of file -> SHA-256 of its bytes, computed by one thread; of a conversion that is refused, the refusal."""
    import networks

    artifacts.__version__ = VERSION
    text, use = RECIPES[recipe]
    file = folder / f"{recipe}.toml"
    file.write_text(text, encoding="utf-8")
    data = {} if use == "none" else {use: networks.example(network, SAMPLES, 1)}
    made: dict[str, str] = {}
    for kind in ("tflite", "onnx", "pack"):
        output = folder / f"{network}-{recipe}-{kind}"
        try:
            result = edgecompress.convert(
                networks.export(network, folder), "android", output=output, recipe=file, formats=[kind], **data
            )
            made[kind] = _digest(result.artifacts[kind])
            if kind == "pack":
                built = build(result.artifacts[kind], "cortex-m4", output=folder / "built")
                made["cortex-m4"] = _digest(built.directory / f"{built.record.name}.o")
        except edgecompress.EdgeCompressError as error:
            made[kind] = f"{type(error).__name__}: {error}".replace(str(folder), "FOLDER")
    return made


def recorded() -> dict[str, dict[str, str]]:
    """ "network recipe" -> digests, as recorded for this environment; empty where there are none."""
    return json.loads(FILE.read_text(encoding="utf-8")).get(environment(), {})


def main(arguments: list[str]) -> int:
    """Converts everything; returns the exit code."""
    expected = {} if "record" in arguments else recorded()
    if not expected and "record" not in arguments:
        print(f"nothing is recorded for {environment()}: run `python tests/golden.py record` before the change")
        return 2
    start, different = time.perf_counter(), []
    found: dict[str, dict[str, str]] = {}
    every = [f"{network} {recipe}" for network in NETWORKS for recipe in RECIPES]
    only = [a for a in arguments if a != "record"]
    keys = [key for key in every if not only or {key, key.split()[0]} & set(only)]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for key, made in zip(keys, pool.map(_digests, keys)):
            found[key] = made
            changed = [k for k in made if made[k] != expected.get(key, {}).get(k)] if expected else []
            different += [key] if changed else []
            print(f"{key}: {', '.join(changed) + ' differs' if changed else 'done'}", flush=True)
    if "record" in arguments:
        # What was recorded on other machines holds no longer once the bytes of all networks may have changed.
        stored = json.loads(FILE.read_text(encoding="utf-8")) if len(keys) < len(every) and FILE.exists() else {}
        stored[environment()] = stored.get(environment(), {}) | found
        FILE.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    seconds = time.perf_counter() - start
    print(f"{len(found)} conversions, {len(different)} different, {seconds:.0f} s")
    return 1 if different else 0


def _digests(key: str) -> dict[str, str]:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        return digests(*key.split(), Path(folder))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
