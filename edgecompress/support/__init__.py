"""What every part of the package uses: files, locks, progress, interrupts, logging, TOML."""
