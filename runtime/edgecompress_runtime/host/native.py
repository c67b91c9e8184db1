"""Machine code, loaded and called: neither Numba nor the kernels' sources are needed for it."""

from __future__ import annotations

import ctypes
import threading

import llvmlite.binding as llvm
import numpy as np

from edgecompress_runtime.errors import RuntimeModelError
from edgecompress_runtime.host.artifact import Artifact
from edgecompress_runtime.plan import Tensor

ENTRY = "edgecompress_invoke"  # void (arena, inputs..., outputs...)
ALIGNMENT = 64


class Native:
    """A model as one function. Threads that call it wait for one another: it works in one arena."""

    def __init__(self, artifact: Artifact) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)  # owns the code
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(artifact.code))
        self._engine.finalize_object()
        self.inputs, self.outputs = artifact.inputs, artifact.outputs
        kinds = [ctypes.c_void_p] * (1 + len(self.inputs) + len(self.outputs))
        self._call = ctypes.CFUNCTYPE(None, *kinds)(self._engine.get_function_address(ENTRY))
        self._arena = _aligned(artifact.arena)
        self._lock = threading.Lock()

    def __call__(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """Inputs in the plan's order, each of its tensor's shape and dtype -> new arrays."""
        check(self.inputs, arrays)
        inputs = [np.ascontiguousarray(a) for a in arrays]
        outputs = [np.empty(t.shape, t.dtype) for t in self.outputs]
        addresses = [a.__array_interface__["data"][0] for a in (self._arena, *inputs, *outputs)]
        with self._lock:
            self._call(*addresses)
        return outputs


def check(tensors: tuple[Tensor, ...], arrays: tuple[np.ndarray, ...]) -> None:
    """Raises RuntimeModelError for another number, shape or dtype."""
    if len(arrays) != len(tensors):
        raise RuntimeModelError(f"expected {len(tensors)} inputs, got {len(arrays)}")
    for tensor, array in zip(tensors, arrays):
        if array.shape != tensor.shape or array.dtype != tensor.dtype:
            raise RuntimeModelError(f"input {tensor.name!r}: expected {tensor.dtype} {tensor.shape}, "
                                    f"got {array.dtype} {array.shape}")  # fmt: skip


def _aligned(size: int) -> np.ndarray:
    """uint8 [size], starting at a multiple of 64, zeros."""
    whole = np.zeros(size + ALIGNMENT, np.uint8)
    start = -whole.ctypes.data % ALIGNMENT
    return whole[start : start + size]
