"""The table of what each layer costs."""

from __future__ import annotations

from rich.console import Group
from rich.text import Text

from edgecompress.record.layer_costs import LayerCosts
from edgecompress.report.tables import table

WORDS = {"instructions": "Instr.", "cycles": "Cycles", "ns": "us"}
NAME = 20  # characters


def layer_costs(profile: LayerCosts) -> Group:
    """In the order of execution, with each layer's share, and the sum."""
    scale, digits = (1e3, 1) if profile.unit == "ns" else (1, 0)

    def row(name: str, operator: str, macs: int, size: int, cost: float) -> list[str]:
        share = 100 * cost / profile.total if profile.total else 0
        return [name, operator, f"{macs:,}", f"{size:,}", f"{cost / scale:,.{digits}f}", f"{share:.1f}"]

    rows = [
        row(_end(layer.name), word(layer.operator), layer.macs, layer.constant_bytes, layer.cost)
        for layer in profile.layers
    ]
    macs, size = (sum(getattr(layer, key) for layer in profile.layers) for key in ("macs", "constant_bytes"))
    rows.append(row("all", "", macs, size, profile.total))
    how = f"median of {profile.runs} inferences" if profile.unit == "ns" else "the last inference"
    head = Text.assemble(
        (profile.artifact, "bold"), " on ", (profile.device, "bold"), f": {profile.kernels} kernels, {how}"
    )
    return Group(head, table("", ("Layer", "Operator", " MACs", " Bytes", f" {WORDS[profile.unit]}", " %"), rows))


def word(operator: str) -> str:
    """An operator's name as people read it: "depthwise conv"."""
    return operator.lower().replace("_2d", "").replace("_", " ")


def _end(name: str) -> str:
    """The end of a long name, which tells layers apart."""
    return name if len(name) <= NAME else f"...{name[3 - NAME :]}"
