"""Sweeps: many runs for one question, and the table of their results."""
