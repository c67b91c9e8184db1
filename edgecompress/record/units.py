"""Numbers as people read them."""

from __future__ import annotations


def count(n: float) -> str:
    """1234567 -> "1.23 M"; exact below ten thousand."""
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if n >= factor:
            scaled = n / (1e3 if unit == "k" else factor)
            return f"{scaled:.3g} {unit}"
    return f"{n:,.0f}"


def size(n: int) -> str:
    """93728 -> "93,728 B"; from 10 MiB on "12.3 MiB"."""
    return f"{n / 2**20:,.1f} MiB" if n >= 10 * 2**20 else f"{n:,} B"
