"""Turns a plan into a program that calls its kernels, and plans the memory that it needs."""
