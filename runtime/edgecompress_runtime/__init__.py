"""What runs on the device. Imports NumPy and Numba only, and neither of the other two rooms."""

__version__ = "0.1.0"
