"""`flash`: install an artifact on a device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgecompress.devices.artifact import open_artifact
from edgecompress.devices.choice import device_for
from edgecompress.devices.device_lock import locked
from edgecompress.devices.programs import prepare
from edgecompress.errors import DeviceFault, InputError
from edgecompress_targets.tools import ToolError


@dataclass(frozen=True)
class Flashed:
    """The result of `flash`. digest: SHA-256 of the artifact that the device holds."""

    artifact: str
    device: str
    description: str
    digest: str
    bytes: int

    def __str__(self) -> str:
        size = f"{self.bytes:,} bytes with the program that runs it"
        return f"{self.artifact} ({self.digest[:12]}, {size}) is on {self.device}"


def flash(artifact: str | Path, device: str, *, config: str | Path | None = None) -> Flashed:
    """Install an artifact and the program that runs it on a device, and check what arrived.

    Under Linux and Android, the earlier version stays until the new one has answered.

    Raises InputError for what can't run there, DeviceFault for a device that fails.
    """
    opened = open_artifact(artifact)
    device, settings = device_for(opened, device, config)
    if settings.resource is None:
        raise InputError(f"device {device}: nothing can be installed on it: use `edgecompress bench` or `run`")
    program = prepare(opened, device, settings).program
    driver = settings.open(device)
    try:
        with locked(device, settings.resource):
            try:
                driver.deploy(program)
                driver.keep(program)
            finally:
                driver.remove(program)
            description = driver.probe().description
    except ToolError as error:
        raise DeviceFault(str(error)) from error
    finally:
        driver.close()
    size = sum(len(content) for content in program.files.values())
    return Flashed(opened.path.name, device, description, program.digest, size)
