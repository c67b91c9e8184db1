"""Recipes: what a run is asked to do, as a file and as an object in which every choice is made."""

from __future__ import annotations

from edgecompress.recipe.schema import (
    PRESETS,
    Cluster,
    Distill,
    EarlyExit,
    Emit,
    Evaluate,
    Gate,
    Preprocess,
    Prune,
    Quantize,
    Recipe,
    Section,
    Train,
    load_recipe,
    recipe_file,
)

__all__ = [
    "PRESETS", "Cluster", "Distill", "EarlyExit", "Emit", "Evaluate", "Gate", "Preprocess", "Prune", "Quantize",
    "Recipe", "Section", "Train", "load_recipe", "recipe_file",
]  # fmt: skip
