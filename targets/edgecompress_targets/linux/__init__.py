"""Linking for Linux and Android on 64-bit Arm and x86."""
