"""Finds profiles in the folders of this package and in those that other packages announce."""

from __future__ import annotations

from importlib import metadata, resources
from importlib.resources.abc import Traversable

ENTRY_POINT_GROUP = "edgecompress_targets"


def profile_files() -> dict[str, Traversable]:
    """Profile name (the file name without .toml) -> file, sorted by name.

    A built-in name can't be replaced from outside: the same run means the same device everywhere.
    """
    found: dict[str, Traversable] = {}
    for entry_point in metadata.entry_points(group=ENTRY_POINT_GROUP):
        found |= _toml_files(resources.files(entry_point.load()))
    found |= _toml_files(resources.files(__package__))
    return dict(sorted(found.items()))


def _toml_files(folder: Traversable) -> dict[str, Traversable]:
    found: dict[str, Traversable] = {}
    for item in folder.iterdir():
        if item.is_dir():
            found |= _toml_files(item)
        elif item.name.endswith(".toml"):
            found[item.name.removesuffix(".toml")] = item
    return found
