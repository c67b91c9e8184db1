"""Runs artifacts on devices: lists devices, installs programs, and measures them."""
