"""devices.toml: the user's devices, in addition to those that need no configuration."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from edgecompress.errors import InputError
from edgecompress.support.output import write_files
from edgecompress.support.toml import toml_value
from edgecompress.support.validation import nearest, validated
from edgecompress.targets import all_targets, load_target
from edgecompress_targets.drivers.driver_table import BUILT_IN, DRIVERS
from edgecompress_targets.drivers.settings import Settings

EMULATOR = "qemu"  # the built-in emulator that fits, see choice.py
RESERVED = {*BUILT_IN, EMULATOR}


def default_file() -> Path:
    """The user's devices.toml, whether it exists or not."""
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(home, "edgecompress", "devices.toml").expanduser()


def load_devices(file: str | Path | None = None) -> dict[str, Settings | InputError]:
    """Name -> settings: the built-in devices, then the file's; for a table that can't be used, the error that says why:
    file, table, key. file: default `default_file`, which may be missing. Raises InputError for a file that can't be
    read."""
    path = Path(file) if file is not None else default_file()
    found: dict[str, Settings | InputError] = {**BUILT_IN}
    for name, table in _tables(path, file is not None).items():
        where = f"{path}: devices.{name}"
        try:
            if name in RESERVED:
                raise InputError(f"{where}: this is the name of a built-in device: choose another name")
            found[name] = _settings(table, where)
        except InputError as error:
            found[name] = error
    return found


def find_device(name: str, file: str | Path | None = None) -> Settings:
    """Raises InputError for an unknown name, with the nearest one, and for a table that can't be used. A built-in
    device does not depend on the usual file."""
    try:
        devices = load_devices(file)
    except InputError:
        if file is None and name in BUILT_IN:
            return BUILT_IN[name]
        raise
    if name not in devices:
        raise InputError(f"unknown device {name!r}: {nearest(name, list(devices))} (see: edgecompress devices)")
    found = devices[name]
    if isinstance(found, InputError):
        raise found
    return found


def add_device(name: str, table: dict[str, Any], file: str | Path | None = None) -> Path:
    """Write a device to the file, which keeps its others; comments in it are lost. Returns the file.

    Raises InputError for bad settings or a name that is taken.
    """
    path = Path(file) if file is not None else default_file()
    before = _tables(path, False)
    if name in RESERVED or name in before:
        raise InputError(f"{path}: device {name!r} exists already")
    if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
        raise InputError(f"device name {name!r}: expected letters, digits, - and _ (ASCII)")
    _settings(table, f"device {name}")
    lines = []
    for device, keys in (before | {name: table}).items():
        lines += [f"[devices.{device}]", *(f"{key} = {toml_value(value)}" for key, value in keys.items()), ""]
    write_files(path.parent, {path.name: "\n".join(lines).encode()})
    return path


def is_text(driver: str, key: str) -> bool:
    """Whether a driver's setting is a text; False for what is no setting."""
    field = DRIVERS[driver].model_fields.get(key) if driver in DRIVERS else None
    return field is not None and field.annotation in (str, str | None)


def _settings(table: Any, where: str) -> Settings:
    if not isinstance(table, dict):
        raise InputError(f"{where}: should be a table")
    driver = table.get("driver")
    if not isinstance(driver, str) or driver not in DRIVERS:
        known = ", ".join(DRIVERS)
        raise InputError(
            f"{where}: key 'driver': "
            + (f"is missing: one of {known}" if driver is None else f"found {driver!r}, expected one of {known}")
        )
    settings = validated(DRIVERS[driver], table, where)
    try:
        profile = load_target(settings.target)
    except InputError as error:
        raise InputError(f"{where}: key 'target': {error}") from error
    if not settings.can_be(profile):
        known = ", ".join(p.name for p in all_targets() if settings.can_be(p))
        raise InputError(
            f"{where}: key 'target': found {profile.name!r}, expected one that driver {driver} reaches: {known}"
        )
    return settings


def _tables(path: Path, required: bool) -> dict[str, Any]:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if required:
            raise InputError(f"{path}: no such file") from error
        return {}
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid TOML: {error}") from error
    if unknown := [key for key in data if key != "devices"]:
        raise InputError(f"{path}: unknown key {unknown[0]!r}: expected tables [devices.NAME]")
    tables = data.get("devices", {})
    if not isinstance(tables, dict):
        raise InputError(f"{path}: key 'devices': expected tables [devices.NAME]")
    return tables
