"""`load`: a `.pack` file as a function of arrays."""

from __future__ import annotations

import os

import numpy as np

from edgecompress_runtime.errors import RuntimeModelError
from edgecompress_runtime.execute import Executor
from edgecompress_runtime.pack import read_pack
from edgecompress_runtime.plan import Tensor


class Model:
    """A model ready to run: call it with one array an input, get the output (a tuple when there are several).

    inputs, outputs: their tensors (name, shape, dtype; scale and zero point where they are int8). Images are
    NHWC, as in a `.tflite` file. The first call compiles the kernels, or loads them from the cache on disk.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        plan = executor.plan
        self.inputs: tuple[Tensor, ...] = tuple(plan.tensors[i] for i in plan.inputs)
        self.outputs: tuple[Tensor, ...] = tuple(plan.tensors[i] for i in plan.outputs)

    def __call__(self, *arrays: np.ndarray) -> np.ndarray | tuple[np.ndarray, ...]:
        """arrays: in the order of `inputs`, each of its tensor's shape and dtype.

        Raises RuntimeModelError for another number, shape or dtype.
        """
        results = self._executor(*(np.asarray(a) for a in arrays))
        return results[0] if len(results) == 1 else tuple(results)


def load(source: str | os.PathLike[str] | bytes) -> Model:
    """A `.pack` file, or its bytes.

    Raises PackError for a file that is damaged or no pack, and UnsupportedOperatorError, naming every operator
    that has no kernel here.
    """
    pack = read_pack(source)
    try:
        return Model(Executor(pack.plan()))
    except RuntimeModelError as error:
        raise type(error)(f"{pack.name}: {error}") from None
