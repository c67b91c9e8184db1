"""The runtime for devices. It imports only NumPy and Numba, and neither of the other two packages.

from edgecompress_runtime import load
model = load("model.pack")
y = model(x)
"""

from __future__ import annotations

from typing import Any

__version__ = "0.2.0"
__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """`load` on first use: whoever only reads packs does not wait for Numba."""
    if name == "load":
        from edgecompress_runtime.loading.model import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
