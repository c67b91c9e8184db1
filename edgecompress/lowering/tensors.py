"""Tensors and operators of a lowered graph: TFLite's names, shapes in TFLite's order of axes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgecompress.graph.annotations import Quantization


@dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor of the file; `data` is None for a computed one, and two numbers in each byte for INT4. `axis` runs
    over TFLite dimensions. open_axis: the dimension that is longer where several samples are computed at once; None
    where the batch size is fixed."""

    name: str
    shape: tuple[int, ...]
    dtype: ir.DataType
    quantization: Quantization | None = None
    axis: int = 0
    data: np.ndarray | None = None
    open_axis: int | None = None

    @property
    def per_channel(self) -> bool:
        """Whether each channel has a scale of its own."""
        return self.quantization is not None and self.quantization.scale.size > 1


@dataclass(frozen=True, eq=False)
class Operator:
    """One operator: builtin name, tensor indices (-1 for an absent optional one), options object.

    origin: the user's node that it came from, as messages name it.
    """

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: object | None
    origin: str = ""
