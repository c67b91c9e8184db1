"""The tables in README.md and docs/ that say what is supported, made of the code's own tables.

    python tests/readme_tables.py

writes them between their marks; test_readme.py compares.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any, get_args

from edgecompress.analysis.supported import OPERATORS, REWRITTEN
from edgecompress.compress.prune.criterion import all_criteria
from edgecompress.compress.prune.prune_channels import COMPARABLE
from edgecompress.conversion.artifacts import EMITTERS
from edgecompress.ingest.keras_model import SUFFIXES
from edgecompress.ingest.torch_export import READERS
from edgecompress.recipe import PRESETS, Cluster, Distill, Prune, Quantize, Recipe, Section, Train
from edgecompress.support.toml import toml_value
from edgecompress.targets import all_targets
from edgecompress_runtime.pack.codecs import CODECS
from edgecompress_targets.drivers.driver_table import BUILT_IN, DRIVERS

ROOT = Path(__file__).parent.parent


def tables() -> dict[str, dict[str, str]]:
    """Document -> name of a mark in it -> the lines after that mark."""
    return {
        "README.md": {"supported": _supported(), "targets": _targets(), "operators": _operators()},
        "docs/RECIPE.md": {"recipe": _recipe()},
    }


def replaced(document: str) -> str:
    """The document's text with each table as it should be."""
    text = (ROOT / document).read_text(encoding="utf-8")
    for name, table in tables()[document].items():
        mark = rf"(<!-- generated: {name} -->\n).*?(<!-- end -->)"
        text, count = re.subn(mark, lambda found, t=table: f"{found[1]}{t}{found[2]}", text, flags=re.DOTALL)
        assert count == 1, f"{document}: {count} marks called {name}"
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
        ("pruning: criteria", [*all_criteria()], f"or your own; {_one_sided()}"),
        ("pruning: allocation", [*COMPARABLE], "capacity for channels alone"),
        ("pruning: schedules", _choices(Prune, "schedule"), ""),
        ("clustering: first values", _choices(Cluster, "init"), "1 to 8 bits a weight, by hand, size or noise"),
        ("quantization: weights", _choices(Quantize, "weights"), ""),
        ("quantization: activations", _choices(Quantize, "activations")[1:], ""),
        ("quantization: ranges", _choices(Quantize, "calibration"), "or learned in training"),
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


def _one_sided() -> str:
    """The criteria that score weights alone, or channels alone."""
    criteria = all_criteria().items()
    weights = ", ".join(name for name, each in criteria if not each.of_channels)
    channels = ", ".join(name for name, each in criteria if each.only_channels)
    return f"{weights} for weights alone; {channels} for channels alone"


def _targets() -> str:
    lines = ["| target | computes on | loads | CPU |", "|---|---|---|---|"]
    for p in all_targets():
        computes_on = "int8" if p.integer_only else "int8, float"
        lines.append(f"| `{p.name}` | {computes_on} | {', '.join(p.loads)} | {p.description} |")
    return "\n".join(lines) + "\n"


def _operators() -> str:
    lines = [
        f"Converted: {', '.join(sorted(OPERATORS))}.",
        f"Rewritten with these, or computed in advance: {', '.join(sorted(REWRITTEN))}.",
    ]
    return "\n\n".join(textwrap.fill(line, 120) for line in lines) + "\n"


def _recipe() -> str:
    """A row for each key of a recipe, as the schema describes it."""
    lines = ["| key | default | meaning |", "|---|---|---|"]
    for name, field in Recipe.model_fields.items():
        section = field.annotation
        if not (isinstance(section, type) and issubclass(section, Section)):
            lines.append(_key(name, Recipe()))
            continue
        lines.append(f"| `[{name}]` | | {_in_code(str(section.__doc__))} |")
        lines += [_key(key, section()) for key in section.model_fields]
    return "\n".join(lines) + "\n"


def _key(name: str, section: Any) -> str:
    value = getattr(section, name)
    default = "unset" if value is None else f"`{toml_value(value)}`"
    return f"| `{name}` | {default} | {_in_code(str(type(section).model_fields[name].description))} |"


def _in_code(text: str) -> str:
    """Texts in quotes as code."""
    return re.sub(r'("[^"]*")', r"`\1`", text)


def _choices(section: Any, key: str) -> list[str]:
    """The words that the key may have."""

    def words(kind: Any) -> list[str]:
        return [w for part in get_args(kind) for w in ([part] if isinstance(part, str) else words(part))]

    return words(section.model_fields[key].annotation)


if __name__ == "__main__":
    for name in tables():
        (ROOT / name).write_text(replaced(name), encoding="utf-8")
