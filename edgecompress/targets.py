"""The profiles of targets: those that --target names, and files of the user's own."""

from __future__ import annotations

from pathlib import Path

from edgecompress.errors import InputError
from edgecompress.support.validation import nearest, read_toml
from edgecompress_targets import Profile, profile_files


def load_target(name: str = "android", file: str | Path | None = None) -> Profile:
    """The profile called `name`, or the one in `file` (TOML) when that is given.

    Raises InputError for an unknown name (with the nearest one) and for a bad profile file.
    """
    if file is not None:
        return read_toml(Profile, Path(file))
    files = profile_files()
    if name not in files:
        raise InputError(f"unknown target {name!r}: {nearest(name, list(files))}")
    profile = read_toml(Profile, files[name])
    if profile.name != name:
        raise InputError(f"{files[name]}: key 'name': should be {name!r}, found {profile.name!r}")
    return profile


def all_targets() -> list[Profile]:
    """Every installed profile, sorted by name."""
    return [load_target(name) for name in profile_files()]
