"""What the documents say of the code, against the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import readme_tables
from edgecompress.analysis.supported import OPERATORS
from edgecompress.cli import COMMANDS

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("samples/*/*.md"),
        ROOT / "runtime" / "FORMAT.md",
        ROOT / "targets" / "edgecompress_targets" / "connection" / "PROTOCOL.md",
    ]
)


@pytest.mark.parametrize("name", readme_tables.tables())
def test_tables_are_those_of_the_code(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert readme_tables.replaced(name) == text, "run: python tests/readme_tables.py"


def test_every_operator_and_command_is_named() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\w+", text.split("## Operators")[1].split("\n## ")[0]))
    assert sorted(set(OPERATORS) - named) == []
    usage = text.split("## Command line")[1].split("```")[1]
    assert sorted(set(COMMANDS) - set(re.findall(r"^edgecompress (\w+)", usage, re.M))) == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_paths_that_are_named_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    named = re.findall(r"`((?:edgecompress|runtime|targets|tests|samples|\.ci)/[\w./-]*)`", text)
    linked = re.findall(r"\]\(([^)#:]+)[^):]*\)", text)
    assert [name for name in named if not list(ROOT.glob(name.rstrip("/").replace("...", "**")))] == []
    assert [link for link in linked if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_headings_that_are_linked_exist(path: Path) -> None:
    for link, heading in re.findall(r"\]\(([\w./-]*)#([\w-]+)\)", path.read_text(encoding="utf-8")):
        other = (path.parent / link if link else path).read_text(encoding="utf-8")
        headings = re.findall(r"^#+ (.*)$", other, re.M)
        assert heading in [re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings], f"{link}#{heading}"
