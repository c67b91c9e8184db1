"""The table of the Deep Compression paper (Han et al., ICLR 2016) for the networks that `train.py` made.

    python samples/deep_compression/compress.py FOLDER [lenet-300-100] [lenet-5] [--seeds 0 1 ..]

Runs `edgecompress convert` for each network (both, without names) and seed with the recipe beside this file, and
prints, as the paper's table 1 does, the compression rate after pruning (P), pruning and quantization (P+Q), and all
with Huffman coding (P+Q+H): the last one is of the whole .pack file as it lies on disk. Errors are those of the
original in ONNX Runtime and of the .pack in the runtime, on the validation images, by which recipes are chosen, and on
the test images, which say what came of it. P and P+Q are counted as the paper counts them: 32 bits, or a codebook
index, for a weight that is there, and its distance from the last one in 5 bits (fully connected) or 8 (convolution),
with zeros where that is not enough.
"""

from __future__ import annotations

import argparse
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

import edgecompress
import edgecompress_runtime
from edgecompress_runtime.pack import read_pack

RECIPES = Path(__file__).parent
NETWORKS = ("lenet-300-100", "lenet-5")
PAPER = {"lenet-300-100": "1,070 KB to 27 KB, 40x, error 1.58 %", "lenet-5": "1,720 KB to 44 KB, 39x, error 0.74 %"}
KILO = 1000


def entries(weights: np.ndarray, gap_bits: int) -> int:
    """How many pairs of distance and weight a sparse tensor takes, zeros in too wide gaps among them."""
    places = np.flatnonzero(weights)
    gaps = np.diff(places, prepend=-1) - 1
    return len(places) + int((gaps >> gap_bits).sum())


def rates(pack: Path, float_bytes: int) -> tuple[float, float, float]:
    """(P, P+Q, P+Q+H): float size over compressed size."""
    pruned = quantized = biases = 0.0
    for tensor in read_pack(pack).plan().tensors:
        if tensor.data is not None and tensor.data.ndim == 1:
            biases += 32 * tensor.data.size
        if tensor.data is None or tensor.data.ndim < 2 or tensor.dtype != np.int8:
            continue
        gap_bits = 8 if tensor.data.ndim == 4 else 5
        count, values = entries(tensor.data.ravel(), gap_bits), len(np.unique(tensor.data))
        pruned += count * (32 + gap_bits)
        quantized += count * (np.ceil(np.log2(values)) + gap_bits) + 32 * values
    sizes = (pruned + biases) / 8, (quantized + biases) / 8, pack.stat().st_size
    return tuple(float_bytes / size for size in sizes)


def error(scores: Callable[[np.ndarray], np.ndarray], data: Path) -> float:
    """Percent of the images whose highest score, of one float32 [1, 1, 28, 28] after the other, is not the label's."""
    with np.load(data) as stored:
        images, labels = stored["x"].astype(np.float32) * np.float32(1 / 255), stored["y"]
    images = images.reshape(-1, 1, 1, 28, 28)
    return 100 * float(np.mean([scores(image).argmax() != label for image, label in zip(images, labels)]))


def original(model: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Its scores in ONNX Runtime."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda image: session.run(None, {name: image})[0]


def in_runtime(pack: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Its scores in the runtime, whose images have their channels last."""
    model = edgecompress_runtime.load(pack)
    return lambda image: model(image.reshape(model.inputs[0].shape))


def compressed(folder: Path, name: str, seed: int) -> tuple[float, float]:
    """Prints a row; returns the size of the .pack in kilobytes, and its error on the test images."""
    model, start = folder / f"{name}-{seed}.onnx", time.perf_counter()
    recipe = tomllib.loads((RECIPES / f"{name}.toml").read_text(encoding="utf-8"))
    result = edgecompress.convert(
        model,
        recipe=recipe | {"seed": seed},
        train=folder / "train.npz",
        eval=folder / "validation.npz",
        output=folder / f"{name}-{seed}-compressed",
        resume=True,
        max_drop=100,  # the table shows what it comes to
    )
    minutes = (time.perf_counter() - start) / 60
    float_bytes = 4 * sum(int(np.prod(t.dims)) for t in onnx.load(model).graph.initializer if t.data_type == 1)
    pack = result.artifacts["pack"]
    p, pq, pqh = rates(pack, float_bytes)
    both = original(model), in_runtime(pack)
    errors = [error(scores, folder / f"{part}.npz") for part in ("validation", "test") for scores in both]
    print(
        f"{name:13} {seed:4} {float_bytes / KILO:5,.0f} KB {pack.stat().st_size / KILO:5.1f} KB {p:5.0f}x {pq:5.0f}x"
        f" {pqh:5.0f}x {errors[0]:7.2f} {errors[1]:6.2f} {errors[2]:7.2f} {errors[3]:6.2f} {minutes:8.1f}",
        flush=True,
    )
    return pack.stat().st_size / KILO, errors[3]


def main(folder: Path, names: list[str], seeds: list[int]) -> None:
    print(f"{'':53}validation %      test %")
    print("network       seed    float    .pack      P    P+Q  P+Q+H   float  .pack   float  .pack  minutes")
    for name in names:
        rows = [compressed(folder, name, seed) for seed in seeds]
        sizes, errors = (np.array(column) for column in zip(*rows))
        if len(rows) > 1:
            print(f"  mean:  {sizes.mean():.1f} KB, test error {errors.mean():.2f} %")
            print(f"  worst: {sizes.max():.1f} KB, test error {errors.max():.2f} %")
        print(f"  the paper:   {PAPER[name]}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=" or ".join(NETWORKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments = parser.parse_args()
    main(arguments.folder, arguments.networks or list(NETWORKS), arguments.seeds)
