"""Linking and emulation for RISC-V."""
