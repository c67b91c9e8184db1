"""Families of CPUs: which kernels a plan's operators become. Ordinary kernels where a family has no own."""

from edgecompress_runtime.primitives.family import FAMILIES, Family, family_of

__all__ = ["FAMILIES", "Family", "family_of"]
