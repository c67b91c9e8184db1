"""Which layers have weights of few bits (graph/few_bits.py): those that the recipe names, or all but the outer ones."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from edgecompress.compress.quantize import operators
from edgecompress.errors import InputError
from edgecompress.graph.annotations import codebook, given_quantization, has_few_bits, sparsity
from edgecompress.graph.few_bits import WeightType
from edgecompress.graph.fusion import Layer, layers
from edgecompress.graph.provenance import label
from edgecompress.recipe import Quantize


def weight_types(graph: ir.Graph, settings: Quantize) -> dict[ir.Node, WeightType]:
    """The type of the int8 weights of each layer that has some, by the layer's main node.

    The layers that settings.layer_weights names have what it says. Of the others, the first layers and the last, in
    front of which and behind which there are no weights, are int8, as in both papers; the rest are as settings.weights
    says. A weight that came with few bits keeps them, and one that came clustered its clusters, unless it is named.
    Raises InputError for a named layer that has no weights, and for a binary layer that was pruned.
    """
    weighted = [layer for layer in layers(graph) if operators.weight(layer) is not None]
    outer = _first(graph, weighted) | _last(graph, weighted)
    found: dict[ir.Node, WeightType] = {}
    unused = set(settings.layer_weights)
    for layer in weighted:
        names = {n for node in layer.nodes for n in (node.name, *(v.name for v in node.outputs))}
        unused -= names
        named = [kind for name, kind in settings.layer_weights.items() if name in names]
        found[layer.node] = named[0] if named else _usual(layer, layer.node in outer, settings)
    if unused:
        listed = ", ".join(map(repr, sorted(unused)))
        raise InputError(f"quantize.layer_weights: these nodes have no int8 weights: {listed}; remove them")
    binary = [layer for layer in weighted if found[layer.node] == "binary"]
    require_no_zeros(layer.node for layer in binary if (s := sparsity(operators.weight(layer))) and not s.mask.all())
    return found


def require_no_zeros(pruned: Iterable[ir.Node]) -> None:
    """pruned: nodes whose weights are to be binary. Raises InputError for any."""
    if names := ", ".join(map(label, pruned)):
        raise InputError(
            f'binary weights are -1 or 1, but pruning makes zeros in {names}: choose "ternary", which has zeros, or '
            "list these nodes in prune.keep"
        )


def any_has_few_bits(model: ir.Model) -> bool:
    """Whether an annotated model has weights of fewer than 8 bits."""
    return any(map(has_few_bits, model.graph.initializers.values()))


def _usual(layer: Layer, is_outer: bool, settings: Quantize) -> WeightType:
    value = operators.weight(layer)
    if (given := given_quantization(value)) is not None:
        return given.kind
    if settings.weights == "float16" or settings.weights == "float32":  # these layers are not among the named ones
        return "int8"
    return "int8" if is_outer or codebook(value) is not None else settings.weights


def _first(graph: ir.Graph, weighted: list[Layer]) -> set[ir.Node]:
    """The nodes that multiply by weights and read nothing that was computed with weights."""
    nodes, behind, found = {layer.node for layer in weighted}, set[ir.Value](), set[ir.Node]()
    for node in graph:
        if not behind.isdisjoint(v for v in node.inputs if v is not None):
            behind.update(node.outputs)
        elif node in nodes:
            found.add(node)
            behind.update(node.outputs)
    return found


def _last(graph: ir.Graph, weighted: list[Layer]) -> set[ir.Node]:
    """The nodes that multiply by weights and compute nothing that is multiplied by weights."""
    nodes, before, found = {layer.node for layer in weighted}, set[ir.Value](), set[ir.Node]()
    for node in reversed(list(graph)):
        feeds = not before.isdisjoint(node.outputs)
        if node in nodes and not feeds:
            found.add(node)
        if feeds or node in nodes:
            before.update(v for v in node.inputs if v is not None)
    return found
