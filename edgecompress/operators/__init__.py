"""One record an ONNX operator: importing this package reads all families; torch is imported by nobody here."""

from edgecompress.operators import (  # noqa: F401 (each enters its records)
    comparison,
    convolution,
    elementwise,
    indexing,
    matrix,
    movement,
    normalisation,
    pooling,
    recurrent,
    reduction,
    resizing,
)
from edgecompress.operators.record import OPERATORS, Operator, record_of

__all__ = ["OPERATORS", "Operator", "record_of"]
