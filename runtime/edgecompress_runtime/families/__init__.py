"""Kernels written for a family of CPUs; table.py says which family has which."""
