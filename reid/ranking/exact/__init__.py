"""Exact ranks without sorting: approximate first pass, error bounds, exact distances where needed."""
