"""One module per family of operators; importing this package fills the table in `registry`."""

from edgecompress.emit.tflite.operators import convolution, elementwise, matmul, pooling, reduction, resize, structure  # noqa: F401
from edgecompress.emit.tflite.registry import LOWERINGS

__all__ = ["LOWERINGS"]
