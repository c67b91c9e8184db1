"""Kernels that are lowered once, and kept on disk for all programs after it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
from layer_cases import Layers, layers

from edgecompress_runtime.building.ahead_of_time import compile_plan
from edgecompress_runtime.codegen.program import program_of
from edgecompress_runtime.families.table import FAMILIES
from edgecompress_runtime.llvm import cross, lowered_kernels

M4 = cross.Machine("thumbv7em-none-eabihf", "cortex-m4", ("+dsp",))


def test_every_kernel_is_known_by_a_description_of_its_own() -> None:
    described: dict[str, set[Callable[..., None]]] = defaultdict(set)
    for name in FAMILIES:
        program = program_of(layers("blocks", "binary", seed=1).plan(), "model", FAMILIES[name], 16)
        for kernel in (*program.kernels, *program.helpers):
            told = lowered_kernels.description(kernel.function)
            assert told is not None, kernel.function
            described[told].add(kernel.function)
    assert len(described) > 150 and all(len(functions) == 1 for functions in described.values())


def test_what_others_define_is_not_kept() -> None:
    assert lowered_kernels.description(lambda: None) is None


def other(path: Path) -> None:
    path.write_bytes(next(p for p in path.parent.glob("*.kernel") if p != path).read_bytes())


def flipped(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))


@pytest.mark.long
def test_kernels_from_disk_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    made = Layers(3)
    lowered: list[str] = []
    made.convolution((4, 4, 4), 4, (3, 3))
    made.dense(1, 16, 4)
    own = lowered_kernels._own

    def counted(text: str, name: str, new: str = "") -> lowered_kernels.Lowered:
        lowered.append(name)
        return own(text, name, new)

    monkeypatch.setattr(lowered_kernels, "_own", counted)

    def compiled() -> bytes:
        lowered.clear()
        cross._lowered_by_numba.cache_clear()
        return compile_plan(made.plan(), "model", M4).object

    first, every = compiled(), len(lowered)
    files = sorted(tmp_path.rglob("*.kernel"))
    assert len(files) == every >= 2
    assert compiled() == first and not lowered
    for tamper in (other, flipped, Path.unlink):
        tamper(files[0])
        assert compiled() == first and len(lowered) == 1
        assert compiled() == first and not lowered
