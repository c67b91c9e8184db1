"""Facts about a whole model, computed from the records of its operators."""
