"""Data to run models on, the interpreters that run them, and what is measured of the results."""
