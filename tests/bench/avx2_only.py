"""Our runtime against LiteRT, both held to AVX2, on a CPU that has more: x86-64 Linux with gcc and binutils.

    python tests/bench/avx2_only.py MODEL.tflite MODEL.pack

LiteRT chooses its kernels by the CPUID instruction, which no option of it overrides. So a temporary copy of its library
has each CPUID replaced by an invalid instruction, and a signal handler (avx2_only.c) answers in its place, leaving out
AVX-512 and VNNI. All else runs natively. Prints "OURS THEIRS RATIO", microseconds, one thread.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import measure
import numpy as np

import edgecompress_runtime

PACKAGE, LIBRARY = "ai_edge_litert", "libpywrap_litert_common.so"
CPUID, INVALID = b"\x0f\xa2", b"\x0f\x0b"


def main() -> int:
    tflite, pack = map(Path, sys.argv[1:])
    with tempfile.TemporaryDirectory() as temporary:
        count = _answers(Path(temporary))
        sys.path.insert(0, str(_copy(Path(temporary) / "site")))
        model = edgecompress_runtime.load(pack, variant="avx2")
        x = np.random.default_rng(0).integers(0, 256, model.inputs[0].shape).astype(np.float32)
        litert = measure.tflite_caller(tflite, x[0].transpose(2, 0, 1))
        if not count():
            raise SystemExit("LiteRT did not ask what the CPU has: nothing was hidden from it")
        model(x)
        print(*measure.latency_ratio(lambda: model(x), litert))
    return 0


def _answers(folder: Path) -> ctypes._CFuncPtr:
    """Installs the handler; gives what counts its answers."""
    library = folder / "avx2_only.so"
    source = Path(__file__).with_suffix(".c")
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    loaded = ctypes.CDLL(str(library))
    loaded.install()
    return loaded.answers


def _copy(folder: Path) -> Path:
    """A folder with the package as it is installed, without CPUID."""
    (origin,) = importlib.util.find_spec(PACKAGE).submodule_search_locations
    left_out = shutil.ignore_patterns("vendors", "*WebGpu*")
    shutil.copytree(origin, folder / PACKAGE, ignore=left_out)
    library = folder / PACKAGE / LIBRARY
    code = _objdump("-d", "--no-show-raw-insn", library)
    sections = [line.split() for line in _objdump("-h", library).splitlines()]
    places = [[int(s[i], 16) for i in (3, 2, 5)] for s in sections if len(s) > 5 and s[0].isdigit()]
    data = bytearray(library.read_bytes())
    for address in (int(found, 16) for found in re.findall(r"^ *([0-9a-f]+):\s+cpuid", code, re.M)):
        (at,) = (address - start + offset for start, size, offset in places if start <= address < start + size)
        assert data[at : at + 2] == CPUID
        data[at : at + 2] = INVALID
    library.write_bytes(data)
    return folder


def _objdump(*arguments: str | Path) -> str:
    done = subprocess.run(["objdump", *map(str, arguments)], capture_output=True, text=True, check=True)
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
