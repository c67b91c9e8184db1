"""Two small networks become the bytes that were recorded; `python tests/golden.py` compares all of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("golden.py")


@pytest.mark.long
def test_conversions_give_the_recorded_bytes() -> None:
    """In a process of its own, where nothing ran that sums depend on. A change of bytes that is meant is recorded."""
    names = ["moves clustered", "lstm clustered"]
    done = subprocess.run([sys.executable, SCRIPT, *names], capture_output=True, text=True, timeout=3600)
    if done.returncode == 2:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr
