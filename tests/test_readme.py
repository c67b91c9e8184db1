"""What README.md and ARCHITECTURE.md say of the code, against the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import readme_tables
from edgecompress.analysis.supported import OPERATORS
from edgecompress.cli import COMMANDS

ROOT = Path(__file__).parent.parent


def test_tables_are_those_of_the_code() -> None:
    text = readme_tables.README.read_text(encoding="utf-8")
    assert readme_tables.replaced(text) == text, "python tests/readme_tables.py"


def test_every_operator_and_command_is_named() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\w+", text.split("## Operators")[1].split("\n## ")[0]))
    assert sorted(set(OPERATORS) - named) == []
    usage = text.split("## Command line")[1].split("```")[1]
    assert sorted(set(COMMANDS) - set(re.findall(r"^edgecompress (\w+)", usage, re.M))) == []


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md"])
def test_paths_that_are_named_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    named = re.findall(r"`((?:edgecompress|runtime|targets|tests|samples|\.ci)/[\w./-]*)`", text)
    linked = list(re.findall(r"\]\(([^)#:]+)\)", text))
    assert named
    assert [path for path in named + linked if not list(ROOT.glob(path.rstrip("/").replace("...", "**")))] == []
