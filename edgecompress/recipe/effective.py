"""The effective recipe: a recipe, the arguments that override it and the target, made into one without open choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from edgecompress.errors import InputError
from edgecompress.recipe import Emit, Evaluate, Preprocess, Recipe
from edgecompress.support.validation import validated
from edgecompress_targets import Profile

OWN_FORMAT = "pack"  # for this project's own runtime
Encoding = Literal["int8", "dynamic", "float16", "float32"]


@dataclass(frozen=True)
class Overrides:
    """Arguments that go before a recipe's keys; None leaves the recipe's own.

    formats: of artifacts. preprocess: keys of [preprocess]. max_drop: points of accuracy. max_size: bytes. min_snr: dB.
    min_equal: percent.
    """

    formats: Sequence[str] | None = None
    preprocess: Mapping[str, Any] | None = None
    max_drop: float | None = None
    max_size: int | None = None
    min_snr: float | None = None
    min_equal: float | None = None


LIMITS = ("max_drop", "min_snr", "min_equal")  # keys of [evaluate]


def effective_recipe(recipe: Recipe, profile: Profile, overrides: Overrides, *, calibrated: bool) -> Recipe:
    """A copy of the recipe with the arguments in place of its keys and every "auto" decided, but for those
    of [prune], which are decided for channels and for weights apart.

    calibrated: whether ranges of activations will be known. Raises InputError when the choices contradict each other
    or the target.
    """
    result = recipe.model_copy(deep=True)
    result.preprocess = _changed(Preprocess, recipe.preprocess, dict(overrides.preprocess or {}), "preprocess")
    for key in LIMITS:
        if (value := getattr(overrides, key)) is not None:
            result.evaluate = _changed(Evaluate, result.evaluate, {key: value}, key)
    formats = [overrides.formats] if isinstance(overrides.formats, str) else overrides.formats
    max_size = recipe.emit.max_size if overrides.max_size is None else overrides.max_size
    small = (OWN_FORMAT,) if OWN_FORMAT in profile.loads else profile.formats  # the only one where weights can be small
    usual = profile.formats if max_size is None else small
    wanted = list(dict.fromkeys(formats or recipe.emit.formats or usual))
    io = profile.io if recipe.emit.io == "auto" else recipe.emit.io
    result.emit = _changed(Emit, recipe.emit, {"formats": wanted, "io": io, "max_size": max_size}, "formats")
    if recipe.quantize.activations == "auto":
        int8 = recipe.quantize.is_integer and (calibrated or profile.integer_only)
        result.quantize.activations = "int8" if int8 else "float32"
    if result.quantize.activations != "int8" and not profile.integer_only:
        result.emit.io = "float32"  # nothing inside is int8, so int8 inputs would only lose precision
    _require_consistent(result, profile)
    return result


def encoding(recipe: Recipe) -> Encoding:
    """The name of what an effective recipe makes: "int8" computes on integers, "dynamic" only stores them."""
    weights = recipe.quantize.weights
    if weights == "float16" or weights == "float32":
        return weights
    return "int8" if recipe.quantize.activations == "int8" else "dynamic"


def _changed(kind: Any, section: Any, changes: dict[str, Any], source: str) -> Any:
    return validated(kind, section.model_dump() | changes, source)


def _require_consistent(recipe: Recipe, profile: Profile) -> None:
    quantize, formats = recipe.quantize, recipe.emit.formats or []
    unloadable = [f for f in formats if f not in profile.loads]
    if unloadable:
        raise InputError(f"format {unloadable[0]!r}: target {profile.name} loads only {', '.join(profile.loads)}")
    in_blocks = encoding(recipe) == "dynamic"  # int4 is
    wrong = [key for key in quantize.few_bits if not (in_blocks and key.endswith('"int4"'))]
    if wrong and quantize.activations != "int8":
        raise InputError(
            f"quantize.{wrong[0]} needs int8 activations beside it: give calibration data (--calib), and "
            "leave out weights and activations that are float"
        )
    if (asked := quantize.asks_for_blocks) and not in_blocks:
        raise InputError(
            f'quantize.{asked} is for int4 weights beside float activations: set activations = "float32", with weights '
            'or layer_weights "int4"'
        )
    if quantize.activations == "int8" and not quantize.is_integer:
        raise InputError(f'recipe: activations = "int8" needs weights = "int8", found weights = "{quantize.weights}"')
    if recipe.cluster.epochs is not None and not recipe.cluster.is_asked_for and recipe.emit.max_size is None:
        raise InputError(
            'recipe: [cluster] epochs trains clusters, but none are asked for: add bits = "auto", bits = 4, size or snr'
        )
    if profile.integer_only and encoding(recipe) != "int8":
        raise InputError(
            f"target {profile.name} computes on int8 only: remove weights and activations from the recipe's "
            f"[quantize], found {quantize.weights} weights and {quantize.activations} activations"
        )
    if profile.integer_only and recipe.emit.io != "int8":
        raise InputError(
            f"target {profile.name} takes int8 inputs and outputs only: remove io from the recipe's [emit]"
        )
    if profile.integer_only and quantize.float_layers:
        raise InputError(f"target {profile.name} computes on int8 only: remove float_layers from the recipe")
