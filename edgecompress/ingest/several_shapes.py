"""One model for several shapes of its inputs: what differs between them, and the same model for each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from edgecompress.errors import InputError, UnsupportedModelError
from edgecompress.graph.annotations import codebook, set_codebook, set_sparsity, sparsity
from edgecompress.graph.fusion import constant
from edgecompress.graph.input_sizes import (
    Operand,
    Place,
    Shape,
    Sizes,
    other_sizes,
    own_sizes,
    set_several_sizes,
    several_sizes,
)
from edgecompress.graph.provenance import label
from edgecompress.ingest.passes.edit import Edit, static_shape
from edgecompress.ingest.passes.infer_shapes import infer_node


class FixedShapeError(UnsupportedModelError):
    """A model can't be had for another shape; the message says why, in words."""


def join(largest: ir.Model, models: Sequence[ir.Model]) -> None:
    """Records on one canonical model, in place, how it differs from the same model for several shapes, itself among
    them. Raises UnsupportedModelError where that is not constants and attributes alone.
    """
    sizes = [_sizes(model) for model in models]
    try:
        found = [_differences(largest, model, its) for model, its in zip(models, sizes, strict=True)]
    except FixedShapeError as fault:
        raise UnsupportedModelError(
            f"one file can't take all of these shapes ({', '.join(s.key for s in _named(sizes))}): {fault}. Convert "
            "the model for each of them by itself"
        ) from fault
    places = {place for its in found for place in its.operands}
    nodes = {str(node.name): node for node in largest.graph}
    for index, its in enumerate(found):  # all have the same constants, so that their names are the same
        same = {p: Operand(a, a) for p in places - its.operands.keys() if (a := _operand(nodes, p)) is not None}
        found[index] = replace(its, operands={p: {**same, **its.operands}[p] for p in sorted(places)})
    set_several_sizes(largest.graph, tuple(_named(found)))


def with_sizes(model: ir.Model, sizes: Sizes) -> ir.Model:
    """A clone of a canonical model, annotated or not, that takes inputs of another of its shapes.

    That it computes the same, running it shows. Raises FixedShapeError where what compression made of it has a shape
    built in.
    """
    clone = model.clone()
    graph, edit = clone.graph, Edit(clone.graph)
    for value in graph.inputs:
        value.shape = ir.Shape(sizes.inputs[str(value.name)])
    places: dict[str, list[int]] = {}
    for name, position in sizes.operands:
        places.setdefault(name, []).append(position)
    changed = set(graph.inputs)
    for node in list(graph):
        name = str(node.name)
        for position in places.get(name, ()):
            _replace_operand(node, position, sizes.operands[name, position], edit)
        for attribute in sizes.attributes.get(name, {}).values():
            node.attributes[attribute.name] = attribute
        if name in places or name in sizes.attributes or changed.intersection(node.inputs):
            _infer(node, clone.opset_imports)
            changed.update(node.outputs)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]
    return clone


def in_every_shape(model: ir.Model, rewrite: Callable[[ir.Model], ir.Model]) -> ir.Model:
    """What a rewrite that depends on shapes makes of the model, in place. Raises UnsupportedModelError where its
    results for the model's shapes differ in more than constants."""
    if not several_sizes(model.graph):
        return rewrite(model)
    own = own_sizes(model.graph)
    every = [None if sizes is own else rewrite(with_sizes(model, sizes)) for sizes in several_sizes(model.graph)]
    result = rewrite(model)
    join(result, [result if m is None else m for m in every])
    return result


def in_other_shapes(model: ir.Model) -> list[tuple[Sizes, ir.Model]]:
    """The model for each of its shapes but its own. Raises FixedShapeError."""
    return [(sizes, with_sizes(model, sizes)) for sizes in other_sizes(model.graph)]


def in_own_shape(model: ir.Model) -> ir.Model:
    """A clone that is for its own shape alone."""
    clone = model.clone()
    set_several_sizes(clone.graph, ())
    return clone


def shape_sets(shapes: Mapping[str, Sequence[Shape]]) -> list[dict[str, Shape]]:
    """The shapes of each input by name -> all inputs' shapes, once for each of several. An input with one keeps it.

    Raises InputError where inputs have different numbers of shapes.
    """
    counts = {name: len(its) for name, its in shapes.items() if len(its) > 1}
    if len(set(counts.values())) > 1:
        listing = ", ".join(f"{name!r} has {count}" for name, count in counts.items())
        raise InputError(f"--input-shape: {listing} shapes; give each input as many, in the same order, or one")
    made = [
        {name: its[min(i, len(its) - 1)] for name, its in shapes.items()}
        for i in range(max(counts.values(), default=1))
    ]
    return [its for i, its in enumerate(made) if its not in made[:i]]


def largest_of(sets: Sequence[Mapping[str, Shape]]) -> int:
    """The place of the shapes with most elements."""
    elements = [sum(map(math.prod, its.values())) for its in sets]
    return elements.index(max(elements))


def _sizes(model: ir.Model) -> Sizes:
    return Sizes("", {str(v.name): static_shape(v) or () for v in model.graph.inputs})


def _named(sizes: Sequence[Sizes]) -> list[Sizes]:
    """With keys such as "ids_1x64": of the first input that has other dimensions each time, or of all that change."""
    inputs = list(sizes[0].inputs)
    changing = [name for name in inputs if len({its.inputs[name] for its in sizes}) > 1]
    telling = [name for name in changing if len({its.inputs[name] for its in sizes}) == len(sizes)]
    told = telling[:1] or changing
    return [
        replace(its, key="_".join(f"{name}_{'x'.join(map(str, its.inputs[name]))}" for name in told)) for its in sizes
    ]


def _operand(nodes: Mapping[str, ir.Node], place: Place) -> np.ndarray | None:
    name, position = place
    return constant(nodes[name].inputs[position])


def _differences(own: ir.Model, other: ir.Model, sizes: Sizes) -> Sizes:
    nodes, others = list(own.graph), list(other.graph)
    for a, b in zip(nodes, others):
        if (a.domain, a.op_type, len(a.inputs)) != (b.domain, b.op_type, len(b.inputs)):
            raise FixedShapeError(f"its nodes depend on the shape, from {label(a)} on")
    if len(nodes) != len(others):
        raise FixedShapeError(f"its nodes depend on the shape: they are {len(nodes)} and {len(others)}")
    same: dict[ir.Value | None, ir.Value | None] = {None: None}
    same.update(zip(own.graph.inputs, other.graph.inputs, strict=True))
    operands: dict[Place, Operand] = {}
    attributes: dict[str, dict[str, ir.Attr]] = {}
    for a, b in zip(nodes, others):
        for position, (x, y) in enumerate(zip(a.inputs, b.inputs)):
            given, asked = constant(x), constant(y)
            if given is None and asked is None:
                if same.get(x, x) is not y:
                    raise FixedShapeError(f"{label(a)} reads another value")
            elif given is None or asked is None or given.dtype != asked.dtype:
                raise FixedShapeError(f"an operand of {label(a)} depends on the shape")
            elif given.shape != asked.shape or not np.array_equal(given, asked, equal_nan=given.dtype.kind == "f"):
                operands[str(a.name), position] = Operand(given, asked)
        if changed := {k: v for k, v in b.attributes.items() if not _same(v, a.attributes.get(k))}:
            attributes[str(a.name)] = changed
        same.update(zip(a.outputs, b.outputs, strict=True))
    return replace(sizes, operands=operands, attributes=attributes)


def _same(a: ir.Attr, b: ir.Attr | None) -> bool:
    if a.type == ir.AttributeType.TENSOR:
        return b is not None and np.array_equal(a.as_tensor().numpy(), b.as_tensor().numpy())
    return b is not None and a.type == b.type and a.value == b.value


def _replace_operand(node: ir.Node, position: int, operand: Operand, edit: Edit) -> None:
    old = node.inputs[position] if position < len(node.inputs) else None
    array = constant(old)
    if old is None or array is None:
        return  # compression wrote the node anew
    if operand.is_part and array.shape == operand.own.shape:
        made, part = operand.cut(array), operand.cut
    else:
        made, part = _merged(node, array, operand), None
    value = edit.renewed(old, made)
    value.meta.update(old.meta)
    if (book := codebook(value)) is not None:
        set_codebook(value, replace(book, indices=part(book.indices)) if part is not None else None)
    if (pruned := sparsity(value)) is not None and part is not None:
        set_sparsity(value, replace(pruned, mask=part(pruned.mask)))
    node.replace_input_with(position, value)


def _merged(node: ir.Node, array: np.ndarray, operand: Operand) -> np.ndarray:
    """What compression made of the constant, with what is different in the other shape."""
    own, other = operand.own, operand.other
    if own.shape == other.shape == array.shape:
        differs = own != other
        if np.array_equal(array[differs], own[differs]):
            return np.where(differs, other, array).astype(array.dtype)
    elif np.array_equal(array, own):
        return other
    raise FixedShapeError(f"compression changed an operand of {label(node)} that depends on the shape")


def _infer(node: ir.Node, opsets: Mapping[str, int]) -> None:
    before = [value.shape for value in node.outputs]
    for value in node.outputs:
        value.shape = None
    try:
        infer_node(node, opsets)
    except InputError as error:
        raise FixedShapeError(f"{label(node)} has a shape built in") from error
    for value, shape in zip(node.outputs, before):
        if static_shape(value) is None and (shape is not None or value.uses()):
            raise FixedShapeError(f"the shape of {label(node)} is not known")
