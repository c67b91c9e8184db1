"""`devices`: list the devices that can be reached now."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from edgecompress.devices.configuration import load_devices
from edgecompress.errors import InputError
from edgecompress.report.tables import Shown, table
from edgecompress_targets.drivers.adb import FACTS
from edgecompress_targets.drivers.linux import MOST_SAID, fact
from edgecompress_targets.drivers.serial_device import SerialSettings
from edgecompress_targets.drivers.settings import Settings
from edgecompress_targets.tools import ToolError, captured

PROBE_TIMEOUT = 5.0  # seconds: whoever lists devices waits for the slowest
MOST_CONNECTED = 64  # devices of a kind that are listed, however many there are


@dataclass(frozen=True)
class Device:
    """A configured or built-in device. description: what it says it is; error: why it can't be reached, or, where
    driver and target are None, why its table in the configuration can't be used."""

    name: str
    driver: str | None
    target: str | None
    formats: tuple[str, ...]
    description: str | None
    error: str | None


@dataclass(frozen=True)
class Connected:
    """Something on this machine that no configuration names, or a probe: its address, and what it says it is. target:
    the profile that it matches, where that can be told. add: the command that makes it a device; None for the probe
    of one."""

    driver: str
    address: str
    description: str
    target: str | None
    add: str | None


@dataclass(frozen=True, repr=False)
class Devices(Shown):
    """Shows itself as a table."""

    devices: tuple[Device, ...]
    connected: tuple[Connected, ...]

    def to_json(self) -> str:
        """JSON text, as `edgecompress devices --json` prints it."""
        return json.dumps(asdict(self), indent=2) + "\n"

    def __rich__(self) -> Group:
        rows = [(d.name, d.driver or "-", d.target or "-", d.description or _reason(d)) for d in self.devices]
        parts: list[RenderableType] = [table("Devices", ("Name", "Driver", "Target", "What it is"), rows)]
        if self.connected:
            others = [(c.driver, c.address, c.target or "-", c.description) for c in self.connected]
            parts.append(table("\nConnected", ("Driver", "Address", "Target", "What it is"), others))
        if commands := [c.add for c in self.connected if c.add]:
            targets = " (its TARGET: see edgecompress targets)" if any("=TARGET" in c for c in commands) else ""
            parts.append(Text("\n".join([f"To add them as devices{targets}:", *(f"  {c}" for c in commands)])))
        return Group(*parts)


def list_devices(config: str | Path | None = None) -> Devices:
    """Every device, asked whether it is there, all at once; and what else is connected. Raises InputError for a bad
    configuration."""
    configured = load_devices(config)
    with ThreadPoolExecutor(max_workers=16) as pool:
        found = tuple(pool.map(_asked, configured.items()))
    return Devices(found, _connected({n: s for n, s in configured.items() if isinstance(s, Settings)}))


def _reason(device: Device) -> str:
    return f"{'bad configuration' if device.driver is None else 'out of reach'}: {device.error}"


def _asked(item: tuple[str, Settings | InputError]) -> Device:
    name, settings = item
    if isinstance(settings, InputError):
        return Device(name, None, None, (), None, str(settings))
    short = settings.model_copy(update={"timeout": min(settings.timeout, PROBE_TIMEOUT)})
    description = error = None
    driver = short.open(name)
    try:
        description = driver.probe().description
    except ToolError as failure:
        error = " ".join(str(failure).removeprefix(f"{name}: ").removeprefix(f"{name} ").split())
    finally:
        driver.close()
    return Device(name, settings.driver, settings.target, settings.formats, description, error)


def _connected(known: Mapping[str, Settings]) -> tuple[Connected, ...]:
    """Ports and phones that belong to no device, and probes, whose devices are reached by their ports."""
    taken = {os.path.realpath(s.resource) if "/" in s.resource else s.resource for s in known.values() if s.resource}
    found = [*_serial_ports(), *_phones()]
    return *(c for c in found if c.address not in taken), *_probes(known)


def _serial_ports() -> list[Connected]:
    from serial.tools.list_ports import comports

    return [
        Connected("serial", port.device, port.description, None, _add("serial", port=port.device, target="TARGET"))
        for port in comports()
        if port.hwid != "n/a"
    ]


def _add(driver: str, **settings: str) -> str:
    return shlex.join(["edgecompress", "devices", "add", "NAME", driver, *(f"{k}={v}" for k, v in settings.items())])


def _phones() -> list[Connected]:
    """Lines of `adb devices`: serial number, state. One that answers is asked what it is."""
    lines = _said("adb", "devices").splitlines()[1:]
    words = [line.split() for line in lines if line.strip() and not line.startswith("*")]
    return [_phone(w[0], w[1]) for w in words[:MOST_CONNECTED] if len(w) > 1]


def _phone(serial: str, state: str) -> Connected:
    if state != "device":
        return Connected("adb", serial, state, "android", _add("adb", serial=serial))
    asked = "; ".join(f'echo "$({command})"' for _, command in FACTS)  # a line each, if an empty one
    said = _said("adb", "-s", serial, "shell", asked).split("\n")
    facts = [f"Android {x}" if name == "android" else x for (name, _), x in zip(FACTS, map(fact, said)) if x]
    return Connected("adb", serial, ", ".join(facts) or state, "android", _add("adb", serial=serial))


def _probes(known: Mapping[str, Settings]) -> list[Connected]:
    """As pyocd lists them. The one that a device's table names has that device's target."""
    try:
        boards = json.loads(_said("pyocd", "json", "--probes") or "{}")["boards"]
        said = [(str(b.get("unique_id")), str(b.get("info", "debug probe")), str(b.get("target", ""))) for b in boards]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):  # whatever is no list of boards
        return []
    return [_probe(number, fact(info), chip, known) for number, info, chip in said[:MOST_CONNECTED]]


def _probe(number: str, info: str, chip: str, known: Mapping[str, Settings]) -> Connected:
    for name, settings in known.items():
        if isinstance(settings, SerialSettings) and number in (settings.probe, *settings.flash):
            return Connected("probe", number, f"{info}, of {name}", settings.target, None)
    known_chip = chip if chip and chip != "cortex_m" else "CHIP"  # what pyocd says when it can't tell
    add = _add("serial", port="PORT", target="TARGET", flash="pyocd", chip=known_chip, probe=number)
    return Connected("probe", number, info, None, add)


def _said(*command: str) -> str:
    """What a program prints; nothing where it is not installed, fails, or hangs."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        return captured(command, timeout=PROBE_TIMEOUT, most=MOST_SAID)[1].decode(errors="replace")
    except (OSError, ToolError, subprocess.TimeoutExpired):
        return ""
