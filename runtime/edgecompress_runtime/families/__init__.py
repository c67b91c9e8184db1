"""Kernels written for a family of CPUs; table.py lists the families."""
