"""What the families build on: arrangements of weights, and kernels that only their blocks distinguish."""
