"""Huffman decoding on one core, in symbols a second, against zlib on the same bytes in the same run.

    python tests/bench/huffman.py

Weights: clustered ones (4 and 5 bits of codebook index), int8 ones, and one with little in it, 4 million
each, and a layer of 36,864 (the largest of ResNet-8). Entry points and checks included: what is timed is
the codec's `decode`, as a model is loaded. Exits 1 when one line decodes fewer than 300 million a second.
"""

from __future__ import annotations

import sys
import time
import zlib
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table

from edgecompress_runtime.pack import CODECS

LIMIT = 300e6
ROUNDS = 9
LARGE = 4_000_000
CASES = (  # name, symbols, standard deviation, distinct values
    ("16 centroids", LARGE, 2.6, 16),
    ("32 centroids", LARGE, 4.6, 32),
    ("16 centroids, one layer", 36_864, 2.6, 16),
    ("int8 weights", LARGE, 20, 256),
    ("int8 weights, nearly uniform", LARGE, 70, 256),
    ("pruned, 5 % left", LARGE, 0.4, 16),
)


def main() -> int:
    table = Table(title="decoding, one core, million symbols/s")
    for column in ("weights", "symbols", "bits (entropy)", "Huffman", "rANS", "zlib", "bits each", "holds"):
        table.add_column(column, justify="left" if column == "weights" else "right")
    failed = 0
    for name, size, spread, distinct in CASES:
        values = np.random.default_rng(0).normal(distinct / 2, spread, size).round().clip(0, distinct - 1)
        values = values.astype(np.uint8)
        decoders = {"huffman": ours("huffman", values), "rans": ours("rans", values), "zlib": peer(values)}
        best = fastest({key: decode for key, (decode, _) in decoders.items()})
        rates = {key: size / seconds for key, seconds in best.items()}
        bits = " ".join(f"{8 * stored / size:.2f}" for _, stored in decoders.values())
        holds = rates["huffman"] >= LIMIT
        failed += not holds
        shown = [f"{rates[key] / 1e6:,.0f}" for key in decoders]
        table.add_row(name, f"{size:,}", f"{entropy(values):.2f}", *shown, bits, "yes" if holds else "NO")
    Console(width=110).print(table)
    return 1 if failed else 0


def ours(codec: str, values: np.ndarray) -> tuple[Callable[[], object], int]:
    """(decode, bytes); checked before it is timed, which also compiles it."""
    encoded, out = CODECS[codec].encode(values), np.empty_like(values)
    assert encoded is not None
    assert np.array_equal(CODECS[codec].decode(encoded.data, encoded.params, out), values)
    return lambda: CODECS[codec].decode(encoded.data, encoded.params, out), len(encoded.data)


def peer(values: np.ndarray) -> tuple[Callable[[], object], int]:
    data = zlib.compress(values.tobytes(), 9)
    return lambda: zlib.decompress(data, bufsize=values.size), len(data)


def fastest(decoders: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of each one's best round; all take turns, so that the machine's mood is the same for all."""
    best = dict.fromkeys(decoders, float("inf"))
    for _ in range(ROUNDS):
        for key, decode in decoders.items():
            start = time.perf_counter()
            decode()
            best[key] = min(best[key], time.perf_counter() - start)
    return best


def entropy(values: np.ndarray) -> float:
    """Bits a symbol."""
    counts = np.bincount(values)
    share = counts[counts > 0] / values.size
    return float(-(share * np.log2(share)).sum())


if __name__ == "__main__":
    sys.exit(main())
