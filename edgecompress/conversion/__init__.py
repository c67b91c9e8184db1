"""One conversion: its steps, the limits on accuracy and size, and what training shares."""
