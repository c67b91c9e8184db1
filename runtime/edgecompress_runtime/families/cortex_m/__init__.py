"""Blocks for Cortex-M: Armv6-M, the DSP extension, Helium."""
