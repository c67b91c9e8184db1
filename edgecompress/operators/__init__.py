"""One record for each ONNX operator. Importing this package loads all families; none of them imports torch."""

from edgecompress.operators import (  # noqa: F401 (each enters its records)
    comparison,
    convolution,
    einsum,
    elementwise,
    fourier,
    functions,
    indexing,
    matrix,
    movement,
    normalisation,
    pooling,
    recurrent,
    reduction,
    resizing,
    sampling,
    selection,
)
from edgecompress.operators.record import OPERATORS, Operator, record_of

__all__ = ["OPERATORS", "Operator", "record_of"]
