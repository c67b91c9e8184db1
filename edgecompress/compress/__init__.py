"""What makes a model smaller: distillation, pruning, quantization and clustering."""
