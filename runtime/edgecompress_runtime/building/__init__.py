"""Compiles plans ahead of time, for other machines: object files, static libraries and headers."""
