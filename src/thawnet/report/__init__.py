"""Reports on finished runs, and comparisons of two."""
