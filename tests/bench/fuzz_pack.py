"""Damaged and hostile `.pack` files: every one is read as some plan or refused in one clear line, and never leaves
its arrays.

    python tests/bench/fuzz_pack.py [FILE.pack...]

Without FILE: a small network of its own, written once with each codec. Runs itself with Numba's bounds check on, in
a cache of its own. Of each file: every byte flipped in three ways, as it is and with all checksums made right again;
every truncation, likewise; every 32-bit field of the binary part set to hostile values; every number in the header
set to hostile values, one at a time. What is read nonetheless is run on the host's kernels. Minutes for a small file,
hours for one of 100 KB. Ends at the first file that is handled wrongly, and leaves it in the folder for temporary
files.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgecompress_runtime.errors import RuntimeModelError
from edgecompress_runtime.execute import Executor
from edgecompress_runtime.pack import CODECS, Encoded, PackError, read_pack, write_pack
from edgecompress_runtime.plan import Tensor

sys.path.append(str(Path(__file__).resolve().parents[1] / "runtime"))
from packs import header_of, network, resigned, with_header

HOSTILE = (-(2**63), -(2**31), -1, 0, 1, 2, 3, 7, 255, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1)
OUTCOMES = ("refused", "read", "ran")  # read: as a plan that can't be run, or is too large to run here
MOST = 1 << 22  # elements of all tensors that a plan is run for: more only takes time


def main() -> int:
    if os.environ.get("NUMBA_BOUNDSCHECK") != "1":
        with tempfile.TemporaryDirectory() as cache:
            environment = os.environ | {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": cache}
            return subprocess.run([sys.executable, *sys.argv], env=environment).returncode
    files = {path: Path(path).read_bytes() for path in sys.argv[1:]}
    for codec in () if files else CODECS:
        files[codec] = write_pack(network(), "fuzz", encode=partial(constants_by, codec))
    for name, data in files.items():
        for kind, variants in KINDS.items():
            found = Counter(handled(variant) for variant in variants(data))
            print(f"{name:12} {kind:24}", *(f"{found[outcome]:8,} {outcome}" for outcome in OUTCOMES), flush=True)
    return 0


def constants_by(codec: str, index: int, tensor: Tensor) -> Encoded | None:
    return None if tensor.data is None else CODECS[codec].encode(tensor.data)


def handled(data: bytes) -> str:
    """One of OUTCOMES. Anything but one clear line ends the program."""
    try:
        try:
            plan = read_pack(data).plan()
        except PackError as error:
            clear(error)
            return "refused"
        if sum(t.size for t in plan.tensors) > MOST:
            return "read"
        try:
            executor = Executor(plan)
            executor(*(np.zeros(plan.tensors[i].shape, plan.tensors[i].dtype) for i in plan.inputs))
        except RuntimeModelError as error:
            clear(error)
            return "read"
    except BaseException:
        Path(tempfile.gettempdir(), "fuzz_pack.failed.pack").write_bytes(data)
        raise
    return "ran"


def clear(error: Exception) -> None:
    assert str(error) and "\n" not in str(error) and len(str(error)) < 400, error


def flips(data: bytes) -> Iterator[bytes]:
    for at in range(len(data)):
        for flip in (0x01, 0x80, 0xFF):
            yield data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :]


def truncations(data: bytes) -> Iterator[bytes]:
    for size in range(len(data)):
        yield data[:size]


def fields(data: bytes) -> Iterator[bytes]:
    """Every aligned 32-bit field in front of the header."""
    end = 64 + 8 * int.from_bytes(data[20:24], "little")
    for at in range(8, end, 4):
        for value in HOSTILE:
            yield data[:at] + (value % 2**32).to_bytes(4, "little") + data[at + 4 :]


def signed(change: Callable[[bytes], Iterator[bytes]]) -> Callable[[bytes], Iterator[bytes]]:
    def changed(data: bytes) -> Iterator[bytes]:
        for variant in change(data):
            if len(variant) >= 64:
                yield resigned(variant)

    return changed


def numbers(data: bytes) -> Iterator[bytes]:
    """Every number in the header, set to hostile values."""
    header = header_of(data)
    for place in sorted(_numbers(header), key=repr):
        for value in (*HOSTILE, 0.5, 1e300, None, True, "x", []):
            copy = json.loads(json.dumps(header))
            *path, last = place
            at: Any = copy
            for key in path:
                at = at[key]
            if at[last] != value:
                at[last] = value
                yield with_header(data, json.dumps(copy).encode())


def _numbers(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of the numbers; of a long list only some items."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, (*place, key))
    elif isinstance(value, list):
        chosen = random.Random(0).sample(range(len(value)), min(len(value), 12))
        for index in sorted(chosen):
            yield from _numbers(value[index], (*place, index))
    elif isinstance(value, (int, float)):  # and bool
        yield place


KINDS: dict[str, Callable[[bytes], Iterator[bytes]]] = {
    "flipped": flips,
    "flipped, signed": signed(flips),
    "truncated": truncations,
    "truncated, signed": signed(truncations),
    "fields": fields,
    "fields, signed": signed(fields),
    "numbers of the header": numbers,
}

if __name__ == "__main__":
    sys.exit(main())
