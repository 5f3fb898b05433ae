"""Diagnostics of weights, features and retrieval; each part returns plain values for a JSON file."""
