"""The table of the Deep Compression paper (Han et al., ICLR 2016) for the networks that `train.py` made.

    python samples/deep_compression/compress.py FOLDER [lenet-300-100] [lenet-5]

Runs `edgecompress convert` for each network with the recipe beside this file (both, without names), and prints,
as the paper's table 1 does, the compression rate after pruning (P), pruning and quantization (P+Q), and all with
Huffman coding (P+Q+H): the last one is of the whole .pack file as it lies on disk, whose error on the 10,000 test
images is that of the runtime running it. P and P+Q are counted as the paper counts them: 32 bits, or a codebook
index, for a weight that is there, and its distance from the last one in 5 bits (fully connected) or 8
(convolution), with zeros where that is not enough.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import onnx

import edgecompress
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


def main(folder: Path, names: list[str]) -> None:
    print("network        float      .pack     P     P+Q  P+Q+H  error float  error .pack  minutes")
    for name in names:
        model, start = folder / f"{name}.onnx", time.perf_counter()
        result = edgecompress.convert(
            model,
            recipe=RECIPES / f"{name}.toml",
            train=folder / "train.npz",
            eval=folder / "test.npz",
            output=folder / f"{name}-compressed",
            resume=True,
        )
        minutes = (time.perf_counter() - start) / 60
        float_bytes = 4 * sum(int(np.prod(t.dims)) for t in onnx.load(model).graph.initializer if t.data_type == 1)
        (artifact,) = result.report.artifacts
        pack, (check,) = result.artifacts["pack"], artifact.checks
        p, pq, pqh = rates(pack, float_bytes)
        sizes = f"{float_bytes / KILO:5,.0f} KB  {artifact.bytes / KILO:5.1f} KB"
        print(
            f"{name:13}  {sizes}  {p:4.0f}x  {pq:4.0f}x  {pqh:4.0f}x       {100 - check.reference_value:.2f} %"
            f"       {100 - check.value:.2f} %  {minutes:7.1f}"
        )
        print(f"  the paper:   {PAPER[name]}")


if __name__ == "__main__":
    if len(sys.argv) < 2 or not set(sys.argv[2:]) <= set(NETWORKS):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2:] or list(NETWORKS))
