"""`devices`: what is reachable now."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Group
from rich.text import Text

from edgecompress.devices.configuration import load_devices
from edgecompress.report.terminal import Shown, table
from edgecompress_targets.drivers.adb import FACTS
from edgecompress_targets.drivers.settings import Settings
from edgecompress_targets.tools import ToolError

PROBE_TIMEOUT = 5.0  # seconds: whoever lists devices waits for the slowest


@dataclass(frozen=True)
class Device:
    """A configured or built-in device. description: what it says it is; error: why it can't be reached."""

    name: str
    driver: str
    target: str
    formats: tuple[str, ...]
    description: str | None
    error: str | None


@dataclass(frozen=True)
class Connected:
    """Something on this machine that no configuration names: how to name it, and what it says it is. target: the
    profile that it matches, where that can be told."""

    driver: str
    address: str
    description: str
    target: str | None = None


@dataclass(frozen=True, repr=False)
class Devices(Shown):
    """Shows itself as a table."""

    devices: tuple[Device, ...]
    connected: tuple[Connected, ...]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

    def __rich__(self) -> Group:
        rows = [(d.name, d.driver, d.target, d.description or f"not reached: {d.error}") for d in self.devices]
        parts = [table("Devices", ("Name", "Driver", "Target", "What it is"), rows)]
        if self.connected:
            others = [(c.driver, c.address, c.target or "-", c.description) for c in self.connected]
            parts.append(table("\nConnected, not configured", ("Driver", "Address", "Target", "What it is"), others))
            parts.append(Text("edgecompress devices add NAME DRIVER KEY=VALUE... makes one of them a device."))
        return Group(*parts)


def list_devices(config: str | Path | None = None) -> Devices:
    """Every device, asked whether it is there, all at once; and what else is connected. Raises InputError for a bad
    configuration."""
    configured = load_devices(config)
    with ThreadPoolExecutor(max_workers=16) as pool:
        found = tuple(pool.map(_asked, configured.items()))
    return Devices(found, _connected(list(configured.values())))


def _asked(item: tuple[str, Settings]) -> Device:
    name, settings = item
    short = settings.model_copy(update={"timeout": min(settings.timeout, PROBE_TIMEOUT)})
    description = error = None
    driver = short.open(name)
    try:
        description = driver.probe().description
    except ToolError as failure:
        error = " ".join(str(failure).removeprefix(f"{name}: ").split())
    finally:
        driver.close()
    return Device(name, settings.driver, settings.target, settings.formats, description, error)


def _connected(known: Sequence[Settings]) -> tuple[Connected, ...]:
    taken = {settings.resource for settings in known}
    found = [*_serial_ports(), *_phones(), *_probes()]
    return tuple(c for c in found if c.address not in taken)


def _serial_ports() -> list[Connected]:
    from serial.tools.list_ports import comports

    return [Connected("serial", port.device, port.description) for port in comports() if port.hwid != "n/a"]


def _phones() -> list[Connected]:
    """Lines of `adb devices`: serial number, state. One that answers is asked what it is."""
    lines = _said("adb", "devices").splitlines()[1:]
    words = [line.split() for line in lines if line.strip() and not line.startswith("*")]
    return [_phone(w[0], w[1]) for w in words if len(w) > 1]


def _phone(serial: str, state: str) -> Connected:
    if state != "device":
        return Connected("adb", serial, state)
    asked = "; ".join(f'echo "$({command})"' for _, command in FACTS)  # a line each, if an empty one
    said = _said("adb", "-s", serial, "shell", asked).split("\n")
    facts = [f"Android {x}" if name == "android" else x for (name, _), x in zip(FACTS, map(str.strip, said)) if x]
    return Connected("adb", serial, ", ".join(facts) or state, "android")


def _probes() -> list[Connected]:
    try:
        boards = json.loads(_said("pyocd", "json", "--probes") or "{}").get("boards", [])
    except ValueError:
        return []
    return [Connected("probe", str(b.get("unique_id")), str(b.get("info", "debug probe"))) for b in boards]


def _said(*command: str) -> str:
    """What a program prints; nothing where it is not installed, fails, or hangs."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=PROBE_TIMEOUT).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
