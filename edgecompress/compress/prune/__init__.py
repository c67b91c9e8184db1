"""Fewer weights: single ones, blocks of them, or whole channels."""
