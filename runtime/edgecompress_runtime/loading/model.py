"""`load`: a `.pack` file as a function of arrays."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from edgecompress_runtime.codegen.meeting import PREFIX
from edgecompress_runtime.errors import RuntimeModelError
from edgecompress_runtime.families.x86.variants import VARIANTS, Variant, available
from edgecompress_runtime.loading import code_cache as artifact
from edgecompress_runtime.loading.forks import COMPILING
from edgecompress_runtime.loading.native import Native
from edgecompress_runtime.pack import Pack, read_pack
from edgecompress_runtime.plan import Plan, Tensor


class Run(Protocol):
    """What runs one sample."""

    def __call__(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """Inputs, each of its tensor's shape and dtype -> outputs."""
        ...

    def reset(self) -> None:
        """Sets all states to zero."""
        ...


MOST_THREADS = 64


class Model:
    """A model ready to run: call it with one array an input, get the output (a tuple when there are several). Arrays of
    several samples, [n, ...], give outputs of as many. A model with states keeps them from one sample to the next, and
    `reset` sets them to zero, as they are at first.

    inputs, outputs: their tensors (name, shape, dtype; scale and zero point where they are int8). Images are
    NHWC, as in a `.tflite` file. The first call of a new model compiles it, which takes seconds and is announced
    on a terminal; the code is kept on disk. compile_seconds: what that took here, 0 for code from the disk.
    ordinary_layers: those that have slow kernels, a line for each, with the reason and its share of the model's
    multiply-accumulates.
    """

    def __init__(
        self,
        inputs: tuple[Tensor, ...],
        outputs: tuple[Tensor, ...],
        run: Run | None,
        compile: Callable[[], Run] | None = None,
        ordinary_layers: tuple[str, ...] = (),
    ) -> None:
        """run: None where the code is to be compiled by `compile` when it is first called."""
        self.inputs, self.outputs, self.compile_seconds = inputs, outputs, 0.0
        self.ordinary_layers = ordinary_layers
        self._run, self._compile = run, compile

    def __call__(self, *arrays: np.ndarray) -> np.ndarray | tuple[np.ndarray, ...]:
        """arrays: in the order of `inputs`, each of its tensor's shape and dtype, or of n samples.

        n samples are [n, ...] of an input of [1, ...], and [n, *shape] of any other; the outputs are so as well. They
        run one after the other. Raises RuntimeModelError for another number, shape or dtype.
        """
        run = self._run or self._compiled()
        given = [np.asarray(a) for a in arrays]
        count = self._samples(given)
        results = run(*given) if count is None else self._one_by_one(run, given, count)
        return results[0] if len(results) == 1 else tuple(results)

    def reset(self) -> None:
        """Sets all states to zero, for another stream of samples."""
        if self._run is not None:  # before the first call they are
            self._run.reset()

    def _samples(self, arrays: list[np.ndarray]) -> int | None:
        """How many samples all arrays hold; None where they are one sample, or don't fit."""
        if len(arrays) != len(self.inputs) or all(a.shape == t.shape for a, t in zip(arrays, self.inputs)):
            return None
        counts = {len(a) if a.ndim and a.shape[1:] == _sample(t) else 0 for a, t in zip(arrays, self.inputs)}
        return counts.pop() or None if len(counts) == 1 else None

    def _one_by_one(self, run: Run, arrays: list[np.ndarray], count: int) -> list[np.ndarray]:
        rows = [run(*(a[i].reshape(t.shape) for a, t in zip(arrays, self.inputs))) for i in range(count)]
        return [np.stack(parts).reshape(count, *_sample(t)) for t, parts in zip(self.outputs, zip(*rows))]

    def _compiled(self) -> Run:
        """Once, however many threads make the first call."""
        with COMPILING:
            if self._run is None:
                assert self._compile is not None
                start = time.perf_counter()
                self._run = self._compile()
                self.compile_seconds = time.perf_counter() - start
            return self._run


def _sample(tensor: Tensor) -> tuple[int, ...]:
    """The shape of a sample within several."""
    return tensor.shape[1:] if tensor.shape[:1] == (1,) else tensor.shape


def load(source: str | os.PathLike[str] | bytes, *, variant: str | None = None, threads: int = 1) -> Model:
    """A `.pack` file, or its bytes.

    variant: of the kernels, a key of families.x86.variants.VARIANTS; None for the best of this CPU. threads: that share
    the model's large layers; results are the same.
    Raises PackError for a file that is damaged or no pack, UnsupportedOperatorError, naming every operator that
    has no kernel here, and ValueError for a variant that this CPU can't run or no thread.
    """
    chosen = _variant(variant)
    if not 1 <= threads <= MOST_THREADS:
        raise ValueError(f"threads = {threads}: expected 1 to {MOST_THREADS}")
    pack: Pack | None = None
    if not isinstance(source, bytes):
        try:
            data = Path(source).read_bytes()
        except OSError:
            pack = read_pack(source)  # which raises what it has to say of it
            raise
    else:
        data = source
    place = artifact.place(data, chosen.name, threads)
    if place and (found := artifact.read(place)):
        native = Native(found)
        return Model(native.inputs, native.outputs, native, ordinary_layers=found.ordinary)
    pack = read_pack(source)
    plan = pack.plan()
    try:
        with COMPILING:
            return _new(plan, chosen, threads, place)
    except RuntimeModelError as error:
        raise type(error)(f"{pack.name}: {error}") from None


def _variant(name: str | None) -> Variant:
    usable = available()
    if name is None:
        return usable[0]
    if (chosen := VARIANTS.get(name)) not in usable:
        raise ValueError(f"variant {name!r}: expected one of {', '.join(v.name for v in usable)} on this CPU")
    return chosen


def _new(plan: Plan, variant: Variant, threads: int, place: Path | None) -> Model:
    # imported here: code from the disk runs without Numba
    from edgecompress_runtime.codegen.llvm_writer import llvm_program
    from edgecompress_runtime.codegen.memory import CACHE_LINE
    from edgecompress_runtime.codegen.ordinary_layers import summary
    from edgecompress_runtime.families.x86.x86_family import x86_family
    from edgecompress_runtime.loading.compile_for_host import build

    program = llvm_program(plan, PREFIX, x86_family(variant, threads), alignment=CACHE_LINE, threads=threads)

    def compile() -> Run:
        start = time.perf_counter()
        made = build(program, variant)
        if made is None:
            from edgecompress_runtime.execute import Executor

            return Executor(plan)
        if place:
            artifact.write(place, made)
        if sys.stderr.isatty():
            print(f"edgecompress: compiled for {variant.name} in {time.perf_counter() - start:.1f} s", file=sys.stderr)
            if program.ordinary:
                print(f"edgecompress: {summary(program.ordinary)}", file=sys.stderr)
        return Native(made)

    inputs, outputs = (
        tuple(program.plan.tensors[i] for i in ends) for ends in (program.plan.inputs, program.plan.outputs)
    )
    return Model(inputs, outputs, None, compile, tuple(map(str, program.ordinary)))
