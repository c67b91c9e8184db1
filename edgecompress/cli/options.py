"""Options that several commands share, and the parsing of their values."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import click

from edgecompress.errors import InputError
from edgecompress.support.log import LOGGER

json_option = click.option("--json", "as_json", is_flag=True, help="Print only JSON.")
debug_option = click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")


def _level(level: int) -> Callable[..., None]:
    def set_level(context: click.Context, parameter: click.Parameter, value: bool) -> None:
        if value:
            LOGGER.setLevel(level)

    return set_level


def talk_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options -q and -v of commands that take a while."""
    for option in (
        click.option(
            "-v",
            "--verbose",
            is_flag=True,
            expose_value=False,
            callback=_level(logging.INFO),
            help="Report progress on stderr.",
        ),
        click.option(
            "-q",
            "--quiet",
            is_flag=True,
            expose_value=False,
            callback=_level(logging.ERROR),
            help="Print only the names of files that are written, and errors.",
        ),
    ):
        command = option(command)
    return command


def completes(names: Callable[[], Iterable[str]]) -> Callable[..., list[str]]:
    """For `shell_complete`: the names that begin with what was typed."""
    return lambda context, parameter, typed: [name for name in names() if name.startswith(typed)]


def target_names() -> list[str]:
    """The names of all installed profiles."""
    from edgecompress.targets import all_targets

    return [profile.name for profile in all_targets()]


def device_names() -> list[str]:
    """The names of all configured devices, and "qemu"."""
    from edgecompress.devices.configuration import EMULATOR, load_devices

    return [EMULATOR, *load_devices()]


def not_empty(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """A callback that refuses an empty text, which is what a shell makes of a variable that is not set."""
    if value == "" or (isinstance(value, tuple) and "" in value):
        raise click.BadParameter("is empty", context, parameter)
    return value


def file_option(*names: str, **settings: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """An option whose value names a file, a folder, or data."""
    return click.option(*names, callback=not_empty, **settings)


config_option = file_option(
    "--config", type=click.Path(), help="Configuration of devices.  [default: ~/.config/edgecompress/devices.toml]"
)


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """MODEL, --weights, --trust-code, --set, --batch and --input-shape, which together say which model is meant."""
    for option in (
        click.option(
            "--input-shape",
            "input_shapes",
            multiple=True,
            metavar="NAME:DIMS",
            help="Shape of an input with dynamic dimensions, e.g. image:1,3,224,224; several: ids:1,64|128. "
            "Repeatable.",
        ),
        click.option(
            "--batch", type=click.IntRange(min=1), help="Batch size of a model whose batch dimension is open."
        ),
        click.option(
            "--set",
            "constants",
            multiple=True,
            metavar="NAME=NUMBER",
            help="Make an input a constant, e.g. sr=16000; it is no input of the artifacts. Repeatable.",
        ),
        click.option("--trust-code", is_flag=True, help="Load Lambda layers of a Keras model, which run code."),
        file_option("--weights", type=click.Path(), help="state_dict file for a file.py:factory model."),
        click.argument("model", callback=not_empty),
    ):
        command = option(command)
    return command


def parse_input_shapes(texts: tuple[str, ...]) -> dict[str, tuple[int, ...] | list[tuple[int, ...]]]:
    """("a:b:1,3,8,8",) -> {"a:b": (1, 3, 8, 8)}; the last colon separates, since names may hold colons.

    One input may have several shapes, which are a list then: "ids:1,64|128", or the option again for the same input.
    """
    shapes: dict[str, list[tuple[int, ...]]] = {}
    for text in texts:
        name, separator, dimensions = text.rpartition(":")
        try:
            sizes = [[int(d) for d in dimension.split("|")] for dimension in dimensions.split(",")]
        except ValueError:
            sizes = []
        counts = {len(its) for its in sizes} - {1}
        if not separator or not name or not sizes or min(map(min, sizes)) < 1 or len(counts) > 1:
            raise InputError(
                f"--input-shape {text!r}: expected NAME:D1,D2,..., e.g. image:1,3,224,224, or with several sizes, as "
                "many in each dimension that has some, ids:1,64|128"
            )
        for place in range(max(counts, default=1)):
            shapes.setdefault(name, []).append(tuple(its[min(place, len(its) - 1)] for its in sizes))
    return {name: its if len(its) > 1 else its[0] for name, its in shapes.items()}


def parse_constants(texts: tuple[str, ...]) -> dict[str, float]:
    """("sr=16000",) -> {"sr": 16000}; the last = separates, since names may hold it."""
    constants: dict[str, float] = {}
    for text in texts:
        name, separator, number = text.rpartition("=")
        try:
            constants[name] = float(number)
        except ValueError:
            separator = ""
        if not separator or not name:
            raise InputError(f"--set {text!r}: expected NAME=NUMBER, e.g. sr=16000")
    return constants


def parse_states(texts: tuple[str, ...]) -> dict[str, str]:
    """("hn=h0",) -> {"hn": "h0"}; the last = separates, since names may hold it."""
    states: dict[str, str] = {}
    for text in texts:
        output, _, name = text.rpartition("=")
        if not output or not name:
            raise InputError(f"--state {text!r}: expected OUTPUT=INPUT, e.g. hn=h0")
        states[output] = name
    return states


def parse_preprocess(text: str | None) -> Mapping[str, Any]:
    """ "scale=0.5,mean=1,2,3" -> {"scale": 0.5, "mean": [1.0, 2.0, 3.0]}; pieces without = continue a list."""
    lists: dict[str, list[str]] = {}
    key = None
    for piece in (text or "").split(",") if text else []:
        if "=" in piece:
            key, _, piece = (p.strip() for p in piece.partition("="))
            lists[key] = []
        if key is None:
            raise InputError(f"--preprocess {text!r}: expected KEY=VALUE,..., e.g. scale=0.5,mean=1,2,3")
        lists[key].append(piece.strip())
    return {key: _value(key, values) for key, values in lists.items()}


def _value(key: str, values: list[str]) -> Any:
    numbers: list[Any] = []
    for value in values:
        try:
            numbers.append(int(value) if value.lstrip("-").isdigit() else float(value))
        except ValueError:
            numbers.append(value)
    return numbers[0] if len(numbers) == 1 and key not in {"mean", "std"} else numbers
