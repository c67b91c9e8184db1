"""Two small networks become the bytes that were recorded; `python tests/golden.py` compares all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import golden

RECIPE = "clustered"


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """The digests are those of one thread, which other tests need not compute with."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.long
@pytest.mark.parametrize("network", ["moves", "lstm"])
def test_a_conversion_gives_the_recorded_bytes(network: str, tmp_path: Path) -> None:
    """A change that is meant to change them records them again: `python tests/golden.py record`."""
    expected = golden.recorded().get(f"{network} {RECIPE}") if golden.FILE.exists() else None
    if expected is None:
        pytest.skip(f"golden.json has nothing for {golden.environment()}: these libraries on this processor")
    assert golden.digests(network, RECIPE, tmp_path) == expected
