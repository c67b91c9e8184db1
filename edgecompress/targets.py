"""The profiles of targets: those that --target names, and files of the user's own."""

from __future__ import annotations

from pathlib import Path

from edgecompress.errors import InputError
from edgecompress.support.validation import nearest, parsed_toml, read_toml, validated
from edgecompress_targets import Profile, profile_files


def load_target(name: str = "android", file: str | Path | None = None) -> Profile:
    """The profile called `name`, or the one in `file` (TOML) when that is given. There, `base` may name the target
    whose values the keys have that the file leaves out, all but `name`.

    Raises InputError for an unknown name (with the nearest one) and for a bad profile file.
    """
    if file is not None:
        return _own(Path(file))
    files = profile_files()
    if name not in files:
        raise InputError(f"unknown target {name!r}: {nearest(name, list(files))}")
    profile = read_toml(Profile, files[name])
    if profile.name != name:
        raise InputError(f"{files[name]}: key 'name': should be {name!r}, found {profile.name!r}")
    return profile


def _own(file: Path) -> Profile:
    keys = parsed_toml(file)
    base = keys.pop("base", None)
    if base is None:
        return validated(Profile, keys, str(file))
    known = list(profile_files())
    if base not in known:
        hint = nearest(base, known) if isinstance(base, str) else "expected a target's name in quotes"
        raise InputError(f"{file}: key 'base': unknown target {base!r}: {hint}")
    return validated(Profile, load_target(base).model_dump(exclude={"name"}) | keys, str(file))


def all_targets() -> list[Profile]:
    """Every installed profile, sorted by name."""
    return [load_target(name) for name in profile_files()]
