"""Settles open dimensions of a model's inputs by the samples that it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import onnx

from edgecompress.errors import InputError

Shape = tuple[int, ...]
Dims = tuple[int | str, ...]  # an open dimension by its name, or "" if it has none
SampleShapes = Callable[[Sequence[str]], Mapping[str, Shape]]  # names of inputs -> shapes of their samples, where known


def settled_shapes(
    proto: onnx.ModelProto, given: Mapping[str, Sequence[int]], samples: SampleShapes | None
) -> tuple[dict[str, Sequence[int]], list[str]]:
    """The shapes that were given, and those of inputs with open dimensions besides the first, as far as they are known;
    and a note of the latter.

    Dimensions of one name are one size. It comes from the shapes that were given, and else from the samples; a first
    dimension that neither says is a batch of 1. samples: is called only if it is needed. Raises InputError when
    samples have two sizes where the model has one name.
    """
    stored = {tensor.name for tensor in proto.graph.initializer}
    inputs = {v.name: dims for v in proto.graph.input if v.name not in stored and (dims := _dims(v))}
    waiting = {name: dims for name, dims in inputs.items() if name not in given and _is_open(dims)}
    batches = {dims[0]: 1 for dims in inputs.values() if isinstance(dims[0], str)}
    sizes = {d: n for name, shape in given.items() for d, n in _open_sizes(inputs.get(name, ()), shape)}
    shapes: dict[str, Shape] = {}
    if samples is not None and any(_filled(dims, batches | sizes) is None for dims in waiting.values()):
        for name, sample in samples(list(inputs)).items():
            dims = waiting.get(name, ())
            shape = _fitting(dims, sample)
            if shape is not None:
                shapes[name] = shape
                _bind(sizes, name, dims, shape)
    filled = {name: _filled(dims, batches | sizes) for name, dims in waiting.items() if name not in shapes}
    shapes |= {name: shape for name, shape in filled.items() if shape is not None}
    listing = ", ".join(f"{name!r} {list(shape)}" for name, shape in shapes.items())
    notes = [f"open dimensions were set as the data, or other inputs, have them: {listing}"] if shapes else []
    return {**given, **shapes}, notes


def open_negative(proto: onnx.ModelProto) -> None:
    """Leaves open, in place, the dimensions of inputs that are negative, as Paddle writes open ones."""
    for value in proto.graph.input:
        for d in value.type.tensor_type.shape.dim:
            if d.dim_value < 0:
                d.Clear()


def _dims(value: onnx.ValueInfoProto) -> Dims:
    """The declared dimensions; none if they are not declared. A first one that is open and has no name is a batch."""
    declared = value.type.tensor_type.shape.dim
    dims = [d.dim_value if d.HasField("dim_value") else d.dim_param.removeprefix("?") for d in declared]
    return tuple([dims[0] or 1, *dims[1:]] if dims else [])


def _is_open(dims: Dims) -> bool:
    return any(isinstance(d, str) for d in dims[1:])


def _filled(dims: Dims, sizes: Mapping[str, int]) -> Shape | None:
    """The shape, if the size of every open dimension is known."""
    known = [d if isinstance(d, int) else sizes.get(d) for d in dims]
    whole = tuple(d for d in known if d is not None)
    return whole if len(whole) == len(dims) else None


def _fitting(dims: Dims, sample: Shape) -> Shape | None:
    """The first of the shapes that the samples may have as an input which the declared dimensions allow."""
    return next((shape for shape in _candidates(sample) if _fits(dims, shape)), None)


def _candidates(sample: Shape) -> Iterator[Shape]:
    """A batch of one sample, the sample as the whole input, with channels moved from last to first, and with a channel
    added, as `evaluate.preprocess` matches them.
    """
    yield (1, *sample)
    yield sample
    if len(sample) > 1:
        yield (1, sample[-1], *sample[:-1])
    yield (1, 1, *sample)


def _fits(dims: Dims, shape: Sequence[int]) -> bool:
    return len(dims) == len(shape) and all(d == n or not isinstance(d, int) for d, n in zip(dims, shape))


def _open_sizes(dims: Dims, shape: Sequence[int]) -> Iterator[tuple[str, int]]:
    """The open dimensions that have a name, and their sizes."""
    return ((d, size) for d, size in zip(dims, shape) if isinstance(d, str) and d)


def _bind(sizes: dict[str, int], name: str, dims: Dims, shape: Shape) -> None:
    for d, size in _open_sizes(dims, shape):
        if sizes.setdefault(d, size) != size:
            raise InputError(
                f"input {name!r} has {size} where the data has it, but its dimension {d!r} is {sizes[d]} elsewhere; "
                f"give data whose arrays agree, or --input-shape {name}:{','.join(map(str, dims))} with numbers"
            )
