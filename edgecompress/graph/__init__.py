"""Facts about any canonical model: its annotations, fused layers, nodes, axes of channels and bounds."""
