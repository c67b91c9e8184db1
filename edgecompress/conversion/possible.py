"""Whether a run can do what its recipe asks for: found out before anything is trained."""

from __future__ import annotations

from edgecompress.compress.prune import recipe_faults as pruning
from edgecompress.compress.prune.criteria import load_criterion
from edgecompress.errors import InputError
from edgecompress.recipe import Recipe
from edgecompress.recipe.effective import encoding


def require_possible(recipe: Recipe, *, trains: bool) -> None:
    """trains: whether there is training data. Raises InputError with all that the recipe can't have."""
    quantize, cluster = recipe.quantize, recipe.cluster
    learned = {
        "[distill]": recipe.distill.is_asked_for,
        "[quantize] epochs": quantize.epochs is not None,
        "[cluster] epochs": cluster.epochs is not None,
    }
    needed = [] if trains else [what for what, yes in learned.items() if yes]
    epochs = (recipe.prune.epochs or recipe.train.epochs) if trains else None
    rows = (
        (needed, f"the recipe's {', '.join(needed)} needs training data: give --train"),
        (
            quantize.epochs is not None and encoding(recipe) != "int8",
            "quantize.epochs trains int8 weights and activations: leave quantize.weights and quantize.activations out",
        ),
    )
    if found := [text for wrong, text in rows if wrong] + pruning.faults(recipe.prune, epochs):
        raise InputError("; ".join(found))
    load_criterion(recipe.prune.criterion)  # says at once what is wrong with a user's file
