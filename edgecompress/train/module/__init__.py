"""A canonical model as a torch module, and back."""
