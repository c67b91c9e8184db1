"""Makes input shapes static: a dynamic batch gets a size, and the user must give any other dynamic dimension."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from edgecompress.errors import InputError


class FixInputShapes(ir.passes.InPlacePass):
    """1. A shape given by the user replaces the declared one; it must agree with the static dimensions.
    2. A dynamic first dimension, whatever its name, is the batch and gets that size, also where the user gave 1.
    3. Any other dynamic dimension: InputError with the argument to pass.
    """

    def __init__(self, shapes: Mapping[str, Sequence[int]], batch: int = 1) -> None:
        super().__init__()
        self.shapes, self.batch = dict(shapes), batch

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        names = [v.name for v in model.graph.inputs]
        for name in self.shapes:
            if name not in names:
                raise InputError(f"the model has no input {name!r}; its inputs are {', '.join(map(repr, names))}")
        faults = []
        for value in model.graph.inputs:
            try:
                value.shape = ir.Shape(self._fixed(value))
            except InputError as fault:
                faults.append(str(fault))
        if faults:
            raise InputError("; ".join(faults))
        return ir.passes.PassResult(model, True)

    def _fixed(self, value: ir.Value) -> tuple[int, ...]:
        name = str(value.name)
        given = self.shapes.get(name)
        if given is not None:
            declared = value.shape
            if declared is not None and (
                len(declared) != len(given) or any(isinstance(d, int) and d != g for d, g in zip(declared, given))
            ):
                raise InputError(
                    f"--input-shape {name}:{_join(given)} doesn't fit the model, which declares {_join(declared)}"
                )
            is_one_sample = declared is not None and is_open(value) and given[0] == 1
            return (self.batch, *given[1:]) if is_one_sample else tuple(given)
        if value.shape is None:
            raise InputError(
                f"input {name!r} has no declared shape; pass one, for example --input-shape {name}:1,3,224,224"
            )
        dims: list[int | ir.SymbolicDim] = list(value.shape)
        if is_open(value):
            dims[0] = self.batch
        static = tuple(d for d in dims if isinstance(d, int))
        if len(static) < len(dims):
            dynamic = ((i, d) for i, d in enumerate(dims) if not isinstance(d, int))
            named = ", ".join(f"{i} ({d.value or 'unnamed'})" for i, d in dynamic)
            example = _join([d if isinstance(d, int) else "N" for d in dims])
            raise InputError(
                f"input {name!r} has dynamic dimensions besides the batch: {named}; give data with samples of the "
                f"shape that you need, or --input-shape {name}:{example}, a number in the place of each N"
            )
        if any(d < 1 for d in static):
            raise InputError(f"input {name!r} has the shape {_join(dims)}; every dimension must be at least 1")
        return static


def is_open(value: ir.Value) -> bool:
    """Whether the first dimension has no size yet."""
    return value.shape is not None and len(value.shape) > 0 and not isinstance(value.shape[0], int)


def _join(dims: Sequence[int | str | ir.SymbolicDim] | ir.Shape | None) -> str:
    """ "1,height,?": a dynamic dimension by its name, if it has one."""
    names = (d.value if isinstance(d, ir.SymbolicDim) else d for d in dims or ())
    return ",".join(str("?" if name is None or name == "" else name) for name in names)
