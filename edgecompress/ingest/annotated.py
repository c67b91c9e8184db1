"""A model that compression has annotated before: what was learned of zeros, clusters and scales is kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from edgecompress.graph.annotations import (
    Codebook,
    codebook,
    quantization,
    set_codebook,
    set_given_quantization,
    set_sparsity,
    sparsity,
)
from edgecompress.graph.fusion import constant


def keep(model: ir.Model, source: ir.Model) -> None:
    """Annotate the canonical model, in place, with what the annotations of its source say.

    Scales of values, and of weights of few bits, are those that the model comes with. A weight
    that has changed on the way loses its annotation.
    """
    before = source.graph.initializers
    for name, value in model.graph.initializers.items():
        old = before.get(name)
        if old is None or not np.array_equal(np.asarray(constant(value)), np.asarray(constant(old))):
            continue
        if (pruned := sparsity(old)) is not None:
            set_sparsity(value, pruned)
        if (book := _in_floats(old)) is not None:
            set_codebook(value, book)
        if (q := quantization(old)) is not None and q.kind != "int8":
            set_given_quantization(value, q)
    given = {v.name: q for v in _computed(source) if (q := quantization(v)) is not None}
    for value in _computed(model):
        if value.name in given:
            set_given_quantization(value, given[value.name])


def _computed(model: ir.Model) -> list[ir.Value]:
    return [*model.graph.inputs, *(v for node in model.graph for v in node.outputs)]


def _in_floats(value: ir.Value) -> Codebook | None:
    """The codebook as one of a float weight: centroids of int8 with the weight's scale."""
    book, q = codebook(value), quantization(value)
    if book is None or book.scale is not None or q is None:
        return book
    return replace(book, centroids=book.centroids.astype(np.float32), scale=q.scale, axis=q.axis)
