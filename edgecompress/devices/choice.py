"""Which device is meant: a configured one, the emulator of a target, or the usual one."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path

from edgecompress.devices.artifact import Artifact
from edgecompress.devices.configuration import EMULATOR, find_device
from edgecompress.devices.programs import fits
from edgecompress.errors import InputError
from edgecompress.report.files import REPORT, read_report
from edgecompress.targets import load_target
from edgecompress_targets import Profile
from edgecompress_targets.drivers.driver_table import BUILT_IN
from edgecompress_targets.drivers.settings import Settings

HOST = "local"
Named = tuple[str, Settings]


def device_for(artifact: Artifact, name: str, config: str | Path | None = None) -> Named:
    """name: of a device, or "qemu" for the emulator of the artifact's target. Raises InputError."""
    if name != EMULATOR:
        return name, find_device(name, config)
    profile = _profile(artifact)
    if profile is None:
        emulators = ", ".join(n for n, s in BUILT_IN.items() if s.emulated)
        raise InputError(
            f"{artifact.path}: the file does not say which target it is for; give --device, one of {emulators}"
        )
    return emulator_of(profile)


def usual_device(artifact: Artifact) -> Named:
    """This machine for a file, and for a program that it can run; otherwise the emulator of the folder's target."""
    record = artifact.record
    if record is None or has_program_for_host(artifact):
        return HOST, BUILT_IN[HOST]
    return emulator_of(record.target)


def has_program_for_host(artifact: Artifact) -> bool:
    """Whether it is a folder with a program for this machine."""
    record = artifact.record
    return record is not None and platform.system() == "Linux" and fits(record.target, BUILT_IN[HOST])


def emulator_of(target: Profile) -> Named:
    """The built-in emulator of a target. Raises InputError when there is none."""
    for name, settings in BUILT_IN.items():
        if settings.emulated and fits(target, settings):
            return name, settings
    raise InputError(f"there is no emulator for {target.name}: give a --device (see: edgecompress devices)")


def _profile(artifact: Artifact) -> Profile | None:
    """Of what `build` made, or of the conversion that wrote the file and the report beside it."""
    if artifact.record is not None:
        return artifact.record.target
    try:
        report = read_report(artifact.path.with_name(REPORT))
        digest = hashlib.sha256(artifact.content).hexdigest()
        return load_target(report.target.name) if any(a.sha256 == digest for a in report.artifacts) else None
    except InputError:
        return None
