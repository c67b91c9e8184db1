"""devices.toml: the devices of this user, beside those that need no configuration."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from edgecompress.errors import InputError
from edgecompress.output import write_files
from edgecompress.targets import load_target
from edgecompress.toml import toml_value
from edgecompress.validation import nearest, validated
from edgecompress_targets.drivers.settings import Settings
from edgecompress_targets.drivers.table import BUILT_IN, DRIVERS


def default_file() -> Path:
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(home, "edgecompress", "devices.toml").expanduser()


def load_devices(file: str | Path | None = None) -> dict[str, Settings]:
    """Name -> settings: the built-in devices, then the file's. file: default `default_file`, which may be missing.

    Raises InputError naming the file and the key at fault.
    """
    path = Path(file) if file is not None else default_file()
    tables = _tables(path, file is not None)
    found = {name: _settings(table, f"{path}: devices.{name}") for name, table in tables.items()}
    if taken := sorted(set(found) & set(BUILT_IN)):
        raise InputError(f"{path}: devices.{taken[0]}: is the name of a built-in device: choose another")
    return {**BUILT_IN, **found}


def find_device(name: str, file: str | Path | None = None) -> Settings:
    """Raises InputError for an unknown name, with the nearest one."""
    devices = load_devices(file)
    if name not in devices:
        raise InputError(f"unknown device {name!r}: {nearest(name, list(devices))} (see: edgecompress devices)")
    return devices[name]


def add_device(name: str, table: dict[str, Any], file: str | Path | None = None) -> Path:
    """Write a device to the file, which keeps its others; comments in it are lost. Returns the file.

    Raises InputError for bad settings or a name that is taken.
    """
    path = Path(file) if file is not None else default_file()
    if name in load_devices(path if path.exists() else None):
        raise InputError(f"{path}: there is a device {name!r} already")
    if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
        raise InputError(f"device name {name!r}: expected letters, digits, - and _ (ASCII)")
    _settings(table, f"device {name}")
    tables = _tables(path, False) | {name: table}
    lines = []
    for device, keys in tables.items():
        lines += [f"[devices.{device}]", *(f"{key} = {toml_value(value)}" for key, value in keys.items()), ""]
    write_files(path.parent, {path.name: "\n".join(lines).encode()})
    return path


def _settings(table: Any, where: str) -> Settings:
    if not isinstance(table, dict):
        raise InputError(f"{where}: should be a table")
    driver = table.get("driver")
    if driver not in DRIVERS:
        known = ", ".join(DRIVERS)
        raise InputError(f"{where}: key 'driver': " + (f"is missing: one of {known}" if driver is None else
                                                       f"found {driver!r}, expected one of {known}"))  # fmt: skip
    settings = validated(DRIVERS[driver], table, where)
    load_target(settings.target)
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
