"""`edgecompress convert`: turn a model into checked artifacts for one target."""

from __future__ import annotations

import shlex
import sys
from typing import Any

import click

from edgecompress.cli.options import (
    completes,
    config_option,
    debug_option,
    device_names,
    file_option,
    json_option,
    model_options,
    not_empty,
    parse_constants,
    parse_input_shapes,
    parse_preprocess,
    parse_states,
    talk_options,
    target_names,
)
from edgecompress.errors import DeviceFault, UnsupportedModelError
from edgecompress.support.echo import echo
from edgecompress.support.log import is_quiet

LIMIT_EXCEEDED = 4
FORMATS = ("onnx", "tflite", "pack")


def preset_names() -> list[str]:
    """The names of the recipes that come with the package, sorted."""
    from edgecompress.recipe import PRESETS

    return sorted(path.stem for path in PRESETS.glob("*.toml"))


@click.command(short_help="Convert a model for a device.")
@model_options
@click.option(
    "--target",
    default="android",
    show_default=True,
    shell_complete=completes(target_names),
    help="Target; see: edgecompress targets.",
)
@file_option("--target-file", type=click.Path(), help="Profile of your own board (TOML).")
@click.option(
    "--state",
    "states",
    multiple=True,
    metavar="OUT=IN",
    help="An output that is this input in the next run: kept inside where the format can. Repeatable.",
)
@file_option("-o", "--output", type=click.Path(), help="Output folder.  [default: NAME-TARGET]")
@click.option("--name", metavar="NAME", help="What the artifacts' names begin with.  [default: from MODEL]")
@file_option("--calib", metavar="DATA", help="Calibration data: .npz, .npy, image folder, file.py:function.")
@file_option("--eval", "evaluation", metavar="DATA", help="Evaluation data with labels, in the same forms.")
@file_option("--train", metavar="DATA", help="Training data in the same forms, for recipes that train.")
@click.option(
    "--resume", is_flag=True, help="Continue a training run that was stopped; otherwise training starts again."
)
@file_option(
    "--recipe",
    type=click.Path(),
    shell_complete=completes(preset_names),
    help="Recipe (TOML), or fast, balanced or smallest. Options override its keys.",
)
@click.option(
    "--format",
    "formats",
    multiple=True,
    shell_complete=completes(lambda: FORMATS),
    help="Artifact format: onnx, tflite or pack. Repeatable.",
)
@file_option(
    "--preprocess", metavar="KEY=VALUE,...", help="How samples become inputs; keys: scale, mean, std, resize, layout."
)
@click.option("--max-drop", type=float, help="Points of accuracy that may be lost; exit code 4 if more are.")
@click.option(
    "--min-snr",
    type=float,
    help="Lowest signal-to-noise ratio of an output, in dB; exit code 4 below it; 0: any.  [default: 20]",
)
@click.option(
    "--min-equal",
    type=float,
    help="Lowest percentage of equal values in an integer output; exit code 4 below it; 0: any.  [default: 99]",
)
@click.option(
    "--device",
    "devices",
    multiple=True,
    callback=not_empty,
    shell_complete=completes(device_names),
    help="Also run the artifacts on this device; see: edgecompress devices. Repeatable.",
)
@config_option
@click.option(
    "--max-size",
    metavar="SIZE",
    help="Largest size of an artifact, e.g. 32KB: chooses pruning and clustering; exit code 4 if missed.",
)
@json_option
@talk_options
@debug_option
def command(
    model: str,
    constants: tuple[str, ...],
    input_shapes: tuple[str, ...],
    states: tuple[str, ...],
    formats: tuple[str, ...],
    evaluation: str | None,
    preprocess: str | None,
    as_json: bool,
    **options: Any,
) -> int:
    """Convert MODEL (.onnx, .pt2, TorchScript .pt, .keras, .h5, SavedModel, or file.py:factory) for a device.

    Writes the artifacts, report.json, report.html, and the recipe that repeats the run. Weights become int8;
    activations become int8 too when --calib is given, and stay float otherwise. A file.py:factory or file.py:function
    is executed, so name only files that you trust.
    """
    from edgecompress.api import convert
    from edgecompress.conversion.trainer import is_main_process

    result = convert(
        model,
        eval=evaluation,
        formats=list(formats) or None,
        constants=parse_constants(constants),
        states=parse_states(states),
        input_shapes=parse_input_shapes(input_shapes),
        preprocess=parse_preprocess(preprocess),
        command=shlex.join(["edgecompress", *sys.argv[1:]]),
        **options,
    )
    if not is_main_process():
        return 0
    if as_json:
        echo(result.report.to_json(), nl=False)
    elif is_quiet():
        echo("\n".join(map(str, result.artifacts.values())))
    else:
        from edgecompress.report.tables import print_fitting

        print_fitting(result)
        echo(f"Written to {result.directory}. Open report.html there for the whole report.")
    if result.report.device_failures:
        return DeviceFault.exit_code
    if result.report.status == "format-refused":
        return UnsupportedModelError.exit_code
    return 0 if result.ok else LIMIT_EXCEEDED
