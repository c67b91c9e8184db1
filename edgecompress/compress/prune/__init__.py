"""Pruning: fewer weights, whether single ones, blocks of them, whole channels or residual blocks."""
