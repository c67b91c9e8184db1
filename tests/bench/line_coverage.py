"""Line coverage of the three packages by the test suite.

    pip install pytest-cov
    python tests/bench/line_coverage.py

Coverage can't see into compiled code, so the tests of kernels and codecs run a second time with the kernels as plain
Python (NUMBA_DISABLE_JIT), where those of them that need compiled code fail; lines of both runs count. Exits 1 when the
suite fails, or a package is below LEAST.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from coverage import Coverage

ROOT = Path(__file__).resolve().parents[2]
LEAST = 90.0  # percent
PACKAGES = {
    "edgecompress": "edgecompress", "edgecompress_runtime": "runtime/edgecompress_runtime",
    "edgecompress_targets": "targets/edgecompress_targets",
}  # fmt: skip
AS_PYTHON = ("test_kernels_*.py", "test_codecs.py", "test_arithmetic_edges.py", "test_float_functions.py")


def run(data: Path, *arguments: str, **environment: str) -> int:
    """pytest with these arguments, its coverage in `data`; returns its exit code."""
    covered = [f"--cov={name}" for name in PACKAGES]
    command = [sys.executable, "-m", "pytest", "-q", *covered, "--cov-report=", *arguments]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment | {"COVERAGE_FILE": str(data)}).returncode


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        compiled, plain = Path(folder, "compiled"), Path(folder, "plain")
        failed = run(compiled) != 0
        kernels = [str(p) for pattern in AS_PYTHON for p in sorted((ROOT / "tests/runtime").glob(pattern))]
        run(plain, "--tb=no", *kernels, NUMBA_DISABLE_JIT="1")
        both = Coverage(data_file=str(Path(folder, "both")))
        both.exclude(r"if TYPE_CHECKING:|^\s+\.\.\.$")
        both.combine([str(compiled), str(plain)])
        for name, place in PACKAGES.items():
            share = both.report(include=[f"{ROOT / place}/*"], file=io.StringIO())
            print(f"{name}: {share:.1f} % of lines")
            failed |= share < LEAST
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
