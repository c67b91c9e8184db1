"""On this machine: a pack as a function of arrays, its code kept on the disk."""
