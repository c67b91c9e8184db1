"""Runs a pack on this machine as a function of arrays; its compiled code is kept on disk."""
