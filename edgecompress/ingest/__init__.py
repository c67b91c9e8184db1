"""Reads models of every supported kind and brings them to one canonical form, an onnx_ir.Model."""

from __future__ import annotations

from edgecompress.ingest.loader import Ingested, load
from edgecompress.ingest.normalise import fold_batchnorm
from edgecompress.ingest.open_shapes import SampleShapes
from edgecompress.ingest.static_shapes import GivenShapes

__all__ = ["GivenShapes", "Ingested", "SampleShapes", "fold_batchnorm", "load"]
