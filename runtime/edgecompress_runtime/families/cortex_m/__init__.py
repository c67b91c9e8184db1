"""Kernel blocks for Cortex-M: Armv6-M, the DSP extension, Helium."""
