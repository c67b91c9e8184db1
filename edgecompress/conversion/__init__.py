"""One conversion: what it is asked, its steps, and the limits on accuracy and size that repeat them."""
