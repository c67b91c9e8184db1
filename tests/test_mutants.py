"""The table of mutation testing names files and tests that exist."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "bench"))
import mutants

SOURCES = [source for room in mutants.ROOMS.values() for source in room]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.file)
def test_every_source_and_its_tests_exist(source: mutants.Source) -> None:
    assert all((mutants.ROOT / test).is_file() for test in source.tests)
    defined = {n.name for n in ast.walk(ast.parse((mutants.ROOT / source.file).read_text())) if hasattr(n, "name")}
    assert defined.issuperset(source.functions)


def test_a_mutant_is_its_file_with_one_change() -> None:
    (first,) = mutants.drawn(1, 0, ["graph"])
    before = ast.unparse(ast.parse((mutants.ROOT / first.source.file).read_text())).splitlines()
    after = first.text().splitlines()
    assert len(before) == len(after) and sum(a != b for a, b in zip(before, after)) == 1
