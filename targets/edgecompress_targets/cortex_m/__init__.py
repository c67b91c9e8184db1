"""Boards, linking and emulation for Cortex-M microcontrollers."""
