"""Numba functions as LLVM's intermediate representation, for any CPU."""
