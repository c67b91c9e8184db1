"""A model file or object of any kind that we read -> an onnx_ir.Model in one canonical form."""

from __future__ import annotations

from edgecompress.ingest.loader import Ingested, load
from edgecompress.ingest.normalise import fold_batchnorm

__all__ = ["Ingested", "fold_batchnorm", "load"]
