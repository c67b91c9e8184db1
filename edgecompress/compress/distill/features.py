"""Which values of the student imitate which of the teacher's, and how they are compared."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
from torch import Tensor, nn

from edgecompress.errors import InputError
from edgecompress.ingest.passes.edit import static_shape
from edgecompress.recipe import Distill
from edgecompress.support.present import present
from edgecompress.train.module.torch_model import TorchModel

Pair = tuple[str, str]  # teacher's value, student's value


class Imitator(nn.Module):
    """A student whose outputs are followed by its side of the pairs, through a 1 x 1 convolution (a matrix for values
    that aren't images) where the teacher has another number of channels.
    """

    def __init__(self, student: TorchModel, pairs: Sequence[tuple[ir.Value, ir.Value]]) -> None:
        super().__init__()
        self.student = student
        self.names = tuple(str(own.name) for _, own in pairs)
        shapes = [(present(static_shape(own)), present(static_shape(theirs))) for theirs, own in pairs]
        self.adapters = nn.ModuleList(_adapter(own, theirs) for own, theirs in shapes)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The student's outputs, followed by its adapted values in the order of the pairs."""
        if not self.names:
            return self.student(*inputs)
        outputs, captured = self.student(*inputs, capture=self.names)
        return (*outputs, *(adapt(captured[name]) for adapt, name in zip(self.adapters, self.names)))


def pairs(teacher: ir.Model, student: ir.Model, settings: Distill) -> list[tuple[ir.Value, ir.Value]]:
    """The values named in the settings; "auto": for each size of images, the last value of that size in both.

    Raises InputError for a name that isn't there, and for sizes that can't be compared.
    """
    if settings.features == "none":
        return []
    theirs, own = _values(teacher), _values(student)
    if settings.features == "auto":
        last_theirs, last_own = _last_of_each_size(teacher), _last_of_each_size(student)
        return [(value, last_own[size]) for size, value in last_theirs.items() if size in last_own]
    found = []
    for a, b in settings.features:
        for name, values, whose in ((a, theirs, "teacher"), (b, own, "student")):
            if name not in values:
                raise InputError(f"[distill] features: the {whose} has no value {name!r}; `inspect` lists them")
        first, second = present(static_shape(theirs[a])), present(static_shape(own[b]))
        if len(first) != len(second) or _size(first) != _size(second):
            raise InputError(
                f"[distill] features: {a!r} is {list(first)} in the teacher, {b!r} {list(second)} in the student; "
                "only the number of channels may differ"
            )
        found.append((theirs[a], own[b]))
    return found


def _values(model: ir.Model) -> dict[str, ir.Value]:
    return {str(v.name): v for node in model.graph for v in node.outputs if v.name}


def _last_of_each_size(model: ir.Model) -> dict[tuple[int, ...], ir.Value]:
    found = {}
    for node in model.graph:
        shape = static_shape(node.outputs[0])
        if shape is not None and len(shape) in (3, 4) and max(shape[2:]) > 1 and not node.outputs[0].is_graph_output():
            found[shape[2:]] = node.outputs[0]
    return found


def _size(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[2:] if len(shape) == 4 else shape[1:-1]


def _adapter(own: tuple[int, ...], theirs: tuple[int, ...]) -> nn.Module:
    if own == theirs:
        return nn.Identity()
    if len(own) == 4:
        return nn.Conv2d(own[1], theirs[1], 1)
    if len(own) == 3 and own[2] == theirs[2]:
        return nn.Conv1d(own[1], theirs[1], 1)
    return nn.Linear(own[-1], theirs[-1])
