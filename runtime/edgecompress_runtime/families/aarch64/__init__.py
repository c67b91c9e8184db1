"""Kernel blocks for 64-bit Arm: NEON, with and without the dot product."""
