"""Ahead of time, for other machines: objects, static libraries and headers."""
