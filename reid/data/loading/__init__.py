"""Pixels -> batches: loaders, samplers, prefetching."""
