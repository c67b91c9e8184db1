"""From an annotated model to the bytes of artifacts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import onnx
import onnx_ir as ir

from edgecompress import __version__
from edgecompress.conversion.conversion import Conversion
from edgecompress.emit import onnx as onnx_emitter
from edgecompress.emit import tflite as tflite_emitter
from edgecompress.emit.onnx.tail import with_tail
from edgecompress.errors import UnsupportedModelError
from edgecompress.evaluate.several_samples import difference, several_samples
from edgecompress.graph.annotations import exits
from edgecompress.graph.batch_axes import batch_axes
from edgecompress.graph.input_sizes import own_key, several_sizes
from edgecompress.ingest.batch_size import FixedBatchError
from edgecompress.ingest.several_shapes import FixedShapeError, in_own_shape
from edgecompress.lowering.tensor_io import TFLiteModel
from edgecompress.recipe import Recipe
from edgecompress_targets import OPERATOR_SETS, Profile


@dataclass(frozen=True)
class Emitted:
    """One artifact.

    data: what is checked. io: how to feed a .tflite or .pack file. notes: what a reader should know of it. tail: what
    follows in the file (`Ingested.tail`). shapes: the keys of the shapes that it takes, where they are several.
    """

    format: str
    data: bytes
    io: TFLiteModel | None = None
    notes: tuple[str, ...] = ()
    tail: onnx.ModelProto | None = None
    shapes: tuple[str, ...] = ()

    def io_of(self, shape: str) -> TFLiteModel | None:
        """How to feed it inputs of one of its shapes."""
        every = () if self.io is None else (self.io, *self.io.others)
        return next((io for io in every if io.signature == shape), self.io)

    @property
    def file(self) -> bytes:
        """The whole file."""
        return self.data if self.tail is None else with_tail(self.data, self.tail)


def emit(conversion: Conversion, model: ir.Model) -> tuple[tuple[Emitted, ...], dict[str, str]]:
    """One artifact of an annotated model for each of the recipe's formats that it can be written in, and for each of
    the others the reason.
    """
    artifacts: list[Emitted] = []
    faults: dict[str, str] = {}
    for name in conversion.recipe.emit.formats or []:
        with conversion.log.stage(f"emit {name}") as running:
            try:
                made = _emit(name, conversion, model)
                artifacts.append(replace(made, tail=conversion.tail) if name == "onnx" else made)
            except UnsupportedModelError as fault:
                faults[name] = str(fault)
                continue
            running.stage.bytes = len(artifacts[-1].file)
    return tuple(artifacts), faults


def _emit(name: str, conversion: Conversion, model: ir.Model) -> Emitted:
    """For all of the model's shapes where the format can have several, else for the largest."""
    if not several_sizes(model.graph):
        return _emit_batch(name, conversion, model)
    try:
        if name == "pack":
            raise FixedShapeError("a .pack has one shape")
        if name == "tflite" and conversion.profile.operators == "tflm":
            raise FixedShapeError("TensorFlow Lite Micro runs one")
        return _emit_batch(name, conversion, model)
    except FixedShapeError as fault:
        made = _emit_batch(name, conversion, in_own_shape(model))
        return replace(made, notes=(*made.notes, f"the .{name} file is for {own_key(model.graph)} alone: {fault}"))


def _emit_batch(name: str, conversion: Conversion, model: ir.Model) -> Emitted:
    """With an open batch size where the model's is open, the format can have it, and every interpreter of the format
    then computes several samples as it computes each."""
    recipe, profile = conversion.recipe, conversion.profile
    if batch_axes(conversion.model.graph) is None or name not in WITH_OPEN_BATCH:
        return EMITTERS[name](model, recipe, profile)
    try:
        made = WITH_OPEN_BATCH[name](model, recipe, profile, open_batch=True)
        check, inputs = conversion.data.check, conversion.model.graph.inputs
        reason = difference(made.data, name, made.io, several_samples(check, inputs))
    except (FixedBatchError, UnsupportedModelError) as fault:
        reason = str(fault)
    if reason is None:
        return made
    return replace(
        EMITTERS[name](model, recipe, profile), notes=(f"the batch size of the .{name} file is 1: {reason}",)
    )


def emit_pack(model: ir.Model, recipe: Recipe, profile: Profile) -> Emitted:
    """The model as a .pack file for this project's own runtime."""
    from edgecompress.emit import pack as pack_emitter  # imports Numba, which the other formats don't need

    dtype = ir.DataType.INT8 if recipe.emit.io == "int8" else ir.DataType.FLOAT
    made = pack_emitter.emit(model, io_dtype=dtype, name=model.graph.name or "model", coder=recipe.emit.coder)
    return Emitted("pack", made.data, made)


def _emit_onnx(model: ir.Model, recipe: Recipe, profile: Profile, *, open_batch: bool = False) -> Emitted:
    unsigned = profile.onnx_weights == "uint8"
    data = onnx_emitter.emit(model, unsigned=unsigned, open_batch=open_batch)
    return Emitted("onnx", data, shapes=_keys(model))


def _emit_tflite(model: ir.Model, recipe: Recipe, profile: Profile, *, open_batch: bool = False) -> Emitted:
    if exits(model.graph) and profile.operators == "tflm":
        raise UnsupportedModelError(
            "TensorFlow Lite Micro runs one graph to its end, so a .tflite file for it can't end early: ask for .pack, "
            "or remove [exit]"
        )
    if open_batch and profile.operators == "tflm":
        raise FixedBatchError("TensorFlow Lite Micro computes one")
    dtype = ir.DataType.INT8 if recipe.emit.io == "int8" else ir.DataType.FLOAT
    operators = OPERATOR_SETS[profile.operators]
    description = f"edgecompress {__version__}"
    for_xnnpack = profile.operators != "tflm"
    made = tflite_emitter.emit(
        model,
        io_dtype=dtype,
        operators=operators,
        for_xnnpack=for_xnnpack,
        open_batch=open_batch,
        description=description,
    )
    return Emitted("tflite", made.data, made, shapes=_keys(model))


def _keys(model: ir.Model) -> tuple[str, ...]:
    return tuple(sizes.key for sizes in several_sizes(model.graph))


WITH_OPEN_BATCH: dict[str, Callable[..., Emitted]] = {"onnx": _emit_onnx, "tflite": _emit_tflite}
EMITTERS: dict[str, Callable[[ir.Model, Recipe, Profile], Emitted]] = {
    "onnx": _emit_onnx,
    "tflite": _emit_tflite,
    "pack": emit_pack,
}
