"""Evaluation protocols: which gallery images count for a query, and as what."""
