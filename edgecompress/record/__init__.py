"""What a run records while it works: the schema of the report, its stages, and units of numbers."""
