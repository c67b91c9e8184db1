"""Emulation of programs for 64-bit Arm."""
