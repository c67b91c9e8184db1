"""One module per family of operators; importing this package fills the table in `registry`."""
from edgecompress.emit.tflite.operators import (  # noqa: F401
    convolution,
    elementwise,
    matmul,
    pooling,
    reduction,
    resize,
    structure,
)
from edgecompress.emit.tflite.registry import LOWERINGS

__all__ = ["LOWERINGS"]
