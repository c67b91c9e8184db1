"""What a run writes down while it works: the report's schema, its stages, units."""
