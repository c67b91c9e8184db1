"""README.md's tables of what is supported, made of the code's own tables.

    python tests/readme_tables.py

writes them between their marks; test_readme.py compares.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any, get_args

from edgecompress.analysis.supported import OPERATORS
from edgecompress.compress.prune.criteria import NAMES
from edgecompress.compress.prune.prune_channels import COMPARABLE
from edgecompress.conversion.steps import EMITTERS
from edgecompress.ingest.keras_model import SUFFIXES
from edgecompress.ingest.torch_export import READERS
from edgecompress.recipe import PRESETS, Cluster, Distill, Prune, Quantize, Train
from edgecompress.targets import all_targets
from edgecompress_runtime.pack.codecs import CODECS
from edgecompress_targets.drivers.driver_table import BUILT_IN, DRIVERS

README = Path(__file__).parent.parent / "README.md"


def tables() -> dict[str, str]:
    """Name of a mark -> the lines after it."""
    return {"supported": _supported(), "targets": _targets(), "operators": _operators()}


def replaced(text: str) -> str:
    """README's text with each table as it should be."""
    for name, table in tables().items():
        mark = rf"(<!-- generated: {name} -->\n).*?(<!-- end -->)"
        text, count = re.subn(mark, lambda found, t=table: f"{found[1]}{t}{found[2]}", text, flags=re.DOTALL)
        assert count == 1, f"README.md: {count} marks called {name}"
    return text


def _supported() -> str:
    rows = [
        (
            "models",
            [".onnx", *READERS, *SUFFIXES, "SavedModel", "file.py:factory"],
            "also a torch.nn.Module or an ONNX model in Python",
        ),
        ("operators of ONNX", [], f"{len(OPERATORS)}, [by name](#operators)"),
        ("distillation: student", ["a file", "width", "depth", "separable"], ""),
        ("distillation: features", _choices(Distill, "features")[:2], "or pairs of names"),
        ("pruning: what goes", ["channels", "blocks", "unstructured", "N:M", "block:RxC"], ""),
        ("pruning: criteria", [*NAMES], "or your own; movement for weights; activation, scale for channels"),
        ("pruning: allocation", [*COMPARABLE], "capacity for channels alone"),
        ("pruning: schedules", _choices(Prune, "schedule"), ""),
        ("clustering: first values", _choices(Cluster, "init"), "1 to 8 bits a weight, by hand, size or noise"),
        ("quantisation: weights", _choices(Quantize, "weights"), ""),
        ("quantisation: activations", _choices(Quantize, "activations")[1:], ""),
        ("quantisation: ranges", _choices(Quantize, "calibration"), "or learned in training"),
        ("training: optimizers", _choices(Train, "optimizer"), ""),
        ("presets", sorted(p.stem for p in PRESETS.glob("*.toml")), ""),
        ("artifacts", [f".{name}" for name in EMITTERS], ""),
        (".pack codecs", [*CODECS], "the smallest, for each tensor"),
        ("drivers of devices", [*DRIVERS], ""),
        ("devices without configuration", [*BUILT_IN], ""),
    ]
    lines = ["| | |", "|---|---|"]
    for what, names, note in rows:
        cell = ", ".join(name if " " in name else f"`{name}`" for name in names)
        lines.append(f"| {what} | {'; '.join(part for part in (cell, note) if part)} |")
    return "\n".join(lines) + "\n"


def _targets() -> str:
    lines = ["| target | computes on | loads | CPU |", "|---|---|---|---|"]
    for p in all_targets():
        loads = ", ".join((*p.formats, "pack"))
        lines.append(f"| `{p.name}` | {'int8' if p.integer_only else 'int8, float'} | {loads} | {p.description} |")
    return "\n".join(lines) + "\n"


def _operators() -> str:
    return textwrap.fill(", ".join(sorted(OPERATORS)) + ".", 120) + "\n"


def _choices(section: Any, key: str) -> list[str]:
    """The words that the key may have."""

    def words(kind: Any) -> list[str]:
        return [w for part in get_args(kind) for w in ([part] if isinstance(part, str) else words(part))]

    return words(section.model_fields[key].annotation)


if __name__ == "__main__":
    README.write_text(replaced(README.read_text(encoding="utf-8")), encoding="utf-8")
