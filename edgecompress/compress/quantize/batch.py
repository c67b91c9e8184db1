"""Running a model on many samples at once, and looking at any of its values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgecompress.evaluate.interpreters import InterpreterError, OnnxRuntime
from edgecompress.ingest.batch_size import FixedBatchError, with_batch

ACTIVATION_BYTES = 64 << 20  # of all values that one batch makes
MAX_BATCH = 64
TOLERANCE = 1e-3  # of the largest magnitude: another batch size may choose another kernel
ALL_CORES = 0
TAKES_ALL = "takes all samples in one call"
Arrays = dict[str, np.ndarray]


class Runner:
    """ONNX Runtime over a canonical model, returning the named values.

    `samples` go through in one call where the model allows it (a clone with another batch size gives the same
    results, which the first call checks), and at the model's own batch size otherwise. `whole` says which
    beforehand: as known from another runner, or because results depend on the batch by intent.
    """

    def __init__(
        self, model: ir.Model, outputs: Sequence[str], samples: int, *, whole: bool | None = None, few: bool = False
    ) -> None:
        """outputs: names of any values. samples: of a batch. few: whether it runs so few batches that arranging the
        weights for speed, in memory of their own, does not pay."""
        self._model, self._outputs, self._samples, self._few = model, list(outputs), samples, few
        self._whole, self._at_once = whole, False
        self._interpreter: OnnxRuntime | None = None
        self._first: tuple[Arrays, Arrays] | None = None  # the inputs and results that showed how samples go through

    def __call__(self, inputs: Arrays) -> Arrays:
        """{input: [n, *sample]} -> {output: [n, ...]}."""
        if self._interpreter is None:
            self._interpreter = self._start(inputs)
        first, self._first = self._first, None
        return first[1] if first is not None and first[0] is inputs else self._run(self._interpreter, inputs)

    def close(self) -> None:
        """Frees the session, which the next call starts again."""
        self._interpreter = None

    def takes_all(self, inputs: Arrays) -> bool:
        """Whether samples like these go through in one call."""
        if self._whole is None:
            self._whole = self._model.graph.meta.get(TAKES_ALL)
        if self._whole is None:
            self._interpreter = self._start(inputs)
        return bool(self._whole)

    def _start(self, inputs: Arrays) -> OnnxRuntime:
        large, meta = side_by_side(self._model, self._samples), self._model.graph.meta
        if self._whole is None and TAKES_ALL not in meta:  # measured once for a model and what is cloned from it
            return self._start_measured(large, inputs)
        if self._whole is None:
            self._whole = bool(meta[TAKES_ALL])
        self._at_once = self._whole and large is not None
        return self._load(large if self._at_once and large is not None else self._model)

    def _start_measured(self, large: ir.Model | None, inputs: Arrays) -> OnnxRuntime:
        """Finds out whether all samples at once come out as the first do one after the other."""
        own, one = _own_batch(self._model), self._load(self._model)
        few = {name: x[: 2 * own] for name, x in inputs.items()}
        self._whole = False
        if large is not None and len(next(iter(few.values()))) == 2 * own <= self._samples:
            expected = self._run(one, few)
            try:
                many = self._load(large)
                self._at_once = len(next(iter(inputs.values()))) == self._samples
                found = self._run(many, inputs)
                self._whole = all(_alike(expected[n], found[n][: len(expected[n])]) for n in self._outputs)
            except InterpreterError:  # something in the model has the batch size built in
                pass
        self._model.graph.meta[TAKES_ALL] = self._at_once = self._whole
        if not self._whole:
            return one
        self._first = inputs, found
        return many

    def _load(self, model: ir.Model) -> OnnxRuntime:
        return OnnxRuntime(model, threads=ALL_CORES, extra_outputs=self._outputs, arrange=not self._few)

    def _run(self, interpreter: OnnxRuntime, inputs: Arrays) -> Arrays:
        # Where all go through at once, all values have the batch in front.
        at_once = self._at_once and len(next(iter(inputs.values()))) == self._samples
        arrays = (interpreter.call if at_once else interpreter.run)(inputs)
        return dict(zip(self._outputs, arrays[len(arrays) - len(self._outputs) :]))


def batch_size(model: ir.Model) -> int:
    """How many samples make at most ACTIVATION_BYTES of values (1..MAX_BATCH)."""
    values = [*model.graph.inputs, *(v for node in model.graph for v in node.outputs)]
    shapes = [v.shape for v in values if v.shape is not None and v.shape.is_static()]
    elements = sum(int(np.prod(shape.numpy())) for shape in shapes)
    return int(np.clip(ACTIVATION_BYTES // max(4 * elements // _own_batch(model), 1), 1, MAX_BATCH))


def side_by_side(model: ir.Model, batch: int) -> ir.Model | None:
    """A clone with another batch size, if every value has one and the same along its first axis.

    That is no proof: whether it computes the same, running it shows.
    """
    values = [*model.graph.inputs, *(v for node in model.graph for v in node.outputs)]
    own = {v.shape[0] if v.shape is not None and len(v.shape) else None for v in values}
    if len(own) != 1 or None in own or own == {batch}:
        return None
    try:
        clone, axes = with_batch(model, batch)
    except FixedBatchError:
        return None
    return clone if not any(axes.values()) else None


def _own_batch(model: ir.Model) -> int:
    shape = model.graph.inputs[0].shape
    return shape.numpy()[0] if shape is not None and len(shape) else 1


def _alike(expected: np.ndarray, found: np.ndarray) -> bool:
    if expected.shape != found.shape:
        return False
    if expected.dtype != np.float32:
        return np.array_equal(expected, found)
    scale = np.abs(expected[np.isfinite(expected)]).max(initial=0.0)
    return np.allclose(expected, found, rtol=0, atol=TOLERANCE * scale, equal_nan=True)
