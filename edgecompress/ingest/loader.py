"""`load`: any model that we read, as an Ingested."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from edgecompress.ingest.equality import max_relative_error
from edgecompress.ingest.normalise import normalise


@dataclass(frozen=True)
class Ingested:
    """A model in canonical form, and where it came from.

    format: "onnx", "pt2", "torchscript" or "python". opset: of the original (or of the export from torch).
    max_relative_error: original against normalised in ONNX Runtime, max|a - b| / max|a|.
    """

    model: ir.Model
    format: str
    path: Path | None
    opset: int
    max_relative_error: float
    notes: tuple[str, ...]


def load(
    source: Any, *, weights: str | Path | None = None, input_shapes: Mapping[str, Sequence[int]] | None = None
) -> Ingested:
    proto = onnx.load(source)
    model = ir.from_proto(proto)
    original = proto.SerializeToString()
    opset = model.opset_imports[""]
    model = normalise(model, input_shapes or {})
    return Ingested(model, "onnx", Path(source), opset, max_relative_error(original, model), ())
