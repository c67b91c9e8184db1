"""A lowered graph: TFLite's tensors and operators, and the layouts in which values are stored."""
