"""Running a model on many samples at once, and looking at any of its values."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import onnxruntime

from edgecompress.graph.fusion import constant

ACTIVATION_BYTES = 64 << 20  # of all values that one batch makes
MAX_BATCH = 64
TOLERANCE = 1e-3  # of the largest magnitude: another batch size may choose another kernel
Arrays = dict[str, np.ndarray]


class Runner:
    """ONNX Runtime over a canonical model, returning the named values.

    Samples go through in one call where the model allows it (a clone whose batch dimension is free gives
    the same results, which the first call checks), and at the model's own batch size otherwise.
    Results are joined along their first axis. `whole` says so beforehand, for models whose results depend
    on the batch by intent.
    """

    def __init__(self, model: ir.Model, outputs: Sequence[str], *, whole: bool | None = None, threads: int = 0) -> None:
        self._own = _own_batch(model)
        self._outputs = list(outputs)
        self._model = with_outputs(model, outputs)
        self._threads = threads
        self._session: onnxruntime.InferenceSession | None = None
        self.whole = whole

    def __call__(self, inputs: Arrays) -> Arrays:
        """{input: [n, ...]} -> {output: [n, ...]}."""
        if self._session is None:
            self._start({name: x[: 2 * self._own] for name, x in inputs.items()})
        assert self._session is not None
        return self._run(self._session, inputs) if self.whole else self._loop(self._session, inputs)

    def _start(self, few: Arrays) -> None:
        free = None if self.whole is False else free_batch(self._model)
        if self.whole and free is not None:
            self._session = _session(free, self._threads)
            return
        self._session, self.whole = _session(self._model, self._threads), False
        if free is None or len(next(iter(few.values()))) == self._own:
            return
        expected = self._loop(self._session, few)
        try:
            session = _session(free, self._threads)
            found = self._run(session, few)
        except Exception:  # ONNX Runtime's errors have no common class; the model mixes samples or fixes shapes
            return
        if all(_alike(expected[name], found[name]) for name in self._outputs):
            self._session, self.whole = session, True

    def _run(self, session: onnxruntime.InferenceSession, inputs: Arrays) -> Arrays:
        return dict(zip(self._outputs, session.run(self._outputs, inputs)))

    def _loop(self, session: onnxruntime.InferenceSession, inputs: Arrays) -> Arrays:
        count = len(next(iter(inputs.values())))
        parts = []
        for begin in range(0, count, self._own):
            piece = {name: _filled(x[begin : begin + self._own], self._own) for name, x in inputs.items()}
            parts.append(self._run(session, piece))
        return {name: np.concatenate([np.atleast_1d(p[name]) for p in parts]) for name in self._outputs}


def batch_size(model: ir.Model) -> int:
    """How many samples make at most ACTIVATION_BYTES of values (1..MAX_BATCH)."""
    values = [*model.graph.inputs, *(v for node in model.graph for v in node.outputs)]
    elements = sum(int(np.prod(v.shape.numpy())) for v in values if v.shape is not None and v.shape.is_static())
    return int(np.clip(ACTIVATION_BYTES // max(4 * elements // _own_batch(model), 1), 1, MAX_BATCH))


def with_outputs(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """A clone whose outputs are the named values."""
    clone = model.clone()
    values = {v.name: v for node in clone.graph for v in node.outputs} | {v.name: v for v in clone.graph.inputs}
    clone.graph.outputs.clear()
    clone.graph.outputs.extend(values[name] for name in names)
    return clone


def free_batch(model: ir.Model) -> ir.Model | None:
    """A clone that takes any batch size, if its inputs share one; whether it is right, running it must show."""
    own = {v.shape[0] for v in model.graph.inputs if v.shape is not None and len(v.shape)}
    if len(own) != 1 or any(v.shape is None or not len(v.shape) for v in model.graph.inputs):
        return None
    batch = own.pop()
    clone = model.clone()
    for value in clone.graph.inputs:
        value.shape = ir.Shape(["batch", *value.shape[1:]])
    for node in list(clone.graph):
        for value in node.outputs:
            value.shape = None
        _BATCHED.get(node.op_type, _keep)(clone.graph, node, batch)
    return clone


def _keep(graph: ir.Graph, node: ir.Node, batch: int) -> None:
    """Most operators take any batch."""


def _free_reshape(graph: ir.Graph, node: ir.Node, batch: int) -> None:
    shape = constant(node.inputs[1])
    if shape is not None and len(shape) and shape[0] == batch and (shape >= 0).all():
        _set_constant(graph, node, 1, np.array([-1, *shape[1:]], np.int64))


def _free_resize(graph: ir.Graph, node: ir.Node, batch: int) -> None:
    sizes = constant(node.inputs[3]) if len(node.inputs) > 3 else None
    if sizes is not None and sizes.size and "axes" not in node.attributes:
        node.attributes["axes"] = ir.AttrInt64s("axes", range(1, len(sizes)))
        _set_constant(graph, node, 3, sizes[1:])


_BATCHED = {"Reshape": _free_reshape, "Resize": _free_resize}


def _set_constant(graph: ir.Graph, node: ir.Node, index: int, array: np.ndarray) -> None:
    name = f"{node.outputs[0].name}/input{index}"
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    graph.register_initializer(value)
    node.replace_input_with(index, value)


def _own_batch(model: ir.Model) -> int:
    shape = model.graph.inputs[0].shape
    return int(shape[0]) if shape is not None and len(shape) else 1


def _session(model: ir.Model, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.disable_quant_qdq", "1")  # what is simulated stays as written
    data = ir.to_proto(model).SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _filled(piece: np.ndarray, length: int) -> np.ndarray:
    """The last piece, its last sample repeated up to the model's batch size."""
    missing = length - len(piece)
    return piece if missing <= 0 else np.concatenate([piece, np.repeat(piece[-1:], missing, axis=0)])


def _alike(expected: np.ndarray, found: np.ndarray) -> bool:
    if expected.shape != found.shape:
        return False
    if expected.dtype != np.float32:
        return np.array_equal(expected, found)
    scale = np.abs(expected[np.isfinite(expected)]).max(initial=0.0)
    return np.allclose(expected, found, rtol=0, atol=TOLERANCE * scale, equal_nan=True)
