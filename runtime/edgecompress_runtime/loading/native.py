"""Machine code, loaded and called: neither Numba nor the kernels' sources are needed for it."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from functools import partial

import llvmlite.binding as llvm
import numpy as np

from edgecompress_runtime.codegen.meeting import ENTRY
from edgecompress_runtime.codegen.memory import CACHE_LINE
from edgecompress_runtime.errors import RuntimeModelError
from edgecompress_runtime.loading.code_cache import Artifact
from edgecompress_runtime.loading.forks import watched
from edgecompress_runtime.loading.team import Team
from edgecompress_runtime.plan import Tensor


class Native:
    """A model as one function, or one for each of several threads of its own. Threads that call it wait for one
    another: it works in one arena."""

    def __init__(self, artifact: Artifact) -> None:
        """Maps the code into this process and takes the memory that it works in."""
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
        # one mapping for code and constants: instructions reach 2 GiB, and large libraries may lie between two mappings
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine, use_lmm=True)  # owns the code
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(artifact.code))
        self._engine.finalize_object()
        self.inputs, self.outputs = artifact.inputs, artifact.outputs
        # inputs and outputs have places of their own: handing a caller's arrays over costs more than to copy them
        self._arena = _aligned(artifact.arena)
        self._into, self._out = (
            [_aligned(t.size * t.dtype.itemsize).view(t.dtype).reshape(t.shape) for t in tensors]
            for tensors in (self.inputs, self.outputs)
        )
        memory = self._arena, *self._into, *self._out
        self._call = self._alone(memory) if artifact.threads == 1 else Team(self._engine, memory, artifact.threads)
        self._lock = threading.Lock()
        self._states = artifact.states
        self.reset()
        watched(self)

    def reset(self) -> None:
        """Sets all states to zero."""
        with self._lock:
            for state in self._states:
                self._arena[state.offset : state.offset + state.size].view(np.int8)[:] = state.fill

    def after_fork(self) -> None:
        """In a forked process: nobody runs this model, and its other threads are not there."""
        self._lock = threading.Lock()
        if isinstance(self._call, Team):
            self._call.after_fork()

    def _alone(self, memory: tuple[np.ndarray, ...]) -> Callable[[], None]:
        function = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(memory))(self._engine.get_function_address(ENTRY))
        return partial(function, *(ctypes.c_void_p(array.ctypes.data) for array in memory))

    def __call__(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """Inputs in the plan's order, each of its tensor's shape and dtype -> new arrays."""
        check(self.inputs, arrays)
        with self._lock:
            for place, array in zip(self._into, arrays):
                place[...] = array
            self._call()
            return [array.copy() for array in self._out]


def check(tensors: tuple[Tensor, ...], arrays: tuple[np.ndarray, ...]) -> None:
    """Raises RuntimeModelError for another number, shape or dtype."""
    if len(arrays) != len(tensors):
        raise RuntimeModelError(f"expected {len(tensors)} inputs, got {len(arrays)}")
    for tensor, array in zip(tensors, arrays):
        if array.shape != tensor.shape or array.dtype != tensor.dtype:
            raise RuntimeModelError(
                f"input {tensor.name!r}: expected {tensor.dtype} {tensor.shape}, got {array.dtype} {array.shape}"
            )


def _aligned(size: int) -> np.ndarray:
    """uint8 [size], starting at a multiple of 64, zeros."""
    whole = np.zeros(size + CACHE_LINE, np.uint8)
    start = -whole.ctypes.data % CACHE_LINE
    return whole[start : start + size]
