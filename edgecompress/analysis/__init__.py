"""What is true of a whole model, worked out from what each operator says."""
