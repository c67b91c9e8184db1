"""Artifacts on devices: which devices there are, what is put on them, and what is measured there."""
