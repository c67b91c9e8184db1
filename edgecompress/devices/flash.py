"""`flash`: put an artifact on a device, to stay there."""

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
    """digest: of the artifact, as the device has it."""

    artifact: str
    device: str
    description: str
    digest: str
    bytes: int

    def __str__(self) -> str:
        return f"{self.artifact} ({self.digest[:12]}, {self.bytes:,} bytes with what runs it) is on {self.device}"


def flash(artifact: str | Path, device: str, *, config: str | Path | None = None) -> Flashed:
    """Put an artifact and what runs it on a device, and check what arrived. Under Linux and Android, the version
    before stays until this one has answered.

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
