"""Programs: a plan as code that calls its kernels, and the memory that it needs."""
