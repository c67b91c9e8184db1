"""What the families share: arrangements of weights, and kernels that differ only in their blocks."""
