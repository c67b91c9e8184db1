"""What every part uses and none of them owns: files, locks, progress, interrupts, logging, TOML."""
