"""Kernels for x86, used on this machine and ahead of time."""
