"""Runs models and artifacts in the interpreters that devices use: ONNX Runtime, LiteRT, and this project's runtime."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import onnx_ir as ir

from edgecompress.errors import EdgeCompressError
from edgecompress.evaluate.batching import Feed, Shape, in_batches
from edgecompress.support.interrupt import reraise_interrupt

if TYPE_CHECKING:
    from edgecompress.lowering.tensor_io import Stage, TensorIO

LARGE = 1 << 16  # bytes from which an initializer is handed over without a copy


class InterpreterError(EdgeCompressError):
    """An interpreter, which the message names, can't load a model or fails while it runs one. Exit code 3."""

    exit_code = 3

    def __init__(self, interpreter: str, version: str, reason: str) -> None:
        super().__init__(f"{interpreter} {version}: {reason}")
        self.interpreter, self.version, self.reason = interpreter, version, reason


class TFLiteIO(Protocol):
    """How a .tflite file's inputs and outputs relate to the ONNX model's (`TFLiteModel` is one)."""

    @property
    def inputs(self) -> tuple[TensorIO, ...]:
        """The inputs in the file's order."""
        ...

    @property
    def outputs(self) -> tuple[TensorIO, ...]:
        """The outputs in the file's order."""
        ...

    @property
    def join(self) -> ir.Model | None:
        """What makes the ONNX model's outputs of these, where they are parts; else None."""
        ...

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The signatures of a .tflite file that ends early; else empty."""
        ...

    @property
    def signature(self) -> str | None:
        """The signature to run of a .tflite file for several shapes; else None."""
        ...


class Interpreter(Protocol):
    """One loaded model."""

    @property
    def name(self) -> str:
        """What reports call the interpreter, such as "LiteRT"."""
        ...

    @property
    def version(self) -> str:
        """The installed version of its package."""
        ...

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Input name -> [n, *sample], ONNX axis order, to outputs [n, ...] in the model's order: float32,
        or the output's integer type.

        A sample is the model's input without axis 0, or all of it. Samples are run at the model's own
        batch size; an output without a batch axis is stacked, one for each run.
        Raises InterpreterError when the interpreter does.
        """
        ...


class OnnxRuntime:
    """ONNX Runtime on the CPU.

    model: serialised, a file, or an onnx_ir model. optimize: its graph optimisations and fused kernels. arrange:
    whether memory is taken so that many runs are fast: matrices in the order that its kernels read, and an arena.
    extra_outputs: values of an onnx_ir model inside the graph that `run` returns after its outputs.
    Raises InterpreterError when the model doesn't load.
    """

    name = "ONNX Runtime"

    def __init__(
        self,
        model: bytes | Path | ir.Model,
        *,
        threads: int = 1,
        optimize: bool = True,
        arrange: bool = True,
        extra_outputs: Sequence[str] = (),
    ) -> None:
        import onnxruntime

        from edgecompress.evaluate.saturation import as_devices_compute

        self.version: str = onnxruntime.__version__
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = threads
        options.log_severity_level = 4  # errors are raised
        if not optimize:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        if not arrange:
            options.add_session_config_entry("session.disable_prepacking", "1")
            options.enable_cpu_mem_arena = False  # which takes up to twice what values need, for runs to come
        serialised: bytes | Path
        if isinstance(model, ir.Model):
            serialised, self._weights = _with_outputs(model, extra_outputs)  # ONNX Runtime reads them in place
            values = [onnxruntime.OrtValue.ortvalue_from_numpy(a) for a in self._weights.values()]
            options.add_external_initializers(list(self._weights), values)
            for name, value in zip(self._weights, values, strict=True):
                options.add_initializer(name, value)  # without a copy, where it stays as it is
            self._values = values
        else:
            serialised = as_devices_compute(model) if isinstance(model, bytes) else model
        with _failing(self.name, self.version):
            self._session = onnxruntime.InferenceSession(
                os.fspath(serialised) if isinstance(serialised, Path) else serialised,
                options,
                providers=["CPUExecutionProvider"],
            )
        self._shapes = {i.name: tuple(i.shape) for i in self._session.get_inputs()}
        self._outputs = [o.name for o in self._session.get_outputs()]
        if isinstance(model, ir.Model):  # extra outputs may be outputs already
            self._outputs = [*(str(v.name) for v in model.graph.outputs), *extra_outputs]

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        wanted = list(dict.fromkeys(self._outputs))
        with _failing(self.name, self.version):
            shapes = {name: _one_sample(shape, inputs[name].shape) for name, shape in self._shapes.items()}
            outputs = in_batches(lambda f: [self._session.run(wanted, feed) for feed in f], inputs, shapes)
            joined = dict(zip(wanted, outputs, strict=True))
        return [joined[name] for name in self._outputs]

    def call(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs of one call with exactly these inputs, in the order that `run` has them."""
        wanted = list(dict.fromkeys(self._outputs))
        with _failing(self.name, self.version):
            found = dict(zip(wanted, self._session.run(wanted, dict(inputs)), strict=True))
        return [found[name] for name in self._outputs]


def _one_sample(shape: Sequence[int | str | None], samples: Shape) -> Shape:
    """The shape of an input; an open batch dimension is 1, and others are as in the samples [n, *sample]."""
    own = samples[len(samples) - len(shape) :] if len(samples) > len(shape) else (1, *samples[1:])
    return tuple(n if isinstance(n, int) else own[axis] for axis, n in enumerate(shape))


def _with_outputs(model: ir.Model, names: Sequence[str]) -> tuple[bytes, dict[str, np.ndarray]]:
    """(serialised with these values as outputs too, large initializers, which it only refers to)."""
    model, large = model.clone(), {}
    for value in list(model.graph.initializers.values()):
        tensor = value.const_value
        if not value.uses() and not value.is_graph_output():  # ONNX Runtime drops it before it could refer to it
            del model.graph.initializers[str(value.name)]
            continue
        if tensor is not None and tensor.nbytes > LARGE and tensor.dtype == ir.DataType.FLOAT:
            name, array = str(value.name), np.ascontiguousarray(tensor.numpy())
            large[name] = array
            value.const_value = ir.ExternalTensor(
                "memory", 0, tensor.nbytes, tensor.dtype, shape=ir.Shape(array.shape), name=name
            )
    proto = ir.to_proto(model)
    present = {value.name for value in proto.graph.output}
    for name in dict.fromkeys(names):
        if name not in present:
            proto.graph.output.add().name = name  # its type is inferred
    return proto.SerializeToString(), large


class TFLite:
    """What the interpreters of the TensorFlow Lite family share. Raises InterpreterError where they fail."""

    name: ClassVar[str]
    package: ClassVar[str]

    def __init__(self, interpreter: Any, io: TFLiteIO, version: str) -> None:
        self.version = version
        self._interpreter, self._io, self._join = interpreter, io, Join(io)
        self._inputs = [d["index"] for d in interpreter.get_input_details()]
        self._outputs = [d["index"] for d in interpreter.get_output_details()]
        self._shapes = {t.name: onnx_shape(t) for t in io.inputs}

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        with _failing(self.name, self.version):
            return in_batches(lambda feeds: list(map(self._run_once, feeds)), inputs, self._shapes)

    def call(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs of one call of a file whose batch size is open, with inputs of any."""
        resized = [replace(t, shape=(len(inputs[t.name]), *t.shape[1:])) for t in self._io.inputs]
        with _failing(self.name, self.version):
            if self._io.signature is not None:
                stored = self._run_signature({t.name: t.to_device(inputs[t.name]) for t in resized})
                return [replace(t, shape=a.shape).from_device(a) for t, a in zip(self._io.outputs, stored, strict=True)]
            for index, tensor in zip(self._inputs, resized, strict=True):
                self._interpreter.resize_tensor_input(index, tensor.shape)
            self._interpreter.allocate_tensors()
            for index, tensor in zip(self._inputs, resized, strict=True):
                self._interpreter.set_tensor(index, tensor.to_device(inputs[tensor.name]))
            self._interpreter.invoke()
            stored = [self._interpreter.get_tensor(index) for index in self._outputs]
        return [replace(t, shape=a.shape).from_device(a) for t, a in zip(self._io.outputs, stored, strict=True)]

    def _run_once(self, feed: Feed) -> list[np.ndarray]:
        if self._io.stages:
            return self._run_stages({t.name: t.to_device(feed[t.name]) for t in self._io.inputs})
        if self._io.signature is not None:
            return self._join(self._run_signature({t.name: t.to_device(feed[t.name]) for t in self._io.inputs}))
        for index, tensor in zip(self._inputs, self._io.inputs, strict=True):
            self._interpreter.set_tensor(index, tensor.to_device(feed[tensor.name]))
        self._interpreter.invoke()
        return self._join(self._interpreter.get_tensor(index) for index in self._outputs)

    def _run_signature(self, values: dict[str, np.ndarray]) -> list[np.ndarray]:
        """values: the inputs by name, as on the device, of any batch size where that is open -> the outputs."""
        found = self._interpreter.get_signature_runner(self._io.signature)(**values)
        return [found[tensor.name] for tensor in self._io.outputs]

    def _run_stages(self, values: dict[str, np.ndarray]) -> list[np.ndarray]:
        """values: the inputs by name, as on the device -> the output of the stage behind which it ends, and its number,
        from 1."""
        for stage in self._io.stages:
            run = self._interpreter.get_signature_runner(stage.key)
            values |= run(**{name: values[name] for name in stage.inputs})
            if stage.confidence is None or stage.threshold is None:
                break
            if stage.confidence.from_device(values[stage.confidence.name]).max() >= stage.threshold:
                break
        number = 1 + self._io.stages.index(stage)
        return [stage.value.from_device(values[stage.value.name]), np.array([number], np.int32)]


class LiteRT(TFLite):
    """ai-edge-litert: XNNPACK and optimised kernels, or with `reference` the plain ones that define int8."""

    name = "LiteRT"
    package = "ai-edge-litert"

    def __init__(self, data: bytes | Path, io: TFLiteIO, *, reference: bool = False, threads: int = 1) -> None:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        kind = OpResolverType.BUILTIN_REF if reference else OpResolverType.AUTO
        version = importlib.metadata.version(self.package)
        if reference:
            self.name = "LiteRT reference"  # type: ignore[misc]
        with _failing(self.name, version), _without_info():
            interpreter = Interpreter(
                model_content=content(data), num_threads=threads, experimental_op_resolver_type=kind
            )
            interpreter.allocate_tensors()
        super().__init__(interpreter, io, version)


class TFLiteRuntime(TFLite):
    """tflite-runtime, which many devices still run; the last release, 2.14, needs NumPy 1."""

    name = "tflite-runtime"
    package = "tflite-runtime"

    def __init__(self, data: bytes | Path, io: TFLiteIO, *, threads: int = 1) -> None:
        from tflite_runtime.interpreter import Interpreter

        version = importlib.metadata.version(self.package)
        with _failing(self.name, version), _without_info():
            interpreter = Interpreter(model_content=content(data), num_threads=threads)
            interpreter.allocate_tensors()
        super().__init__(interpreter, io, version)


class PackRuntime:
    """This project's own runtime, which runs a .pack file as it would on a device."""

    name = "edgecompress-runtime"

    def __init__(self, data: bytes | Path, io: TFLiteIO) -> None:
        import edgecompress_runtime

        self.version: str = edgecompress_runtime.__version__
        with _failing(self.name, self.version):
            self._model = edgecompress_runtime.load(data)
        self._io, self._join = io, Join(io)
        self._shapes = {t.name: onnx_shape(t) for t in io.inputs}

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        with _failing(self.name, self.version):
            return in_batches(lambda feeds: list(map(self._run_once, feeds)), inputs, self._shapes)

    def reset(self) -> None:
        """Sets the states of a model that keeps some to zero."""
        self._model.reset()

    def _run_once(self, feed: Feed) -> list[np.ndarray]:
        results = self._model(*(t.to_device(feed[t.name]) for t in self._io.inputs))
        return self._join(results if isinstance(results, tuple) else (results,))


class Join:
    """From the outputs of a file, as its interpreter returns them, to those of the ONNX model."""

    def __init__(self, io: TFLiteIO) -> None:
        self._tensors = io.outputs
        self._model = None if io.join is None else OnnxRuntime(io.join)

    def __call__(self, stored: Iterable[np.ndarray]) -> list[np.ndarray]:
        """stored: in the file's order, as on the device -> in the model's order, float32 where they were int8."""
        arrays = [t.from_device(a) for t, a in zip(self._tensors, stored, strict=True)]
        if self._model is None:
            return arrays
        return self._model.run({t.name: a for t, a in zip(self._tensors, arrays)})


def installed_tflite_interpreters() -> list[type[LiteRT] | type[TFLiteRuntime]]:
    """The interpreters of TFLite files that work here; with NumPy 2, tflite-runtime 2.14 imports but then fails."""
    found: list[type[LiteRT] | type[TFLiteRuntime]] = []
    if importlib.util.find_spec("ai_edge_litert"):
        found.append(LiteRT)
    if importlib.util.find_spec("tflite_runtime") and np.lib.NumpyVersion(np.__version__) < "2.0.0":
        found.append(TFLiteRuntime)
    return found


def content(data: bytes | Path) -> bytes:
    """What is in a file."""
    return data.read_bytes() if isinstance(data, Path) else data


def onnx_shape(tensor: TensorIO) -> Shape:
    """Shape of the ONNX value that a TFLite tensor holds."""
    kept = [(axis, n) for axis, n in zip(tensor.form, tensor.shape, strict=True) if axis is not None]
    return tuple(n for _, n in sorted(kept))


@contextmanager
def _failing(name: str, version: str) -> Iterator[None]:
    """Their exceptions share no base class, so whatever they raise becomes InterpreterError."""
    try:
        yield
    except Exception as error:
        reraise_interrupt(error)
        raise InterpreterError(name, version, " ".join(str(error).split()) or type(error).__name__) from error


@contextmanager
def _without_info() -> Iterator[None]:
    """Holds back what C++ writes to standard error while inside, then passes on all but INFO lines.

    LiteRT announces its delegates there and has no setting against it.
    """
    if sys.stderr is None:  # started without one: there is nothing to hold back
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            caught.seek(0)
            os.write(2, b"".join(line for line in caught if not line.startswith(b"INFO:")))
