"""Whether a run can do what its recipe asks for: checked before anything is trained."""

from __future__ import annotations

import onnx_ir as ir

from edgecompress.compress.prune import recipe_faults as pruning
from edgecompress.compress.prune.criterion import load_criterion
from edgecompress.compress.prune.defaults import AUTO
from edgecompress.compress.prune.defaults import calibrates as by_layers
from edgecompress.compress.prune.pruned_weights import prunable as prunable_weights
from edgecompress.compress.quantize.dynamic import int4_weights
from edgecompress.compress.quantize.precision import require_nodes
from edgecompress.compress.quantize.weight_types import require_no_zeros, weight_types
from edgecompress.conversion.trainer import Trainer, require_torch
from edgecompress.errors import InputError
from edgecompress.graph.few_bits import WeightType
from edgecompress.recipe import Recipe
from edgecompress.recipe.effective import encoding


def require_possible(recipe: Recipe, *, trains: bool, calibrates: bool) -> None:
    """Raises InputError with everything impossible that the recipe asks for. trains: there is training data;
    calibrates: there is calibration data."""
    quantize, cluster = recipe.quantize, recipe.cluster
    learned = {
        "[distill]": recipe.distill.is_asked_for,
        "[exit]": recipe.exit.is_asked_for,
        "[gate]": recipe.gate.is_asked_for,
        "[quantize] epochs": quantize.epochs is not None,
        "[cluster] epochs": cluster.epochs is not None,
    }
    needed = [] if trains else [what for what, asked in learned.items() if asked]
    epochs = (recipe.prune.epochs or recipe.train.epochs) if trains else None
    rows = (
        (needed, f"the recipe's {', '.join(needed)} needs training data: give --train"),
        (
            recipe.prune.initial is not None and recipe.distill.is_asked_for,
            "prune.initial holds weights of the model itself, and [distill] puts a student in its place: use only one",
        ),
        (
            recipe.gate.is_asked_for and recipe.exit.is_asked_for,
            "[gate] and [exit] are not trained together: use only one",
        ),
        (
            quantize.epochs is not None and encoding(recipe) != "int8",
            "quantize.epochs trains int8 weights and activations: remove quantize.weights and quantize.activations",
        ),
    )
    if faults := [text for wrong, text in rows if wrong] + pruning.faults(
        recipe.prune, epochs, calibrated=calibrates or trains
    ):
        raise InputError("; ".join(faults))
    if recipe.prune.criterion != AUTO:
        load_criterion(recipe.prune.criterion)  # reports at once what is wrong with a user's file


def require_exits(model: ir.Model, trainer: Trainer) -> None:
    """Raises InputError when the model can't have the early exits that the recipe asks for. What a student's blocks are
    called is not known yet."""
    from edgecompress.compress.early_exit.early_exits import places, require_classifier

    require_classifier(model, trainer.outputs)
    if not trainer.recipe.distill.is_asked_for:
        places(model.graph, trainer.recipe.exit)


def require_names(model: ir.Model, recipe: Recipe) -> None:
    """Raises InputError when the recipe names layers that the model does not have, or asks of one what excludes each
    other. Those of a student are not known
    yet."""
    if recipe.distill.is_asked_for:
        return
    require_nodes(model.graph, recipe.quantize)
    if encoding(recipe) == "dynamic":
        int4_weights(model.graph, recipe.quantize)
        types: dict[ir.Node, WeightType] = {}
    else:
        types = weight_types(model.graph, recipe.quantize)
    if recipe.prune.is_structured:
        from edgecompress.analysis.channel_groups import channel_groups, prunable
        from edgecompress.compress.prune.prune_channels import without_kept

        without_kept(prunable(channel_groups(model)), recipe.prune.keep)
    if recipe.prune.is_asked_for:
        if not by_layers(recipe.prune):
            require_torch("[prune]")
        pruned = [weight.node for weight in prunable_weights(model, recipe.prune.keep)]
        require_no_zeros(node for node in pruned if types.get(node) == "binary")
