"""Exports PyTorch models to ONNX: a .pt2 or TorchScript file, a module, or a factory function in a .py file."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import io
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from edgecompress.errors import EdgeCompressError, InputError, MissingPackageError, UnsupportedModelError
from edgecompress.ingest import onnx_file
from edgecompress.ingest.open_shapes import SampleShapes
from edgecompress.ingest.pt2_archive import safe_archive
from edgecompress.ingest.quiet import quiet
from edgecompress.ingest.torch_file import instead_of_torchscript, instead_of_weights
from edgecompress.support.interrupt import reraise_interrupt

if TYPE_CHECKING:
    import torch

Shapes = Mapping[str, Sequence[int]]
ShapesOf = Callable[[Sequence[str]], Shapes]  # names of the parameters of forward -> shapes of those that are inputs
Exported = tuple[str, onnx.ModelProto, Path | None]  # format, model, file

FACTORY = re.compile(r"(?P<path>.+\.py):(?P<function>[A-Za-z_]\w*)")
KINDS = (
    ".onnx, .pt2 (torch.export), .pt, .pth or .ts (TorchScript), .keras, .h5 or .hdf5, a SavedModel's folder, "
    "or file.py:factory"
)


def read(
    source: Any, weights: str | Path | None, shapes: Shapes, samples: SampleShapes | None, fold: bool = True
) -> Exported:
    """The format, the ONNX model and the file that it came from.

    source: a path, "file.py:factory" or a torch.nn.Module. shapes: the shapes of its inputs by name, in order; without
    any, those of the samples for the parameters of its forward. fold: lets the exporter work BatchNorm and everything
    else that is constant into the weights.

    Raises InputError, MissingPackageError when torch isn't installed, and UnsupportedModelError when torch can't export
    the model.
    """

    def shapes_of(parameters: Sequence[str]) -> Shapes:
        if shapes or samples is None or not parameters:
            return shapes
        found = samples(parameters) or samples(parameters[:1])  # the others have defaults
        return {name: (1, *sample) for name, sample in found.items()}

    if not isinstance(source, (str, Path)):
        torch = sys.modules.get("torch")  # whoever made a Module has imported it
        if torch is None or not isinstance(source, torch.nn.Module):
            raise InputError(f"can't read a model from {_a(source)}; pass {KINDS}, or a torch.nn.Module")
        return "python", _export_module(source, shapes_of, fold), None
    text = str(source)
    if match := FACTORY.fullmatch(text):
        path = Path(match["path"])
        _import_torch(text)
        module = _call_factory(path, match["function"])
        if weights is not None:
            _load_weights(module, Path(weights))
        return "python", _export_module(module, shapes_of, fold), path
    path = Path(text)
    reader = READERS.get(path.suffix)
    if reader is None:
        hint = f"; name the function that makes the model, {text}:function" if path.suffix == ".py" else ""
        raise InputError(f"{path}: models of this kind can't be read; pass {KINDS} (inspect also reads .pack){hint}")
    data = onnx_file.read_bytes(path)
    _import_torch(text)
    format_, proto = reader(path, data, shapes_of, fold)
    return format_, proto, path


def _import_torch(what: str) -> None:
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(
            f'{what}: PyTorch is needed to read it; install it with: pip install "edgecompress[torch]"'
        ) from error


def _read_exported_program(path: Path, data: bytes, shapes_of: ShapesOf, fold: bool) -> tuple[str, onnx.ModelProto]:
    import torch

    data = safe_archive(path, data)
    with _quiet(), _plain_tensors_only():
        try:
            program = torch.export.load(io.BytesIO(data))
        except Exception as error:  # torch raises of any kind for a damaged archive
            reraise_interrupt(error)
            raise InputError(
                f"{path}: torch.export can't load it; it is damaged, another kind of file, or was saved by "
                f"another version of torch (here: {torch.__version__})"
            ) from error
    return "pt2", _export(program, (), None, dynamo=True, fold=fold)


def _read_torchscript(path: Path, data: bytes, shapes_of: ShapesOf, fold: bool) -> tuple[str, onnx.ModelProto]:
    import torch

    with _quiet():
        try:
            module = torch.jit.load(io.BytesIO(data), map_location="cpu")
        except Exception as error:
            reraise_interrupt(error)
            raise InputError(instead_of_torchscript(path, data)) from error
    names = list(_parameter_names(module.forward))
    inputs, names = _example_inputs(names, shapes_of(names), str(path))
    return "torchscript", _export_somehow(module.eval(), inputs, names, (False,), fold)


READERS: dict[str, Callable[[Path, bytes, ShapesOf, bool], tuple[str, onnx.ModelProto]]] = {
    ".pt": _read_torchscript,
    ".pt2": _read_exported_program,
    ".pth": _read_torchscript,
    ".ts": _read_torchscript,
}


def _call_factory(path: Path, function: str) -> torch.nn.Module:
    """Runs the user's own code: their explicit choice."""
    import torch

    if not path.is_file():
        raise InputError(f"{path}: no such file")
    spec = importlib.util.spec_from_file_location(f"edgecompress_user_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    code = importlib.util.module_from_spec(spec)
    try:
        with _importable(path.resolve().parent):
            spec.loader.exec_module(code)
            factory = getattr(code, function, None)
            if not callable(factory):
                raise InputError(f"{path}: has no function {function!r}")
            module = factory()
    except EdgeCompressError:
        raise
    except Exception as error:
        reraise_interrupt(error)
        raise InputError(f"{path}:{function} failed with {type(error).__name__}: {_one_line(error)}") from error
    if not isinstance(module, torch.nn.Module):
        raise InputError(f"{path}:{function} returned {_a(module)}; a torch.nn.Module is expected")
    return module


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """The user's file may import its neighbours; those of another folder may have the same names."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file and "site-packages" not in file and Path(file).is_relative_to(folder):
                del sys.modules[name]


def _load_weights(module: torch.nn.Module, path: Path) -> None:
    import torch

    data = onnx_file.read_bytes(path)
    try:
        with _quiet():
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        reraise_interrupt(error)
        raise InputError(instead_of_weights(path, data)) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict):
        raise InputError(f"{path}: holds {_a(state)}; a state_dict is expected")
    try:
        module.load_state_dict(state)
    except Exception as error:
        reraise_interrupt(error)
        raise InputError(f"{path}: doesn't fit the model: {' '.join(str(error).split())[:300]}") from error


def export_module(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> onnx.ModelProto:
    """The module in evaluation mode as ONNX, with nothing worked into its weights. inputs: examples, in order.

    Raises UnsupportedModelError when torch can't export it.
    """
    names, training = _parameter_names(module.forward)[: len(inputs)], module.training
    device = next((p.device for p in module.parameters()), inputs[0].device)
    try:
        return _export(module.eval().cpu(), tuple(x.cpu() for x in inputs), names, dynamo=True, fold=False)
    finally:
        module.train(training).to(device)


def _export_module(module: torch.nn.Module, shapes_of: ShapesOf, fold: bool) -> onnx.ModelProto:
    parameters = _parameter_names(module.forward)
    inputs, names = _example_inputs(parameters, shapes_of(parameters), type(module).__name__)
    training = module.training
    try:
        return _export_somehow(module.eval(), inputs, names, (True, False), fold)
    finally:
        module.train(training)


def _parameter_names(forward: Callable[..., Any]) -> list[str]:
    try:
        parameters = inspect.signature(forward).parameters.values()
    except (TypeError, ValueError):
        schema = getattr(forward, "schema", None)  # a TorchScript method
        return [a.name for a in schema.arguments if a.name != "self"] if schema is not None else []
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def _example_inputs(parameters: list[str], shapes: Shapes, what: str) -> tuple[list[torch.Tensor], list[str]]:
    """One tensor for each shape; shapes belong to the parameters of forward by name, or else in their order."""
    import torch

    if not shapes:
        names = ", ".join(parameters) or "its input"
        raise InputError(
            f"{what}: torch doesn't record the shape of {names}; give data for it, or its shape, for example "
            f"--input-shape {parameters[0] if parameters else 'x'}:1,3,224,224"
        )
    ordered = list(shapes)
    if set(ordered) <= set(parameters):
        ordered.sort(key=parameters.index)
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(tuple(shapes[n]), generator=generator) for n in ordered], ordered


def _export_somehow(
    module: torch.nn.Module, inputs: list[torch.Tensor], names: list[str], exporters: tuple[bool, ...], fold: bool
) -> onnx.ModelProto:
    """Exports with the first exporter that works; inputs are float, or whole numbers where the model needs indices.

    exporters: whether each is torch's dynamo exporter.
    """
    import torch

    failures = []
    whole = [torch.zeros(i.shape, dtype=torch.int64) for i in inputs]
    args = inputs
    with torch.no_grad(), _quiet():
        try:
            module(*inputs)
        except Exception as error:
            reraise_interrupt(error)
            try:
                module(*whole)
                args = whole
            except Exception as second:
                reraise_interrupt(second)
                raise InputError(
                    f"the model fails on inputs of shape "
                    f"{', '.join(f'{n}:' + ','.join(map(str, i.shape)) for n, i in zip(names, inputs))}: "
                    f"{_one_line(error)}; pass the right --input-shape"
                ) from error
    for dynamo in exporters:
        try:
            return _export(module, tuple(args), names, dynamo=dynamo, fold=fold)
        except UnsupportedModelError as error:
            failures.append(error)
    raise failures[0]


def _export(
    model: torch.nn.Module | torch.export.ExportedProgram,
    args: tuple[torch.Tensor, ...],
    names: list[str] | None,
    *,
    dynamo: bool,
    fold: bool,
) -> onnx.ModelProto:
    import torch

    with _quiet(), torch.no_grad():
        try:
            if dynamo:
                program = torch.onnx.export(model, args, input_names=names, dynamo=True, verbose=False, optimize=fold)
                assert program is not None
                return program.model_proto
            buffer: Any = io.BytesIO()  # torch writes to a stream as well, which its annotations leave out
            torch.onnx.export(
                model, args, buffer, input_names=names, dynamo=False, verbose=False, do_constant_folding=fold
            )
        except Exception as error:  # torch's exporters raise of any kind
            reraise_interrupt(error)
            raise UnsupportedModelError(
                f"torch can't export the model to ONNX ({type(error).__name__}: {_one_line(error)}); try "
                "torch.onnx.export yourself and pass the .onnx file"
            ) from error
    return onnx.ModelProto.FromString(buffer.getvalue())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Within the context torch's progress, warnings and deprecations go nowhere: none of it helps the user."""
    sink = io.StringIO()
    with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with quiet("torch", "torch.onnx", "torch.export", "onnxscript", "onnx_ir"):
            yield


@contextlib.contextmanager
def _plain_tensors_only() -> Iterator[None]:
    """torch.export.load calls torch.load with weights_only=False; this variable of torch's overrules it."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _a(thing: object) -> str:
    """What the object is, with its article: "an int"."""
    if thing is None:
        return "None"
    name = type(thing).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def _one_line(error: BaseException) -> str:
    while error.__cause__ is not None:  # torch.onnx wraps the reason in pages of advice
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
