"""Plans on this machine: blocked kernels for its vector unit, compiled once and kept on disk as machine code."""
